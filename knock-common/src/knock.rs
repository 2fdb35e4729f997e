//! Knocks: what a source has sent so far, and what that opens.

pub mod authenticated;
pub mod automaton;
pub mod fwknop;
mod hold;
pub mod progress;
pub mod ring;
pub mod sequence;

/// Longest sequence, in knocks.
pub const MAX_SEQUENCE: usize = 12;

named! {
    /// The result of a knock. Index of a counter of each gate.
    pub enum Outcome: "The knock" {
        Step = 0, "step", "counts as a step of a sequence";
        Opened = 1, "opened", "completes a sequence; a grant was given or renewed";
        Wrong = 2, "wrong", "breaks a run";
        Late = 3, "late", "completes a sequence, but took longer than `within`";
        Source = 4, "source", "completes a sequence, but its source is not among the gate's `sources`";
        TableFull = 5, "table_full", "completes a sequence, but there is no room for another grant";
        Duplicate = 6, "duplicate", "repeats a knock that has been counted: neither a step nor a break";
    }
}

impl Outcome {
    /// Returns the index into the knock counters.
    #[inline(always)]
    pub const fn counter(self, gate: u16) -> u32 {
        gate as u32 * Self::COUNT as u32 + self as u32
    }
}
