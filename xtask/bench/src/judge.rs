//! What the measured programs have in common.

use anyhow::Result;
use aya::programs::Xdp;

/// The first address of sources with grants.
pub const GRANTED: u32 = 0x0a00_0000;

/// A program that counts its verdicts.
pub trait Judge {
    /// Returns whether it is knockgate.
    fn is_ours(&self) -> bool;
    fn program(&self) -> &Xdp;
    /// Returns how many packets were counted under a reason; `None`: under any.
    fn packets(&self, reason: Option<&str>) -> Result<u64>;
}
