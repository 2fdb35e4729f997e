//! The table of grants: which slot has the grant of a key.
//!
//! A keyed hash of the key selects a set: one line of the processor's cache with [`WAYS`] pairs of a fingerprint and the index
//! of a slot. So a look-up waits for two lines of memory, takes no lock and calls no function of the kernel, and a new grant
//! waits for one line, since slots are taken in order. Packets, commands and the service run this same code.
//!
//! - **A slot is given to another key by whoever holds it**, that is, who has set its end to [`HELD`] by compare-and-exchange,
//!   from a time that has passed or from [`FREE`]. The holder unlinks the old key, stores the new one and links it, and sets
//!   the new end last. Each compare-and-exchange is a full barrier on every architecture. A live grant is held only to
//!   remove it, or for a moment where it has the very end of one that was to be removed; then it gets its end back.
//! - A live grant is renewed by two exchanges: of who has earned it, in which each tenure of the slot has another number, and of
//!   its end.
//! - Who looks a key up reads the end before all else and once more after it. If these agree, what was read in between is of one
//!   tenure of the slot, though perhaps half renewed.
//! - A pair that leads to a slot which is held, or has another key, counts as none. So a command that is killed while it holds
//!   a slot keeps nobody out. That slot, its pair and its count in the filter stay as they are until the tables are made anew.
//! - Two CPUs may give the same grant at once. So each looks for the key once more after it has set the end, and who
//!   finds it in another slot gives up its own. At least one finds the other's; if both do, both knocks are lost, as they might have
//!   been on the network.
//! - A key whose set is full is in one of the next ones. Its own set counts such keys: before they are linked and until they
//!   have been unlinked. With two grants for each set, which is the most, it is one of 1,400 keys.

use bytemuck::{Pod, Zeroable};

use super::{
    Earned, FREE, Grant, GrantKey, HELD,
    filter::{self, Position},
};
use crate::{
    Memory,
    address::{Address, Padded},
    memory::read,
};

/// Pairs of a set.
pub const WAYS: usize = 7;
/// How many sets, one after the other, a key may be in.
const SETS: u32 = 4;
/// No slot has this index.
pub const NO_SLOT: u32 = u32::MAX;

/// Returns the number of sets for this limit of grants, a power of two: at most two grants for each.
pub const fn sets(grants: usize) -> usize {
    2 * filter::words(grants)
}

/// Places of grants, in one line of the processor's cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Zeroable, Pod)]
pub struct GrantSet {
    /// A fingerprint, and in the lower half the index of a slot; 0: none. Changed by compare-and-exchange alone.
    pub pairs: [u64; WAYS],
    /// How many keys of this set are in one of the next. Changed in the same way.
    pub further: u64,
}

records!(GrantSet: 64 { pairs: 0, further: 56 });

impl GrantSet {
    #[inline(always)]
    fn further(&self) -> u64 {
        read(&self.further)
    }

    /// Returns the slot of the first pair with a fingerprint that `is_wanted`, or [`NO_SLOT`].
    #[inline(always)]
    fn find(&self, position: Position, is_wanted: impl Fn(u32) -> bool) -> u32 {
        for way in 0..WAYS {
            let pair = read(&self.pairs[way]);
            if (pair >> 32) as u32 == position.long_fingerprint() && is_wanted(pair as u32) {
                return pair as u32;
            }
        }
        NO_SLOT
    }

    /// Replaces the first pair that is `before`. Returns false if there is none.
    #[inline(always)]
    fn replace<M: Memory>(&mut self, memory: &M, before: u64, after: u64) -> bool {
        for way in 0..WAYS {
            if read(&self.pairs[way]) == before
                && let Some(pair) = self.pairs.get_mut(way)
                && memory.compare_exchange(pair, before, after)
            {
                return true;
            }
        }
        false
    }
}

impl Position {
    /// Returns the pair that leads to a slot.
    #[inline(always)]
    fn pair(self, slot: u32) -> u64 {
        u64::from(self.long_fingerprint()) << 32 | u64::from(slot)
    }
}

/// A grant that has been found, live or not, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub slot: u32,
    /// See [`Grant::until`].
    pub until: u64,
    pub earned: Earned,
}

/// The bits of [`Earned`] that number the tenures of the slot.
const TENURE: u64 = 0xffff << 48;

/// What a grant says beside its key and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Details {
    /// See [`Earned::user`].
    pub user: u32,
    /// See [`Earned::port`].
    pub port: u16,
    /// See [`Grant::connections`].
    pub connections: u32,
}

impl Details {
    /// Of a grant that begins now.
    #[inline(always)]
    pub const fn new(user: u32, port: u16) -> Self {
        Self {
            user,
            port,
            connections: 0,
        }
    }

    /// Returns who has earned it, in this tenure.
    #[inline(always)]
    fn earned(self, tenure: u64) -> Earned {
        Earned(tenure & TENURE | u64::from(self.port) << 32 | u64::from(self.user))
    }

    /// Stores them in a slot that the caller holds.
    #[inline(always)]
    fn store(self, grant: &mut Grant) {
        grant.earned = self.earned(grant.earned.0.wrapping_add(1 << 48));
        grant.connections = self.connections;
    }
}

/// Reads the set of a key, so that it comes from memory while something else is waited for.
#[inline(always)]
pub(super) fn expect<M: Memory>(memory: &M, position: Position) {
    memory.grant_set(position.index()).map(|set| set.further());
}

/// Looks a key up.
#[inline(always)]
pub fn find<M: Memory, A: Address>(memory: &M, key: &GrantKey<A>) -> Option<Found> {
    let position = Position::of_key(key, memory.seed());
    let set = memory.grant_set(position.index())?;
    let first = set.find(position, |_| true);
    if first == NO_SLOT && set.further() == 0 {
        return None;
    }
    let found = at(memory, first, key);
    if found.is_some() {
        return found;
    }
    at(
        memory,
        memory.search_grant(position, key.tag(), NO_SLOT),
        key,
    )
}

/// Returns whether a key is in another slot than `but`.
#[inline(always)]
fn is_elsewhere<M: Memory, A: Address>(memory: &M, key: &GrantKey<A>, but: u32) -> bool {
    let position = Position::of_key(key, memory.seed());
    let Some(set) = memory.grant_set(position.index()) else {
        return false;
    };
    let may_be = set.find(position, |slot| slot != but) != NO_SLOT || set.further() != 0;
    may_be && {
        let slot = memory.search_grant(position, key.tag(), but);
        at(memory, slot, key).is_some()
    }
}

/// Returns the slot of a grant with this tag, in any set that may lead to it and in any slot but one, or [`NO_SLOT`].
#[inline(always)]
pub fn search<M: Memory>(memory: &M, position: Position, tag: u64, but: u32) -> u32 {
    for ahead in 0..SETS {
        let Some(set) = memory.grant_set(position.index().wrapping_add(ahead)) else {
            break;
        };
        for way in 0..WAYS {
            let pair = read(&set.pairs[way]);
            let slot = pair as u32;
            if (pair >> 32) as u32 == position.long_fingerprint()
                && slot != but
                && let Some(grant) = memory.grant(slot)
                && read(&grant.until) > HELD
                && read(&grant.tag) == tag
            {
                return slot;
            }
        }
        if ahead == 0 && set.further() == 0 {
            break;
        }
    }
    NO_SLOT
}

/// Returns the grant in a slot, if it has this key. Those of others hardly ever have its fingerprint.
#[inline(always)]
fn at<M: Memory, A: Address>(memory: &M, slot: u32, key: &GrantKey<A>) -> Option<Found> {
    let grant = memory.grant(slot)?;
    let until = read(&grant.until);
    let earned = memory.read_after(&grant.earned.0, until);
    let tag = memory.read_after(&grant.tag, until);
    let mut all = earned ^ tag;
    let mut differs = tag ^ key.tag();
    if A::BITS > 32 {
        // The tag does not have all of the address.
        let (first, second) = key.address.padded().words();
        let one = memory.read_after(&grant.address[0], until);
        let other = memory.read_after(&grant.address[1], until);
        all ^= one ^ other;
        differs |= one ^ first | other ^ second;
    }
    // Before anything is compared: what is known to equal the key would not be waited for.
    let again = memory.read_after(&grant.until, all);
    (differs == 0 && again == until && until > HELD).then_some(Found {
        slot,
        until,
        earned: Earned(earned),
    })
}

/// Takes a slot whose grant has ended at `now`, ns of `CLOCK_MONOTONIC`, or that has none. Returns whether the caller holds it
/// now, to [`give`] it to a key or to [`free`] it.
#[inline(always)]
pub fn take<M: Memory>(memory: &M, slot: u32, now: u64) -> bool {
    let Some(grant) = memory.grant(slot) else {
        return false;
    };
    let until = read(&grant.until);
    // A renewal on another CPU and this cannot both succeed.
    let is_taken =
        until != HELD && until <= now && memory.compare_exchange(&mut grant.until, until, HELD);
    if is_taken && until != FREE {
        let [first, second] = grant.address;
        let address = Padded::from_words(first, second);
        memory.unlink_grant(Position::of(address, grant.tag, memory.seed()), slot);
    }
    is_taken
}

/// Gives a slot that the caller holds to `key`, until `until`, ns of `CLOCK_MONOTONIC`. Returns false if there is no room, or
/// somebody else has given the same grant at the same time; then the slot is free.
#[inline(always)]
pub fn give<M: Memory, A: Address>(
    memory: &M,
    slot: u32,
    key: &GrantKey<A>,
    until: u64,
    details: Details,
) -> bool {
    let Some(grant) = memory.grant(slot) else {
        return false;
    };
    let (first, second) = key.address.padded().words();
    grant.tag = key.tag();
    grant.address = [first, second];
    details.store(grant);
    let position = Position::of_key(key, memory.seed());
    if !memory.link_grant(position, slot) {
        free(memory, slot);
        return false;
    }
    set_end(memory, slot, until);
    if !is_elsewhere(memory, key, slot) {
        return true;
    }
    // It may have been renewed meanwhile.
    if let Some(own) = at(memory, slot, key)
        && hold(memory, slot, key, own.until)
    {
        memory.unlink_grant(position, slot);
        free(memory, slot);
    }
    false
}

/// Leaves a slot that the caller holds without a grant.
#[inline(always)]
pub fn free<M: Memory>(memory: &M, slot: u32) {
    set_end(memory, slot, FREE);
}

/// Takes the slot of a grant that was found, to [`give`] it to the same key once more or to [`free`] it. Returns false if it is not as
/// it was found any more.
#[inline(always)]
pub fn retake<M: Memory, A: Address>(memory: &M, key: &GrantKey<A>, found: Found) -> bool {
    let is_held = hold(memory, found.slot, key, found.until);
    if is_held {
        memory.unlink_grant(Position::of_key(key, memory.seed()), found.slot);
    }
    is_held
}

/// Changes a grant that was found live, and its end to `until`, ns of `CLOCK_MONOTONIC`. Returns false if it is not as it was found
/// any more.
#[inline(always)]
pub fn renew<M: Memory>(memory: &M, found: Found, until: u64, details: Details) -> bool {
    let Some(grant) = memory.grant(found.slot) else {
        return false;
    };
    let earned = details.earned(found.earned.0);
    if !memory.compare_exchange(&mut grant.earned.0, found.earned.0, earned.0)
        || !set_end_of(memory, found, until, TENURE)
    {
        return false;
    }
    // If the grant has just been removed, this may count for the next one: who has that can knock again as well.
    grant.connections = details.connections;
    true
}

/// Ends a grant that was found live at `now`, ns of `CLOCK_MONOTONIC`, unless it has been renewed, by whomever. Its key stays in the
/// table.
#[inline(always)]
pub(super) fn end<M: Memory>(memory: &M, found: Found, now: u64) {
    set_end_of(memory, found, now, u64::MAX);
}

/// Sets the end of a live grant that was found. Returns false if it has another end by now, or these `bits` of who has earned it are
/// others.
#[inline(always)]
fn set_end_of<M: Memory>(memory: &M, found: Found, until: u64, bits: u64) -> bool {
    let Some(grant) = memory.grant(found.slot) else {
        return false;
    };
    if !memory.compare_exchange(&mut grant.until, found.until, until) {
        return false;
    }
    let is_its = (read(&grant.earned.0) ^ found.earned.0) & bits == 0;
    if !is_its {
        // Another key has been given the slot meanwhile, or it was renewed, and has the same end.
        memory.compare_exchange(&mut grant.until, until, found.until);
    }
    is_its
}

/// Removes a grant. Returns whether it was there.
pub fn remove<M: Memory, A: Address>(memory: &M, key: &GrantKey<A>) -> bool {
    let mut removed = false;
    while let Some(found) = find(memory, key) {
        // If that fails, it has been renewed or ended.
        if retake(memory, key, found) {
            free(memory, found.slot);
            removed = true;
        }
    }
    removed
}

/// Holds a slot in which `key` was found with this end. Returns false if it has another by now.
#[inline(always)]
fn hold<M: Memory, A: Address>(memory: &M, slot: u32, key: &GrantKey<A>, until: u64) -> bool {
    let Some(grant) = memory.grant(slot) else {
        return false;
    };
    if !memory.compare_exchange(&mut grant.until, until, HELD) {
        return false;
    }
    let (first, second) = key.address.padded().words();
    let is_its = grant.tag == key.tag() && grant.address == [first, second];
    if !is_its {
        // Another key has been given the slot meanwhile, and the same end.
        set_end(memory, slot, until);
    }
    is_its
}

/// Sets the end of a slot that the caller holds.
#[inline(always)]
fn set_end<M: Memory>(memory: &M, slot: u32, until: u64) {
    if let Some(grant) = memory.grant(slot) {
        memory.compare_exchange(&mut grant.until, HELD, until);
    }
}

/// Makes a key lead to a slot, which the caller holds. Returns false if there is no room.
#[inline(always)]
pub fn link<M: Memory>(memory: &M, position: Position, slot: u32) -> bool {
    if !filter::count_in(memory, position) {
        return false;
    }
    let mut counted = false;
    for ahead in 0..SETS {
        let Some(set) = memory.grant_set(position.index().wrapping_add(ahead)) else {
            break;
        };
        if set.replace(memory, 0, position.pair(slot)) {
            return true;
        }
        if ahead == 0 {
            counted = filter::change(memory, &mut set.further, |further| further + 1);
            if !counted {
                break;
            }
        }
    }
    if counted {
        count_out(memory, position);
    }
    filter::count_out(memory, position);
    false
}

/// Undoes [`link`].
#[inline(always)]
pub fn unlink<M: Memory>(memory: &M, position: Position, slot: u32) {
    // Nothing has used set and word for a long time: read now, both come from memory at once.
    memory.grant_filter(position.index()).map(|word| read(word));
    for ahead in 0..SETS {
        let Some(set) = memory.grant_set(position.index().wrapping_add(ahead)) else {
            break;
        };
        if set.replace(memory, position.pair(slot), 0) {
            if ahead != 0 {
                count_out(memory, position);
            }
            break;
        }
        if ahead == 0 && set.further() == 0 {
            break;
        }
    }
    filter::count_out(memory, position);
}

/// Takes a key that is in one of the next sets out of the count of its own.
#[inline(always)]
fn count_out<M: Memory>(memory: &M, position: Position) {
    if let Some(set) = memory.grant_set(position.index()) {
        // If that fails, look-ups go on to the next sets for nothing.
        filter::change(memory, &mut set.further, |further| {
            further.saturating_sub(1)
        });
    }
}

#[cfg(test)]
mod tests;
