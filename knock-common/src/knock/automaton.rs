//! The automaton that all sequences of all gates are compiled to; see [`sequence`](super::sequence).

use bytemuck::{Pod, Zeroable};

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
