//! What becomes of a packet, and why.

use bytemuck::{Pod, Zeroable};

use crate::event;

/// Why a packet passes or is denied. Index of a per-CPU counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not IP.
    NotIp = 0,
    /// IP that carries neither TCP nor UDP.
    OtherProtocol = 1,
    /// To a port that no gate protects.
    Unguarded = 2,
    /// A knock.
    Knock = 3,
    /// A fragment behind the first.
    Fragment = 4,
    /// Its source has a grant.
    Grant = 5,
    /// Its flow began under a grant.
    Session = 6,
    /// Its source is on the allow list.
    AllowList = 7,
    /// Would be denied if the mode were `enforce`.
    Monitor = 8,
    /// A trial has ended without having been confirmed.
    Lapsed = 9,
    /// To a protected port, from a source without a grant.
    NoGrant = 10,
    /// A new connection beyond those that its grant admits.
    UsedUp = 11,
    /// Its port can't be known, or it is a fragment that only an attack would send.
    Malformed = 12,
}

impl Reason {
    pub const COUNT: usize = 13;

    pub const ALL: [Self; Self::COUNT] = [
        Self::NotIp,
        Self::OtherProtocol,
        Self::Unguarded,
        Self::Knock,
        Self::Fragment,
        Self::Grant,
        Self::Session,
        Self::AllowList,
        Self::Monitor,
        Self::Lapsed,
        Self::NoGrant,
        Self::UsedUp,
        Self::Malformed,
    ];

    pub const fn passes(self) -> bool {
        !matches!(self, Self::NoGrant | Self::UsedUp | Self::Malformed)
    }

    /// As the contract spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::OtherProtocol => "other_protocol",
            Self::Unguarded => "unguarded",
            Self::Knock => "knock",
            Self::Fragment => "fragment",
            Self::Grant => "grant",
            Self::Session => "session",
            Self::AllowList => "allow_list",
            Self::Monitor => "monitor",
            Self::Lapsed => "lapsed",
            Self::NoGrant => "no_grant",
            Self::UsedUp => "used_up",
            Self::Malformed => "malformed",
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    /// The gate whose port it went to, or [`event::NO_GATE`].
    pub gate: u16,
}

impl Verdict {
    #[inline(always)]
    pub const fn of(reason: Reason) -> Self {
        Self {
            reason,
            gate: event::NO_GATE,
        }
    }

    /// Index into the packet counters: those of no gate first, then gate by gate.
    #[inline(always)]
    pub const fn counter(self) -> u32 {
        let block = self.gate.wrapping_add(1) as u32;
        block * Reason::COUNT as u32 + self.reason as u32
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

records!(Counter: 16 { packets: 0, bytes: 8 });
