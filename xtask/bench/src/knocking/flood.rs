//! Floods of forged packets, from one core.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use netlab::socket::PacketSocket;

use super::send;
use crate::{
    clock,
    frame::readdress,
    host::Wire,
    programs::{Programs, Traffic},
};

/// The rate of a flood, packets a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    None,
    PerSecond(u32),
    /// As many as one core sends from within the kernel.
    Fastest,
}

/// A packet that is sent from constantly changing sources.
#[derive(Debug, Clone)]
pub struct Junk {
    pub frame: Vec<u8>,
    /// Number of sources.
    pub sources: u32,
    /// The ports to which a source sends in its turn: the first `steps` of these. At a given rate, the frame's alone.
    pub ports: [u16; 4],
    pub steps: u32,
}

/// What was sent, and in which time.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub packets: u64,
    pub elapsed: Duration,
}

/// The first forged source.
const FORGED: u32 = 0x3000_0000;
/// Number of forged sources: more than any table here holds.
const SOURCES: u32 = 1 << 22;

impl Rate {
    /// Returns its name.
    pub fn name(self) -> String {
        match self {
            Self::None => "no flood".into(),
            Self::PerSecond(rate) => format!("{} k/s", rate / 1_000),
            Self::Fastest => "fastest flood".into(),
        }
    }
}

impl Junk {
    /// Returns that of a frame to this port, from more sources than any table here holds.
    pub fn to(frame: Vec<u8>, port: u16) -> Self {
        Self {
            frame,
            sources: SOURCES,
            ports: [port; 4],
            steps: 1,
        }
    }
}

impl Sent {
    /// Returns the rate, packets a second.
    pub fn rate(self) -> f64 {
        clock::number(self.packets) / self.elapsed.as_secs_f64()
    }
}

/// Sends until `stop` is set. Returns the rate, packets a second.
pub fn flood(
    programs: &mut Programs,
    wire: &Wire,
    junk: &Junk,
    rate: Rate,
    stop: &AtomicBool,
) -> Result<f64> {
    send_all(programs, wire, junk, rate, stop).map(Sent::rate)
}

/// Sends until `stop` is set.
pub fn send_all(
    programs: &mut Programs,
    wire: &Wire,
    junk: &Junk,
    rate: Rate,
    stop: &AtomicBool,
) -> Result<Sent> {
    clock::stay()?;
    let begun = Instant::now();
    let packets = match rate {
        Rate::None => 0,
        Rate::PerSecond(rate) => paced(wire, junk, rate, stop)?,
        Rate::Fastest => fastest(programs, wire, junk, stop)?,
    };
    Ok(Sent {
        packets,
        elapsed: begun.elapsed(),
    })
}

fn paced(wire: &Wire, junk: &Junk, rate: u32, stop: &AtomicBool) -> Result<u64> {
    /// How long a sender sleeps between bursts.
    const TICK: Duration = Duration::from_millis(1);
    let socket = PacketSocket::sending(wire.sender)?;
    let mut frame = junk.frame.clone();
    let begun = Instant::now();
    let (mut packet, mut sent) = (0_u32, 0);
    while !stop.load(Ordering::Relaxed) {
        let due = begun.elapsed().as_micros() * u128::from(rate) / 1_000_000;
        while u128::from(packet) < due && !stop.load(Ordering::Relaxed) {
            let port = 1024 + u16::try_from(packet / junk.sources % 0x8000).expect("15 bits");
            readdress(&mut frame, FORGED + packet % junk.sources, port);
            sent += u64::from(send(&socket, &frame)?);
            packet = packet.wrapping_add(1);
        }
        thread::sleep(TICK);
    }
    Ok(sent)
}

fn fastest(programs: &mut Programs, wire: &Wire, junk: &Junk, stop: &AtomicBool) -> Result<u64> {
    /// Packets for each call: the kernel needs some 20 ms before the first packet.
    const CALL: u32 = 500_000;
    let mut traffic = Traffic {
        interface: wire.sender,
        first: FORGED,
        sources: junk.sources,
        steps: junk.steps,
        ports: junk.ports,
        hold: 22,
        ..Traffic::default()
    };
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        programs.send(&junk.frame, &mut traffic, CALL)?;
        sent += u64::from(CALL);
    }
    Ok(sent)
}
