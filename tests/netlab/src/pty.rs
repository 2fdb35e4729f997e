//! A terminal for programs that need one.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    ptr,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// A pseudo-terminal of 80 columns and 24 lines. What is printed on it is kept.
#[derive(Debug)]
pub struct Terminal {
    own: File,
    /// The end that programs have. Open, so that what is set on it stays.
    other: OwnedFd,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn open() -> io::Result<Self> {
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let (mut own, mut other) = (0, 0);
        // SAFETY: the call writes two descriptors and reads the size; the other pointers may be null.
        let opened = unsafe {
            libc::openpty(
                &raw mut own,
                &raw mut other,
                ptr::null_mut(),
                ptr::null(),
                &raw const size,
            )
        };
        done(opened)?;
        // SAFETY: two new descriptors, which the call above has made and nothing else owns.
        let (own, other) = unsafe { (File::from_raw_fd(own), OwnedFd::from_raw_fd(other)) };
        let printed = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (own.try_clone()?, Arc::clone(&printed));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                to.extend_from_slice(&buffer[..length]);
            }
        });
        Ok(Self {
            own,
            other,
            printed,
        })
    }

    /// Has a command run on this terminal, in a session of its own.
    pub fn attach(&self, command: &mut Command) -> io::Result<()> {
        let end = || self.other.try_clone().map(Stdio::from);
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        // SAFETY: between fork and exec this makes system calls only.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        Ok(())
    }

    pub fn types(&self, text: &str) -> io::Result<()> {
        (&self.own).write_all(text.as_bytes())
    }

    /// Everything that was printed so far, with the sequences that control the terminal.
    pub fn printed(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// Whether lines are edited and keys echoed, as a shell needs it.
    pub fn is_ordinary(&self) -> io::Result<bool> {
        Ok(self.settings()?.c_lflag & ORDINARY == ORDINARY)
    }

    /// Has lines edited and keys echoed, as a shell does when its job stops.
    pub fn becomes_ordinary(&self) -> io::Result<()> {
        let mut settings = self.settings()?;
        settings.c_lflag |= ORDINARY;
        // SAFETY: the call reads the settings.
        let set =
            unsafe { libc::tcsetattr(self.other.as_raw_fd(), libc::TCSANOW, &raw const settings) };
        done(set)
    }

    fn settings(&self) -> io::Result<libc::termios> {
        // SAFETY: all zeros is a valid `termios`, which the call fills or fails.
        unsafe {
            let mut settings: libc::termios = mem::zeroed();
            done(libc::tcgetattr(self.other.as_raw_fd(), &raw mut settings))?;
            Ok(settings)
        }
    }

    /// Ends it, as when the window that it is in is closed.
    pub fn hangs_up(&self) -> io::Result<()> {
        // SAFETY: the call takes no argument.
        let ended = unsafe { libc::ioctl(self.other.as_raw_fd(), libc::TIOCVHANGUP) };
        done(ended)
    }

    /// Gives it another size, which the program on it is told.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the call reads the size.
        let set = unsafe { libc::ioctl(self.own.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        done(set)
    }
}

/// What a terminal does by itself for a shell.
const ORDINARY: libc::tcflag_t = libc::ICANON | libc::ECHO | libc::ISIG;

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
