//! Floods: frames from forged sources, as many as one core can send.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use netlab::{
    packet::{Packet, SYN},
    socket::PacketSocket,
};

use crate::{
    lab::{CLIENT_MAC, Family, HOST_MAC, Lab, Source},
    run::wait_until,
    wire,
};

/// Frames for each system call.
const BATCH: usize = 256;
/// The most frames that a flood sends, however long it lasts.
const MOST: u64 = 50_000_000;

/// The ports that a flood is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    Udp(u16),
    Tcp(u16),
    /// Any port, over both.
    Anywhere,
}

/// A flood that is ready to begin. Every frame has another source.
#[derive(Debug)]
pub struct Flood {
    socket: PacketSocket,
    family: Family,
    aim: Aim,
    /// All of one length.
    frames: Vec<Vec<u8>>,
    random: u64,
    sent: Arc<AtomicU64>,
    worked: Duration,
}

/// Counts the frames that a flood has sent.
#[derive(Clone, Debug)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Waits for `time`, and until so many more frames have been sent, which takes longer on a busy machine.
    #[track_caller]
    pub fn wait(&self, time: Duration, frames: u64) {
        let before = self.0.load(Ordering::Relaxed);
        thread::sleep(time);
        wait_until("the flood goes on", || {
            self.0.load(Ordering::Relaxed) - before >= frames
        });
    }
}

impl Flood {
    pub fn new(lab: &Lab, family: Family, aim: Aim) -> Self {
        let socket = wire::sender(lab);
        let socket = socket.unwrap_or_else(|error| panic!("cannot send raw frames: {error}"));
        let from = (family.address(Source::C), 40_000);
        let frame = |number| {
            let packet = match aim {
                Aim::Udp(port) => Packet::udp(from, (family.host(), port), b""),
                Aim::Tcp(port) => Packet::tcp(from, (family.host(), port), SYN),
                Aim::Anywhere if number % 2 == 0 => Packet::udp(from, (family.host(), 0), b""),
                Aim::Anywhere => Packet::tcp(from, (family.host(), 0), SYN),
            };
            packet.frame(CLIENT_MAC, HOST_MAC)
        };
        Self {
            socket,
            family,
            aim,
            frames: (0..BATCH).map(frame).collect(),
            random: 0x9e37_79b9_7f4a_7c15,
            sent: Arc::default(),
            worked: Duration::ZERO,
        }
    }

    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.sent))
    }

    /// Returns the CPU time of the flood so far, including the processing of its frames by the kernel.
    pub fn cpu_time(&self) -> Duration {
        self.worked
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends while `other` runs. Returns the result of `other`, and how many frames were sent.
    pub fn during<T>(&mut self, other: impl FnOnce() -> T) -> (T, u64) {
        let before = self.sent();
        let stop = AtomicBool::new(false);
        let done = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && self.sent() < MOST {
                    self.send();
                }
                self.worked += thread_cpu_time();
            });
            // The flood must end even if this panics.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(other));
            stop.store(true, Ordering::Relaxed);
            flood.join().expect("a flood goes on until it is stopped");
            done
        });
        match done {
            Ok(done) => (done, self.sent() - before),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Sends one batch. The checksums no longer fit, so that the host soon drops what passes; knockgate checks none.
    fn send(&mut self) {
        self.forge();
        let sent = self.socket.send_many(&self.frames);
        let sent = sent.unwrap_or_else(|error| panic!("cannot flood: {error}"));
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
    }

    /// Gives every frame a new source, and a random port if the flood has none of its own.
    fn forge(&mut self) {
        // Offset and length of the source, offset of the ports.
        let (source, length, ports) = match self.family {
            Family::V4 => (14 + 12, 4, 14 + 20),
            Family::V6 => (14 + 8, 8, 14 + 40),
        };
        for frame in &mut self.frames {
            // Marsaglia's xorshift.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let random = self.random.to_be_bytes();
            frame[source..source + length].copy_from_slice(&random[..length]);
            if self.family == Family::V6 {
                // A global address, outside the networks of every lab.
                frame[source] = 0x20;
            } else if frame[source] == 10 {
                frame[source] = 11;
            }
            if self.aim == Aim::Anywhere {
                frame[ports + 2..ports + 4].copy_from_slice(&random[6..]);
            }
        }
    }
}

/// Returns the CPU time of the calling thread.
fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; each thread has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = Duration::from_secs(time.tv_sec.cast_unsigned());
    seconds + Duration::from_nanos(time.tv_nsec.cast_unsigned())
}
