//! Sessions: flows that began under a grant and go on past it (`established = "keep"`).
//!
//! A session ends when the host has closed its socket, or after `session_idle` without a packet. A ring of
//! slots bounds the number of sessions, as it does for grants; if it is full, a new flow ends with its grant.
//!
//! The program sees one direction only, and any packet may be forged. So it asks the host for the state of a flow, and
//! never derives it from packets:
//!
//! - After a FIN or RST, further packets pass only while the host still has a socket for
//!   the flow. If the host has ignored it, the flow is as before after `SETTLED`.
//! - A flow counts as established if the host has a socket for it that is past the handshake. That
//!   is asked when the table is full and a flow has to be evicted.
//!
//! A forwarded flow has no socket here, and UDP is not looked up. Such flows never count as established,
//! and end only by being idle. A flow to an address that is neither the host's nor one that it forwards to is not
//! remembered.
//!
//! **Shares.** Each slot counts to a holder, which is its source (with `grant_to = "prefix"`: the source's prefix), until
//! it is claimed again. If the table is full, a holder of more than `SHARE` of it gives way to one that has less, with
//! established flows too. Other holders give way only with flows that are not
//! established, and only to a holder that has no more than they do. So a source that fills the table
//! evicts its own flows, and all others find room.

pub mod lookup;
pub mod remember;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::{
    Env,
    address::{Address, Padded, V4, V6},
    frame::Segment,
    time::elapsed,
};

/// A flow in the direction from client to host. Key of the session tables.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow<A> {
    pub source: A,
    pub destination: A,
    pub source_port: u16,
    pub destination_port: u16,
    /// IP protocol number: 6 or 17.
    pub protocol: u32,
}

impl<A: Address> Flow<A> {
    #[inline(always)]
    pub const fn of(segment: &Segment<A>) -> Self {
        Self {
            source: segment.source,
            destination: segment.destination,
            source_port: segment.source_port,
            destination_port: segment.destination_port,
            // Widening; `From` is not const.
            protocol: segment.protocol as u32,
        }
    }

    /// Returns the tag of a flow. Flows of one protocol between the same two addresses have different ones. Others can have the
    /// same, and an attacker can choose them.
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        let Self {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
        } = *self;
        let ports = u64::from(source_port) | u64::from(destination_port) << 16;
        let ends = source.fold() ^ destination.fold().rotate_left(17);
        let tag = ends ^ (ports << 32) ^ u64::from(protocol);
        (tag ^ tag >> 32) as u32
    }
}

/// A flow that began under a grant. 32 bytes, so that an entry of the table for IPv4 has 96 and lies in two lines of the
/// processor's cache at the most.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Session {
    /// Time of its last packet, ns of `CLOCK_MONOTONIC`.
    pub last: u64,
    /// [`Flow::tag`] of the key; see [`Grant::tag`](crate::grant::Grant::tag).
    pub tag: u32,
    /// End of the grant that admitted it, when that was last looked up, in units of 2^[`GRANTED_SHIFT`] ns of
    /// `CLOCK_MONOTONIC`, rounded down. Until then its packets need no look-up of the grant.
    pub granted_until: u32,
    /// TCP: initial sequence number of the client's latest SYN, to recognise its retransmission.
    pub initial: u32,
    /// Index of its slot.
    pub slot: u32,
    pub gate: u16,
    /// 1: other packets than a SYN have arrived since. A further SYN then begins a new connection, whatever its sequence
    /// number.
    pub more: u8,
    /// 1: a FIN or RST has arrived while the host had a socket for it. The session ends when it has none.
    pub closing: u8,
    /// Time of the latest FIN or RST, in units of 2^[`TICK_SHIFT`](crate::time::TICK_SHIFT) ns, wrapping.
    pub ending: u32,
}

/// The unit of [`Session::granted_until`]: 2^27 ns are 134 ms. 32 bits of it last for 18 years of uptime; from then on, each packet
/// looks its grant up.
pub const GRANTED_SHIFT: u32 = 27;

impl Session {
    /// Returns whether the grant that admitted it certainly lives at `now`, ns of `CLOCK_MONOTONIC`.
    #[inline(always)]
    pub const fn is_granted(&self, now: u64) -> bool {
        // Widening; `From` is not const.
        (self.granted_until as u64) << GRANTED_SHIFT > now
    }

    /// Notes that its grant lives until `until`, ns of `CLOCK_MONOTONIC`; `u64::MAX`: without end.
    #[inline(always)]
    pub const fn set_granted(&mut self, until: u64) {
        let units = until >> GRANTED_SHIFT;
        self.granted_until = if units < u32::MAX as u64 {
            units as u32
        } else {
            u32::MAX
        };
    }

    /// Returns the time since its last packet, ns.
    #[inline(always)]
    pub const fn idle(&self, now: u64) -> u64 {
        elapsed(self.last, now)
    }
}

/// Records the time of a packet of a session. The coarse clock moves in ticks, and nothing is written if it does not; the slot,
/// which is in another page of memory, is written only if a unit of 2^[`SLOT_SHIFT`] ns has begun since.
#[inline(always)]
pub fn seen<E: Env>(env: &E, session: &mut Session, now: u64) {
    let before = session.last;
    if before != now {
        session.last = now;
        if before >> SLOT_SHIFT != now >> SLOT_SHIFT {
            note(env, session, session.closing);
        }
    }
}

/// Writes what a slot says of its session.
#[inline(always)]
fn note<E: Env>(env: &E, session: &Session, state: u8) {
    if let Some(slot) = env.session_slot(session.slot) {
        slot.last = (session.last >> SLOT_SHIFT) as u32;
        slot.gate = session.gate;
        slot.state = state;
    }
}

/// A slot of the ring that bounds the number of sessions of both families.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct SessionSlot {
    pub source: Padded,
    pub destination: Padded,
    pub source_port: u16,
    pub destination_port: u16,
    /// The holder to whose share of the table it counts until it is claimed again; see [`session`](crate::session).
    pub holder: u16,
    pub protocol: u8,
    /// [`Address::FAMILY`]; 0: never used.
    pub family: u8,
    /// Time of the last packet of its session, in units of 2^[`SLOT_SHIFT`] ns of `CLOCK_MONOTONIC`, rounded down. This and what
    /// follows is for user space, which counts sessions by their slots: these lie in order in memory, and sessions do not.
    pub last: u32,
    pub gate: u16,
    /// See [`state`].
    pub state: u8,
    pub zero: u8,
}

impl SessionSlot {
    /// Returns the flow of its session. `A` is the family of the slot.
    #[inline(always)]
    pub fn flow<A: Address>(&self) -> Flow<A> {
        Flow {
            source: A::unpadded(self.source),
            destination: A::unpadded(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: u32::from(self.protocol),
        }
    }
}

/// The unit of [`SessionSlot::last`]: 2^36 ns are 69 s.
pub const SLOT_SHIFT: u32 = 36;

/// The values of [`SessionSlot::state`].
pub mod state {
    pub const OPEN: u8 = 0;
    /// As [`Session::closing`](super::Session::closing).
    pub const CLOSING: u8 = 1;
    /// There is no such session any more.
    pub const ENDED: u8 = 2;
}

/// Number of holders by which slots are counted.
pub const HOLDERS: usize = 1 << u16::BITS;

/// States of a TCP socket, by the numbers of Linux (`include/net/tcp_states.h`).
pub mod socket {
    /// There is none.
    pub const NONE: u32 = 0;
    pub const ESTABLISHED: u32 = 1;
    pub const SYN_SENT: u32 = 2;
    /// TCP Fast Open, before the handshake is complete.
    pub const SYN_RECEIVED: u32 = 3;
    pub const TIME_WAIT: u32 = 6;
    pub const CLOSE: u32 = 7;
    /// A listener, and no connection of this flow.
    pub const LISTEN: u32 = 10;
    /// Half open: the host has replied to the SYN.
    pub const REQUESTED: u32 = 12;

    /// Returns whether the socket is this flow's own.
    #[inline(always)]
    pub const fn knows_flow(state: u32) -> bool {
        !matches!(state, NONE | CLOSE | LISTEN)
    }

    /// Returns whether the connection is not closed yet.
    #[inline(always)]
    pub const fn is_open(state: u32) -> bool {
        knows_flow(state) && state != TIME_WAIT
    }

    /// Returns whether the connection is not closed yet, and its handshake complete.
    #[inline(always)]
    pub const fn is_established(state: u32) -> bool {
        is_open(state) && !matches!(state, SYN_SENT | SYN_RECEIVED | REQUESTED)
    }
}

// SAFETY: `repr(C)`, two addresses of bytes and integers that fill 8 bytes: no padding for either
// family (asserted below), any bit pattern is valid.
unsafe impl<A: Zeroable> Zeroable for Flow<A> {}
// SAFETY: as above.
unsafe impl<A: Pod> Pod for Flow<A> {}

records! {
    Flow<V4>: 16 { source: 0, destination: 4, source_port: 8, destination_port: 10, protocol: 12 },
    Flow<V6>: 40 { source: 0, destination: 16, source_port: 32, destination_port: 34, protocol: 36 },
    Session: 32 {
        last: 0,
        tag: 8,
        granted_until: 12,
        initial: 16,
        slot: 20,
        gate: 24,
        more: 26,
        closing: 27,
        ending: 28,
    },
    SessionSlot: 48 {
        source: 0,
        destination: 16,
        source_port: 32,
        destination_port: 34,
        holder: 36,
        protocol: 38,
        family: 39,
        last: 40,
        gate: 44,
        state: 46,
        zero: 47,
    },
}
