//! Streams of steps as text: packets, waiting, grants by hand.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use ipnet::IpNet;

use crate::datagram::Datagram;

/// One line of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Packet(Datagram),
    /// `wait 1500ms`
    Wait(Duration),
    /// `allow 198.51.100.0/24 ssh 2000ms`: a grant by hand.
    Allow {
        source: IpNet,
        gate: String,
        length: Duration,
    },
    /// `revoke 198.51.100.0/24 ssh`
    Revoke {
        source: IpNet,
        gate: String,
    },
    /// `connect 192.0.2.1:4500 198.51.100.1:4500`: the host connects a UDP socket to a source.
    Connect {
        own: SocketAddr,
        peer: SocketAddr,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(datagram) => datagram.fmt(f),
            Self::Wait(time) => write!(f, "wait {}ms", time.as_millis()),
            Self::Allow {
                source,
                gate,
                length,
            } => write!(f, "allow {source} {gate} {}ms", length.as_millis()),
            Self::Revoke { source, gate } => write!(f, "revoke {source} {gate}"),
            Self::Connect { own, peer } => write!(f, "connect {own} {peer}"),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let network = |text: &str| {
            text.parse::<IpNet>()
                .map_err(|error| format!("{text}: {error}"))
        };
        match *words {
            ["wait", time] => Ok(Self::Wait(milliseconds(time)?)),
            ["allow", source, gate, length] => Ok(Self::Allow {
                source: network(source)?,
                gate: gate.to_owned(),
                length: milliseconds(length)?,
            }),
            ["revoke", source, gate] => Ok(Self::Revoke {
                source: network(source)?,
                gate: gate.to_owned(),
            }),
            ["connect", own, peer] => Ok(Self::Connect {
                own: end(own)?,
                peer: end(peer)?,
            }),
            _ => line.parse().map(Self::Packet),
        }
    }
}

/// Reads the lines of a stream, each with the text after its `=>`. Ignores empty lines and comments, which begin with
/// `#`. Panics if a line cannot be read.
pub fn read(text: &str) -> Vec<(Step, String)> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (step, expected) = line.split_once("=>").unwrap_or((line, ""));
            let step = step
                .parse()
                .unwrap_or_else(|error| panic!("`{line}` is no step: {error}"));
            (step, expected.trim().to_owned())
        })
        .collect()
}

fn end(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.strip_suffix("ms")
        .and_then(|number| number.parse().ok())
        .map(Duration::from_millis)
        .ok_or(format!("`{text}` is no time such as 1500ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_survive_reading() {
        let text = "allow 198.51.100.0/24 ssh 2000ms\nwait 1500ms\n\
                    udp 198.51.100.1:4000 > 192.0.2.1:7000\nrevoke 198.51.100.0/24 ssh\n\
                    connect [2001:db8::1]:4500 [2001:db8:1::1]:4501\n";
        let steps = read(text);
        let shown: Vec<String> = steps.iter().map(|(step, _)| step.to_string()).collect();
        assert_eq!(shown, text.lines().collect::<Vec<_>>());
    }

    #[test]
    fn comments_and_expectations_are_told_from_steps() {
        let steps = read("# nothing\n\n  wait 5ms => something # why\n");
        let [(step, expected)] = &steps[..] else {
            panic!("one step, not {steps:?}");
        };
        assert_eq!(step.to_string(), "wait 5ms");
        assert_eq!(expected, "something");
    }
}
