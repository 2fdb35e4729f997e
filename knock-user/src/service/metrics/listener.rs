//! Where the metrics are handed out: a TCP address or a Unix socket.

use std::{
    fs, io,
    net::{self, SocketAddr},
    os::unix::{
        self,
        fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

use crate::{config::Listen, service::own_file::OwnFile, sys::unix_socket};

/// Of a Unix socket: its owner and its group may connect.
const MODE: u32 = 0o660;

/// A connection of a client.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A socket that listens, not yet part of an event loop.
pub enum Listener {
    Tcp(net::TcpListener),
    Unix(unix::net::UnixListener, OwnFile),
}

/// The same in an event loop.
pub enum Accepting {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        _file: OwnFile,
    },
}

impl Listener {
    /// Listens. What fails says what to do.
    pub fn bind(listen: &Listen) -> Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = bind_tcp(*address)
                    .with_context(|| format!("cannot serve metrics on {address}"))?;
                Ok(Self::Tcp(listener))
            }
            Listen::Unix(path) => {
                let (listener, file) =
                    bind_unix(path).with_context(|| format!("cannot serve metrics on {listen}"))?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    /// Enters the event loop that this is called in.
    pub fn register(self) -> io::Result<Accepting> {
        Ok(match self {
            Self::Tcp(listener) => Accepting::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener, file) => Accepting::Unix {
                listener: UnixListener::from_std(listener)?,
                _file: file,
            },
        })
    }
}

impl Accepting {
    /// Waits for the next client.
    pub async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix { listener, .. } => Box::new(listener.accept().await?.0),
        })
    }
}

fn bind_tcp(address: SocketAddr) -> Result<net::TcpListener> {
    match net::TcpListener::bind(address) {
        Ok(listener) => {
            listener.set_nonblocking(true)?;
            Ok(listener)
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "another program listens on port {} (`ss -ltnp` names it); change `listen` of [metrics]",
            address.port()
        ),
        Err(error) => Err(error.into()),
    }
}

fn bind_unix(path: &Path) -> Result<(unix::net::UnixListener, OwnFile)> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            bail!("the file exists and is no socket; remove it, or change `listen` of [metrics]")
        }
        Ok(_) if unix_socket::is_listened_at(path) == Some(true) => {
            bail!("another program listens there; change `listen` of [metrics]")
        }
        // Left behind by a service that was killed.
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let listener = unix::net::UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok((listener, OwnFile::at(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_in_one_sentence() {
        let taken = net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error = Listener::bind(&Listen::Tcp(address)).err().expect("taken");
        let (error, port) = (format!("{error:#}"), address.port());
        assert!(
            error.starts_with(&format!(
                "cannot serve metrics on {address}: another program listens on port {port}"
            )),
            "{error}"
        );
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_no_other_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metrics.sock");
        let listen = Listen::Unix(path.clone());
        // Dropped without removing its file, as by a process that is killed.
        drop(unix::net::UnixListener::bind(&path).expect("bound"));
        let first = Listener::bind(&listen).expect("the socket is left behind");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let error = Listener::bind(&listen).err().expect("it is in use");
        assert!(format!("{error:#}").contains("another program listens there"));
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "precious").expect("writable");
        let error = Listener::bind(&listen).err().expect("a file");
        assert!(format!("{error:#}").contains("is no socket"));
        assert_eq!(fs::read_to_string(&path).expect("readable"), "precious");
    }
}
