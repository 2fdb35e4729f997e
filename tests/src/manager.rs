//! The service manager's end of the socket over which the service reports that it is ready.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::wait_until;

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

    /// Waits until the command has said that it is ready.
    pub fn is_told_of_readiness(&self) {
        wait_until("it is ready", || {
            let mut message = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut message) {
                if message[..length]
                    .split(|byte| *byte == b'\n')
                    .any(|line| line == b"READY=1")
                {
                    return true;
                }
            }
            false
        });
    }
}
