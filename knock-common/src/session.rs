//! Sessions: flows that began under a grant and go on past it (`established = "keep"`).
//!
//! They end when the host has closed its socket, or after `session_idle` without a packet. A ring of
//! slots bounds their number as it does for grants; where it is full, a new flow lives as long as its
//! grant does.
//!
//! The program sees one direction only, and any packet may be forged. So what a flow is, it asks the
//! host, never the packets:
//!
//! - Once a FIN or RST has come, each packet behind it passes only while the host still has a socket for
//!   the flow. Where the host has not honoured it, the flow is as before after `SETTLED`.
//! - A flow counts as established where the host has a socket of its own for it, past the handshake. That
//!   is asked when the table is full and somebody has to give way.
//!
//! A flow that the host forwards has no socket here, nor has one of UDP. These never count as established,
//! and end by being idle alone. A flow to an address that the host neither has nor forwards to is not
//! remembered.
//!
//! **Shares.** Each slot counts to its source (with `grant_to = "prefix"`: to the source's prefix) until
//! it is taken again. Where the table is full, a source that holds more of it than `SHARE` gives way to
//! one that holds less: its established flows too. Others give way only with flows that are not
//! established, and only to a source that holds no more than they do. So a source that fills the table
//! pushes out its own flows, and everyone else finds room.

pub mod lookup;
pub mod remember;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Address, Padded, V4, V6},
    frame::Segment,
};

/// One flow as the gate sees it, client to host. Key of the session tables.
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

    #[inline(always)]
    pub fn tag(&self) -> u64 {
        let Self {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
        } = *self;
        let ports = u64::from(source_port) | u64::from(destination_port) << 16;
        source.fold() ^ destination.fold().rotate_left(17) ^ (ports << 32) ^ u64::from(protocol)
    }
}

/// A flow that began under a grant.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Session {
    /// When its last packet came, ns of `CLOCK_MONOTONIC`.
    pub last: u64,
    /// [`Flow::tag`] of the key; see [`Grant::tag`].
    pub tag: u64,
    /// Until when the grant that admitted it was last seen to live: spares its packets the second
    /// look-up.
    pub granted_until: u64,
    /// TCP: initial sequence number of the client's latest SYN, to know its retransmission.
    pub initial: u32,
    /// Index of the slot that it holds in the slot table.
    pub slot: u32,
    pub gate: u16,
    /// 1: another packet than a SYN has come since. A further SYN then is a new connection, whatever
    /// its sequence number.
    pub more: u8,
    /// 1: a FIN or RST has come while the host had a socket for it. Once it has none, it is over.
    pub closing: u8,
    /// When the latest FIN or RST came, in units of 2^[`TICK_SHIFT`] ns, wrapping.
    pub ending: u32,
}

impl Session {
    /// For how long no packet has come, ns. The other CPU that saw the last one may have been ahead of
    /// `now` by a timer tick: that is 0. The difference wraps as the kernel's own times do
    /// (`time_after64`), so it is right for a `last` from before the boot too, which tests set.
    #[inline(always)]
    pub const fn idle(&self, now: u64) -> u64 {
        let idle = now.wrapping_sub(self.last);
        if idle.cast_signed() < 0 { 0 } else { idle }
    }
}

/// One place in the ring that bounds the number of sessions over both families.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct SessionSlot {
    pub source: Padded,
    pub destination: Padded,
    pub source_port: u16,
    pub destination_port: u16,
    /// Whose share of the table it counts to, as long as the slot is not taken again; see
    /// [`session`](crate::session).
    pub holder: u16,
    pub protocol: u8,
    /// [`Address::FAMILY`]; 0: never used.
    pub family: u8,
}

/// Number of holders that the slots are counted by.
pub const HOLDERS: usize = 1 << u16::BITS;

/// States of a TCP socket, by the numbers of Linux (`include/net/tcp_states.h`).
pub mod socket {
    /// There is none.
    pub const NONE: u32 = 0;
    pub const ESTABLISHED: u32 = 1;
    pub const SYN_SENT: u32 = 2;
    /// By way of TCP Fast Open, before the handshake is over.
    pub const SYN_RECEIVED: u32 = 3;
    pub const TIME_WAIT: u32 = 6;
    pub const CLOSE: u32 = 7;
    /// It waits for connections, and has none of this flow's.
    pub const LISTEN: u32 = 10;
    /// Half open: the host has answered the SYN.
    pub const REQUESTED: u32 = 12;

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

    /// Is there, and is the handshake over?
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
    Session: 40 {
        last: 0,
        tag: 8,
        granted_until: 16,
        initial: 24,
        slot: 28,
        gate: 32,
        more: 34,
        closing: 35,
        ending: 36,
    },
    SessionSlot: 40 {
        source: 0,
        destination: 16,
        source_port: 32,
        destination_port: 34,
        holder: 36,
        protocol: 38,
        family: 39,
    },
}
