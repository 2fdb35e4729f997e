//! What `run` does beside the kernel: it reads the kernel's reports, notices grants that end, hands
//! events on to whoever asks, and keeps the list of open ports fresh. Nothing of it is needed for a
//! gate to open or close.

#[cfg(feature = "log")]
mod kernel_log;
mod log;
mod record;
mod socket;
mod watch;

pub use log::drain;
pub use record::Record;
pub use socket::{History, read_events};

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    config::{OpenPorts, Port},
    gate::{Gate, PinRoot, down, open_ports},
};
use log::Log;
use watch::Watch;

/// How often lost events are looked for and open ports are read again.
const CHORES: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. `brought_up`: the gate was not up before. `down_on_exit`: it is not
/// to be up afterwards.
pub async fn serve(
    mut gate: Gate,
    root: &PinRoot,
    brought_up: bool,
    down_on_exit: bool,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let socket = socket::Listener::bind(root)?;
    let mut log = Log::new(&gate);
    // SAFETY: the ring owns its descriptor and keeps it until it is dropped; nothing replaces it.
    let mut ring =
        unsafe { AsyncFd::register(gate.events()?) }.context("cannot wait for events")?;
    let mut watch = Watch::new(&gate)?;
    let mut open = open_ports(&gate.config)?;
    let mut host = gate.surroundings()?;
    gate.set_surroundings(&host)?;
    let mut chores = interval(CHORES);
    chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_at_grants = Instant::now();

    if brought_up {
        log.say_of_gates("gate.up", &gate);
    }
    #[cfg(feature = "log")]
    kernel_log::follow(&gate)?;
    notify(&[NotifyState::Ready]);
    tracing::info!("serving; the gate stays up when this ends");
    let mut pulse = watchdog();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                // The kernel wakes only who had read everything.
                if log.take(ready.get_inner_mut(), &gate) {
                    ready.clear_ready();
                }
            }
            () = sleep_until(look_at_grants) => {
                let started = Instant::now();
                watch.look(&gate, &mut log)?;
                // A table so large that looking takes long is looked at less often.
                look_at_grants = started + watch.pause().max(started.elapsed() * 20);
            }
            _ = chores.tick() => {
                if !gate.is_up() {
                    log.say_of_gates("gate.down", &gate);
                    tracing::info!("the gate has been taken down: nothing is left to serve");
                    log.finish().await;
                    return Ok(());
                }
                log.report_lost(gate.lost()?);
                refresh(&mut gate, &mut open)?;
                let now = gate.surroundings()?;
                if now != host {
                    gate.set_surroundings(&now)?;
                    host = now;
                }
            }
            reader = socket.accept() => log.serve(reader?),
            () = pulse.beat() => notify(&[NotifyState::Watchdog]),
        }
    }
    notify(&[NotifyState::Stopping]);
    if down_on_exit {
        down(root, &[])?;
        log.say_of_gates("gate.down", &gate);
    }
    log.finish().await;
    Ok(())
}

/// Reads again which ports the host listens on, where that decides what is open.
fn refresh(gate: &mut Gate, open: &mut BTreeSet<Port>) -> Result<()> {
    if gate.config.open_ports == OpenPorts::Auto {
        let now = open_ports(&gate.config)?;
        if now != *open {
            gate.set_open_ports(open, &now)?;
            *open = now;
        }
    }
    Ok(())
}

/// Tells systemd, if it started us. That it isn't there is no error.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify the service manager: {error}");
    }
}

/// systemd's watchdog, fed at half its time; never due where there is none.
struct Pulse(Option<tokio::time::Interval>);

fn watchdog() -> Pulse {
    Pulse(sd_notify::watchdog_enabled().map(|limit| interval(limit / 2)))
}

impl Pulse {
    async fn beat(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}
