//! Stopping this process as a shell's Ctrl-Z does.

use std::{io, mem, process, ptr};

/// Stops this process until it is told to go on (SIGCONT). Where there is no shell that could tell it, the kernel ignores
/// the signal and this returns at once.
pub fn stop() -> io::Result<()> {
    let pid = process::id().cast_signed();
    // SAFETY: all zeros is a valid `sigaction`, with SIG_DFL as its handler and no flags. The calls read and write the
    // structures given and nothing else; `kill` sends to this process. The handler that was there is put back.
    unsafe {
        let default: libc::sigaction = mem::zeroed();
        let mut before: libc::sigaction = mem::zeroed();
        if libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        let sent = libc::kill(pid, libc::SIGTSTP);
        let error = io::Error::last_os_error();
        if libc::sigaction(libc::SIGTSTP, &raw const before, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        if sent == 0 { Ok(()) } else { Err(error) }
    }
}
