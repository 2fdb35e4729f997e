//! [`Memory`] as the kernel has it: maps and atomic instructions.

use knock_common::{
    Memory,
    grant::{
        Grant,
        filter::Position,
        table::{self, GrantSet},
    },
    seed::Seed,
};

use crate::{atomic, env::KernelEnv, maps, settings};

impl Memory for KernelEnv {
    #[inline(always)]
    fn seed(&self) -> Seed {
        settings::seed()
    }

    #[inline(always)]
    fn grant_filter(&self, index: u32) -> Option<&mut u64> {
        let word = maps::GRANT_FILTER.get_ptr_mut(index & settings::grant_filter_mask())?;
        // SAFETY: an aligned word of an array entry, which is there for good. Others change it by atomic
        // instructions only.
        Some(unsafe { &mut *word })
    }

    #[inline(always)]
    fn grant_set(&self, index: u32) -> Option<&mut GrantSet> {
        let mask = 2 * settings::grant_filter_mask() + 1;
        let set = maps::GRANT_SET.get_ptr_mut(index & mask)?;
        // SAFETY: as above.
        Some(unsafe { &mut *set })
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

    #[inline(always)]
    fn read_after(&self, cell: &u64, read: u64) -> u64 {
        atomic::read_after(cell, read)
    }

    #[inline(always)]
    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        atomic::compare_exchange(cell, current, new)
    }
}

/// [`table::link`].
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers
/// (since Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn link_grant(position: u64, slot: u32) -> u32 {
    let position = Position::from_bits(position);
    u32::from(table::link(&KernelEnv::WITHOUT_PACKET, position, slot))
}

/// [`table::unlink`], as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unlink_grant(position: u64, slot: u32) -> u32 {
    let position = Position::from_bits(position);
    table::unlink(&KernelEnv::WITHOUT_PACKET, position, slot);
    0
}

/// [`table::search`], as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_grant(position: u64, tag: u64, but: u32) -> u32 {
    let position = Position::from_bits(position);
    table::search(&KernelEnv::WITHOUT_PACKET, position, tag, but)
}
