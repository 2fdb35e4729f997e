//! Cursors of the rings: of grant slots, of session slots, and of sources that knock.
//!
//! The cursor of sources has a table of its own, since that ring is made anew when the sequences change, and the others are
//! not.

use bytemuck::{Pod, Zeroable};

/// The next ticket of a ring. Alone in a line of the processor's cache, so that CPUs that take
/// tickets of one ring do not slow down those of another.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Cursor {
    pub next: u32,
    pub zero: [u32; 15],
}

records!(Cursor: 64 { next: 0, zero: 4 });

impl Cursor {
    pub const fn at(next: u32) -> Self {
        Self {
            next,
            zero: [0; 15],
        }
    }
}

/// Index of the cursor of grant slots.
pub const GRANTS: u32 = 0;
/// Index of the cursor of session slots.
pub const SESSIONS: u32 = 1;
/// Number of cursors of slots.
pub const COUNT: u32 = 2;
