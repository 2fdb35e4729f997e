//! Standard output that can be closed: a reader must see that the peer has ended while input still goes out.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Stdout, stdout};

pub(super) struct Output(Stdout);

impl Output {
    pub(super) fn new() -> Self {
        Self(stdout())
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(context))?;
        Poll::Ready(close())
    }
}

/// Puts `/dev/null` in the place of standard output, so that no other file gets its number.
fn close() -> io::Result<()> {
    let nothing = OpenOptions::new().write(true).open("/dev/null")?;
    // SAFETY: neither call takes pointers; both descriptors are open, and nothing owns standard output's.
    // A socket may be standard input too, and then stays open for that; for anything else this fails.
    unsafe { libc::shutdown(libc::STDOUT_FILENO, libc::SHUT_WR) };
    // SAFETY: as above.
    if unsafe { libc::dup2(nothing.as_raw_fd(), libc::STDOUT_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
