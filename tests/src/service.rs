//! Echo services: they send back what they receive.

use std::{
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    net::{Ipv6Addr, SocketAddr, TcpStream},
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use netlab::Netns;
use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted: more than any test makes, so that the kernel drops no SYN because the
/// thread that accepts them does not run.
const BACKLOG: i32 = 4096;

/// How long an echo may take on a busy machine.
const ECHO: Duration = Duration::from_mins(1);
/// How long a test waits for an echo that must not come: more than the time after which lost bytes are sent again.
const SILENCE: Duration = Duration::from_secs(3);

/// How often a service checks whether it should end.
const TICK: Duration = Duration::from_millis(50);

/// Services that answer on every address of a namespace, over both families, until dropped.
#[derive(Debug)]
pub struct Services {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Services {
    /// Echoes connections and datagrams on these ports.
    pub fn start(netns: &Netns, tcp: &[u16], udp: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for &port in tcp {
            let (socket, stop) = (
                listening(netns, port, Type::STREAM, Protocol::TCP),
                Arc::clone(&stop),
            );
            threads.push(thread::spawn(move || serve_tcp(&socket, &stop)));
        }
        for &port in udp {
            let (socket, stop) = (
                listening(netns, port, Type::DGRAM, Protocol::UDP),
                Arc::clone(&stop),
            );
            threads.push(thread::spawn(move || serve_udp(&socket, &stop)));
        }
        Self { stop, threads }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic has been printed already, and another panic may be unwinding.
            let _ = thread.join();
        }
    }
}

fn serve_tcp(socket: &Socket, stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok((connection, _)) = socket.accept() {
            let stop = Arc::clone(stop);
            thread::spawn(move || echo(connection.into(), &stop));
        }
    }
}

fn serve_udp(socket: &Socket, stop: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            // SAFETY: the kernel has just written the first `length` bytes.
            let datagram = unsafe { slice::from_raw_parts(buffer.as_ptr().cast(), length) };
            // The client may have ended meanwhile.
            let _ = socket.send_to(datagram, &client);
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
                socket.listen(BACKLOG)?;
            }
            std::io::Result::Ok(socket)
        })
        .unwrap_or_else(|error| panic!("cannot serve port {port} in {}: {error}", netns.name()))
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
            // Interrupted: by a signal that stops the process and has it go on.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return,
        }
    }
}

/// Sends text over a connection to a service, and returns whether the service sends it back within a minute.
pub fn echoes(stream: &mut TcpStream, text: &[u8]) -> bool {
    echoes_within(ECHO, stream, text)
}

/// Returns whether a connection brings nothing back, as far as can be told in a few seconds.
pub fn is_silent(stream: &mut TcpStream, text: &[u8]) -> bool {
    !echoes_within(SILENCE, stream, text)
}

fn echoes_within(limit: Duration, stream: &mut TcpStream, text: &[u8]) -> bool {
    let begun = Instant::now();
    stream.write_all(text).expect("the connection takes bytes");
    let mut answer = vec![0; text.len()];
    let mut length = 0;
    while length < text.len() {
        let left = limit.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return false;
        }
        stream
            .set_read_timeout(Some(left))
            .expect("a live socket takes a timeout");
        match stream.read(&mut answer[length..]) {
            Ok(0) => return false,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    answer == text
}
