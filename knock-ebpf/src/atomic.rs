//! Atomic instructions on words of map entries, and reads in order.

#[cfg(target_arch = "bpf")]
mod bpf {
    use core::{
        arch::asm,
        intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd},
    };

    /// Reads a value at an address that depends on `read`, so that no processor reads it before what that is computed from.
    /// (Loads that keep this order by themselves are there since Linux 6.15 only.)
    #[inline(always)]
    pub fn read_after<T: Copy>(cell: &T, read: u64) -> T {
        let mut nothing = read;
        // SAFETY: it changes this register alone, to 0. The compiler does not know that it is 0, and the verifier does.
        unsafe { asm!("{0} &= 0", inout(reg) nothing, options(pure, nomem, nostack)) };
        // SAFETY: 0 bytes on, which is the value itself.
        unsafe {
            (&raw const *cell)
                .byte_add(nothing as usize)
                .read_volatile()
        }
    }

    #[inline(always)]
    pub fn compare_exchange(cell: &mut u64, current: u64, new: u64) -> bool {
        // SAFETY: an aligned word in a map entry. Compiles to BPF_CMPXCHG, since Linux 5.12.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(cell, current, new).1 }
    }

    #[inline(always)]
    pub fn fetch_add(cell: &mut u32, by: u32) -> u32 {
        // SAFETY: as above; BPF_FETCH | BPF_ADD, since Linux 5.12.
        unsafe { atomic_xadd::<u32, u32, { SeqCst }>(cell, by) }
    }

    #[inline(always)]
    pub fn fetch_sub(cell: &mut u32) -> u32 {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u32, u32, { SeqCst }>(cell, u32::MAX) }
    }
}

/// So that the crate can be checked on the host; nothing there runs it.
#[cfg(not(target_arch = "bpf"))]
mod bpf {
    pub const fn read_after<T: Copy>(cell: &T, _: u64) -> T {
        *cell
    }

    pub fn compare_exchange(cell: &mut u64, current: u64, new: u64) -> bool {
        let equal = *cell == current;
        if equal {
            *cell = new;
        }
        equal
    }

    pub fn fetch_add(cell: &mut u32, by: u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_add(by);
        before
    }

    pub fn fetch_sub(cell: &mut u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_sub(1);
        before
    }
}

pub use bpf::{compare_exchange, fetch_add, fetch_sub, read_after};
