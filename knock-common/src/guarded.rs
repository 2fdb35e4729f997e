//! Which destinations are guarded: every one, those that the configuration lists, or this host's own; and those of a gate
//! that has its own (a placed gate), such as a network behind this host, for the ports of that gate alone.
//!
//! What is this host's own changes at any time, and the table of its addresses follows a moment later. So an address in
//! the table is guarded, and of any other destination the kernel's routes decide: what it would not forward is guarded, so
//! that no moment is left in which a new address is open. The routes are asked only about packets for which the answer matters.

use crate::{
    Address, Env,
    frame::Segment,
    rules::{NO_GATE, PortRole},
};

/// Which destinations are guarded, as [`Env::guarded`] has it.
pub mod which {
    pub const EVERY: u32 = 0;
    pub const LISTED: u32 = 1;
    /// This host's own.
    pub const HOST: u32 = 2;
}

/// What becomes of a packet that is not denied, as [`Env::route`] has it.
pub mod route {
    /// It is delivered on this host, or there is no way for it.
    pub const HERE: u32 = 0;
    /// It is forwarded to another host.
    pub const FORWARDED: u32 = 1;
    /// The interface forwards nothing, so the routes were not asked.
    pub const OFF: u32 = 2;
}

/// Returns whether a packet is guarded at this protected port.
#[inline(always)]
pub fn at<E: Env, A: Address>(env: &E, packet: &Segment<A>, port: PortRole) -> bool {
    if is_placed(env, port) {
        return is_place(env, packet.destination, port.gate());
    }
    by_destination(env, packet)
}

/// Returns whether a packet is guarded at the ports of gates without destinations of their own.
#[inline(always)]
pub fn by_destination<E: Env, A: Address>(env: &E, packet: &Segment<A>) -> bool {
    match env.guarded() {
        which::EVERY => true,
        which::LISTED => env.is_listed(packet.destination),
        _ => is_for_host(env, packet),
    }
}

/// Returns whether packets to this destination may be guarded, whatever their port; if so, [`is`] tells.
#[inline(always)]
pub fn may_be<E: Env, A: Address>(env: &E, destination: A) -> bool {
    env.guarded() != which::LISTED || env.is_listed(destination)
}

/// Returns whether a packet that [`may_be`] guarded is guarded.
#[inline(always)]
pub fn is<E: Env, A: Address>(env: &E, packet: &Segment<A>) -> bool {
    env.guarded() != which::HOST || is_for_host(env, packet)
}

/// Returns whether a packet is guarded whose port is not known: what may be for a placed gate is.
#[inline(always)]
pub fn at_any_port<E: Env, A: Address>(env: &E, packet: &Segment<A>) -> bool {
    let destination = packet.destination;
    if env.has_places() && is_place(env, destination, NO_GATE) {
        return true;
    }
    by_destination(env, packet)
}

/// Returns whether the own destinations of the port's gate decide.
#[inline(always)]
pub fn is_placed<E: Env>(env: &E, port: PortRole) -> bool {
    port.is_placed() && env.has_places()
}

/// As [`Env::is_place`]. Not inlined: the frames of its callers stay small.
#[inline(never)]
pub fn is_place<E: Env, A: Address>(env: &E, destination: A, gate: u16) -> bool {
    env.is_place(destination, gate)
}

/// Returns whether a packet is for this host.
///
/// Not inlined: the verifier then checks it once, and the frames of its callers stay small.
#[inline(never)]
fn is_for_host<E: Env, A: Address>(env: &E, packet: &Segment<A>) -> bool {
    if env.address_kind(packet.destination) != 0 || packet.destination.is_of_every_host() {
        return true;
    }
    match env.route_here(packet) {
        route::FORWARDED => false,
        // A bridge hands packets on to other hosts all the same. Elsewhere they would end here, so that nothing is lost.
        route::OFF => !env.is_bridged(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::collections::HashSet;

    use super::*;
    use crate::{
        Reason,
        address::V4,
        frame::{PortPair, TCP, flag},
        judge,
        rules::Role,
        testing::TestEnv,
    };

    const PROTECTED: u16 = 22;
    const OWN: [u8; 4] = [192, 0, 2, 1];
    /// An address that the table does not have yet.
    const NEW: [u8; 4] = [192, 0, 2, 2];
    const BEHIND: [u8; 4] = [10, 0, 0, 5];

    /// A host that forwards to one address, and guards its own.
    fn env() -> TestEnv {
        let mut env = TestEnv::new(1, 1);
        env.guarded = which::HOST;
        env.gates = vec![bytemuck::Zeroable::zeroed()];
        protect(&mut env, false);
        env.own = Some([(4, address(OWN).padded())].into());
        env.not_forwarded = route::HERE;
        env.forwarded = [(4, address(BEHIND).padded())].into();
        env
    }

    fn protect(env: &mut TestEnv, placed: bool) {
        let role = PortRole::of(Role::Protected { gate: 0 });
        let entry = if placed { role.and_placed() } else { role };
        env.roles[Role::index(false, PROTECTED) as usize] = entry.packed();
    }

    fn address(octets: [u8; 4]) -> V4 {
        Ipv4Addr::from(octets).into()
    }

    /// Judges a SYN to the protected port at an address.
    fn to(env: &TestEnv, destination: [u8; 4]) -> Reason {
        let syn = Segment {
            source: address([198, 51, 100, 7]),
            destination: address(destination),
            ports: PortPair::new(4000, PROTECTED),
            protocol: TCP,
            transport: 34,
        };
        judge::segment(env, &[0_u8; 0][..], &syn, || (flag::SYN, 0)).reason
    }

    #[test]
    fn what_the_kernel_delivers_is_guarded_before_the_table_has_it() {
        let env = env();
        for host in [OWN, NEW, [224, 0, 0, 1], [255; 4], [0; 4]] {
            assert_eq!(to(&env, host), Reason::NoGrant, "{host:?}");
        }
        assert_eq!(to(&env, BEHIND), Reason::Unguarded);
        let ends = |destination| Some((address([198, 51, 100, 7]), address(destination)));
        let malformed = |destination| judge::malformed(&env, ends(destination)).reason;
        assert_eq!(malformed(NEW), Reason::Malformed);
        assert_eq!(malformed(BEHIND), Reason::Unguarded);
    }

    #[test]
    fn a_placed_gate_protects_its_own_destinations_alone() {
        let mut env = env();
        protect(&mut env, true);
        env.places = vec![(0, 4, address([10, 0, 0, 0]).padded(), 24)];
        for guarded in [which::EVERY, which::LISTED, which::HOST] {
            env.guarded = guarded;
            assert_eq!(to(&env, BEHIND), Reason::NoGrant);
            assert_eq!(to(&env, OWN), Reason::Unguarded);
            let ends = Some((address([198, 51, 100, 7]), address(BEHIND)));
            assert_eq!(judge::malformed(&env, ends).reason, Reason::Malformed);
        }
        // Without its own, the gate protects its port where packets are guarded.
        protect(&mut env, false);
        assert_eq!(to(&env, BEHIND), Reason::Unguarded);
        assert_eq!(to(&env, OWN), Reason::NoGrant);
    }

    #[test]
    fn a_host_that_forwards_nothing_guards_whatever_it_gets() {
        let mut env = env();
        (env.not_forwarded, env.forwarded) = (route::OFF, HashSet::new());
        assert_eq!(to(&env, OWN), Reason::NoGrant);
        assert_eq!(to(&env, BEHIND), Reason::NoGrant);
    }

    #[test]
    fn behind_a_bridge_that_does_not_forward_the_table_decides() {
        let mut env = env();
        (env.not_forwarded, env.forwarded) = (route::OFF, HashSet::new());
        env.bridged = true;
        assert_eq!(to(&env, OWN), Reason::NoGrant);
        assert_eq!(to(&env, BEHIND), Reason::Unguarded);
        env.broadcast = [(4, address([192, 0, 2, 255]).padded())].into();
        assert_eq!(to(&env, [192, 0, 2, 255]), Reason::NoGrant);
        assert_eq!(to(&env, [224, 0, 0, 251]), Reason::NoGrant);
        assert_eq!(to(&env, [127, 0, 0, 1]), Reason::NoGrant, "route_localnet");
    }
}
