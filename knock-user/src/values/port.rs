//! Ports with their protocol, as people write them: `22/tcp`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::nearest::nearest;

/// A TCP or UDP port, 1 to 65535. Written, shown and serialised as `22/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// The number, in host byte order; never 0 when it came from text.
    pub number: u16,
    pub protocol: Protocol,
}

/// The two protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((number, protocol)) = text.split_once('/') else {
            return Err(match parse_number(text) {
                Some(n) => format!("{text:?} has no protocol: write {n}/tcp or {n}/udp"),
                None => {
                    format!("{text:?} is not a port: write its number and protocol, such as 22/tcp")
                }
            });
        };
        let Some(parsed) = parse_number(number) else {
            return Err(no_number(text, number, protocol));
        };
        let protocol = protocol
            .parse::<Protocol>()
            .map_err(|why| format!("in {text:?}, {why}"))?;
        match u16::try_from(parsed) {
            Ok(0) => Err(format!(
                "{text:?}: port 0 does not exist; ports run from 1 to 65535"
            )),
            Ok(number) => Ok(Self { number, protocol }),
            Err(_) => Err(format!("{text:?}: ports run from 1 to 65535")),
        }
    }
}

/// Returns what is wrong with `text`, which has no number before the slash.
fn no_number(text: &str, number: &str, protocol: &str) -> String {
    if let (Ok(protocol), Some(n)) = (number.parse::<Protocol>(), parse_number(protocol)) {
        format!("{text:?} is the wrong way round: write {n}/{protocol}")
    } else if is_range(number) {
        format!("{text:?} is a range: list each port by itself")
    } else {
        format!("{text:?} has no port number: write one from 1 to 65535, such as 22/tcp")
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl TryFrom<String> for Port {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(match nearest(other, ["tcp", "udp"]) {
                Some(near) => format!("{other:?} is no protocol; did you mean {near:?}?"),
                None => format!("{other:?} is no protocol: write tcp or udp"),
            }),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Accepts digits only: `u32::from_str` would accept `+22`, too.
fn parse_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

fn is_range(text: &str) -> bool {
    text.split_once(['-', ':'])
        .is_some_and(|(from, to)| parse_number(from).is_some() && parse_number(to).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_survive_text_and_json() {
        for (text, number, protocol) in [
            ("22/tcp", 22, Protocol::Tcp),
            ("1/udp", 1, Protocol::Udp),
            ("65535/udp", 65535, Protocol::Udp),
        ] {
            let port = Port { number, protocol };
            assert_eq!(text.parse(), Ok(port));
            assert_eq!(port.to_string(), text);
            let json = serde_json::to_string(&port).expect("a port serialises");
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Port>(&json).expect("and back"), port);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_what_to_write() {
        for (text, says) in [
            ("22", "write 22/tcp or 22/udp"),
            ("", "such as 22/tcp"),
            ("ssh", "such as 22/tcp"),
            ("/tcp", "write one from 1 to 65535"),
            ("+22/tcp", "write one from 1 to 65535"),
            ("0/tcp", "port 0 does not exist"),
            ("65536/tcp", "ports run from 1 to 65535"),
            ("99999999999/tcp", "ports run from 1 to 65535"),
            ("22/tpc", "did you mean \"tcp\"?"),
            ("22/UDP", "did you mean \"udp\"?"),
            ("22/sctp-like", "write tcp or udp"),
            ("tcp/22", "write 22/tcp"),
            ("8000-8010/tcp", "list each port by itself"),
            ("8000:8010/tcp", "list each port by itself"),
        ] {
            let error = text.parse::<Port>().expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
