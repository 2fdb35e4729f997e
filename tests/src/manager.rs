//! The service manager's end of the socket over which the service reports how it stands.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::run::{comes_true_within, wait_until};

/// For how long a service with a watchdog of a few seconds may say nothing, on a busy machine.
const SILENCE: Duration = Duration::from_secs(20);

/// The socket, as systemd's for a unit with `Type=notify`.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    /// Listens on a new socket in a folder.
    pub fn listen(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("the temporary folder is writable");
        socket.set_nonblocking(true).expect("a live socket");
        Self { socket, path }
    }

    /// Has a command report to it.
    pub fn hears(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path);
    }

    /// Has a command report to it, within this time again and again.
    pub fn watches(&self, command: &mut Command, limit: Duration) {
        self.hears(command);
        command.env("WATCHDOG_USEC", limit.as_micros().to_string());
    }

    /// Has commands wait with what they report until [`Manager::forget`].
    pub fn stops_reading(&self) {
        let sender = UnixDatagram::unbound().expect("descriptors are left");
        sender.set_nonblocking(true).expect("a live socket");
        let mut queued = 0;
        while sender.send_to(b"STATUS=", &self.path).is_ok() {
            queued += 1;
            assert!(queued < 100_000, "the socket takes whatever is sent");
        }
    }

    /// Waits until the command has said that it is ready.
    pub fn is_told_of_readiness(&self) {
        wait_until("it is ready", || self.first("READY=1").is_some());
    }

    /// Waits for the next message with this line, and returns it; `None`: there was none for twenty seconds.
    pub fn is_told(&self, line: &str) -> Option<String> {
        let mut message = None;
        comes_true_within(SILENCE, || {
            message = self.first(line);
            message.is_some()
        });
        message
    }

    /// Waits for the next status that the command reports, and returns it.
    pub fn is_told_of_a_status(&self) -> String {
        let mut status = None;
        wait_until("it says how it stands", || {
            status = self.first_with(|line| line.starts_with("STATUS="));
            status.is_some()
        });
        status.unwrap_or_default()
    }

    /// Forgets what has been said so far.
    pub fn forget(&self) {
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
    }

    /// Returns the first message that has come with this line, and forgets those before it.
    fn first(&self, line: &str) -> Option<String> {
        self.first_with(|of| of == line)
    }

    fn first_with(&self, is_meant: impl Fn(&str) -> bool) -> Option<String> {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            if message.lines().any(&is_meant) {
                return Some(message.into_owned());
            }
        }
        None
    }
}
