//! Numbers of which the compiler knows nothing.

/// Returns the number unchanged. The compiler can no longer specialise code for particular values of it.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn opaque(mut number: u32) -> u32 {
    // SAFETY: adds 0 to this register alone. An instruction is needed: without one, the debug information would have two lines for
    // the next, which the kernel refuses.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// So that the crate can be checked on the host; nothing there runs it.
#[cfg(not(target_arch = "bpf"))]
pub const fn opaque(number: u32) -> u32 {
    number
}
