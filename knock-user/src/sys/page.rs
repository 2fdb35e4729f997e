//! Pages of memory.

/// The size of a page on most machines.
pub const USUAL_SIZE: usize = 4096;

/// Returns the bytes of a page.
pub fn size() -> usize {
    // SAFETY: takes no pointers; an unknown name is answered by an error.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(USUAL_SIZE)
}
