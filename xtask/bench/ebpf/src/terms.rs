//! What the minimal gate and who runs it agree on. Shared with user space, which includes this file.

/// The port that the bench's gates protect, TCP and UDP.
pub const PROTECTED: u16 = 22;
/// The sequence that opens it, all of it UDP.
pub const KNOCKS: [u16; 3] = [7101, 9203, 8307];

/// How the minimal gate's counts are numbered.
pub mod count {
    /// Denied at [`PROTECTED`](super::PROTECTED).
    pub const DENIED: u32 = 0;
    /// Let pass there.
    pub const ADMITTED: u32 = 1;
    /// A knock that was the next one, but not the last.
    pub const STEP: u32 = 2;
    /// A knock out of turn, or too late.
    pub const ASTRAY: u32 = 3;
    /// A last knock that admitted its source.
    pub const OPENED: u32 = 4;
    /// A last knock that would have, had there been room.
    pub const FULL: u32 = 5;
    /// How many counts there are.
    pub const ALL: u32 = 6;
}
