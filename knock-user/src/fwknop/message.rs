//! What a packet says once it is decrypted.
//!
//! `random:user:time:version:type:message[:…]`; fields between colons, of which some are base64.

use std::net::Ipv4Addr;

use knock_common::knock::fwknop::Outcome;

use super::packet::field;
use crate::values::{Port, Protocol};

const LONGEST_TIME: usize = 12;
const LONGEST_VERSION: usize = 8;
const LONGEST_FIELD: usize = 256;
const LONGEST_TIMEOUT: u32 = 65_536;

/// A packet that asks for ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When it was made, Unix time in seconds.
    pub time: u64,
    /// Who is to pass; `None`: where the packet comes from.
    pub address: Option<Ipv4Addr>,
    /// `None` in place of one that has no number here, such as ICMP.
    pub ports: Vec<Option<Port>>,
    /// For how many seconds.
    pub timeout: Option<u32>,
}

/// Reads the time of a message, which is looked at first.
pub fn time(message: &str) -> Option<u64> {
    let time = message.split(':').nth(2)?;
    if time.len() > LONGEST_TIME {
        return None;
    }
    number(time)
}

/// Reads a message without its digest. Otherwise says which kind it is.
pub fn read(message: &str) -> Result<Request, Outcome> {
    let fields: Vec<&str> = message.split(':').collect();
    let [_, user, _, version, kind, asked, rest @ ..] = fields.as_slice() else {
        return Err(Outcome::Message);
    };
    let timeout = match (*kind, rest) {
        ("0", _) => return Err(Outcome::Command),
        ("2" | "4", _) => return Err(Outcome::Nat),
        ("5" | "6", _) => return Err(Outcome::LocalNat),
        ("1", []) => None,
        ("3", [timeout]) => {
            let seconds = number(timeout).and_then(|seconds| u32::try_from(seconds).ok());
            let seconds = seconds.filter(|seconds| *seconds <= LONGEST_TIMEOUT);
            Some(seconds.ok_or(Outcome::Message)?)
        }
        _ => return Err(Outcome::Message),
    };
    let time = time(message).ok_or(Outcome::Message)?;
    if version.len() > LONGEST_VERSION || asked.len() > LONGEST_FIELD || field(user).is_none() {
        return Err(Outcome::Message);
    }
    let asked = field(asked).and_then(|asked| String::from_utf8(asked).ok());
    let asked = asked.ok_or(Outcome::Message)?;
    let mut words = asked.split(',');
    let address: Ipv4Addr = words
        .next()
        .and_then(|address| address.parse().ok())
        .ok_or(Outcome::Message)?;
    let ports = words.map(port).collect::<Result<Vec<_>, _>>()?;
    if ports.is_empty() {
        return Err(Outcome::Message);
    }
    Ok(Request {
        time,
        address: (!address.is_unspecified()).then_some(address),
        ports,
        // 0 asks for the default.
        timeout: timeout.filter(|seconds| *seconds != 0),
    })
}

/// Reads `tcp/22`. `None`: a protocol without ports.
fn port(text: &str) -> Result<Option<Port>, Outcome> {
    let (protocol, number) = text.split_once('/').ok_or(Outcome::Message)?;
    let number = self::number(number).and_then(|number| u16::try_from(number).ok());
    let number = number.ok_or(Outcome::Message)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" | "none" => return Ok(None),
        _ => return Err(Outcome::Message),
    };
    Ok((number != 0).then_some(Port { number, protocol }))
}

/// Digits only: `parse` would take a sign, too.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}
