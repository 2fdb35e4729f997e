//! `knockgate top`: a live view on the whole terminal.
//!
//! `sampler` reads the tables, `state` is what is shown, `update` changes it by keys, `draw` draws it, and
//! `terminal` takes the terminal over and gives it back. Only this file waits for anything.

mod denied;
mod draw;
mod list;
mod rates;
mod sampler;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod update;

use std::{
    future::pending,
    io::{Write as _, stderr},
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use ratatui::crossterm::event::Event;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use self::{
    sampler::Sampler,
    state::{Message, State},
    terminal::Screen,
    update::{Action, update},
};
use crate::{
    commands::host::revoke::{self, Revoked, Untold},
    datapath::PinRoot,
    service::{History, Record, each_event},
    sys::clock::monotonic_now,
};

/// How long `top` waits for the lock on the pins.
const MOMENT: Duration = Duration::from_millis(300);

/// Between two attempts to follow events.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows what is up under `root` until the user or a signal ends it, and reads the counters once in `every`. Then, with the
/// terminal given back, has the fleet told what was revoked.
///
/// # Errors
/// Where nothing can be shown, or the fleet could not be told.
pub async fn run(root: &PinRoot, every: Duration) -> Result<()> {
    let mut signals = Signals::catch()?;
    // Fleets that are told what is revoked: etcd may take seconds to answer, or not to.
    let mut telling = JoinSet::new();
    let shown = show(root, every, &mut signals, &mut telling).await;
    let asked_to_end = async { while !matches!(signals.next().await, Asked::End) {} };
    let told = finish(telling, asked_to_end).await;
    match (shown, told) {
        (Err(shown), Err(told)) => Err(told.context(format!("{shown:#}"))),
        (shown, told) => shown.and(told),
    }
}

async fn show(
    root: &PinRoot,
    every: Duration,
    signals: &mut Signals,
    telling: &mut JoinSet<Message>,
) -> Result<()> {
    let mut sampler = Sampler::new(root, every);
    let mut state = State::default();
    // Where nothing is up, or may not be read, the terminal stays as it is.
    sampler.read(&mut state)?;
    let mut screen = Screen::enter()?;
    let mut inputs = screen.inputs();
    let (sender, mut records) = unbounded_channel();
    let mut following = pin!(follow(root, sender));
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        screen.draw(&mut state)?;
        // Until there is something to draw: events arrive in greater numbers than anybody reads.
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if !state.paused {
                        sampler.sample(&mut state);
                    }
                    break;
                }
                input = inputs.recv() => {
                    let Some(Ok(input)) = input else {
                        // The terminal is gone.
                        return Ok(());
                    };
                    match input {
                        Event::Key(key) => match update(&mut state, key) {
                            Action::None => {}
                            Action::Quit => return Ok(()),
                            Action::Suspend => screen.suspend()?,
                            Action::Revoke { source, gate } => {
                                // Waiting for another command would keep keys and signals waiting. The service has the
                                // lock for a moment each time it looks.
                                let begun = Instant::now();
                                let revoked = root
                                    .lock_unless(|| begun.elapsed() > MOMENT)
                                    .and_then(|lock| revoke::here(lock, root, &[source], Some(&gate), true));
                                state.message = Some(message(&revoked));
                                if let Some(untold) = revoked.ok().and_then(|revoked| revoked.untold) {
                                    telling.spawn(tell(untold, gate.to_string(), source));
                                }
                                sampler.sample(&mut state);
                            }
                        },
                        Event::Resize(..) => {}
                        _ => continue,
                    }
                    break;
                }
                record = records.recv() => {
                    if let Some(record) = record {
                        state.denied.add(&record, monotonic_now());
                    }
                }
                Some(told) = telling.join_next() => {
                    state.message = told.ok();
                    break;
                }
                () = &mut following => {}
                asked = signals.next() => {
                    match asked {
                        Asked::End => return Ok(()),
                        Asked::Stop => screen.suspend()?,
                        Asked::GoOn => screen.take_over()?,
                    }
                    break;
                }
            }
        }
    }
}

/// Sends every event on, of this instance and those to come.
async fn follow(root: &PinRoot, sender: UnboundedSender<Record>) {
    loop {
        // That nothing is up, or events cannot be read, is shown by what is missing.
        let _ = each_event(root, History::Follow, |record| Ok(sender.send(record)?)).await;
        sleep(PAUSE).await;
    }
}

/// Revokes at the other hosts of the fleet what is revoked here.
async fn tell(untold: Untold, gate: String, source: IpNet) -> Message {
    match revoke::everywhere(&untold, Some(&gate), Some(source)).await {
        Ok(()) => Message {
            text: format!("revoked in the fleet {}", untold.fleet.name),
            is_error: false,
        },
        Err(error) => Message {
            text: format!("{error:#}"),
            is_error: true,
        },
    }
}

/// Waits until the fleets are told, and says of each what came of it. Each attempt ends by itself, when etcd's members have had
/// their time.
///
/// # Errors
/// Where one could not be told, or `asked_to_end` comes first.
async fn finish(
    mut telling: JoinSet<Message>,
    asked_to_end: impl Future<Output = ()>,
) -> Result<()> {
    let mut asked_to_end = pin!(asked_to_end);
    let mut failed = None;
    // Standard error may have gone with the terminal; the exit status still tells.
    let say = |text: &str| {
        let _ = writeln!(stderr(), "knockgate: {text}");
    };
    if !telling.is_empty() {
        say("telling the fleet what was revoked; Ctrl-C ends without");
    }
    while !telling.is_empty() {
        let told = tokio::select! {
            Some(told) = telling.join_next() => told.context("the fleet was not told")?,
            () = &mut asked_to_end => bail!(
                "ended before the fleet was told: what was revoked is revoked at this host alone; `knockgate revoke` tells it"
            ),
        };
        let said = if told.is_error {
            failed.replace(told.text)
        } else {
            Some(told.text)
        };
        if let Some(text) = said {
            say(&text);
        }
    }
    match failed {
        None => Ok(()),
        Some(text) => bail!(text),
    }
}

fn message(revoked: &Result<Revoked>) -> Message {
    match revoked {
        Ok(revoked) => Message {
            text: match &revoked.untold {
                None => format!("ended {revoked}"),
                Some(untold) => {
                    let fleet = &untold.fleet.name;
                    format!("ended {revoked} here; telling the fleet {fleet}")
                }
            },
            is_error: false,
        },
        Err(error) => Message {
            text: format!("nothing was ended: {error:#}"),
            is_error: true,
        },
    }
}

/// What a signal asks for.
enum Asked {
    End,
    Stop,
    GoOn,
}

struct Signals {
    ends: [Signal; 4],
    stop: Signal,
    go_on: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            ends: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::quit())?,
            ],
            stop: signal(SignalKind::from_raw(libc::SIGTSTP))?,
            go_on: signal(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    async fn next(&mut self) -> Asked {
        let [terminate, interrupt, hangup, quit] = &mut self.ends;
        tokio::select! {
            Some(()) = terminate.recv() => Asked::End,
            Some(()) = interrupt.recv() => Asked::End,
            Some(()) = hangup.recv() => Asked::End,
            Some(()) = quit.recv() => Asked::End,
            Some(()) = self.stop.recv() => Asked::Stop,
            Some(()) = self.go_on.recv() => Asked::GoOn,
            else => pending().await,
        }
    }
}
