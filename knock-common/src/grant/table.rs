//! The table of grants: which slot has the grant of a key.
//!
//! [Sets](crate::set) lead from keys to slots. A new grant waits for one line of memory, that of its set, since slots are taken
//! in order. Packets, commands and the service run this same code.
//!
//! - **A slot is given to another key by whoever holds it**, that is, who has set its end to [`HELD`] by compare-and-exchange,
//!   from a time that has passed or from [`FREE`]. The holder unlinks the old key, stores the new one and links it, and sets
//!   the new end last. Each compare-and-exchange is a full barrier on every architecture. A live grant is held only to
//!   be removed. If the slot has since been given to another key with exactly the same end, that grant is held for a moment,
//!   and then gets its end back.
//! - A live grant is renewed by two exchanges: of who has earned it, in which each tenure of the slot has another number, and of
//!   its end.
//! - Whoever looks a key up reads the end before all else and once more after it. If these agree, what was read in between is of one
//!   tenure of the slot, though perhaps half renewed.
//! - A pair that leads to a slot which is held, or has another key, counts as none. So a command or a service that is killed while it
//!   holds a slot keeps nobody out. That slot, its pair and its count in the filter stay as they are until the tables are made anew.
//! - Two CPUs may give the same grant at once. So each looks for the key once more after it has set the end, and whoever
//!   finds it in another slot gives up its own. At least one finds the other's; if both do, both knocks are lost, as they might have
//!   been on the network.

use super::{Earned, FREE, Grant, GrantKey, HELD, filter};
use crate::{
    address::{Address, Padded},
    memory::{GrantMemory, read},
    seed::Seed,
    set::{self, NO_SLOT, Position, Set, Sets},
};

/// The sets of grants.
struct GrantSets<'m, M>(&'m M);

impl<M: GrantMemory> Sets for GrantSets<'_, M> {
    #[inline(always)]
    fn set(&self, index: u32) -> Option<&mut Set> {
        self.0.grant_set(index)
    }

    #[inline(always)]
    fn slot_mask(&self) -> u32 {
        self.0.grant_slot_mask()
    }
}

/// Returns where a key is. `tag`: [`GrantKey::tag`].
#[inline(always)]
fn position(address: Padded, tag: u64, seed: Seed) -> Position {
    // Gate and prefix length.
    Position::of(address, tag >> 32 & 0x00ff_ffff, seed)
}

/// Returns where a key is.
#[inline(always)]
pub fn position_of<A: Address>(key: &GrantKey<A>, seed: Seed) -> Position {
    position(key.address.padded(), key.tag(), seed)
}

/// A grant that has been found, live or not, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub slot: u32,
    /// See [`Grant::until`].
    pub until: u64,
    pub earned: Earned,
}

impl Found {
    /// Returns whether it stays as it is, where it is live and somebody knocks for a grant until `until`, ns of
    /// `CLOCK_MONOTONIC`, from `port`; 0: from any. If not, the knock's own takes its place. `admits_more`: whether it admits
    /// another connection.
    ///
    /// What is made of the two is never more than one of them: not for more ports, for longer, or for more connections than
    /// anybody has asked for.
    #[inline(always)]
    pub const fn stays(self, until: u64, port: u16, admits_more: bool) -> bool {
        let own_port = self.earned.port();
        if own_port == port {
            // A grant that lasts longer is not shortened, nor taken from the one it was given to: it would end with the user of
            // this knock.
            return admits_more && self.until > until;
        }
        // One for any port admits the knock's too, and others come by it.
        admits_more && own_port == 0
    }
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
pub(super) fn expect<M: GrantMemory>(memory: &M, position: Position) {
    memory.grant_set(position.index()).map(|set| set.further());
}

/// Looks a key up.
#[inline(always)]
pub fn find<M: GrantMemory, A: Address>(memory: &M, key: &GrantKey<A>) -> Option<Found> {
    if A::BITS > 32 {
        // A packet of IPv6 can have been read in many ways, and the verifier follows this code for each.
        return find_except(memory, key, NO_SLOT);
    }
    let position = position_of(key, memory.seed());
    let set = memory.grant_set(position.index())?;
    let first = set.find(position, memory.grant_slot_mask(), |_| true);
    if first == NO_SLOT && set.further() == 0 {
        return None;
    }
    let found = at(memory, first, key);
    if found.is_some() {
        return found;
    }
    find_except(memory, key, NO_SLOT)
}

/// Looks a key up in every slot except `but` ([`NO_SLOT`]: in every slot). For code that does not run for each packet: it is
/// slower than [`find`], but takes less of the caller's stack and less work of the verifier.
#[inline(always)]
pub fn find_except<M: GrantMemory, A: Address>(
    memory: &M,
    key: &GrantKey<A>,
    but: u32,
) -> Option<Found> {
    find_at(memory, key, position_of(key, memory.seed()), but)
}

/// As [`find_except`], for callers that know where the key is.
#[inline(always)]
pub(super) fn find_at<M: GrantMemory, A: Address>(
    memory: &M,
    key: &GrantKey<A>,
    position: Position,
    but: u32,
) -> Option<Found> {
    at(memory, memory.search_grant(position, key.tag(), but), key)
}

/// Returns whether a key is in another slot than `but`.
#[inline(always)]
fn is_elsewhere<M: GrantMemory, A: Address>(
    memory: &M,
    key: &GrantKey<A>,
    position: Position,
    but: u32,
) -> bool {
    let Some(set) = memory.grant_set(position.index()) else {
        return false;
    };
    let other = set.find(position, memory.grant_slot_mask(), |slot| slot != but);
    let may_be = other != NO_SLOT || set.further() != 0;
    may_be && find_at(memory, key, position, but).is_some()
}

/// Returns the slot of a grant with this tag, in any set that may lead to it and in any slot but one, or [`NO_SLOT`].
#[inline(always)]
pub fn search<M: GrantMemory>(memory: &M, position: Position, tag: u64, but: u32) -> u32 {
    set::search(&GrantSets(memory), position, |slot| {
        slot != but
            && memory
                .grant(slot)
                .is_some_and(|grant| read(&grant.until) > HELD && read(&grant.tag) == tag)
    })
}

/// Returns the grant in a slot, if it has this key. A fingerprint rarely leads to the slot of another key.
#[inline(always)]
fn at<M: GrantMemory, A: Address>(memory: &M, slot: u32, key: &GrantKey<A>) -> Option<Found> {
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
    // Before any comparison: after one, the compiler could use the key's own words in place of those that were read, and this
    // read would no longer depend on those reads.
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
pub fn take<M: GrantMemory>(memory: &M, slot: u32, now: u64) -> bool {
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
        memory.unlink_grant(position(address, grant.tag, memory.seed()), slot);
    }
    is_taken
}

/// Frees a slot whose grant has ended at `until`, ns of `CLOCK_MONOTONIC`, so that a knock that takes the slot later has no
/// old key to unlink. Does nothing if the slot has another end by now.
pub fn free_ended<M: GrantMemory>(memory: &M, slot: u32, until: u64) {
    let is_so = memory
        .grant(slot)
        .is_some_and(|grant| read(&grant.until) == until);
    if is_so && take(memory, slot, until) {
        free(memory, slot);
    }
}

/// Gives a slot that the caller holds to `key`, until `until`, ns of `CLOCK_MONOTONIC`. Returns false if there is no room, or
/// somebody else has given the same grant at the same time; then the slot is free.
#[inline(always)]
pub fn give<M: GrantMemory, A: Address>(
    memory: &M,
    slot: u32,
    key: &GrantKey<A>,
    until: u64,
    details: Details,
) -> bool {
    let position = position_of(key, memory.seed());
    give_at(memory, slot, key, position, until, details)
}

/// As [`give`], for callers that know where the key is.
#[inline(always)]
pub(super) fn give_at<M: GrantMemory, A: Address>(
    memory: &M,
    slot: u32,
    key: &GrantKey<A>,
    position: Position,
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
    if !memory.link_grant(position, slot) {
        free(memory, slot);
        return false;
    }
    set_end(memory, slot, until);
    if !is_elsewhere(memory, key, position, slot) {
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
pub fn free<M: GrantMemory>(memory: &M, slot: u32) {
    set_end(memory, slot, FREE);
}

/// Takes the slot of a grant that was found, to [`give`] it to the same key once more or to [`free`] it. Returns false if it is not as
/// it was found any more.
#[inline(always)]
pub fn retake<M: GrantMemory, A: Address>(memory: &M, key: &GrantKey<A>, found: Found) -> bool {
    let is_held = hold(memory, found.slot, key, found.until);
    if is_held {
        memory.unlink_grant(position_of(key, memory.seed()), found.slot);
    }
    is_held
}

/// Changes a grant that was found live, and its end to `until`, ns of `CLOCK_MONOTONIC`. Returns false if it is not as it was found
/// any more.
#[inline(always)]
pub fn renew<M: GrantMemory>(memory: &M, found: Found, until: u64, details: Details) -> bool {
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
pub(super) fn end<M: GrantMemory>(memory: &M, found: Found, now: u64) {
    set_end_of(memory, found, now, u64::MAX);
}

/// Sets the end of a live grant that was found. Returns false if it has another end by now, or these `bits` of who has earned it are
/// others.
#[inline(always)]
fn set_end_of<M: GrantMemory>(memory: &M, found: Found, until: u64, bits: u64) -> bool {
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
pub fn remove<M: GrantMemory, A: Address>(memory: &M, key: &GrantKey<A>) -> bool {
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
fn hold<M: GrantMemory, A: Address>(memory: &M, slot: u32, key: &GrantKey<A>, until: u64) -> bool {
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
fn set_end<M: GrantMemory>(memory: &M, slot: u32, until: u64) {
    if let Some(grant) = memory.grant(slot) {
        memory.compare_exchange(&mut grant.until, HELD, until);
    }
}

/// Makes a key lead to a slot, which the caller holds. Returns false if there is no room.
#[inline(always)]
pub fn link<M: GrantMemory>(memory: &M, position: Position, slot: u32) -> bool {
    if !filter::count_in(memory, position) {
        return false;
    }
    let is_linked = set::link(&GrantSets(memory), memory, position, slot);
    if !is_linked {
        filter::count_out(memory, position);
    }
    is_linked
}

/// Undoes [`link`].
#[inline(always)]
pub fn unlink<M: GrantMemory>(memory: &M, position: Position, slot: u32) {
    // Nothing has used set and word for a long time: read now, both come from memory at once.
    memory.grant_filter(position.index()).map(|word| read(word));
    set::unlink(&GrantSets(memory), memory, position, slot);
    filter::count_out(memory, position);
}

#[cfg(test)]
mod tests;
