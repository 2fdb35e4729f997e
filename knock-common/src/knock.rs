//! Knocks: what a source has sent so far, and what that opens.

pub mod automaton;
mod hold;
pub mod progress;
pub mod ring;
pub mod sequence;

/// Longest sequence, in knocks.
pub const MAX_SEQUENCE: usize = 12;

/// What became of a knock, or of a run of knocks. Index of a per-gate counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Counted as a step.
    Step = 0,
    /// It completed a sequence and a grant was given or renewed.
    Opened = 1,
    /// The run was broken by this or by a foreign probe.
    Wrong = 2,
    /// It completed a sequence too late.
    Late = 3,
    /// It completed a sequence from outside the networks that may knock.
    Source = 4,
    /// It completed a sequence, and there was no room for a grant.
    TableFull = 5,
    /// Neither a step nor a break: a packet counted before, or another probe of the port that was
    /// counted last, which would have cost the run.
    Duplicate = 6,
}

impl Outcome {
    pub const ALL: [Self; 7] = [
        Self::Step,
        Self::Opened,
        Self::Wrong,
        Self::Late,
        Self::Source,
        Self::TableFull,
        Self::Duplicate,
    ];

    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Index into the knock counters.
    #[inline(always)]
    pub const fn counter(self, gate: u16) -> u32 {
        gate as u32 * Self::COUNT + self as u32
    }

    /// As the contract spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Opened => "opened",
            Self::Wrong => "wrong",
            Self::Late => "late",
            Self::Source => "source",
            Self::TableFull => "table_full",
            Self::Duplicate => "duplicate",
        }
    }
}
