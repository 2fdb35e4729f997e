//! What is remembered of a source that knocks.

use core::{
    hint::black_box,
    sync::atomic::{Ordering, compiler_fence},
};

use bytemuck::{Pod, Zeroable};

use super::{MAX_SEQUENCE, TICK_SHIFT, WAYS};
use crate::{Address, address::Padded, progress::Pair};

/// Where the progress of a set's sources is, in one line of the processor's cache; see
/// [`progress`](crate::progress).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Zeroable, Pod)]
pub struct ProgressSet {
    /// [`Pair`]s; 0: never used.
    pub pairs: [u64; WAYS],
}

impl ProgressSet {
    /// One of the pairs as it is now.
    #[inline(always)]
    pub fn pair(&self, way: usize) -> Pair {
        // SAFETY: a reference is aligned and can be read. Volatile, and so read once, since another CPU may
        // write to it.
        Pair(unsafe { (&raw const self.pairs[way]).read_volatile() })
    }
}

/// How far a source's knocking is. Two lines of the processor's cache, of which its first knocks
/// take one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Progress {
    /// [`Progress::tag_of`] the source: this place may be given to another one while a packet still
    /// reads it.
    pub tag: u64,
    /// [`Address::padded`].
    pub address: Padded,
    /// State of the automaton; 0 is its root.
    pub state: u32,
    /// [`Progress::era_of`] the latest knock that counted.
    pub era: u16,
    /// Index of the latest knock in `steps`.
    pub head: u8,
    /// How many of the latest knocks are remembered, so that a duplicate of one is known. 0 with a
    /// state other than the root: the run has completed a sequence.
    pub counted: u8,
    /// The latest knocks, a ring.
    pub steps: [Step; MAX_SEQUENCE],
}

impl Progress {
    /// Nanoseconds of an era, as a power of two: 2^46 ns, 20 hours.
    const ERA_SHIFT: u32 = 46;
    /// A source that was seen so many eras ago, 26 days, is forgotten: the times of its knocks are
    /// about to come round.
    const ERAS: i16 = 32;

    /// Many addresses have the same, and whoever wants to can choose such.
    #[inline(always)]
    pub fn tag_of<A: Address>(source: &A) -> u64 {
        source.fold() ^ u64::from(A::FAMILY) << 56
    }

    #[inline(always)]
    pub const fn era_of(now: u64) -> u16 {
        (now >> Self::ERA_SHIFT) as u16
    }

    #[inline(always)]
    pub fn is_of<A: Address>(&self, source: &A) -> bool {
        // Of one address, the tag tells the family.
        self.tag == Self::tag_of(source) && self.address == source.padded()
    }

    /// [`Address::FAMILY`] of the source; 0: there is none.
    pub fn family(&self) -> u8 {
        ((self.tag ^ self.address.fold()) >> 56) as u8
    }

    /// When the latest knock that counted came, ns of `CLOCK_MONOTONIC`, rounded down as its time is.
    pub fn last(&self) -> u64 {
        let below = Self::ERA_SHIFT - TICK_SHIFT;
        let ticks =
            u64::from(self.era) << below | u64::from(self.step(0).time) & ((1 << below) - 1);
        ticks << TICK_SHIFT
    }

    /// Was it seen too long ago for the times of its knocks to mean anything?
    #[inline(always)]
    pub const fn is_forgotten(&self, now: u64) -> bool {
        // Another CPU may have been there in a later era than this one is in.
        let eras = Self::era_of(now).wrapping_sub(self.era).cast_signed();
        eras >= Self::ERAS
    }

    /// The state, if it is still that of `source`: read before the tag is, which the next owner has
    /// cleared before it changed anything else.
    #[inline(always)]
    pub fn state_of<A: Address>(&self, source: &A) -> Option<u32> {
        // SAFETY: references are aligned and can be read. Volatile, and so in this order, since another
        // CPU may write to them.
        let (state, tag) = unsafe {
            (
                (&raw const self.state).read_volatile(),
                (&raw const self.tag).read_volatile(),
            )
        };
        (tag == Self::tag_of(source)).then_some(state)
    }

    /// Makes it that of a source that has knocked once.
    #[inline(always)]
    pub fn begin<A: Address>(&mut self, source: &A, state: u32, step: Step, now: u64) {
        self.take_from_owner();
        self.address = source.padded();
        self.state = state;
        self.era = Self::era_of(now);
        self.head = 0;
        self.counted = 1;
        // The others are not read before they are written: a state is never deeper than its knocks.
        self.steps[0] = step;
        self.give_to(Self::tag_of(source));
    }

    /// Makes it that of another place's source, with all that is known of it.
    #[inline(always)]
    pub fn take_over(&mut self, other: &Self) {
        // All of it, field by field: whole, it would go by way of the stack.
        let Self {
            tag,
            address,
            state,
            era,
            head,
            counted,
            steps,
        } = other;
        self.take_from_owner();
        self.address = *address;
        self.state = *state;
        self.era = *era;
        self.head = *head;
        self.counted = *counted;
        self.steps = *steps;
        self.give_to(*tag);
    }

    /// From here on it is nobody's. Whoever had it may be knocking on another CPU right now: see
    /// [`state_of`](Self::state_of).
    #[inline(always)]
    fn take_from_owner(&mut self) {
        self.tag = 0;
        compiler_fence(Ordering::SeqCst);
    }

    /// The last that is written: what is found by this tag is this source's.
    #[inline(always)]
    fn give_to(&mut self, tag: u64) {
        compiler_fence(Ordering::SeqCst);
        self.tag = tag;
    }

    /// The run is over, and nothing goes on from it.
    #[inline(always)]
    pub const fn reset(&mut self) {
        self.state = 0;
        self.counted = 0;
    }

    /// Adds a knock that led to `state`. No more than `known` of the latest are remembered from now on.
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

    /// The latest knock has been repeated: what begins with it begins now.
    #[inline(always)]
    pub fn renew(&mut self, time: u32, now: u64) {
        self.era = Self::era_of(now);
        self.steps[self.at(0)].time = time;
    }

    /// Has it completed a sequence with the latest knock?
    #[inline(always)]
    pub const fn is_complete(&self) -> bool {
        self.state != 0 && self.counted == 0
    }

    /// The knock that came so many before the latest.
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
        // It is no more than that, but the verifier doesn't know.
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

// Half of what a step's time can tell apart.
const _: () =
    assert!((Progress::ERAS as u64) << Progress::ERA_SHIFT == 1 << (TICK_SHIFT + u32::BITS - 1));
