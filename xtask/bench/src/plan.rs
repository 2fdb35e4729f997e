//! The length of the measurements.

use std::time::Duration;

use crate::knocking::Rate;

/// How often, and how much of each, to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Slices of each row of a packet's cost. Many short ones: what disturbs some leaves others undisturbed.
    pub slices: usize,
    /// Runs of a program in a slice.
    pub slice: u32,
    /// Frames on a wire in a slice.
    pub frames: u32,
    /// Rounds of what is not measured in slices.
    pub rounds: usize,
    /// Runs of a program in a sample of such a round.
    pub repeat: u32,
    /// Samples for each such round, of which the cheapest counts, since disturbances only add time.
    pub samples: usize,
    /// Rounds of measurements that take seconds: real knocks, commands, filling a table.
    pub slow_rounds: usize,
    /// Times that the leader of a fleet is killed.
    pub killed_leaders: usize,
    /// Sources that knock in one case, and the time from one to the next.
    pub knocks: u32,
    pub every: Duration,
    /// How long a source tries the port after its knocks.
    pub patience: Duration,
    /// How long the idle service is measured, the service during a flood, and `top`.
    pub idle: Duration,
    pub flooded: Duration,
    pub watched: Duration,
    /// Rates of the floods during which they knock.
    pub floods: &'static [Rate],
}

impl Plan {
    pub const FULL: Self = Self {
        slices: 60,
        slice: 40_000,
        frames: 20_000,
        rounds: 9,
        repeat: 400_000,
        samples: 3,
        slow_rounds: 3,
        killed_leaders: 10,
        knocks: 40,
        every: Duration::from_millis(100),
        patience: Duration::from_secs(2),
        idle: Duration::from_secs(3),
        flooded: Duration::from_secs(10),
        watched: Duration::from_secs(20),
        floods: &[
            Rate::None,
            Rate::PerSecond(1_000),
            Rate::PerSecond(10_000),
            Rate::PerSecond(100_000),
            Rate::Fastest,
        ],
    };
    pub const QUICK: Self = Self {
        slices: 20,
        slice: 40_000,
        frames: 10_000,
        rounds: 3,
        repeat: 100_000,
        samples: 2,
        slow_rounds: 1,
        killed_leaders: 1,
        knocks: 10,
        every: Duration::from_millis(100),
        patience: Duration::from_millis(600),
        idle: Duration::from_secs(1),
        flooded: Duration::from_secs(3),
        watched: Duration::from_secs(6),
        floods: &[Rate::None, Rate::Fastest],
    };
}
