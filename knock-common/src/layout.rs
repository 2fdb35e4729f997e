//! What identifies pinned tables.

use bytemuck::{Pod, Zeroable};

use crate::seed::Seed;

/// Version of the tables' layout. Pins of another version are refused, never reinterpreted.
pub const LAYOUT: u32 = 6;

/// Bytes of one entry of the configuration table, which holds the configuration as it was applied.
pub const CONFIG_CHUNK: usize = 4096;

/// Identifies a set of pins. The first thing that is read of them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Meta {
    /// [`LAYOUT`].
    pub layout: u32,
    /// Bytes of JSON in the chunks of the configuration table.
    pub config_length: u32,
    /// When the instance came up, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// For commands that change the tables of grants.
    pub seed: Seed,
}

records!(Meta: 32 { layout: 0, config_length: 4, since: 8, seed: 16 });
