//! What `run` does beside the kernel: it reads the kernel's reports, notices grants that end, serves events and
//! metrics, runs hooks, keeps the list of open ports fresh, and attaches the program again to an interface that has lost it. Gates
//! open and close without it.

mod alerts;
mod failures;
pub mod fleet;
mod fwknop;
mod guard;
mod hooks;
mod kept;
#[cfg(feature = "log")]
mod kernel_log;
mod log;
mod memory;
mod metrics;
pub mod names;
mod packets;
mod reader;
mod record;
mod reload;
mod serving;
mod socket;
mod watch;

pub use reader::each_event;
pub use record::Record;
pub use socket::{FleetLink, History, fleet_link, is_served, refuse_second};

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    config::OpenPorts,
    datapath::{Before, Datapath, PinRoot, Up, down, open_ports},
    sys::capability,
    values::Port,
};
use fleet::Member;
use fwknop::Gatekeeper;
use guard::{Guard, Seen};
use log::Log;
use memory::Memory;
use metrics::Endpoint;
use packets::Packets;
use reload::Load;
use watch::Watch;

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

/// Serves until SIGTERM or SIGINT. `up`: how the datapath came up. `file`: the configuration, which `load` reads again on
/// SIGHUP. `down_on_exit`: takes it down at the end.
pub async fn serve(
    mut signals: Signals,
    mut datapath: Datapath,
    root: &PinRoot,
    up: &Up,
    file: &Path,
    load: Load<'_>,
    down_on_exit: bool,
) -> Result<()> {
    let socket = socket::Listener::bind(root)?;
    let packets = Packets::default();
    let mut member = Member::new(root, &packets);
    let mut log = Log::new(datapath.config(), &member);
    // SAFETY: the ring owns its descriptor and keeps it until it is dropped; nothing replaces it.
    let mut ring =
        unsafe { AsyncFd::register(datapath.events()?) }.context("cannot wait for events")?;
    // Before grants are looked at: an end is said after the beginning.
    while !log.take(ring.get_mut(), &datapath) {}
    let mut watch = Watch::new(&datapath, Memory::of(root), &mut log)?;
    // Where it was up before, the table has the ports of that time, or those of an earlier service.
    let mut open = open_ports(datapath.config())?;
    datapath.set_open_ports(&open)?;
    let mut chores = interval(CHORES);
    chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_at_grants = Instant::now();
    let mut newest_times = Vec::new();

    match up.before {
        Before::Nothing => log.say_of_gates(names::GATE_UP, &datapath),
        Before::Another => log.say(Record::now(names::CONFIG_APPLIED)),
        Before::Same => {}
    }
    let mut guard = Guard::new(root, &mut datapath, up, &mut log)?;
    let mut endpoint = Endpoint::new(root, log.hook_failures(), member.counts());
    endpoint.apply(datapath.config());
    #[cfg(feature = "log")]
    kernel_log::follow(&datapath)?;
    let mut readiness = Readiness::default();
    readiness.tell(&guard);
    // Interfaces, sockets and tables are open; what is done with them from now on needs no more.
    capability::give_up_others()?;
    let mut gatekeeper = Gatekeeper::new(root, file, &packets);
    gatekeeper.apply(datapath.config());
    member.apply(datapath.config());
    tracing::info!("serving; the gates stay up when this ends");
    let mut pulse = watchdog();
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => {
                reload::reload(load, root, &mut log);
                guard.look_now();
            }
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                // The kernel wakes only a reader that had read everything.
                if log.take(ready.get_inner_mut(), &datapath) {
                    ready.clear_ready();
                }
            }
            () = sleep_until(look_at_grants) => {
                let started = Instant::now();
                log.take(ring.get_mut(), &datapath);
                watch.look(&datapath, &mut log)?;
                // A table so large that reading it takes long is read less often.
                look_at_grants = started + watch.pause().max(started.elapsed() * 20);
            }
            _ = chores.tick() => {
                log.report_lost(datapath.lost()?);
                refresh(&mut datapath, &mut open)?;
                keep_keys(&mut datapath, &mut newest_times);
                endpoint.retry();
                gatekeeper.retry();
                member.apply(datapath.config());
            }
            due = guard.is_due() => {
                due?;
                reload::return_from_trial(root);
                if let Some(reopened) = datapath.reopened_unlocked()? {
                    // The ends of grants that are gone, by the names that they had.
                    watch.look(&datapath, &mut log)?;
                    datapath = reopened;
                    log.say(Record::now(names::CONFIG_APPLIED));
                    log.configure(datapath.config());
                    endpoint.apply(datapath.config());
                    gatekeeper.apply(datapath.config());
                    member.apply(datapath.config());
                    open = open_ports(datapath.config())?;
                    datapath.set_open_ports(&open)?;
                    guard.forget_host();
                }
                if guard.look(&mut datapath, &mut log)? == Seen::Down {
                    watch.end_all(&datapath, &mut log);
                    log.say_of_gates(names::GATE_DOWN, &datapath);
                    tracing::info!("knockgate has been taken down: nothing is left to serve");
                    finish(watch, &datapath, log).await;
                    return Ok(());
                }
                readiness.tell(&guard);
            }
            (class, record) = gatekeeper.event() => {
                log.hear(Some(class), record);
                member.openings().look();
            }
            (class, record) = member.event() => log.hear(class, record),
            reader = socket.accept() => log.serve(reader),
            failed = log.hook_ended() => {
                if let Some(failed) = failed {
                    log.say(failed);
                }
            }
            () = pulse.beat() => notify(&[NotifyState::Watchdog]),
        }
    }
    notify(&[NotifyState::Stopping]);
    keep_keys(&mut datapath, &mut newest_times);
    if down_on_exit {
        down(root, &[])?;
        watch.end_all(&datapath, &mut log);
        log.say_of_gates(names::GATE_DOWN, &datapath);
    }
    finish(watch, &datapath, log).await;
    Ok(())
}

/// Lets hooks and readers come to their end, and leaves to the next service what they do not finish.
async fn finish(mut watch: Watch, datapath: &Datapath, mut log: Log) {
    log.finish().await;
    watch.finish(datapath, &log);
}

/// Reads again which ports the host listens on, where that decides what is open.
fn refresh(datapath: &mut Datapath, open: &mut BTreeSet<Port>) -> Result<()> {
    if datapath.config().open_ports == OpenPorts::Auto {
        let now = open_ports(datapath.config())?;
        if now != *open {
            datapath.set_open_ports(&now)?;
            *open = now;
        }
    }
    Ok(())
}

/// Keeps the newest times of keys. What keeps them from being written is reported, and tried again with the next chores.
fn keep_keys(datapath: &mut Datapath, last: &mut Vec<u64>) {
    if let Err(error) = datapath.keep_keys(last) {
        tracing::warn!("{error:#}");
    }
}

/// What the service manager has been told.
#[derive(Default)]
struct Readiness {
    is_ready: bool,
    status: String,
}

impl Readiness {
    /// Tells the service manager what has changed. The service is ready once every configured interface that exists is
    /// guarded: nothing comes in by one that does not exist, and what makes it may be started after this service.
    fn tell(&mut self, guard: &Guard) {
        if !self.is_ready && guard.is_closed {
            self.is_ready = true;
            notify(&[NotifyState::Ready]);
        }
        if self.status != guard.summary {
            self.status.clone_from(&guard.summary);
            notify(&[NotifyState::Status(&self.status)]);
        }
    }
}

/// Tells the service manager, where one has started this process.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify the service manager: {error}");
    }
}

/// The timer of systemd's watchdog, at half its limit; never due where there is no watchdog.
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
