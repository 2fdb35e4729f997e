//! The client: sends a sequence or an authenticated knock, tries the port behind the gate, hands the connection over.
//!
//! It needs no privileges: every knock is a packet that any program may send. [`Client`] knocks,
//! [`Target`] is where, [`Pace`] how fast and how often, [`relay()`] joins an opened connection to two
//! streams, and [`profile`] reads what users keep in a file.
//!
//! The client never learns from a knock whether it counted, for the gate answers nothing. Only the port
//! behind the gate tells, and only for TCP: see [`Client::open`].

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::values::{Port, Protocol, parse_duration};

mod by_key;
#[cfg_attr(not(target_os = "linux"), path = "not_linux.rs")]
mod linux;
mod not_open;
mod pace;
mod packet;
pub mod profile;
mod relay;
mod source;
mod target;
mod tries;
mod turn;
mod wire;

pub use by_key::{ByKey, parse_seconds};
#[cfg(feature = "host")]
pub(crate) use linux::clock_is_free;
pub use not_open::{Closed, NotOpen};
pub use pace::{DEFAULT_DELAY, DEFAULT_RETRIES, DEFAULT_TIMEOUT, Pace};
pub use relay::{BrokenOff, relay};
pub use source::{AddressRule, Opens};
pub use target::{Address, Family, Target};
pub use wire::Answer;

use by_key::Packet;
use not_open::Sent;
use tries::Tries;
use turn::Turn;

/// How long one address has for itself before the next one of the same host is tried as well: what RFC 8305
/// recommends between two connection attempts.
const HEAD_START: Duration = Duration::from_millis(250);

/// By what a gate opens.
#[derive(Debug, Clone, Copy)]
pub enum Means<'a> {
    Sequence(&'a [Port]),
    Key(&'a ByKey),
}

impl<'a, T: AsRef<[Port]> + ?Sized> From<&'a T> for Means<'a> {
    fn from(sequence: &'a T) -> Self {
        Self::Sequence(sequence.as_ref())
    }
}

impl Means<'_> {
    /// Returns how many packets a try takes.
    fn knocks(&self) -> usize {
        match self {
            Self::Sequence(sequence) => sequence.len(),
            Self::Key(_) => 1,
        }
    }
}

/// Sends one sequence, or authenticated knocks, to one target, as often as asked.
///
/// Every knock leaves from a source port of its own. A gate takes a second packet with the same two ports
/// for a duplicate of the first, which would make knocking again useless. For the same reason, every authenticated knock is
/// a packet of its own.
pub struct Client<'a> {
    target: &'a Target,
    means: Means<'a>,
    pace: Pace,
    observe: &'a mut dyn FnMut(&Address<'_>, &Progress<'_>),
    wire: wire::Wire,
}

/// A port that took the connection.
#[derive(Debug)]
pub enum Opened {
    Stream(TcpStream),
    /// The peer, or something on the way, reset the connection before it could be used.
    Reset,
}

impl<'a> Client<'a> {
    /// A client that goes at this pace and calls `observe` with all that it does.
    pub fn new(
        target: &'a Target,
        means: impl Into<Means<'a>>,
        pace: Pace,
        observe: &'a mut dyn FnMut(&Address<'_>, &Progress<'_>),
    ) -> Self {
        let wire = wire::Wire::default();
        Self {
            target,
            means: means.into(),
            pace,
            observe,
            wire,
        }
    }

    /// Knocks once at every address of the target and returns as soon as the last knock has left.
    ///
    /// Nothing tells which of the addresses will be used afterwards, or which is alive. What comes back,
    /// refusals and silence alike, is no error. It is one when no address can be sent to: no route, a local
    /// firewall, no free port.
    pub async fn send(&mut self) -> anyhow::Result<()> {
        let mut unsent = None;
        let mut sent = false;
        // A packet that a later one overtakes on another path is refused, since a key's newest time only grows.
        let pause = match self.means {
            Means::Sequence(_) => self.pace.delay,
            Means::Key(_) => self.pace.delay.max(HEAD_START),
        };
        for address in self.target.addresses() {
            if sent {
                sleep(pause).await;
            }
            match self.knock(&address, self.pace.delay, None).await {
                Ok(()) => sent = true,
                Err(error) => self.unsent(&address, error, &mut unsent),
            }
        }
        match unsent {
            Some(error) if !sent => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends the sequence and connects to the TCP port `port` at once, and again as often as the pace says
    /// while that port does not open.
    ///
    /// Each try goes through the addresses of the target: the next one is tried when the one before has not
    /// answered for a moment, and the first that takes the connection is used.
    ///
    /// # Errors
    /// [`NotOpen`] when the port stayed closed; else what kept the packets from leaving this machine.
    pub async fn open(&mut self, port: u16) -> anyhow::Result<Opened> {
        let knocks = self.means.knocks();
        let mut attempt = 0;
        loop {
            let last = attempt == self.pace.retries;
            let again_after = if last {
                Duration::ZERO
            } else {
                pace::draw(&self.pace.pauses(attempt + 1, knocks))?
            };
            let closed = match self.attempt(port, attempt, again_after).await? {
                Ok(opened) => return Ok(opened),
                Err(closed) => closed,
            };
            if last {
                let target = self.target.to_string();
                let sent = match self.means {
                    Means::Sequence(_) => Sent::Sequence {
                        last_delay: self.pace.delay(attempt, knocks),
                    },
                    Means::Key(key) => Sent::key(key),
                };
                return Err(NotOpen::new(target, port, self.pace.retries, sent, closed).into());
            }
            attempt += 1;
        }
    }

    /// One try at every address. Unless the port opens, it takes `again_after` longer than the answers.
    async fn attempt(
        &mut self,
        port: u16,
        attempt: u32,
        again_after: Duration,
    ) -> anyhow::Result<Result<Opened, Vec<(String, Closed)>>> {
        let delay = self.pace.delay(attempt, self.means.knocks());
        let patience = self.pace.timeout(attempt);
        let addresses: Vec<Address<'a>> = self.target.addresses().collect();
        let mut tries = Tries::default();
        let mut unsent = None;
        for (index, address) in addresses.iter().enumerate() {
            let to = address.socket(port);
            let knocked = match self.means {
                Means::Key(key) if key.exact => match by_key::bound_socket(to) {
                    Ok((socket, from)) => self
                        .knock(address, delay, Some(from))
                        .await
                        .map(|()| Some(socket)),
                    Err(error) => Err(local(error, &format!("cannot connect to {address}"))),
                },
                _ => self.knock(address, delay, None).await.map(|()| None),
            };
            match knocked {
                Ok(socket) => tries.begin(index, to, socket),
                Err(error) => {
                    self.unsent(address, error, &mut unsent);
                    continue;
                }
            }
            if index + 1 < addresses.len()
                && let Some((index, opened)) = tries.within(patience.min(HEAD_START)).await?
            {
                (self.observe)(&addresses[index], &Progress::Open { port });
                return Ok(Ok(opened));
            }
        }

        // A connection goes on being waited for in the pause before the next try.
        let patience = patience.saturating_add(again_after);
        if let Some((index, opened)) = tries.within(patience).await? {
            (self.observe)(&addresses[index], &Progress::Open { port });
            return Ok(Ok(opened));
        }
        let all_answered = tries.running.is_empty();
        let mut closed = Vec::new();
        for (index, outcome) in tries.outcomes {
            let address = &addresses[index];
            let why = match outcome {
                None => Closed::Silent(patience),
                Some(Ok(why)) => why,
                Some(Err(error)) => {
                    let error = local(error, &format!("cannot connect to {port}/tcp of {address}"));
                    self.unsent(address, error, &mut unsent);
                    continue;
                }
            };
            (self.observe)(address, &Progress::Closed { port, closed: &why });
            closed.push((address.to_string(), why));
        }
        match unsent {
            Some(error) if closed.is_empty() => return Err(error),
            _ => {}
        }
        if all_answered {
            sleep(again_after).await;
        }
        Ok(Err(closed))
    }

    /// Knocks at one address. `source_port` is the only one that may pass, where a key is asked to say so.
    async fn knock(
        &mut self,
        address: &Address<'_>,
        delay: Duration,
        source_port: Option<u16>,
    ) -> anyhow::Result<()> {
        match self.means {
            Means::Sequence(sequence) => self.send_sequence(sequence, address, delay).await,
            Means::Key(key) => self.send_packet(key, address, source_port),
        }
    }

    /// Sends an authenticated knock, made for this moment.
    fn send_packet(
        &mut self,
        key: &ByKey,
        address: &Address<'_>,
        source_port: Option<u16>,
    ) -> anyhow::Result<()> {
        let Packet { bytes, to, opens } = key.packet(self.target, address, source_port)?;
        let port = Port {
            number: key.key.port,
            protocol: Protocol::Udp,
        };
        (self.observe)(&to, &Progress::Packet { port, opens });
        self.wire
            .send(to.socket(port.number), &bytes)
            .map_err(|error| local(error, &format!("cannot send the knock ({port}) to {to}")))
    }

    async fn send_sequence(
        &mut self,
        sequence: &[Port],
        address: &Address<'_>,
        delay: Duration,
    ) -> anyhow::Result<()> {
        let turn = Turn::take(address.ip()).await;
        if turn.waited {
            // The other client's last knock must not be overtaken.
            sleep(delay).await;
        }
        let of = sequence.len();
        for (index, &port) in sequence.iter().enumerate() {
            let step = index + 1;
            let pause = if step < of { delay } else { Duration::ZERO };
            (self.observe)(address, &Progress::Knock { step, of, port });
            let answer = self
                .wire
                .knock(address.socket(port.number), port.protocol, pause)
                .await
                // Without the port, which is a part of the password: what is said without -v is kept in logs.
                .map_err(|error| {
                    local(
                        error,
                        &format!("cannot send knock {step} of {of} to {address}"),
                    )
                })?;
            if let Some(answer) = answer {
                let answer = &answer;
                (self.observe)(address, &Progress::Answered { port, answer });
            }
        }
        Ok(())
    }

    /// Keeps the first of the errors that only count when every address has one.
    fn unsent(
        &mut self,
        address: &Address<'_>,
        error: anyhow::Error,
        first: &mut Option<anyhow::Error>,
    ) {
        (self.observe)(address, &Progress::Unsent { error: &error });
        first.get_or_insert(error);
    }
}

/// Says what could not be done, why, and what helps.
fn local(error: io::Error, what: &str) -> anyhow::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => {
            return anyhow::Error::new(error).context(what.to_owned());
        }
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL) => {
            "this machine has no route there: check `ip route`, or choose the other address family with \
             -4 or -6"
        }
        Some(libc::EPERM) => {
            "a firewall of this machine does not let it out: check its rules for output"
        }
        _ => {
            "check this machine's routes and firewall, or choose the other address family with -4 or -6"
        }
    };
    anyhow::Error::new(error).context(format!("{what}; {advice}"))
}

/// What [`Client`] does while it does it; `Display` is one line for a person.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Knock `step` (from 1) of `of` is about to leave for `port`.
    Knock { step: usize, of: usize, port: Port },
    /// An authenticated knock is about to leave for `port`.
    Packet { port: Port, opens: Opens },
    /// The knock to `port` was answered before the next one left.
    Answered { port: Port, answer: &'a Answer },
    /// This machine cannot send to the address.
    Unsent { error: &'a anyhow::Error },
    /// The TCP port behind the gate did not open this time.
    Closed { port: u16, closed: &'a Closed },
    /// The TCP port behind the gate took the connection.
    Open { port: u16 },
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Knock { step, of, port } => write!(f, "knock {step} of {of}: {port}"),
            Self::Packet { port, opens } => write!(f, "authenticated knock: {port}, for {opens}"),
            Self::Answered { port, answer } => write!(f, "answer from {port}: {answer}"),
            Self::Unsent { error } => write!(f, "{error:#}"),
            Self::Closed { port, closed } => write!(f, "{port}/tcp is not open: {closed}"),
            Self::Open { port } => write!(f, "{port}/tcp is open"),
        }
    }
}

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
