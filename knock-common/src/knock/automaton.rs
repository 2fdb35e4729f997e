//! The automaton that all sequences of all gates are compiled to; see [`sequence`](super::sequence).

use bytemuck::{Pod, Zeroable};

/// A sequence that opens a gate. Indexed by user and gate in the order of the configuration.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Sequence {
    /// Longest time from the first knock to the last, in units of 2^[`TICK_SHIFT`](crate::time::TICK_SHIFT) ns, rounded
    /// up.
    pub within: u32,
    /// Number of knocks, 2 to [`MAX_SEQUENCE`](super::MAX_SEQUENCE).
    pub length: u16,
    pub gate: u16,
}

/// A state of the automaton: the longest suffix of a source's knocks that is a prefix of a sequence.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct State {
    /// Index of the sequence that this state completes, plus one; 0: none.
    pub completes: u32,
    /// The longest `within` of the sequences that begin with this state, as in [`Sequence`]:
    /// how long a duplicate is recognised. Of the root: the longest of all.
    pub within: u32,
    /// Gate of the first of these sequences, for counters and events.
    pub gate: u16,
    /// Number of knocks that this state stands for.
    pub depth: u8,
    /// Length of the shortest of these sequences.
    pub of: u8,
    /// Where [`symbol`](Self::symbol) leads from here, if it is the only symbol that leads elsewhere than from the root; or
    /// else 0.
    pub next: u32,
    pub symbol: u16,
    /// 1: several symbols lead elsewhere; the table of transitions has them.
    pub several: u8,
    /// Number of knocks of the longest run that is not complete yet: [`depth`](Self::depth), or, if this state completes a
    /// sequence and begins no longer one, the depth of its longest suffix that begins a sequence.
    pub unfinished: u8,
}

/// Key of the table of transitions of states with several.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct Transition {
    pub state: u32,
    pub symbol: u32,
}

records! {
    Sequence: 8 { within: 0, length: 4, gate: 6 },
    State: 20 {
        completes: 0,
        within: 4,
        gate: 8,
        depth: 10,
        of: 11,
        next: 12,
        symbol: 16,
        several: 18,
        unfinished: 19,
    },
    Transition: 8 { state: 0, symbol: 4 },
}
