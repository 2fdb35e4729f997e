//! [`Memory`] as the kernel has it: maps and atomic instructions.

use knock_common::{
    Memory,
    grant::{Grant, filter, table as grants},
    memory::{GrantMemory, SessionMemory},
    seed::Seed,
    session::{Session, table as sessions},
    set::{Position, Set, set_mask},
};

use crate::{atomic, env::KernelEnv, maps, settings};

impl Memory for KernelEnv {
    #[inline(always)]
    fn seed(&self) -> Seed {
        settings::seed()
    }

    #[inline(always)]
    fn read_after<T: Copy>(&self, cell: &T, read: u64) -> T {
        atomic::read_after(cell, read)
    }

    #[inline(always)]
    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        atomic::compare_exchange(cell, current, new)
    }

    #[inline(always)]
    fn fetch_add(&self, cell: &mut u32) -> u32 {
        atomic::fetch_add(cell, 1)
    }

    #[inline(always)]
    fn fetch_sub(&self, cell: &mut u32) -> u32 {
        atomic::fetch_sub(cell)
    }
}

impl GrantMemory for KernelEnv {
    #[inline(always)]
    fn grant_filter(&self, index: u32) -> Option<&mut u64> {
        let mask = filter::mask(settings::grant_slot_mask());
        let word = maps::GRANT_FILTER.get_ptr_mut(index & mask)?;
        // SAFETY: an aligned word of an array entry, which is there for good. Others change it by atomic
        // instructions only.
        Some(unsafe { &mut *word })
    }

    #[inline(always)]
    fn grant_set(&self, index: u32) -> Option<&mut Set> {
        let set = maps::GRANT_SET.get_ptr_mut(index & set_mask(self.grant_slot_mask()))?;
        // SAFETY: as above.
        Some(unsafe { &mut *set })
    }

    #[inline(always)]
    fn grant_slot_mask(&self) -> u32 {
        settings::grant_slot_mask()
    }

    #[inline(always)]
    fn grant(&self, slot: u32) -> Option<&mut Grant> {
        let grant = maps::GRANT.get_ptr_mut(slot)?;
        // SAFETY: an array entry is there for good; see `grant::table` for how it is shared with other CPUs.
        Some(unsafe { &mut *grant })
    }

    #[inline(always)]
    fn link_grant(&self, position: Position, slot: u32) -> bool {
        link_grant(position.to_bits(), slot) != 0
    }

    #[inline(always)]
    fn unlink_grant(&self, position: Position, slot: u32) {
        unlink_grant(position.to_bits(), slot);
    }

    #[inline(always)]
    fn search_grant(&self, position: Position, tag: u64, but: u32) -> u32 {
        search_grant(position.to_bits(), tag, but)
    }
}

impl SessionMemory for KernelEnv {
    #[inline(always)]
    fn session_rows(&self) -> u32 {
        settings::session_rows()
    }

    #[inline(always)]
    fn session_row(&self, index: u32) -> Option<&mut u64> {
        let word = maps::SESSION_ROW.get_ptr_mut(index)?;
        // SAFETY: as in `grant_filter`.
        Some(unsafe { &mut *word })
    }

    #[inline(always)]
    fn session_set(&self, index: u32) -> Option<&mut Set> {
        let set = maps::SESSION_SET.get_ptr_mut(index & set_mask(self.session_slot_mask()))?;
        // SAFETY: as in `grant_filter`.
        Some(unsafe { &mut *set })
    }

    #[inline(always)]
    fn session_slot_mask(&self) -> u32 {
        settings::session_slot_mask()
    }

    #[inline(always)]
    fn session(&self, slot: u32) -> Option<&mut Session> {
        let session = maps::SESSION.get_ptr_mut(slot)?;
        // SAFETY: an array entry is there for good; see `session::table` for how it is shared with other CPUs.
        Some(unsafe { &mut *session })
    }

    #[inline(always)]
    fn session_count(&self, holder: u16) -> Option<&mut u32> {
        let held = maps::SESSION_COUNT.get_ptr_mut(u32::from(holder))?;
        // SAFETY: as in `grant_filter`.
        Some(unsafe { &mut (*held).slots })
    }

    #[inline(always)]
    fn link_session(&self, position: Position, slot: u32) -> bool {
        link_session(position.to_bits(), slot) != 0
    }

    #[inline(always)]
    fn unlink_session(&self, position: Position, slot: u32) {
        unlink_session(position.to_bits(), slot);
    }

    #[inline(always)]
    fn search_session(&self, position: Position, tag: u64, but: u32) -> u32 {
        search_session(position.to_bits(), tag, but)
    }

    #[inline(always)]
    fn take_free_session(&self, choice: u32) -> u32 {
        take_free_session(choice)
    }
}

/// [`grants::link`].
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers
/// (since Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn link_grant(position: u64, slot: u32) -> u32 {
    let position = Position::from_bits(position);
    u32::from(grants::link(&KernelEnv::WITHOUT_PACKET, position, slot))
}

/// [`grants::unlink`]; exported for the reason given at [`link_grant`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unlink_grant(position: u64, slot: u32) -> u32 {
    let position = Position::from_bits(position);
    grants::unlink(&KernelEnv::WITHOUT_PACKET, position, slot);
    0
}

/// [`grants::search`]; exported for the reason given at [`link_grant`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_grant(position: u64, tag: u64, but: u32) -> u32 {
    let position = Position::from_bits(position);
    grants::search(&KernelEnv::WITHOUT_PACKET, position, tag, but)
}

/// [`sessions::link`]; exported for the reason given at [`link_grant`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn link_session(position: u64, slot: u32) -> u32 {
    let position = Position::from_bits(position);
    u32::from(sessions::link(&KernelEnv::WITHOUT_PACKET, position, slot))
}

/// [`sessions::unlink`]; exported for the reason given at [`link_grant`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unlink_session(position: u64, slot: u32) -> u32 {
    let position = Position::from_bits(position);
    sessions::unlink(&KernelEnv::WITHOUT_PACKET, position, slot);
    0
}

/// [`sessions::search`]; exported for the reason given at [`link_grant`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_session(position: u64, tag: u64, but: u32) -> u32 {
    let position = Position::from_bits(position);
    sessions::search(&KernelEnv::WITHOUT_PACKET, position, tag, but)
}

/// [`sessions::take_free`]; exported for the reason given at [`link_grant`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_free_session(choice: u32) -> u32 {
    sessions::take_free(&KernelEnv::WITHOUT_PACKET, choice)
}
