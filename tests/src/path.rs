//! A network path with latency and jitter: every frame has a delay of its own, so frames may overtake each other.
//!
//! Not every kernel has netem, so the path is a thread that carries frames between two TAP devices.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use netlab::Netns;

use crate::{oracle::random::Random, tun};

/// How often the thread checks whether it should end, ms.
const TICK: i32 = 50;
/// Room for a frame, bytes; more than the default MTU needs.
const LONGEST: usize = 4096;

/// The delay of a frame: `delay`, plus or minus up to `jitter`, as in netem.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub delay: Duration,
    pub jitter: Duration,
}

/// When a frame is due, its number, the index of its device, its bytes.
type Frame = (Instant, u64, usize, Vec<u8>);

/// Carries frames between two devices. Dropping it removes the devices.
#[derive(Debug)]
pub struct Path {
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Path {
    /// Makes the two devices.
    pub fn join(ends: [(&Netns, &str); 2], latency: Latency) -> Self {
        let devices = ends.map(|(netns, name)| {
            netns
                .run(|| tun::device(name, libc::IFF_TAP | libc::IFF_NO_PI))
                .unwrap_or_else(|error| panic!("cannot make the TAP device {name}: {error}"))
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let carrier = thread::spawn(move || carry(devices, latency, &stopped));
        Self {
            stop,
            carrier: Some(carrier),
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            // Its panic has been printed already, and another panic may be unwinding.
            let _ = carrier.join();
        }
    }
}

fn carry(mut devices: [File; 2], latency: Latency, stop: &AtomicBool) {
    let mut random = Random::seeded(Random::fresh_seed());
    let mut on_the_way: BinaryHeap<Reverse<Frame>> = BinaryHeap::new();
    let mut number = 0_u64;
    let mut buffer = [0; LONGEST];
    while !stop.load(Ordering::Relaxed) {
        let next = on_the_way.peek().map(|Reverse((due, ..))| *due);
        wait(&devices, next);
        for from in [0, 1] {
            while let Some(length) = received(&mut devices[from], &mut buffer) {
                let due = Instant::now() + drawn(latency, random.number());
                number += 1;
                let frame = buffer[..length].to_vec();
                on_the_way.push(Reverse((due, number, 1 - from, frame)));
            }
        }
        while let Some(Reverse((due, ..))) = on_the_way.peek()
            && *due <= Instant::now()
            && let Some(Reverse((_, _, to, frame))) = on_the_way.pop()
        {
            // A device that is down loses frames, as a cable would.
            let _ = devices[to].write(&frame);
        }
    }
}

fn drawn(latency: Latency, number: u64) -> Duration {
    let range = 2 * u64::try_from(latency.jitter.as_micros()).expect("below an hour") + 1;
    let shortest = latency.delay.saturating_sub(latency.jitter);
    shortest + Duration::from_micros(number % range)
}

fn received(device: &mut File, buffer: &mut [u8]) -> Option<usize> {
    match device.read(buffer) {
        Ok(length) => Some(length),
        // EIO: not up yet.
        Err(error)
            if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EIO) =>
        {
            None
        }
        Err(error) => panic!("cannot read a frame: {error}"),
    }
}

/// Waits until a frame arrives, the next one is due, or a tick has passed.
fn wait(devices: &[File; 2], next: Option<Instant>) {
    let of = |device: &File| libc::pollfd {
        fd: device.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled = [of(&devices[0]), of(&devices[1])];
    let left = next.map_or(TICK, |due| {
        let left = due.saturating_duration_since(Instant::now()).as_millis();
        i32::try_from(left).unwrap_or(TICK).min(TICK)
    });
    // SAFETY: the kernel reads and writes the two entries, which live through the call.
    unsafe { libc::poll(polled.as_mut_ptr(), 2, left) };
}
