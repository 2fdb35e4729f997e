//! What becomes of a packet, and why.

use bytemuck::{Pod, Zeroable};

use crate::rules::NO_GATE;

/// Defines [`Reason`] by rows of number, whether the packet passes or is denied, name and text.
macro_rules! reasons {
    ($($variant:ident = $value:literal, $verdict:ident, $name:literal, $text:literal;)+) => {
        named! {
            /// Why a packet passes or is denied. Every packet has exactly one; it is the index of a counter.
            pub enum Reason: "The packet" {
                $($variant = $value, $name, $text;)+
            }
        }

        impl Reason {
            /// Returns whether the packet passes; otherwise it is denied.
            #[inline(always)]
            #[must_use]
            pub const fn passes(self) -> bool {
                match self {
                    $(Self::$variant => reasons!(@ $verdict),)+
                }
            }
        }
    };
    (@ pass) => { true };
    (@ deny) => { false };
}

reasons! {
    NotIp = 0, pass, "not_ip", "is not IP";
    OtherProtocol = 1, pass, "other_protocol", "is IP, but neither TCP nor UDP";
    Unguarded = 2, pass, "unguarded", "goes to a port that no gate protects there, or to an address that is not guarded";
    Knock = 3, pass, "knock", "is a knock";
    Fragment = 4, pass, "fragment", "is a fragment behind the first one";
    Grant = 5, pass, "grant", "comes from a source that has a live grant";
    Session = 6, pass, "session", "belongs to a flow that began under a grant that has ended";
    AllowList = 7, pass, "allow_list", "comes from a source on the allow list";
    Monitor = 8, pass, "monitor", "would be denied if the mode were `enforce`";
    Lapsed = 9, pass, "lapsed", "came after a trial had ended";
    NoGrant = 10, deny, "no_grant", "goes to a protected port from a source without a grant";
    UsedUp = 11, deny, "used_up", "begins one connection more than its grant admits";
    Malformed = 12, deny, "malformed", "cannot be read up to its ports, or is a fragment that only an attack sends";
}

/// What the program does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    /// Turn the packet into the reply of a closed port, or drop it where there is none.
    Reply,
}

/// What becomes of a packet. [`action`](crate::judge::action) makes the action of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    /// The gate whose port it went to, or [`NO_GATE`].
    pub gate: u16,
}

impl Verdict {
    /// A verdict at no gate.
    #[inline(always)]
    pub const fn of(reason: Reason) -> Self {
        Self {
            reason,
            gate: NO_GATE,
        }
    }

    /// Returns the index into the packet counters: those of no gate first, then gate by gate.
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
