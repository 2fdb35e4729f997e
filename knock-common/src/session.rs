//! Sessions: flows that began under a grant and go on past it (`established = "keep"`).
//!
//! A session ends when the host has closed its socket, or after `session_idle` without a packet. The sessions of both families
//! are in one table of slots, whose size is the limit. The [`table`] leads from a flow to its slot. A new flow that finds no slot
//! ends with its grant.
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
pub mod recent;
pub mod remember;
pub mod table;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Address, Padded, V4, V6},
    frame::{PortPair, Segment},
    memory::read,
    seed::Seed,
    set::Position,
    time::{TICK_SHIFT, elapsed},
};

/// A flow in the direction from client to host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow<A> {
    pub source: A,
    pub destination: A,
    pub ports: PortPair,
    /// IP protocol number: 6 or 17.
    pub protocol: u32,
}

impl<A: Address> Flow<A> {
    #[inline(always)]
    pub const fn of(segment: &Segment<A>) -> Self {
        Self {
            source: segment.source,
            destination: segment.destination,
            ports: segment.ports,
            // Widening; `From` is not const.
            protocol: segment.protocol as u32,
        }
    }

    /// Returns the tag of a flow: 64 bits of addresses and ports. Other flows can have the same tag.
    #[inline(always)]
    pub fn tag(&self) -> u64 {
        tag(
            self.source.padded(),
            self.destination.padded(),
            self.ports.to_bits(),
        )
    }

    /// Returns where the flow is in the [`table`].
    #[inline(always)]
    pub fn position(&self, seed: Seed) -> Position {
        let ports = u64::from(self.ports.to_bits()) | u64::from(self.protocol) << 32;
        let (source, destination) = (self.source.padded(), self.destination.padded());
        // All words are keyed, so that nobody can choose flows of one row or set.
        if A::BITS == 32 {
            let ends = source.words().0 | destination.words().0 << 32;
            return Position::of(Padded::from_words(ends, ports), 0, seed);
        }
        let (source, destination) = (seed.hash(source, 0), seed.hash(destination, 1));
        let ends = source ^ destination.rotate_left(32);
        Position::of(Padded::from_words(ends, ports), 0, seed)
    }
}

#[inline(always)]
fn tag(source: Padded, destination: Padded, ports: u32) -> u64 {
    source.fold() ^ destination.fold().rotate_left(17) ^ u64::from(ports) << 32
}

/// A flow that began under a grant: a slot of the table that bounds the number of sessions. It fills one line of the
/// processor's cache: it has 64 bytes, and an array that can be mapped begins at a page.
///
/// Whoever has set the state in `tenancy` to [`HELD`](state::HELD) may give it to another flow; see [`table`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Session {
    /// [`Address::padded`] of the addresses of its flow.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// The [`PortPair`] of its flow.
    pub ports: u32,
    /// TCP: initial sequence number of the client's latest SYN, to recognise its retransmission.
    pub initial: u32,
    pub tenancy: Tenancy,
    /// Time of its last packet, ns of `CLOCK_MONOTONIC`.
    pub last: u64,
    /// End of the grant that admitted it, when that was last looked up, in units of 2^[`GRANTED_SHIFT`] ns of `CLOCK_MONOTONIC`,
    /// rounded down: the upper 31 bits. Until then its packets need no look-up of the grant. The lowest bit is 1 if packets other
    /// than a SYN have arrived since the flow began. A further SYN then begins a new connection, whatever its sequence number.
    pub granted: u32,
    /// Time of the latest FIN or RST, if that has arrived while the host had a socket for it, in units of
    /// 2^[`TICK_SHIFT`] ns, wrapping; 0: none has. The session ends when the host has no socket.
    pub ending: u32,
}

/// The unit of the upper bits of [`Session::granted`]: 2^27 ns are 134 ms. 31 bits of it last for 9 years of uptime; from then on,
/// each packet looks its grant up.
pub const GRANTED_SHIFT: u32 = 27;

/// The lowest bit of [`Session::granted`].
pub const MORE: u32 = 1;

impl Session {
    /// Returns whether the grant that admitted it certainly lives at `now`, ns of `CLOCK_MONOTONIC`.
    #[inline(always)]
    pub const fn is_granted(&self, now: u64) -> bool {
        // Widening; `From` is not const.
        ((self.granted & !MORE) as u64) << (GRANTED_SHIFT - 1) > now
    }

    /// Notes that its grant lives until `until`, ns of `CLOCK_MONOTONIC`; `u64::MAX`: without end.
    #[inline(always)]
    pub const fn set_granted(&mut self, until: u64) {
        let units = until >> GRANTED_SHIFT;
        let most = (u32::MAX >> 1) as u64;
        let units = if units < most { units } else { most };
        self.granted = (units as u32) << 1 | self.granted & MORE;
    }

    /// Returns whether other packets than a SYN have arrived.
    #[inline(always)]
    pub const fn has_more(&self) -> bool {
        self.granted & MORE != 0
    }

    /// Returns whether a FIN or RST has arrived while the host had a socket for it.
    #[inline(always)]
    pub const fn is_closing(&self) -> bool {
        self.ending != 0
    }

    /// Returns the time since its last packet, ns.
    #[inline(always)]
    pub const fn idle(&self, now: u64) -> u64 {
        elapsed(self.last, now)
    }

    /// Returns its flow. `A`: of its family.
    #[inline(always)]
    pub fn flow<A: Address>(&self) -> Flow<A> {
        let address = |[first, second]: [u64; 2]| A::unpadded(Padded::from_words(first, second));
        Flow {
            source: address(self.source),
            destination: address(self.destination),
            ports: PortPair::from_bits(self.ports),
            protocol: u32::from(self.tenancy.protocol()),
        }
    }

    /// Returns source and destination of its flow.
    pub fn ends(&self) -> [SocketAddr; 2] {
        let ports = PortPair::from_bits(self.ports);
        let of = |[first, second]: [u64; 2], port| {
            let padded = Padded::from_words(first, second);
            let address = if self.tenancy.state() == V4::FAMILY {
                V4::unpadded(padded).into()
            } else {
                V6::unpadded(padded).into()
            };
            SocketAddr::new(address, port)
        };
        [
            of(self.source, ports.source()),
            of(self.destination, ports.destination()),
        ]
    }

    /// As [`Flow::tag`].
    #[inline(always)]
    fn tag(&self) -> u64 {
        let [source, destination] = [&self.source, &self.destination]
            .map(|words| Padded::from_words(read(&words[0]), read(&words[1])));
        tag(source, destination, read(&self.ports))
    }

    /// As [`Flow::position`]. `family`: that of its flow.
    #[inline(always)]
    fn position(&self, family: u8, seed: Seed) -> Position {
        if family == V4::FAMILY {
            self.flow::<V4>().position(seed)
        } else {
            self.flow::<V6>().position(seed)
        }
    }
}

/// Who has a slot. From the lowest bit: 16 bits of the gate, 8 of the IP protocol, 8 of the [`state`], 16 of the holder, and 16
/// that count the tenancies of the slot.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Tenancy(pub u64);

impl Tenancy {
    #[inline(always)]
    pub const fn gate(self) -> u16 {
        self.0 as u16
    }

    /// Returns the holder to whose share of the table the slot counts until it is taken; see [`session`](crate::session).
    #[inline(always)]
    pub const fn holder(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Returns the IP protocol number: 6 or 17.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline(always)]
    pub const fn state(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Returns whether the slot has a session.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.state() > state::ENDED
    }

    /// Returns whether the slot has a session of this family and protocol.
    #[inline(always)]
    const fn is_of<A: Address>(self, protocol: u32) -> bool {
        self.0 as u32 >> 16 == Self::kind::<A>(protocol)
    }

    /// As [`is_of`](Self::is_of), and of a flow at this gate.
    #[inline(always)]
    const fn is_at<A: Address>(self, protocol: u32, gate: u16) -> bool {
        // Widening; `From` is not const.
        self.0 as u32 == gate as u32 | Self::kind::<A>(protocol) << 16
    }

    /// Returns protocol and state of a session.
    #[inline(always)]
    const fn kind<A: Address>(protocol: u32) -> u32 {
        protocol | (A::FAMILY as u32) << 8
    }

    #[inline(always)]
    const fn with_state(self, state: u8) -> Self {
        Self(self.0 & !(0xff << 24) | (state as u64) << 24)
    }

    #[inline(always)]
    const fn with_gate(self, gate: u16) -> Self {
        Self(self.0 & !0xffff | gate as u64)
    }

    /// Returns the next tenancy of a slot, of a flow of this family.
    #[inline(always)]
    const fn next<A: Address>(self, protocol: u32, gate: u16, holder: u16) -> Self {
        let number = (self.0 >> 48).wrapping_add(1) << 48;
        Self(
            number | (holder as u64) << 32 | (Self::kind::<A>(protocol) as u64) << 16 | gate as u64,
        )
    }
}

/// The values of [`Tenancy::state`]. That of a session is its [`Address::FAMILY`].
pub mod state {
    /// Counts to nobody.
    pub const UNUSED: u8 = 0;
    /// Somebody is changing it.
    pub const HELD: u8 = 1;
    /// There is no session any more.
    pub const ENDED: u8 = 2;
}

/// Records the time of a packet of a session. The coarse clock moves in ticks, and nothing is written if it does not.
#[inline(always)]
pub const fn seen(session: &mut Session, now: u64) {
    if session.last != now {
        session.last = now;
    }
}

/// Returns a time of `CLOCK_MONOTONIC`, ns, in the unit of [`Session::ending`].
#[inline(always)]
const fn ending(now: u64) -> u32 {
    (now >> TICK_SHIFT) as u32
}

/// Number of holders by which slots are counted.
pub const HOLDERS: usize = 1 << u16::BITS;

/// How many slots count to a holder.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct HolderCount {
    pub slots: u32,
    /// An array that can be mapped has entries of 8 bytes.
    pub zero: u32,
}

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

records! {
    Session: 64 {
        source: 0,
        destination: 16,
        ports: 32,
        initial: 36,
        tenancy: 40,
        last: 48,
        granted: 56,
        ending: 60,
    },
    HolderCount: 8 { slots: 0, zero: 4 },
}
