//! What the gates that are measured have in common.

use anyhow::Result;
use aya::programs::Xdp;

/// Where sources that are granted begin.
pub const GRANTED: u32 = 0x0a00_0000;

/// A program that counts what it makes of packets.
pub trait Judge {
    fn program(&self) -> &Xdp;
    /// How many packets have been judged so, by this reason or by all.
    fn packets(&self, reason: Option<&str>) -> Result<u64>;
}
