//! An authenticated knock of a stream, described by its parts.
//!
//! `knock=alice,time=1500000000` is what alice sends 1.5 s after the stream has begun: it opens the first gate of her key
//! for the address that it comes from. Further parts: `slot=3` (another key's), `host=previous` (the secret that it is
//! masked with; any word but `present` and `previous` stands for one that the host does not have), `version=2`,
//! `flags=0f` and `action=2` (as on the wire), `gate=b`, `seconds=2` (of the test), `v4=198.51.100.1`, `v6=2001:db8::1`,
//! `port=4000`, `reserved=1`, `rest=1` (the two fields of zeros), and `flip=17+130` (bits of the message that are
//! inverted after it was sealed).

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use knock_common::testing::knock::{self, Knock};

use crate::keyring::{self, EPOCH};

/// A knock, before it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sealed {
    /// Whose key seals it.
    pub key: String,
    /// When it was made, ns of the test since the stream began.
    pub time: i64,
    /// `None`: that of the key.
    pub slot: Option<u16>,
    pub host: String,
    pub version: u8,
    pub flags: u8,
    /// By name; empty: the key's first.
    pub gate: String,
    pub action: u8,
    pub seconds: u16,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub port: u16,
    pub reserved: u8,
    pub rest: u8,
    pub flip: Vec<u16>,
}

const PRESENT: &str = "present";

impl Sealed {
    /// Returns one that opens the first gate of a key for the address that it comes from.
    pub fn new(key: &str, time: i64) -> Self {
        Self {
            key: key.to_owned(),
            time,
            slot: None,
            host: PRESENT.to_owned(),
            version: 1,
            flags: 4,
            gate: String::new(),
            action: 1,
            seconds: 0,
            v4: Ipv4Addr::UNSPECIFIED,
            v6: Ipv6Addr::UNSPECIFIED,
            port: 0,
            reserved: 0,
            rest: 0,
            flip: Vec::new(),
        }
    }

    /// Returns the message for a host whose clock goes `slowed` times as fast as the test's.
    pub fn message(&self, slowed: u32) -> [u8; 64] {
        let key = keyring::named(&self.key);
        let since = self.time.wrapping_mul(slowed.into());
        let sealed = Knock {
            host: self.secret(),
            key: key.map_or([9; 32], |key| key.secret),
            time: EPOCH.wrapping_add_signed(since),
            slot: self.slot.or(key.map(|key| key.slot)).unwrap_or_default(),
            version: self.version,
            flags: self.flags,
            gate: if self.gate.is_empty() {
                0
            } else {
                knock::gate(&self.gate)
            },
            action: self.action,
            reserved: self.reserved,
            seconds: u16::try_from(u32::from(self.seconds) * slowed).unwrap_or(u16::MAX),
            v4: self.v4,
            v6: self.v6,
            port: self.port,
            rest: [0, 0, 0, 0, 0, self.rest],
        };
        let mut message = sealed.sealed();
        for bit in &self.flip {
            let bit = usize::from(*bit) % 512;
            message[bit / 8] ^= 1 << (bit % 8);
        }
        message
    }

    fn secret(&self) -> [u8; 16] {
        match &*self.host {
            PRESENT => keyring::HOST,
            "previous" => keyring::PREVIOUS,
            other => {
                let mut secret = [7; 16];
                for (place, byte) in secret.iter_mut().zip(other.bytes()) {
                    *place = byte;
                }
                secret
            }
        }
    }

    fn put(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "time" => self.time = number(value)?,
            "slot" => self.slot = Some(number(value)?),
            "host" => value.clone_into(&mut self.host),
            "version" => self.version = number(value)?,
            "flags" => {
                let flags = u8::from_str_radix(value, 16);
                self.flags = flags.map_err(|error| format!("`{value}`: {error}"))?;
            }
            "gate" => value.clone_into(&mut self.gate),
            "action" => self.action = number(value)?,
            "seconds" => self.seconds = number(value)?,
            "v4" => self.v4 = number(value)?,
            "v6" => self.v6 = number(value)?,
            "port" => self.port = number(value)?,
            "reserved" => self.reserved = number(value)?,
            "rest" => self.rest = number(value)?,
            "flip" => {
                let bits: Result<_, _> = value.split('+').map(number).collect();
                self.flip = bits?;
            }
            _ => return Err(format!("a knock has no `{name}`")),
        }
        Ok(())
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},time={}", self.key, self.time)?;
        let plain = Self::new(&self.key, self.time);
        if let Some(slot) = self.slot {
            write!(f, ",slot={slot}")?;
        }
        if self.flags != plain.flags {
            write!(f, ",flags={:02x}", self.flags)?;
        }
        let parts: [(&str, &dyn fmt::Display, bool); 10] = [
            ("host", &self.host, self.host == plain.host),
            ("version", &self.version, self.version == plain.version),
            ("gate", &self.gate, self.gate == plain.gate),
            ("action", &self.action, self.action == plain.action),
            ("seconds", &self.seconds, self.seconds == plain.seconds),
            ("v4", &self.v4, self.v4 == plain.v4),
            ("v6", &self.v6, self.v6 == plain.v6),
            ("port", &self.port, self.port == plain.port),
            ("reserved", &self.reserved, self.reserved == plain.reserved),
            ("rest", &self.rest, self.rest == plain.rest),
        ];
        for (name, value, is_plain) in parts {
            if !is_plain {
                write!(f, ",{name}={value}")?;
            }
        }
        if !self.flip.is_empty() {
            let bits: Vec<String> = self.flip.iter().map(u16::to_string).collect();
            write!(f, ",flip={}", bits.join("+"))?;
        }
        Ok(())
    }
}

impl FromStr for Sealed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut sealed = Self::new(parts.next().unwrap_or_default(), 0);
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(format!("`{part}` has no ="))?;
            sealed.put(name, value)?;
        }
        Ok(sealed)
    }
}

fn number<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_survive_reading() {
        for text in [
            "alice,time=0",
            "bob/phone,time=-1500000000,slot=9,flags=0f,host=previous,version=2,gate=b,action=2,seconds=2,\
             v4=198.51.100.1,v6=2001:db8::1,port=4000,reserved=1,rest=2,flip=17+130",
        ] {
            let sealed: Sealed = text.parse().expect(text);
            assert_eq!(sealed.to_string(), text);
        }
    }

    #[test]
    fn each_part_changes_the_message() {
        let plain: Sealed = "alice,time=0".parse().expect("a knock");
        for part in [
            "time=1",
            "slot=9",
            "flags=01",
            "host=x",
            "version=2",
            "gate=b",
            "action=2",
            "seconds=2",
            "v4=1.2.3.4",
            "v6=::1",
            "port=1",
            "reserved=1",
            "rest=1",
            "flip=511",
        ] {
            let other: Sealed = format!("alice,time=0,{part}").parse().expect(part);
            assert_ne!(plain.message(1), other.message(1), "{part}");
        }
    }
}
