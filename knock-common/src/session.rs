//! Sessions: flows that began under a grant and go on past it (`established = "keep"`).
//!
//! They end when the host has closed its socket, or after `session_idle` without a packet. A ring of
//! slots bounds their number as it does for grants; where it is full, a new flow lives as long as its
//! grant does.
//!
//! The program sees one direction only, so it can't tell by itself when a connection has been closed
//! by both sides, or whether a reset was one that the host honours. It asks the host: once a FIN or
//! RST has come, each packet behind it passes only while the host still has a socket for it. A flow
//! that this host has no socket for, since it forwards it, ends by being idle alone.

use crate::{
    Address, Kernel, Table,
    address::{V4, V6},
    frame::flag,
    table::{Flow, GateRules, Session, SessionSlot},
};

/// How many slots a new flow looks at before it gives up. A prime, so that where one after the other
/// gives up, a slot is not found at the same turn each time the ring comes round.
const TRIES: usize = 7;
/// How many of these before it takes one of a flow that [gives way](gives_way).
const PATIENT: usize = 3;

/// A flow that a FIN or RST has come for keeps its slot for so long without a packet, ns: a minute,
/// as long as a host that closes waits for the other end (Linux's `tcp_fin_timeout`).
const CLOSING: u64 = 60_000_000_000;

/// States of a TCP socket, by the numbers of Linux (`include/net/tcp_states.h`).
pub mod socket {
    /// There is none.
    pub const NONE: u32 = 0;
    pub const ESTABLISHED: u32 = 1;
    pub const TIME_WAIT: u32 = 6;
    pub const CLOSE: u32 = 7;
    /// It waits for connections, and has none of this flow's.
    pub const LISTEN: u32 = 10;

    /// Has it ever been this flow's own?
    #[inline(always)]
    pub const fn knows_flow(state: u32) -> bool {
        !matches!(state, NONE | CLOSE | LISTEN)
    }

    /// Is there anything left to say on it?
    #[inline(always)]
    pub const fn is_open(state: u32) -> bool {
        knows_flow(state) && state != TIME_WAIT
    }
}

/// The session of `flow` at `gate`, unless it has been idle for the gate's `session_idle` or more; and
/// the time, which is read once there is something to compare it with.
#[inline(always)]
pub fn find<'k, K: Kernel, A: Address>(
    kernel: &'k K,
    flow: &Flow<A>,
    gate: u16,
    rules: &GateRules,
) -> Option<(&'k mut Session, u64)> {
    let session = A::sessions(kernel).find(flow)?;
    let now = kernel.now();
    let idle = session.idle(now);
    let ours = session.tag == flow.tag() && session.gate == gate;
    (ours && idle < rules.session_idle).then_some((session, now))
}

/// Notes what a packet with these TCP flags means to its session; false where it is over.
#[inline(always)]
pub fn goes_on<K: Kernel, A: Address>(
    kernel: &K,
    flow: &Flow<A>,
    session: &mut Session,
    flags: u8,
) -> bool {
    if session.confirmed == 0 {
        session.confirmed = 1;
    }
    if session.closing != 0 {
        if socket::is_open(kernel.socket(flow)) {
            return true;
        }
        A::sessions(kernel).remove(flow);
        return false;
    }
    if flags & (flag::FIN | flag::RST) != 0 && socket::knows_flow(kernel.socket(flow)) {
        session.closing = 1;
    }
    true
}

/// Notes that the grant of a flow lives until `granted_until`.
#[inline(always)]
pub fn renew<K: Kernel, A: Address>(kernel: &K, flow: &Flow<A>, granted_until: u64) {
    if let Some(session) = A::sessions(kernel).find(flow)
        && session.tag == flow.tag()
    {
        session.granted_until = granted_until;
    }
}

/// Remembers a flow that a grant living until `granted_until` has admitted. `initial`: its TCP
/// client's initial sequence number. False where there is no room.
#[inline(never)]
pub fn remember<K: Kernel, A: Address>(
    kernel: &K,
    flow: &Flow<A>,
    gate: u16,
    initial: u32,
    granted_until: u64,
) -> bool {
    let now = kernel.now();
    let sessions = A::sessions(kernel);
    if let Some(session) = sessions.find(flow)
        && session.tag == flow.tag()
    {
        session.last = now;
        session.granted_until = granted_until;
        session.initial = initial;
        session.gate = gate;
        session.confirmed = 0;
        session.closing = 0;
        return true;
    }
    let Some(slot) = claim(kernel, flow, now) else {
        return false;
    };
    sessions.insert(
        flow,
        &Session {
            last: now,
            tag: flow.tag(),
            granted_until,
            initial,
            slot,
            gate,
            confirmed: 0,
            closing: 0,
            zero: 0,
        },
    )
}

/// Takes a slot for `flow`, whose former owner has ended or, where none has, gives way.
#[inline(always)]
fn claim<K: Kernel, A: Address>(kernel: &K, flow: &Flow<A>, now: u64) -> Option<u32> {
    for tried in 0..TRIES {
        let (index, slot) = kernel.next_session_slot()?;
        let pressed = tried >= PATIENT;
        let free = match slot.family {
            4 => vacate::<K, V4>(kernel, slot, index, now, pressed),
            6 => vacate::<K, V6>(kernel, slot, index, now, pressed),
            _ => true,
        };
        if free {
            *slot = SessionSlot {
                source: flow.source.padded(),
                destination: flow.destination.padded(),
                source_port: flow.source_port,
                destination_port: flow.destination_port,
                protocol: flow.protocol as u16,
                family: u16::from(A::FAMILY),
            };
            return Some(index);
        }
    }
    None
}

/// Is the slot free, or could it be freed? `pressed`: of a flow that gives way, too.
#[inline(always)]
fn vacate<K: Kernel, A: Address>(
    kernel: &K,
    slot: &SessionSlot,
    index: u32,
    now: u64,
    pressed: bool,
) -> bool {
    let flow = Flow::<A> {
        source: A::unpadded(slot.source),
        destination: A::unpadded(slot.destination),
        source_port: slot.source_port,
        destination_port: slot.destination_port,
        protocol: u32::from(slot.protocol),
    };
    let sessions = A::sessions(kernel);
    let Some(owner) = sessions.find(&flow) else {
        return true;
    };
    if owner.slot != index || owner.tag != flow.tag() {
        return true;
    }
    let idle = owner.idle(now);
    let ended = kernel
        .gate(owner.gate)
        .is_none_or(|rules| idle >= rules.session_idle);
    let free = ended || (pressed && gives_way(owner, idle));
    if free {
        sessions.remove(&flow);
    }
    free
}

/// Must a flow make room where there is none? One that has sent nothing but its first packet must, so
/// that whoever has a grant pushes out only what is as cheap to make; and one that seems to be over.
/// Whether it is, the host is not asked here: that takes more stack than is left.
#[inline(always)]
fn gives_way(session: &Session, idle: u64) -> bool {
    session.confirmed == 0 || (session.closing != 0 && idle >= CLOSING)
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::{frame::TCP, host::Host};

    const SECOND: u64 = 1_000_000_000;
    const IDLE: u64 = 3600 * SECOND;

    fn host(sessions: usize) -> Host {
        let mut host = Host::new(1, sessions);
        host.gates.push(GateRules {
            open_for: SECOND,
            session_idle: IDLE,
            connections: 0,
            to_prefix: 0,
            restricted: 0,
            cut: 0,
            reject: 0,
        });
        host
    }

    fn flow(source_port: u16) -> Flow<V4> {
        Flow {
            source: Ipv4Addr::new(198, 51, 100, 7).into(),
            destination: Ipv4Addr::new(192, 0, 2, 1).into(),
            source_port,
            destination_port: 22,
            protocol: u32::from(TCP),
        }
    }

    fn begin(host: &Host, source_port: u16) -> bool {
        remember(host, &flow(source_port), 0, 0, host.now.get())
    }

    /// A packet with these flags, while the host's socket is in this state; false where there is no
    /// session, or none any more.
    fn packet(host: &Host, source_port: u16, flags: u8, state: u32) -> bool {
        let flow = flow(source_port);
        let key = (V4::FAMILY, flow.tag());
        host.sockets.borrow_mut().insert(key, state);
        let Some((session, now)) = find(host, &flow, 0, &host.gates[0]) else {
            return false;
        };
        session.last = now;
        goes_on(host, &flow, session, flags)
    }

    #[test]
    fn a_session_is_over_once_its_socket_is() {
        for end in [flag::FIN | flag::ACK, flag::RST, flag::RST | flag::ACK] {
            for state in [
                socket::NONE,
                socket::TIME_WAIT,
                socket::CLOSE,
                socket::LISTEN,
            ] {
                let host = host(4);
                assert!(begin(&host, 1));
                assert!(packet(&host, 1, flag::ACK, socket::ESTABLISHED));
                assert!(packet(&host, 1, end, socket::ESTABLISHED));
                assert!(!packet(&host, 1, flag::ACK, state), "{end:#x} {state}");
                // Nor does it come back.
                assert!(!packet(&host, 1, flag::ACK, socket::ESTABLISHED));
            }
        }
    }

    #[test]
    fn a_session_goes_on_while_its_socket_does() {
        const CLOSE_WAIT: u32 = 8;
        let host = host(4);
        assert!(begin(&host, 1));
        for flags in [flag::RST, flag::FIN, flag::ACK, flag::FIN | flag::ACK, 0] {
            assert!(packet(&host, 1, flags, socket::ESTABLISHED), "{flags:#x}");
            assert!(packet(&host, 1, flags, CLOSE_WAIT), "{flags:#x}");
        }
    }

    /// Its socket is another host's, so nothing is known of it.
    #[test]
    fn a_forwarded_flow_ends_by_being_idle_alone() {
        let host = host(4);
        assert!(begin(&host, 1));
        assert!(packet(&host, 1, flag::FIN | flag::ACK, socket::NONE));
        assert!(packet(&host, 1, flag::ACK, socket::NONE));
        host.advance(IDLE - 1);
        assert!(packet(&host, 1, flag::ACK, socket::NONE));
        host.advance(IDLE);
        assert!(!packet(&host, 1, flag::ACK, socket::NONE));
    }

    /// The host closed first, so the client's FIN finds a socket that only waits for it.
    #[test]
    fn a_fin_to_a_waiting_socket_is_the_last_of_its_flow() {
        let host = host(4);
        assert!(begin(&host, 1));
        assert!(packet(&host, 1, flag::FIN | flag::ACK, socket::TIME_WAIT));
        assert!(!packet(&host, 1, flag::ACK, socket::TIME_WAIT));
    }

    #[test]
    fn half_open_flows_give_way_and_others_do_not() {
        let host = host(16);
        for kept in 0..3 {
            assert!(begin(&host, kept));
            assert!(packet(&host, kept, flag::ACK, socket::ESTABLISHED));
        }
        for flood in 100..2000 {
            assert!(begin(&host, flood), "there is room for {flood}");
        }
        for kept in 0..3 {
            assert!(
                packet(&host, kept, flag::ACK, socket::ESTABLISHED),
                "{kept}"
            );
        }
        assert!(begin(&host, 5));
        assert!(packet(&host, 5, flag::ACK, socket::ESTABLISHED));
        assert_eq!(host.sessions_v4.rows().len(), 16);
    }

    #[test]
    fn a_full_table_refuses_until_a_flow_has_ended() {
        let host = host(8);
        for kept in 0..8 {
            assert!(begin(&host, kept));
            assert!(packet(&host, kept, flag::ACK, socket::ESTABLISHED));
        }
        assert!(!begin(&host, 8), "all go on");
        assert!(packet(&host, 3, flag::FIN | flag::ACK, socket::ESTABLISHED));
        host.advance(CLOSING - 1);
        assert!(!begin(&host, 8), "it may have a half to go on with");
        host.advance(1);
        assert!((0..8).any(|_| begin(&host, 8)), "it has had its time");
        host.advance(IDLE);
        for new in 20..28 {
            assert!(begin(&host, new), "all have been idle for too long");
        }
    }
}
