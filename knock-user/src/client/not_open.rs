//! The port stayed closed: how it showed that, and what its user can do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use super::{by_key::ByKey, linux::clock_is_free};
use crate::values::HumanDuration;

/// How a port showed that it is not open.
#[derive(Debug)]
pub enum Closed {
    /// A reset came back.
    Refused,
    /// Nothing came back for so long.
    Silent(Duration),
    /// A host or router on the way sent this error.
    Answered(io::Error),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the connection was refused"),
            Self::Silent(patience) => write!(f, "no answer within {}", HumanDuration(*patience)),
            Self::Answered(error) => write!(f, "the network answered: {error}"),
        }
    }
}

/// What was sent, as far as advice depends on it.
#[derive(Debug)]
pub(super) enum Sent {
    Sequence {
        /// The pause between the knocks of the last try.
        last_delay: Duration,
    },
    Key {
        name: String,
        gate: Option<String>,
        /// Nothing keeps this machine's clock right.
        clock_is_free: bool,
    },
}

impl Sent {
    pub(super) fn key(by: &ByKey) -> Self {
        Self::Key {
            name: by.key.name.to_string(),
            gate: by.gate.clone(),
            clock_is_free: clock_is_free(),
        }
    }
}

/// The port stayed closed although the sequence or the knock was sent: exit status 6.
///
/// The message leaves the sequence out: it is a secret, and standard error is often kept in logs.
#[derive(Debug)]
pub struct NotOpen {
    target: String,
    port: u16,
    retries: u32,
    sent: Sent,
    /// How each address showed it in the last try.
    closed: Vec<(String, Closed)>,
}

impl NotOpen {
    pub(super) fn new(
        target: String,
        port: u16,
        retries: u32,
        sent: Sent,
        closed: Vec<(String, Closed)>,
    ) -> Self {
        Self {
            target,
            port,
            retries,
            sent,
            closed,
        }
    }

    /// The longest silence of the last try.
    fn silence(&self) -> Option<Duration> {
        let silences = self.closed.iter().filter_map(|(_, closed)| match closed {
            Closed::Silent(patience) => Some(*patience),
            Closed::Refused | Closed::Answered(_) => None,
        });
        silences.max()
    }
}

impl fmt::Display for NotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            port,
            retries,
            sent,
            closed,
        } = self;
        let times = match retries {
            0 => "once".to_owned(),
            1 => "twice".to_owned(),
            _ => format!("{} times", u64::from(*retries) + 1),
        };
        let what = match sent {
            Sent::Sequence { .. } => "the sequence",
            Sent::Key { .. } => "a knock",
        };
        write!(
            f,
            "{port}/tcp of {target} did not open: {what} was sent {times}, the last time "
        )?;
        match &closed[..] {
            [(_, only)] => only.fmt(f)?,
            several => {
                for (index, (address, closed)) in several.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{address}: {closed}")?;
                }
            }
        }
        match sent {
            Sent::Sequence { last_delay } => self.of_sequence(f, *last_delay),
            Sent::Key {
                name,
                gate,
                clock_is_free,
            } => self.of_key(f, name, gate.as_deref(), *clock_is_free),
        }
    }
}

impl NotOpen {
    fn of_sequence(&self, f: &mut fmt::Formatter<'_>, last_delay: Duration) -> fmt::Result {
        let Self { port, retries, .. } = self;
        write!(
            f,
            "\ncheck, in this order:\n  \
             - the sequence: the same knocks in the same order as the gate's, each with its /tcp or /udp \
             (-v shows them as they are sent)\n  \
             - the source address: knocks and connection must reach the gate from one address, and the gate \
             must admit it; a VPN, a proxy or a NAT with several addresses, or another address family \
             (-4, -6) changes it\n  \
             - the way there: a firewall or provider may drop one of the knocks; where the path reorders \
             them, --delay {} helps",
            HumanDuration(longer(last_delay, Duration::from_millis(200)))
        )?;
        if let Some(silence) = self.silence() {
            write!(
                f,
                ", where answers take long, --timeout {}",
                HumanDuration(longer(silence, Duration::from_secs(1)))
            )?;
        }
        write!(
            f,
            ", and where others knock from the same address at the same time, --retries {}\n  \
             - the service: something must listen on {port}/tcp; on the gate's host, `knockgate events` \
             shows how far the knocks got",
            retries.saturating_mul(2).max(3)
        )
    }

    fn of_key(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        gate: Option<&str>,
        clock_is_free: bool,
    ) -> fmt::Result {
        let state = if clock_is_free {
            ", and nothing keeps this machine's right, so this is the likely cause"
        } else {
            ""
        };
        let gate = gate.map_or_else(
            || "the first gate of the key is opened unless --gate names another".to_owned(),
            |gate| format!("the key must be allowed to open gate {gate:?}"),
        );
        write!(
            f,
            "\ncheck, in this order:\n  \
             - the clocks: a packet is refused that is more than 90 s old or 15 s early by the host's clock, unless it is \
             configured otherwise{state}; `date -u` here and there shows both, `timedatectl` whether they are kept right\n  \
             - the key: on the gate's host, `knockgate key list` shows whether {name} is valid; after `key rotate` or `key \
             rotate-host` the new secrets belong into its file\n  \
             - the gate: {gate}\n  \
             - the source address: knocks and connection must reach the gate from the address that the knock names (-v shows \
             it), and the gate must admit it; behind NAT, --address observed opens for the address that the host sees, \
             unless the key is bound\n  \
             - the way there: a firewall or provider may drop UDP"
        )?;
        if let Some(silence) = self.silence() {
            write!(
                f,
                "; where answers take long, --timeout {} helps",
                HumanDuration(longer(silence, Duration::from_secs(1)))
            )?;
        }
        write!(
            f,
            "\n  - the service: something must listen on {}/tcp; on the gate's host, `knockgate events` shows what became of \
             the knocks",
            self.port
        )
    }
}

impl std::error::Error for NotOpen {}

/// Twice what did not do, and no less than `least`.
fn longer(than: Duration, least: Duration) -> Duration {
    than.saturating_mul(2).max(least)
}
