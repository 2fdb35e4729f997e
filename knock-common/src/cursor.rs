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

/// Tickets of the ring of sources that a CPU has taken from its cursor and not used yet. All CPUs write the cursor, and each
/// write makes the others wait for its line, so a CPU takes [`BLOCK`](Self::BLOCK) at a time.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Tickets {
    pub next: u32,
    /// One behind the last.
    pub end: u32,
}

records! {
    Cursor: 64 { next: 0, zero: 4 },
    Tickets: 8 { next: 0, end: 4 },
}

impl Tickets {
    /// How many are taken at once.
    pub const BLOCK: u32 = 16;
    /// The part of the ring, as a power of two below 1, by which tickets may be behind the cursor. What is older is left: who is
    /// found in its place was seen later.
    const OLD: u32 = 6;

    /// Returns the next ticket. `cursor`: the next one that no CPU has taken, in a ring of so many slots. `more` takes
    /// [`BLOCK`](Self::BLOCK) and returns the first.
    #[inline(always)]
    pub fn take(&mut self, cursor: u32, slots: u32, more: impl FnOnce() -> u32) -> u32 {
        if self.next == self.end || cursor.wrapping_sub(self.next) > slots >> Self::OLD {
            self.next = more();
            self.end = self.next.wrapping_add(Self::BLOCK);
        }
        let ticket = self.next;
        self.next = ticket.wrapping_add(1);
        ticket
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: u32 = 16_384;

    /// Takes tickets on CPUs in this order.
    fn taken(
        cursor: &mut u32,
        cpus: &mut [Tickets],
        order: impl Iterator<Item = usize>,
    ) -> Vec<u32> {
        let mut taken = Vec::new();
        for cpu in order {
            let newest = *cursor;
            taken.push(cpus[cpu].take(newest, SLOTS, || {
                *cursor = newest.wrapping_add(Tickets::BLOCK);
                newest
            }));
        }
        taken
    }

    #[test]
    fn no_ticket_is_taken_twice_also_where_they_wrap() {
        let mut cursor = u32::MAX - 100;
        let mut cpus = [Tickets::zeroed(); 3];
        let mut all = taken(&mut cursor, &mut cpus, (0..300).map(|turn| turn * turn % 3));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 300);
    }

    #[test]
    fn one_cpu_takes_them_in_order() {
        let mut cursor = 1;
        let all = taken(&mut cursor, &mut [Tickets::zeroed()], (0..50).map(|_| 0));
        assert_eq!(all, (1..=50).collect::<Vec<u32>>());
    }

    #[test]
    fn tickets_that_others_have_overtaken_are_left() {
        let (mut cursor, mut cpus) = (1, [Tickets::zeroed(); 2]);
        assert_eq!(taken(&mut cursor, &mut cpus, [1, 1].into_iter()), [1, 2]);
        taken(&mut cursor, &mut cpus, (0..SLOTS / 64).map(|_| 0));
        let late = taken(&mut cursor, &mut cpus, [1].into_iter());
        assert!(late[0] > SLOTS / 64, "{late:?}");
    }
}
