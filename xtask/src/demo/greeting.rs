//! The demo's service, and a visitor of it. Each runs as a process on its own host.

use std::{
    env, fmt,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    str::FromStr,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use netlab::Netns;

use crate::{lan::Host, process};

/// How long a visitor waits for an answer where none is expected. On this wire one takes microseconds, and on a
/// busy machine longer than that.
pub(crate) const SHORT: Duration = Duration::from_secs(1);
/// How long one waits where an answer is expected.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A TCP service that greets each visitor by address, then closes the connection.
#[derive(Args)]
pub(crate) struct Service {
    address: SocketAddr,
}

/// One visit to the service; prints an [`Outcome`].
#[derive(Args)]
pub(crate) struct Visit {
    address: SocketAddr,
    /// How long to wait for an answer, in seconds
    patience: u64,
}

/// The outcome of a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service sent this greeting.
    Greeted(String),
    /// No answer, as if the packet was dropped.
    NoAnswer,
    /// The host answered that nothing listens there.
    Refused,
}

impl Service {
    /// Starts the service on a host, and returns when visitors can come. It dies with this process.
    pub(crate) fn start(host: &Host, address: &str) -> Result<Child> {
        Self::start_by(|program| host.command(program), address)
    }

    /// As [`Service::start`], in a namespace.
    pub(crate) fn start_in(netns: &Netns, address: &str) -> Result<Child> {
        Self::start_by(|program| netns.command(program), address)
    }

    fn start_by(command: impl Fn(PathBuf) -> Command, address: &str) -> Result<Child> {
        let this = env::current_exe().context("cannot find this program's own path")?;
        let mut service = command(this)
            .args(["demo-service", address])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the service")?;
        let said = service.stdout.take().context("the service has no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(
            line == "listening\n",
            "the service did not start; its own lines above say why"
        );
        Ok(service)
    }

    /// Serves until killed. Prints a line once visitors can come.
    pub(crate) fn run(self) -> Result<()> {
        let Self { address } = self;
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
        println!("listening");
        serve(&listener)
    }
}

impl Visit {
    pub(crate) fn run(self) -> Result<()> {
        let Self { address, patience } = self;
        println!("{}", visit(address, Duration::from_secs(patience))?);
        Ok(())
    }
}

impl Outcome {
    /// Has a host visit the service at this address.
    pub(crate) fn of_visit(host: &Host, address: &str, patience: Duration) -> Result<Self> {
        Self::of_visit_by(|program| host.command(program), address, patience)
    }

    /// As [`Outcome::of_visit`], from a namespace.
    pub(crate) fn of_visit_from(netns: &Netns, address: &str, patience: Duration) -> Result<Self> {
        Self::of_visit_by(|program| netns.command(program), address, patience)
    }

    fn of_visit_by(
        command: impl Fn(PathBuf) -> Command,
        address: &str,
        patience: Duration,
    ) -> Result<Self> {
        let this = env::current_exe().context("cannot find this program's own path")?;
        let patience = patience.as_secs().to_string();
        let said = process::stdout(command(this).args(["demo-visit", address, &patience]))?;
        said.trim_end().parse()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Greeted(greeting) => write!(f, "\"{greeting}\""),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Refused => f.write_str("refused"),
        }
    }
}

impl FromStr for Outcome {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "no answer" => Self::NoAnswer,
            "refused" => Self::Refused,
            _ => match text
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'))
            {
                Some(greeting) => Self::Greeted(greeting.to_owned()),
                None => bail!("the visitor printed `{text}`, which is no outcome of a visit"),
            },
        })
    }
}

fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        let (mut visitor, address) = listener.accept().context("cannot accept a visitor")?;
        thread::spawn(move || {
            // The visitor may have left already.
            let _ = write!(visitor, "Hello, {}!", address.ip());
        });
    }
}

fn visit(address: SocketAddr, patience: Duration) -> Result<Outcome> {
    match greeting(address, patience) {
        Ok(greeting) => Ok(Outcome::Greeted(greeting)),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Outcome::NoAnswer),
            ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
            _ => Err(error).with_context(|| format!("cannot visit {address}")),
        },
    }
}

fn greeting(address: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut service = TcpStream::connect_timeout(&address, patience)?;
    service.set_read_timeout(Some(patience))?;
    let mut greeting = String::new();
    service.read_to_string(&mut greeting)?;
    Ok(greeting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_greeted_by_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(&listener));
        for _ in 0..2 {
            assert_eq!(
                visit(address, LONG).unwrap(),
                Outcome::Greeted("Hello, 127.0.0.1!".to_owned())
            );
        }
    }

    #[test]
    fn silence_and_refusal_are_told_apart() {
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = mute.local_addr().unwrap();
        assert_eq!(visit(address, SHORT).unwrap(), Outcome::NoAnswer);
        drop(mute);
        assert_eq!(visit(address, LONG).unwrap(), Outcome::Refused);
    }

    #[test]
    fn an_outcome_is_read_as_it_was_printed() {
        for outcome in [
            Outcome::Greeted("Hello!".to_owned()),
            Outcome::NoAnswer,
            Outcome::Refused,
        ] {
            assert_eq!(outcome.to_string().parse::<Outcome>().unwrap(), outcome);
        }
        assert!("Hello!".parse::<Outcome>().is_err());
    }
}
