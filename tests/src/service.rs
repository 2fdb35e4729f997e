//! Real services for a gate to stand in front of: they send back what they are sent.

use std::{
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    net::{Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// How often a service looks whether it should end.
const TICK: Duration = Duration::from_millis(50);

/// A service that answers on every address of its namespace, over both families, until dropped.
#[derive(Debug)]
pub struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Echoes every connection.
    pub fn tcp(netns: &Netns, port: u16) -> Self {
        let socket = listening(netns, port, Type::STREAM, Protocol::TCP);
        Self::start(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((connection, _)) = socket.accept() {
                    let stop = Arc::clone(stop);
                    thread::spawn(move || echo(connection.into(), &stop));
                }
            }
        })
    }

    /// Echoes every datagram.
    pub fn udp(netns: &Netns, port: u16) -> Self {
        let socket = listening(netns, port, Type::DGRAM, Protocol::UDP);
        Self::start(move |stop| {
            let mut buffer = [MaybeUninit::uninit(); 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    // SAFETY: the kernel has just written the first `length` bytes.
                    let datagram =
                        unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), length) };
                    // A client that has gone by now is its own business.
                    let _ = socket.send_to(datagram, &client);
                }
            }
        })
    }

    fn start(serve: impl FnOnce(&Arc<AtomicBool>) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        Self {
            stop,
            thread: Some(thread::spawn(move || serve(&seen))),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed, and this may run while another one unwinds.
            let _ = thread.join();
        }
    }
}

fn listening(netns: &Netns, port: u16, kind: Type, protocol: Protocol) -> Socket {
    netns
        .run(|| {
            let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.set_read_timeout(Some(TICK))?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            if kind == Type::STREAM {
                socket.listen(128)?;
            }
            std::io::Result::Ok(socket)
        })
        .unwrap_or_else(|error| panic!("can't serve port {port} in {}: {error}", netns.name()))
}

fn echo(mut connection: TcpStream, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    if connection.set_read_timeout(Some(TICK)).is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match connection.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if connection.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
