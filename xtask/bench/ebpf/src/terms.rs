//! Constants that the minimal gate and user space share. User space includes this file.

/// The port that the bench's gates protect, TCP and UDP.
pub const PROTECTED: u16 = 22;
/// The sequence that opens it, over UDP.
pub const KNOCKS: [u16; 3] = [7101, 9203, 8307];

/// Indices of the minimal gate's counters.
pub mod count {
    /// Denied at [`PROTECTED`](super::PROTECTED).
    pub const DENIED: u32 = 0;
    /// Passed there.
    pub const ADMITTED: u32 = 1;
    /// A knock that was the next one, but not the last.
    pub const STEP: u32 = 2;
    /// A knock out of turn, or too late.
    pub const ASTRAY: u32 = 3;
    /// A last knock that admitted its source.
    pub const OPENED: u32 = 4;
    /// A last knock for which there was no room.
    pub const FULL: u32 = 5;
    /// Number of counters.
    pub const ALL: u32 = 6;
}
