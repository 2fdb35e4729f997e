//! The client: sends a sequence, tries the port behind the gate, hands the connection over.
//!
//! It needs no privileges: every knock is a packet that any program may send. [`Client`] knocks,
//! [`Target`] is where, [`relay()`] joins an opened connection to two streams, and [`profile`] reads what
//! users keep in a file.
//!
//! The client never learns from a knock whether it counted, for the gate answers nothing. Only the port
//! behind the gate tells, and only for TCP: see [`Client::open`].

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::config::{HumanDuration, Port, Protocol, parse_duration};

pub mod profile;
mod relay;
mod target;
mod wire;

pub use relay::relay;
pub use target::{Family, Target};
pub use wire::Answer;

/// The pause between two knocks, unless told otherwise: enough for packets to stay in order on most paths.
pub const DEFAULT_DELAY: Duration = Duration::from_millis(20);
/// How often the whole sequence is sent again while the port stays closed, unless told otherwise.
pub const DEFAULT_RETRIES: u32 = 3;
/// How long the port may take to answer, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

const CHECK_THIS_MACHINE: &str =
    "check this machine's routes and firewall, or choose the other address family with -4 or -6";

/// Sends one sequence to one target, as often as asked.
///
/// Every knock leaves from a source port of its own. A gate takes a second packet with the same two ports
/// for a duplicate of the first, which would make knocking again useless.
pub struct Client<'a> {
    target: &'a Target,
    sequence: &'a [Port],
    delay: Duration,
    observe: &'a mut dyn FnMut(&Progress<'_>),
    wire: wire::Wire,
}

impl<'a> Client<'a> {
    /// A client that pauses for `delay` between knocks and calls `observe` with all that it does.
    pub fn new(
        target: &'a Target,
        sequence: &'a [Port],
        delay: Duration,
        observe: &'a mut dyn FnMut(&Progress<'_>),
    ) -> Self {
        let wire = wire::Wire::default();
        Self {
            target,
            sequence,
            delay,
            observe,
            wire,
        }
    }

    /// Sends the sequence once and returns as soon as the last knock has left.
    ///
    /// What comes back, refusals and silence alike, is no error. It is one when a knock can't leave this
    /// machine: no route, a local firewall, no free port.
    pub async fn send(&mut self) -> anyhow::Result<()> {
        let of = self.sequence.len();
        for (index, &port) in self.sequence.iter().enumerate() {
            let step = index + 1;
            let pause = if step < of {
                self.delay
            } else {
                Duration::ZERO
            };
            (self.observe)(&Progress::Knock { step, of, port });
            let answer = self
                .wire
                .knock(self.target.socket(port.number), port.protocol, pause)
                .await
                .with_context(|| {
                    let target = self.target;
                    format!(
                        "can't send knock {step} of {of} ({port}) to {target}; {CHECK_THIS_MACHINE}"
                    )
                })?;
            if let Some(answer) = answer {
                (self.observe)(&Progress::Answered {
                    port,
                    answer: &answer,
                });
            }
        }
        Ok(())
    }

    /// Sends the sequence and connects to the TCP port `port` at once, up to `retries` further times while
    /// that port does not open; each connection may take `patience`.
    ///
    /// # Errors
    /// [`NotOpen`] when the port stayed closed; else what kept a packet from leaving this machine.
    pub async fn open(
        &mut self,
        port: u16,
        retries: u32,
        patience: Duration,
    ) -> anyhow::Result<TcpStream> {
        let mut attempt = 0;
        loop {
            self.send().await?;
            let closed = match self.connect(port, patience).await? {
                Ok(stream) => {
                    (self.observe)(&Progress::Open { port });
                    return Ok(stream);
                }
                Err(closed) => closed,
            };
            (self.observe)(&Progress::Closed {
                port,
                closed: &closed,
            });
            if attempt == retries {
                let target = self.target.to_string();
                return Err(NotOpen {
                    target,
                    port,
                    retries,
                    closed,
                }
                .into());
            }
            attempt += 1;
            sleep(self.delay).await;
        }
    }

    async fn connect(
        &self,
        port: u16,
        patience: Duration,
    ) -> anyhow::Result<Result<TcpStream, Closed>> {
        let address = self.target.socket(port);
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(Ok(stream)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Ok(Err(Closed::Refused))
            }
            Ok(Err(error)) => wire::from_the_network(error, address)
                .map(|answer| Err(Closed::Answered(answer)))
                .with_context(|| {
                    format!(
                        "can't connect to {port}/tcp of {}; {CHECK_THIS_MACHINE}",
                        self.target
                    )
                }),
            Err(_) => Ok(Err(Closed::Silent(patience))),
        }
    }
}

/// What [`Client`] does while it does it; `Display` is one line for a person.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Knock `step` (from 1) of `of` is about to leave for `port`.
    Knock { step: usize, of: usize, port: Port },
    /// The knock to `port` was answered before the next one left.
    Answered { port: Port, answer: &'a Answer },
    /// The TCP port behind the gate did not open this time.
    Closed { port: u16, closed: &'a Closed },
    /// The TCP port behind the gate took the connection.
    Open { port: u16 },
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Knock { step, of, port } => write!(f, "knock {step} of {of}: {port}"),
            Self::Answered { port, answer } => write!(f, "answer from {port}: {answer}"),
            Self::Closed { port, closed } => write!(f, "{port}/tcp is not open: {closed}"),
            Self::Open { port } => write!(f, "{port}/tcp is open"),
        }
    }
}

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

/// The port stayed closed although the sequence was sent: exit status 6.
///
/// The message leaves the sequence out: it is a secret, and standard error is often kept in logs.
#[derive(Debug)]
pub struct NotOpen {
    target: String,
    port: u16,
    retries: u32,
    closed: Closed,
}

impl fmt::Display for NotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            port,
            retries,
            closed,
        } = self;
        let times = match retries {
            0 => "once".to_owned(),
            1 => "twice".to_owned(),
            _ => format!("{} times", u64::from(*retries) + 1),
        };
        write!(
            f,
            "{port}/tcp of {target} did not open: the sequence was sent {times}, the last time {closed}\n\
             check, in this order:\n  \
             - the sequence: the same knocks in the same order as the gate's, each with its /tcp or /udp \
             (-v shows them as they are sent)\n  \
             - the source address: knocks and connection must reach the gate from one address, and the gate \
             must admit it; a VPN, a proxy or a NAT with several addresses, or another address family \
             (-4, -6) changes it\n  \
             - the way there: a firewall or provider that drops one of the knocks, or a path that reorders \
             them (try --delay 200ms)\n  \
             - the service: something must listen on {port}/tcp; on the gate's host, `knockgate events` \
             shows how far the knocks got",
        )
    }
}

impl std::error::Error for NotOpen {}

/// Reads a port that can be checked or connected to: `22/tcp`.
///
/// # Errors
/// A message for the user; UDP is refused, because an open UDP port need not answer at all.
pub fn parse_tcp_port(text: &str) -> Result<u16, String> {
    let port: Port = text.parse()?;
    match port.protocol {
        Protocol::Tcp => Ok(port.number),
        Protocol::Udp => Err(format!(
            "{text:?} is a UDP port, and an open UDP port need not answer, so nothing can tell whether it \
             opened; give a TCP port such as `22/tcp`, or knock without this option"
        )),
    }
}

/// Reads how long a connection may take: a duration above zero, `500ms`.
///
/// # Errors
/// A message for the user.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(format!(
            "{text:?} leaves no time for an answer; give a duration such as `1s`"
        )),
        patience => Ok(patience),
    }
}

#[cfg(test)]
mod tests;
