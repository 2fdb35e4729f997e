//! The table of sessions: which slot has the session of a flow.
//!
//! Most flows have a slot in their home [row], and the word of that row leads to it. [Sets](crate::set) lead to the
//! slots of the others, as they do for [grants](crate::grant::table). Packets, commands and the service run this same code.
//!
//! - **A slot is given to another flow by whoever holds it**, that is, who has set its state to [`HELD`](state::HELD) by
//!   compare-and-exchange. It unlinks the old flow, stores the new one and links it, and sets the new [`Tenancy`] last. Each
//!   compare-and-exchange is a full barrier on every architecture.
//! - Whoever looks a flow up reads the tenancy before all else and once more after it. If these agree, everything read in
//!   between belongs to one tenancy.
//! - A slot may be given to another flow after it was found and before the packet has been judged. The packet is still judged
//!   by the session that was found, but what it records is stored in the new session: the time, that a packet other than a SYN
//!   has arrived, the end of the grant, or a FIN. None of these admits a packet that the new session would not admit. After
//!   such a FIN, the new flow passes while the host has a socket for it. Otherwise its session ends, and it passes only under
//!   its grant.
//! - A fingerprint that leads to a slot which is held, or has another flow, counts as none. So a command that is killed while it
//!   holds a slot keeps nobody out. That slot stays as it is until the tables are made anew.
//! - Two CPUs may begin the same session at once. So each looks for the flow once more after it has set the tenancy, and whoever
//!   finds it in another slot ends the one with the higher index. (If three do, two may be left. Both end with the flow.)

use super::{Flow, Session, Tenancy, state};
use crate::{
    Address,
    memory::{SessionMemory, read},
    row::{self, Rows},
    set::{self, NO_SLOT, Position, Set, Sets},
};

/// The sets of sessions.
struct SessionSets<'m, M>(&'m M);

impl<M: SessionMemory> Sets for SessionSets<'_, M> {
    #[inline(always)]
    fn set(&self, index: u32) -> Option<&mut Set> {
        self.0.session_set(index)
    }

    #[inline(always)]
    fn slot_mask(&self) -> u32 {
        self.0.session_slot_mask()
    }
}

/// The rows of sessions.
struct SessionRows<'m, M>(&'m M);

impl<M: SessionMemory> Rows for SessionRows<'_, M> {
    #[inline(always)]
    fn rows(&self) -> u32 {
        self.0.session_rows()
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<&mut u64> {
        self.0.session_row(index)
    }
}

/// A session that has been found.
#[derive(Debug)]
pub struct Found<'m> {
    pub session: &'m mut Session,
    pub slot: u32,
    /// The tenancy in which it was found.
    pub tenancy: Tenancy,
    /// [`Session::last`], as it was in that tenancy.
    pub last: u64,
}

/// Looks a flow up, at whichever gate.
#[inline(always)]
pub fn find<'m, M: SessionMemory, A: Address>(memory: &'m M, flow: &Flow<A>) -> Option<Found<'m>> {
    find_at(memory, flow, None)
}

/// Looks a flow up: if a gate is named, at this one only.
#[inline(always)]
pub fn find_at<'m, M: SessionMemory, A: Address>(
    memory: &'m M,
    flow: &Flow<A>,
    gate: Option<u16>,
) -> Option<Found<'m>> {
    if A::BITS > 32 {
        // A packet of IPv6 can have been read in many ways, and the verifier follows this code for each.
        return find_except(memory, flow, gate, NO_SLOT);
    }
    let position = flow.position(memory.seed());
    let home = row::home(position, memory.session_rows());
    let word = row::word(&SessionRows(memory), home)?;
    let first = row::find(word, home, position)?;
    let found = at(memory, first, flow, gate);
    if found.is_some() {
        return found;
    }
    let slot = memory.search_session(position, flow.tag(), NO_SLOT);
    at(memory, slot, flow, gate)
}

/// As [`find_at`], in every slot except `but` ([`NO_SLOT`]: in every slot). For code that does not run for each packet: it is
/// slower, but takes less of the caller's stack and less work of the verifier.
#[inline(always)]
pub fn find_except<'m, M: SessionMemory, A: Address>(
    memory: &'m M,
    flow: &Flow<A>,
    gate: Option<u16>,
    but: u32,
) -> Option<Found<'m>> {
    let position = flow.position(memory.seed());
    let slot = memory.search_session(position, flow.tag(), but);
    at(memory, slot, flow, gate)
}

/// Returns the session in a slot, if it has this flow, at this gate where one is named. A fingerprint rarely leads to the slot of
/// another flow.
#[inline(always)]
fn at<'m, M: SessionMemory, A: Address>(
    memory: &'m M,
    slot: u32,
    flow: &Flow<A>,
    gate: Option<u16>,
) -> Option<Found<'m>> {
    let session = memory.session(slot)?;
    let tenancy = read(&session.tenancy);
    let first = tenancy.0;
    let ports = memory.read_after(&session.ports, first);
    let (source, source_end) = flow.source.padded().words();
    let (destination, destination_end) = flow.destination.padded().words();
    let last = memory.read_after(&session.last, first);
    let mut differs = u64::from(ports ^ flow.ports.to_bits());
    for (cell, word) in [
        (&session.source[0], source),
        (&session.destination[0], destination),
    ] {
        differs |= memory.read_after(cell, first) ^ word;
    }
    if A::BITS > 32 {
        for (cell, word) in [
            (&session.source[1], source_end),
            (&session.destination[1], destination_end),
        ] {
            differs |= memory.read_after(cell, first) ^ word;
        }
    }
    // Before any comparison: after one, the compiler would know that `differs` is 0, and this read would no longer depend on what
    // was read.
    let again = memory.read_after(&session.tenancy, differs ^ last);
    let is_of_flow = match gate {
        Some(gate) => tenancy.is_at::<A>(flow.protocol, gate),
        None => tenancy.is_of::<A>(flow.protocol),
    };
    let is_its = differs == 0 && again == tenancy && is_of_flow;
    is_its.then_some(Found {
        session,
        slot,
        tenancy,
        last,
    })
}

/// Returns the slot of a session with this [tag](Flow::tag), wherever it may be except in one slot, or [`NO_SLOT`].
#[inline(always)]
pub fn search<M: SessionMemory>(memory: &M, position: Position, tag: u64, but: u32) -> u32 {
    let is_wanted = |slot| {
        slot != but
            && memory
                .session(slot)
                .is_some_and(|session| read(&session.tenancy).is_live() && session.tag() == tag)
    };
    let home = row::home(position, memory.session_rows());
    let Some(word) = row::word(&SessionRows(memory), home) else {
        return NO_SLOT;
    };
    let slot = row::search(word, home, position, is_wanted);
    if slot != NO_SLOT || !row::has_others(word) {
        return slot;
    }
    set::search(&SessionSets(memory), position, is_wanted)
}

/// Takes a free slot in the row of `choice`: that slot itself, if it is free. Returns its index, or [`NO_SLOT`]; then the caller
/// does not hold one.
#[inline(always)]
pub fn take_free<M: SessionMemory>(memory: &M, choice: u32) -> u32 {
    let row = choice / row::SLOTS;
    let Some(word) = row::word(&SessionRows(memory), row) else {
        return NO_SLOT;
    };
    for slot in row::slots(choice) {
        // Somebody else may be faster, or have died while it held the slot.
        if row::is_free(word, slot) && take_ended(memory, slot) {
            return slot;
        }
    }
    NO_SLOT
}

/// Takes a slot without a session. Returns whether the caller holds it now.
#[inline(always)]
pub fn take_ended<M: SessionMemory>(memory: &M, slot: u32) -> bool {
    memory.session(slot).is_some_and(|session| {
        let tenancy = read(&session.tenancy);
        !tenancy.is_live() && take(memory, slot, tenancy)
    })
}

/// Takes a slot that was found in this tenancy: ends the session in it, and no longer counts the slot to its holder. Returns
/// whether the caller holds the slot now, to [`begin`] a session in it.
#[inline(always)]
pub fn take<M: SessionMemory>(memory: &M, slot: u32, tenancy: Tenancy) -> bool {
    if tenancy.state() == state::HELD || !hold(memory, slot, tenancy) {
        return false;
    }
    if tenancy.state() != state::UNUSED
        && let Some(held) = memory.session_count(tenancy.holder())
    {
        memory.fetch_sub(held);
    }
    true
}

/// Holds a slot that was found in this tenancy, and unlinks the flow that has it.
#[inline(always)]
fn hold<M: SessionMemory>(memory: &M, slot: u32, tenancy: Tenancy) -> bool {
    let Some(session) = memory.session(slot) else {
        return false;
    };
    if !memory.compare_exchange(
        &mut session.tenancy.0,
        tenancy.0,
        tenancy.with_state(state::HELD).0,
    ) {
        return false;
    }
    if tenancy.is_live() {
        memory.unlink_session(session.position(tenancy.state(), memory.seed()), slot);
    }
    true
}

/// What a session begins with, beside its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    pub gate: u16,
    /// See [`Session::initial`].
    pub initial: u32,
    /// See [`Session::last`].
    pub last: u64,
    /// See [`Session::granted`].
    pub granted: u32,
    /// See [`Session::ending`].
    pub ending: u32,
}

/// Begins the session of a flow in a slot that the caller holds. `holder`: see [`Tenancy::holder`]. Returns false if the flow
/// cannot be linked; then the slot is unused.
#[inline(always)]
pub fn begin<M: SessionMemory, A: Address>(
    memory: &M,
    slot: u32,
    flow: &Flow<A>,
    holder: u16,
    beginning: &Beginning,
) -> bool {
    let Some(session) = memory.session(slot) else {
        return false;
    };
    let held = session.tenancy;
    session.source = flow.source.padded().words().into();
    session.destination = flow.destination.padded().words().into();
    session.ports = flow.ports.to_bits();
    session.initial = beginning.initial;
    session.last = beginning.last;
    session.granted = beginning.granted;
    session.ending = beginning.ending;
    let position = flow.position(memory.seed());
    if !memory.link_session(position, slot) {
        free(memory, slot);
        return false;
    }
    if let Some(count) = memory.session_count(holder) {
        memory.fetch_add(count);
    }
    let next = held.next::<A>(flow.protocol, beginning.gate, holder);
    memory.compare_exchange(&mut session.tenancy.0, held.0, next.0);
    end_one_of_two(memory, flow, slot);
    true
}

/// Leaves a slot that the caller holds without a session.
#[inline(always)]
pub fn free<M: SessionMemory>(memory: &M, slot: u32) {
    if let Some(session) = memory.session(slot) {
        let held = session.tenancy;
        let unused = held.with_state(state::UNUSED);
        memory.compare_exchange(&mut session.tenancy.0, held.0, unused.0);
    }
}

/// If a flow has a session in a second slot too, ends the one in the slot with the higher index.
#[inline(always)]
fn end_one_of_two<M: SessionMemory, A: Address>(memory: &M, flow: &Flow<A>, slot: u32) {
    if let Some(other) = find_except(memory, flow, None, slot) {
        let last = other.slot.max(slot);
        if let Some(found) = at(memory, last, flow, None) {
            end(memory, last, found.tenancy);
        }
    }
}

/// Ends the session in a slot that was found in this tenancy. Returns false if it has another by now. The slot counts to its
/// holder until it is taken.
#[inline(always)]
pub fn end<M: SessionMemory>(memory: &M, slot: u32, tenancy: Tenancy) -> bool {
    if !tenancy.is_live() || !hold(memory, slot, tenancy) {
        return false;
    }
    if let Some(session) = memory.session(slot) {
        memory.compare_exchange(
            &mut session.tenancy.0,
            tenancy.with_state(state::HELD).0,
            tenancy.with_state(state::ENDED).0,
        );
    }
    true
}

/// Ends the session of a flow. Returns whether there was one.
#[inline(always)]
pub fn remove<M: SessionMemory, A: Address>(memory: &M, flow: &Flow<A>) -> bool {
    /// The most slots that a flow can have: several CPUs may have begun it at once.
    const SLOTS: usize = 2;
    let mut removed = false;
    for _ in 0..SLOTS {
        let Some(found) = find_except(memory, flow, None, NO_SLOT) else {
            break;
        };
        removed |= end(memory, found.slot, found.tenancy);
    }
    removed
}

/// Makes a flow lead to a slot, which the caller holds. Returns false if there is no room.
#[inline(always)]
pub fn link<M: SessionMemory>(memory: &M, position: Position, slot: u32) -> bool {
    let rows = &SessionRows(memory);
    if row::is_home(position, slot, rows.rows()) {
        return row::link(rows, memory, position, slot);
    }
    // Before the session lives, so that no look-up of it stops at the word of its home.
    if !row::count_in(rows, memory, position) {
        return false;
    }
    if set::link(&SessionSets(memory), memory, position, slot) {
        row::lend(rows, memory, slot);
        return true;
    }
    row::count_out(rows, memory, position);
    false
}

/// Undoes [`link`].
#[inline(always)]
pub fn unlink<M: SessionMemory>(memory: &M, position: Position, slot: u32) {
    let rows = &SessionRows(memory);
    row::unlink(rows, memory, slot);
    if !row::is_home(position, slot, rows.rows()) {
        set::unlink(&SessionSets(memory), memory, position, slot);
        row::count_out(rows, memory, position);
    }
}

#[cfg(test)]
mod tests;
