//! The layout of every kernel table.
//!
//! These types cross between the kernel program and user space: integers and byte arrays only, no
//! padding, sizes asserted below. Whoever changes one raises [`LAYOUT`].

mod answering;
mod knocking;

use bytemuck::{Pod, Zeroable};

pub use self::{
    answering::{Habits, Link, LinkKey, Owed, labels, standing},
    knocking::{Held, Progress, ProgressSet, Step},
};
use crate::{
    Address,
    address::{Padded, V4, V6},
    frame::Segment,
    presence::Seed,
};

/// Version of the tables' layout. Pins of another one are refused, never reinterpreted.
pub const LAYOUT: u32 = 5;

/// Longest sequence, in knocks.
pub const MAX_SEQUENCE: usize = 12;

/// Pairs of a set of sources; see [`progress`](crate::progress).
pub const WAYS: usize = 8;

/// How many different prefix lengths a family's grants may have at once, whole addresses included.
pub const MAX_LENGTHS: usize = 8;

/// [`Grant::user`] of a grant that was given by hand.
pub const BY_HAND: u32 = u32::MAX;

/// Nanoseconds of one [`Step::time`] unit, as a power of two: 2^20 ns, 1.05 ms.
pub const TICK_SHIFT: u32 = 20;

/// Who may pass: one gate, one source or prefix. Key of the grant tables.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantKey<A: Address> {
    /// Masked to `length`.
    pub address: A,
    pub gate: u16,
    /// Prefix length in bits.
    pub length: u8,
    pub zero: A::Fill,
}

impl<A: Address> GrantKey<A> {
    #[inline(always)]
    pub fn new(address: A, length: u8, gate: u16) -> Self {
        Self {
            address: address.masked(length),
            gate,
            length,
            zero: A::Fill::zeroed(),
        }
    }

    /// The look-up for one whole address, without the price of a mask.
    #[inline(always)]
    pub fn whole(address: A, gate: u16) -> Self {
        Self {
            address,
            gate,
            length: A::BITS,
            zero: A::Fill::zeroed(),
        }
    }

    #[inline(always)]
    pub fn tag(&self) -> u64 {
        self.address.fold() ^ (u64::from(self.gate) << 32) ^ (u64::from(self.length) << 48)
    }
}

/// Permission for one source to reach one gate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Grant {
    /// End, ns of `CLOCK_MONOTONIC`. 0: being taken away, the key is about to vanish.
    pub until: u64,
    /// [`GrantKey::tag`] of the key: the kernel may give this slot to another key while a packet
    /// still reads it.
    pub tag: u64,
    /// New connections admitted since it was given or renewed.
    pub connections: u32,
    /// Index of the sequence that earned it, or [`BY_HAND`].
    pub user: u32,
    /// Index of the slot that it holds in the slot table.
    pub slot: u32,
    pub zero: u32,
}

/// One place in the ring that bounds the number of grants over both families.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct GrantSlot {
    /// [`Address::padded`] of the key's address.
    pub address: Padded,
    pub gate: u16,
    pub length: u8,
    /// [`Address::FAMILY`]; 0: never used.
    pub family: u8,
    pub zero: u32,
}

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

/// A source, of either family. Key of what is remembered of it but its progress.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct SourceKey {
    /// [`Address::padded`]; the family keeps 192.0.2.1 apart from `c000:201::`.
    pub address: Padded,
    pub family: u64,
}

/// What a gate asks for. Indexed by gate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct GateRules {
    /// Length of a grant, ns.
    pub open_for: u64,
    /// A kept flow ends after this long without a packet, ns.
    pub session_idle: u64,
    /// New connections that one grant admits; 0: any number.
    pub connections: u32,
    /// 1: grants go to the source's prefix ([`Address::PREFIX`]).
    pub to_prefix: u8,
    /// 1: only sources in the table of permitted networks may knock.
    pub restricted: u8,
    /// 1: flows end with their grant.
    pub cut: u8,
    /// 1: what is denied is answered as by a closed port.
    pub reject: u8,
}

/// A sequence that opens a gate. Indexed by user and gate in the order of the configuration.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Sequence {
    /// First knock to last, in units of 2^[`TICK_SHIFT`] ns, rounded up.
    pub within: u32,
    /// Number of knocks, 2 to [`MAX_SEQUENCE`].
    pub length: u16,
    pub gate: u16,
}

/// A state of the automaton: the longest end of what was knocked that begins some sequence.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct State {
    /// Index of the sequence that is complete in this state, plus one; 0: none.
    pub completes: u32,
    /// The longest `within` among the sequences that begin with this state, as in [`Sequence`]:
    /// how long a duplicate is known. Of the root: the longest of all.
    pub within: u32,
    /// Gate of the first of these sequences, for counters and events.
    pub gate: u16,
    /// Number of knocks that this state stands for.
    pub depth: u8,
    /// Length of the shortest of these sequences.
    pub of: u8,
    /// Where [`symbol`](Self::symbol) leads from here; 0: no symbol leads anywhere but where it leads
    /// from the root, or several do.
    pub next: u32,
    pub symbol: u16,
    /// 1: several symbols lead on, by the table of transitions.
    pub several: u8,
    /// Number of knocks of the longest run that can still be lost: [`depth`](Self::depth), or where this is the
    /// whole of a sequence and begins no longer one, that of its longest end that begins some sequence.
    pub unfinished: u8,
}

/// Key of the table of transitions, which has those of states with several.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct Transition {
    pub state: u32,
    pub symbol: u32,
}

/// Key data of the allow list, behind the prefix length of the kernel's LPM tables.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct Network {
    /// In network byte order: whether there is a gate, which, and [`Address::FAMILY`], so that
    /// prefixes of different scopes never meet.
    pub scope: u64,
    pub address: Padded,
}

impl Network {
    /// Bits before the address.
    pub const HEAD_BITS: u32 = 64;

    #[inline(always)]
    pub fn new<A: Address>(address: A) -> Self {
        Self {
            scope: u64::from(A::FAMILY).to_be(),
            address: address.padded(),
        }
    }

    /// Key of the note that the table of this host's addresses has all of them, which no address has:
    /// none is of family 0.
    pub const COMPLETE: Self = Self {
        scope: 0,
        address: V6::from_words(0, 0),
    };

    /// Scoped to one gate: who may knock there.
    #[inline(always)]
    pub fn of_gate<A: Address>(address: A, gate: u16) -> Self {
        let scope = 1 << 32 | u64::from(gate) << 8 | u64::from(A::FAMILY);
        Self {
            scope: scope.to_be(),
            address: address.padded(),
        }
    }
}

/// Packets and bytes of one reason at one gate, on one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Zeroable, Pod)]
pub struct Counter {
    pub packets: u64,
    /// Frame bytes as the program sees them.
    pub bytes: u64,
}

/// What a CPU may still report of one class in this second, and what it has left out; see
/// [`report`](crate::report). Indexed by [`class`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Budget {
    /// Number of the second, roughly.
    pub second: u64,
    /// How many reports were to be sent this second.
    pub asked: u32,
    /// Records sent this second.
    pub sent: u32,
    /// Events left out since the gate came up.
    pub lost: u64,
}

/// Where a ring is: the next ticket. Alone in a line of the processor's cache, so that CPUs that take
/// tickets of one ring don't slow down those of another.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Cursor {
    pub next: u32,
    pub zero: [u32; 15],
}

impl Cursor {
    pub const fn at(next: u32) -> Self {
        Self {
            next,
            zero: [0; 15],
        }
    }
}

/// Indices of the cursors of rings.
pub mod cursor {
    pub const GRANTS: u32 = 0;
    pub const SESSIONS: u32 = 1;
    /// The next ticket for a source; see [`progress`](crate::progress).
    pub const SOURCES: u32 = 2;
    pub const COUNT: u32 = 3;
}

/// Classes of reports, each with a [`Budget`] of its own, so that none takes another's.
pub mod class {
    /// Denied packets, and flows that could not be remembered.
    pub const DENIALS: u32 = 0;
    /// Knocks that counted, and broken runs.
    pub const STEPS: u32 = 1;
    /// Whole sequences that opened nothing: too late, or from a source that may not knock.
    pub const FAILURES: u32 = 2;
    /// Whole sequences for whose grant there was no room.
    pub const REFUSALS: u32 = 3;
    pub const OPENINGS: u32 = 4;
    /// Grants whose last connection has been admitted.
    pub const CLOSINGS: u32 = 5;
    pub const COUNT: u32 = 6;
}

/// What a destination port is to the gate, packed into a `u32` of the role table. The table is
/// indexed by port, UDP after TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Neither of the others: a probe to it breaks a run of knocks.
    Foreign,
    /// Declared open: no probe.
    Open,
    Protected {
        gate: u16,
    },
    /// A knock. `starts`: some sequence begins with it, and the state after it is `symbol + 1`.
    Knock {
        symbol: u16,
        starts: bool,
    },
}

/// Number of entries of the role table.
pub const ROLES: u32 = 2 * 65536;

impl Role {
    const KIND: u32 = 0xff;
    const STARTS: u32 = 0x100;

    #[inline(always)]
    pub const fn index(udp: bool, port: u16) -> u32 {
        // Widening; `From` is not const.
        (udp as u32) << 16 | port as u32
    }

    pub const fn pack(self) -> u32 {
        match self {
            Self::Foreign => 0,
            Self::Open => 1,
            Self::Protected { gate } => 2 | (gate as u32) << 16,
            Self::Knock { symbol, starts } => {
                3 | (symbol as u32) << 16 | if starts { Self::STARTS } else { 0 }
            }
        }
    }

    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        let id = (packed >> 16) as u16;
        match packed & Self::KIND {
            1 => Self::Open,
            2 => Self::Protected { gate: id },
            3 => Self::Knock {
                symbol: id,
                starts: packed & Self::STARTS != 0,
            },
            _ => Self::Foreign,
        }
    }
}

/// What was applied, for the commands that read it back: see [`Meta`].
pub const CONFIG_CHUNK: usize = 4096;

/// Identifies a set of pins. The first thing that is read of them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Meta {
    /// [`LAYOUT`].
    pub layout: u32,
    /// Bytes of JSON in the chunks of the configuration table.
    pub config_length: u32,
    /// When the gate came up, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// For those who change the tables of grants.
    pub seed: Seed,
}

// SAFETY: `repr(C)`, an address of bytes and three integers that fill 4 bytes: no padding for
// either family (asserted below), any bit pattern is valid.
unsafe impl<A: Address> Zeroable for GrantKey<A> {}
// SAFETY: as above.
unsafe impl<A: Address> Pod for GrantKey<A> {}
// SAFETY: `repr(C)`, two addresses of bytes and integers that fill 8 bytes: no padding for either
// family (asserted below), any bit pattern is valid.
unsafe impl<A: Zeroable> Zeroable for Flow<A> {}
// SAFETY: as above.
unsafe impl<A: Pod> Pod for Flow<A> {}

const _: () = {
    assert!(size_of::<GrantKey<V4>>() == 8);
    assert!(size_of::<GrantKey<V6>>() == 24);
    assert!(size_of::<Grant>() == 32);
    assert!(size_of::<GrantSlot>() == 24);
    assert!(size_of::<Flow<V4>>() == 16);
    assert!(size_of::<Flow<V6>>() == 40);
    assert!(size_of::<Session>() == 40);
    assert!(size_of::<SessionSlot>() == 40);
    assert!(size_of::<SourceKey>() == 24);
    assert!(size_of::<Step>() == 8);
    // Lines of the processor's cache, from where an array that can be mapped begins.
    assert!(size_of::<ProgressSet>() == 64);
    assert!(size_of::<Progress>() == 128);
    assert!(size_of::<GateRules>() == 24);
    assert!(size_of::<Sequence>() == 8);
    assert!(size_of::<State>() == 20);
    assert!(size_of::<Transition>() == 8);
    assert!(size_of::<Network>() == 24);
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<Budget>() == 24);
    assert!(size_of::<Cursor>() == 64);
    assert!(size_of::<Meta>() == 32);
    assert!(size_of::<Habits>() == 48);
    assert!(size_of::<LinkKey>() == 8);
    assert!(size_of::<Link>() == 8);
    assert!(size_of::<Owed>() == 24);
};

#[cfg(feature = "user")]
mod user {
    use super::{
        Budget, Counter, Cursor, Flow, GateRules, Grant, GrantKey, GrantSlot, Habits, Link,
        LinkKey, Meta, Network, Owed, Progress, ProgressSet, Seed, Sequence, Session, SessionSlot,
        SourceKey, State, Transition, V4, V6,
    };
    use crate::event::Event;

    macro_rules! plain_old_data {
        ($($type:ty),+ $(,)?) => {
            $(
                // SAFETY: the type is `bytemuck::Pod`, which asks for more than `aya::Pod` does.
                unsafe impl aya::Pod for $type {}
            )+
        };
    }

    plain_old_data!(
        GrantKey<V4>,
        GrantKey<V6>,
        Grant,
        GrantSlot,
        Flow<V4>,
        Flow<V6>,
        Session,
        SessionSlot,
        SourceKey,
        Progress,
        ProgressSet,
        GateRules,
        Sequence,
        State,
        Transition,
        Network,
        Counter,
        Budget,
        Cursor,
        Meta,
        Habits,
        LinkKey,
        Link,
        Owed,
        Seed,
        Event,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_told_across_the_boot_and_between_cpus() {
        const HOUR: u64 = 3600 * 1_000_000_000;
        let session = |last| Session {
            last,
            ..Session::zeroed()
        };
        for (last, now, idle) in [
            (HOUR, HOUR, 0),
            (HOUR, 2 * HOUR, HOUR),
            // Another CPU's clock has ticked already.
            (HOUR + 4_000_000, HOUR, 0),
            // An hour before a boot that was a second ago.
            (
                0_u64.wrapping_sub(HOUR),
                1_000_000_000,
                HOUR + 1_000_000_000,
            ),
        ] {
            assert_eq!(session(last).idle(now), idle, "{last} {now}");
        }
    }

    #[test]
    fn roles_survive_packing() {
        for role in [
            Role::Foreign,
            Role::Open,
            Role::Protected { gate: 0 },
            Role::Protected { gate: u16::MAX },
            Role::Knock {
                symbol: 0,
                starts: false,
            },
            Role::Knock {
                symbol: u16::MAX,
                starts: true,
            },
        ] {
            assert_eq!(Role::unpack(role.pack()), role);
        }
    }

    #[test]
    fn an_empty_role_table_means_foreign() {
        assert_eq!(Role::unpack(0), Role::Foreign);
    }
}
