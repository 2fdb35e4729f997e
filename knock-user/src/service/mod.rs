//! What `run` does beside the kernel: it reads the kernel's reports, notices grants that end, serves events and
//! metrics, runs hooks, keeps the list of open ports fresh, and attaches the program again to an interface that has lost it. Gates
//! open and close without it.

mod alerts;
mod claim;
mod complaint;
mod failures;
pub mod fleet;
mod fwknop;
mod guard;
mod hooks;
mod kept;
#[cfg(feature = "log")]
mod kernel_log;
mod keys;
mod log;
mod manager;
mod memory;
mod metrics;
pub mod names;
mod own_file;
mod packets;
mod patience;
mod reader;
mod record;
mod reload;
mod serving;
mod socket;
mod watch;
mod work;

pub use claim::{Claim, Served};
pub use reader::each_event;
pub use record::Record;
pub use socket::{FleetLink, History, fleet_link, is_served};

use std::{io, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use sd_notify::NotifyState;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep_until},
};

use crate::datapath::{Datapath, PinRoot, Up, down};
use guard::Seen;
use log::Taken;
use manager::{Pulse, notify};
use reload::Load;
use work::Work;

/// How often lost events are counted and open ports are read again.
const CHORES: Duration = Duration::from_secs(2);

/// The signals that the service acts on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Keeps them for [`serve`] from now on. To be called before anything is brought up: what a signal ends by its default
    /// action takes nothing down again. Panics outside an event loop.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Serves `root`, which this process has claimed, until SIGTERM or SIGINT. `up`: how the datapath came up. `file`: the configuration, which `load` reads again on
/// SIGHUP. `down_on_exit`: takes it down at the end.
pub async fn serve(
    mut signals: Signals,
    datapath: Datapath,
    root: &PinRoot,
    up: &Up,
    file: &Path,
    load: Load<'_>,
    down_on_exit: bool,
) -> Result<()> {
    let socket = socket::Listener::bind(root)?;
    // A command that has found no service to read from reads the ring under the lock, and may not have ended.
    let (datapath, events) = {
        let _lock = root.lock_existing()?;
        // Meanwhile a command may have replaced what has come up.
        let datapath = datapath.reopened()?.unwrap_or(datapath);
        let events = datapath.events()?;
        (datapath, events)
    };
    // SAFETY: the ring owns its descriptor and keeps it until it is dropped; nothing replaces it.
    let mut ring = unsafe { AsyncFd::register(events) }.context("cannot wait for events")?;
    let mut work = Work::new(root, datapath, up, file, |log, datapath, watch| {
        while log.take(ring.get_mut(), datapath, watch, true, None) != Taken::All {}
    })?;
    #[cfg(feature = "log")]
    kernel_log::follow(&work.datapath)?;
    let mut served = until_ended(&mut signals, &socket, &mut ring, &mut work, load).await;
    if let Ok(Ended::Asked) = served {
        notify(&[NotifyState::Stopping]);
        work.keep_keys();
        if down_on_exit {
            match down(root, &[]) {
                Ok(_) => work.say_down(ring.get_mut()),
                Err(error) => served = Err(error),
            }
        }
    }
    work.take_last(ring.get_mut());
    work.finish().await;
    served.map(drop)
}

/// Why the service ends.
enum Ended {
    /// By a signal.
    Asked,
    /// Nothing is left to serve.
    Down,
}

async fn until_ended(
    signals: &mut Signals,
    socket: &socket::Listener,
    ring: &mut AsyncFd<RingBuf<MapData>>,
    work: &mut Work<'_>,
    load: Load<'_>,
) -> Result<Ended> {
    work.begin()?;
    tracing::info!("serving; the gates stay up when this ends");
    let mut chores = interval(CHORES);
    chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pulse = Pulse::new();
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(Ended::Asked),
            _ = signals.interrupt.recv() => return Ok(Ended::Asked),
            _ = signals.hangup.recv() => {
                work.reload(load);
                work.guard.look_now();
            }
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                // The kernel wakes only a reader that had read everything.
                if work.take(ready.get_inner_mut()) {
                    ready.clear_ready();
                }
            }
            () = sleep_until(work.next_look_at_grants) => {
                work.take(ring.get_mut());
                work.look_at_grants()?;
            }
            _ = chores.tick() => work.do_chores()?,
            due = work.guard.is_due() => {
                // By the names of the configuration that may have been replaced.
                work.take(ring.get_mut());
                if work.look_at_interfaces(due)? == Seen::Down {
                    work.say_down(ring.get_mut());
                    tracing::info!("knockgate has been taken down: nothing is left to serve");
                    return Ok(Ended::Down);
                }
            }
            said = work.gatekeeper.event(), if !work.is_waiting() => {
                work.hear(said, ring.get_mut());
            }
            said = work.member.event(), if !work.is_waiting() => {
                work.hear(said, ring.get_mut());
            }
            reader = socket.accept() => work.log.serve(reader),
            failed = work.log.hook_ended() => {
                if let Some(failed) = failed {
                    work.log.say(failed);
                }
            }
            () = pulse.beat() => notify(&[NotifyState::Watchdog]),
        }
    }
}
