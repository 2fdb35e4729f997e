//! The progress of a source: which knocks of it have counted.

use core::hint::black_box;

use bytemuck::{Pod, Zeroable};

use super::MAX_SEQUENCE;
use crate::{
    address::{Address, Padded},
    time::TICK_SHIFT,
};

/// Pairs of a set of sources; see [`ring`](super::ring).
pub const WAYS: usize = 8;

/// A set of sources, with the places of their progress, in one cache line; see [`ring`](super::ring).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Zeroable, Pod)]
pub struct ProgressSet {
    /// [`Pair`]s; 0: never used.
    pub pairs: [u64; WAYS],
}

impl ProgressSet {
    /// Returns one of the pairs.
    #[inline(always)]
    pub fn pair(&self, way: usize) -> Pair {
        // SAFETY: a reference is aligned and can be read. Volatile, and so read once, since another CPU may
        // write to it.
        Pair(unsafe { (&raw const self.pairs[way]).read_volatile() })
    }
}

/// A fingerprint and a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pair(pub u64);

impl Pair {
    /// No fingerprint is 0.
    pub(super) const UNUSED: Self = Self(0);

    #[inline(always)]
    pub(super) const fn new(fingerprint: u32, ticket: u32) -> Self {
        // Widening; `From` is not const.
        Self((ticket as u64) << 32 | fingerprint as u64)
    }

    #[inline(always)]
    pub const fn fingerprint(self) -> u32 {
        self.0 as u32
    }

    /// Index of the slot, modulo their number.
    #[inline(always)]
    pub const fn ticket(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns how many sources have taken tickets since.
    #[inline(always)]
    pub const fn age(self, next: u32) -> u32 {
        next.wrapping_sub(self.ticket())
    }

    /// Returns whether it leads to a slot that is still its source's.
    pub const fn is_live(self, next: u32, places: usize) -> bool {
        self.0 != 0 && self.age(next) as usize <= places
    }
}

/// The progress of a source. Two cache lines, of which its first knocks take one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Progress {
    /// [`Progress::tag_of`] the source: this slot may be given to another source while a packet still
    /// reads it. Changed only by compare-and-exchange; the CPU that has stored `HELD` here may change the
    /// rest.
    pub tag: u64,
    /// [`Address::padded`].
    pub address: Padded,
    /// State of the automaton; 0 is its root.
    pub state: u32,
    /// [`Progress::era_of`] the latest knock that counted.
    pub era: u16,
    /// Index of the latest knock in `steps`.
    pub head: u8,
    /// How many of the latest knocks are remembered, to recognise duplicates. 0 with a
    /// state other than the root: the run has completed a sequence.
    pub counted: u8,
    /// The latest knocks, as a ring.
    pub steps: [Step; MAX_SEQUENCE],
}

impl Progress {
    /// Nanoseconds of an era, as a power of two: 2^46 ns, 20 hours.
    const ERA_SHIFT: u32 = 46;
    /// A source that was last seen this many eras ago, 26 days, is forgotten: the times of its knocks are
    /// about to wrap.
    const ERAS: i16 = 32;

    /// [`tag`](Self::tag) of a slot that a CPU is changing.
    pub(super) const HELD: u64 = 2;

    /// Returns the tag of a source. Many addresses have the same, and an attacker can choose them. Odd, so that none is 0 or
    /// `HELD`.
    #[inline(always)]
    pub fn tag_of<A: Address>(source: &A) -> u64 {
        source.fold() ^ u64::from(A::FAMILY) << 56 | 1
    }

    #[inline(always)]
    pub const fn era_of(now: u64) -> u16 {
        (now >> Self::ERA_SHIFT) as u16
    }

    #[inline(always)]
    pub fn is_of<A: Address>(&self, source: &A) -> bool {
        // The tag differs for the same address of the other family.
        self.tag == Self::tag_of(source) && self.address == source.padded()
    }

    /// [`Address::FAMILY`] of the source; 0: there is none.
    pub fn family(&self) -> u8 {
        ((self.tag ^ self.address.fold()) >> 56) as u8
    }

    /// Returns the time of the latest knock that counted, ns of `CLOCK_MONOTONIC`, rounded down as [`Step::time`] is.
    pub fn last(&self) -> u64 {
        let below = Self::ERA_SHIFT - TICK_SHIFT;
        let ticks =
            u64::from(self.era) << below | u64::from(self.step(0).time) & ((1 << below) - 1);
        ticks << TICK_SHIFT
    }

    /// Returns whether it was last seen so long ago that the times of its knocks are ambiguous.
    #[inline(always)]
    pub const fn is_forgotten(&self, now: u64) -> bool {
        // Another CPU, whose clock is ahead, may have stored a later era.
        let eras = Self::era_of(now).wrapping_sub(self.era).cast_signed();
        eras >= Self::ERAS
    }

    /// Returns whether it has no source, or is being changed.
    pub const fn is_unsettled(&self) -> bool {
        self.tag == 0 || self.tag == Self::HELD
    }

    /// Returns whether a CPU is changing it.
    #[inline(always)]
    pub const fn is_held(&self) -> bool {
        self.tag == Self::HELD
    }

    /// Stores that a source has knocked once: all fields but the tag.
    #[inline(always)]
    pub fn begin<A: Address>(&mut self, source: &A, state: u32, step: Step, now: u64) {
        self.address = source.padded();
        self.state = state;
        self.era = Self::era_of(now);
        self.head = 0;
        self.counted = 1;
        // The others are not read before they are written: a state is never deeper than its knocks.
        self.steps[0] = step;
    }

    /// Copies another slot: all fields but the tag.
    #[inline(always)]
    pub const fn copy(&mut self, other: &Self) {
        // Field by field: as a whole, it would be copied to the stack.
        let Self {
            tag: _,
            address,
            state,
            era,
            head,
            counted,
            steps,
        } = other;
        self.address = *address;
        self.state = *state;
        self.era = *era;
        self.head = *head;
        self.counted = *counted;
        self.steps = *steps;
    }

    /// Ends the run.
    #[inline(always)]
    pub const fn reset(&mut self) {
        self.state = 0;
        self.counted = 0;
    }

    /// Adds a knock that led to `state`. At most `known` of the latest are remembered from now on.
    #[inline(always)]
    pub fn push(&mut self, state: u32, known: u8, step: Step, now: u64) {
        self.state = state;
        self.era = Self::era_of(now);
        self.counted = (self.counted + 1).min(known);
        // The compiler would compare before it adds; but before Linux 6.10 the verifier knows the bounds
        // of a sum only where it was compared.
        let head = black_box(usize::from(self.head) + 1);
        let head = if head < MAX_SEQUENCE { head } else { 0 };
        self.head = head as u8;
        self.steps[head] = step;
    }

    /// Sets the time of the latest knock, which has been repeated: sequences that begin with it begin now.
    #[inline(always)]
    pub fn renew(&mut self, time: u32, now: u64) {
        self.era = Self::era_of(now);
        self.steps[self.at(0)].time = time;
    }

    /// Returns whether the latest knock has completed a sequence.
    #[inline(always)]
    pub const fn is_complete(&self) -> bool {
        self.state != 0 && self.counted == 0
    }

    /// Returns the knock `back` before the latest.
    #[inline(always)]
    pub fn step(&self, back: u8) -> Step {
        self.steps[self.at(back)]
    }

    #[inline(always)]
    fn at(&self, back: u8) -> usize {
        // In whole registers, which every kernel's verifier follows.
        let (head, back) = (usize::from(self.head), usize::from(back));
        let at = if back > head {
            (head + MAX_SEQUENCE).wrapping_sub(back)
        } else {
            head - back
        };
        // It is at most that, but the verifier does not know.
        at.min(MAX_SEQUENCE - 1)
    }
}

/// One counted knock.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Step {
    /// Time in units of 2^[`TICK_SHIFT`] ns, wrapping after 52 days.
    pub time: u32,
    pub source_port: u16,
    /// Index of the knock's port among all knock ports.
    pub symbol: u16,
}

// Half of the range of a step's time.
const _: () =
    assert!((Progress::ERAS as u64) << Progress::ERA_SHIFT == 1 << (TICK_SHIFT + u32::BITS - 1));

records! {
    // One and two cache lines: an array that can be mapped begins at a page.
    ProgressSet: 64 { pairs: 0 },
    Progress: 128 { tag: 0, address: 8, state: 24, era: 28, head: 30, counted: 31, steps: 32 },
    Step: 8 { time: 0, source_port: 4, symbol: 6 },
}
