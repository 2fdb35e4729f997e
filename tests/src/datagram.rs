//! One packet, described by its parts: as a line of text and as a frame.
//!
//! A line reads `tcp 198.51.100.1:4000 > 192.0.2.1:22 flags=S sequence=7`, and may continue with `tags=8100,88a8`,
//! IPv4 `options=2` (words), IPv6 `extensions=0+1,60` (number, and 8-byte units beyond the minimum), `fragment=3+`
//! (offset in units of 8 bytes; `+`: more follow), `knock=...` (a [`Sealed`] one, with which the payload begins),
//! `payload=4` (bytes), `set=14:ff` (bytes overwritten), `cut=30` (bytes kept). [`Packet`](netlab::packet::Packet) makes
//! frames that hosts accept; these are judged only, so their checksums are left out.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::sealed::Sealed;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// Shortest frame: the kernel refuses a shorter one for a test run, and no network card delivers one.
pub const SHORTEST: usize = 14;

/// A packet, and how it deviates from a plain one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// IP protocol number.
    pub protocol: u8,
    /// Of one family with the destination.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// TCP's 14th byte.
    pub flags: u8,
    /// TCP's sequence number.
    pub sequence: u32,
    /// Ethertypes of VLAN tags, outermost first.
    pub tags: Vec<u16>,
    /// Words of IPv4 options, at most 10.
    pub options: u8,
    /// IPv6 extension headers: number, and length beyond the minimum.
    pub extensions: Vec<(u8, u8)>,
    pub fragment: Option<Fragment>,
    /// UDP's payload begins with it.
    pub knock: Option<Box<Sealed>>,
    /// Payload, bytes; behind the knock.
    pub payload: u8,
    /// Bytes of the finished frame to overwrite: offset and value.
    pub set: Vec<(usize, u8)>,
    /// Length to which the finished frame is cut, bytes.
    pub cut: Option<usize>,
}

/// Which part of a packet a fragment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// In units of 8 bytes.
    pub offset: u16,
    pub more: bool,
}

impl Datagram {
    /// Returns a plain packet. Panics if the addresses are of different families.
    pub fn new(protocol: u8, source: SocketAddr, destination: SocketAddr) -> Self {
        assert_eq!(
            source.is_ipv4(),
            destination.is_ipv4(),
            "one family a packet"
        );
        Self {
            protocol,
            source,
            destination,
            flags: 0,
            sequence: 0,
            tags: Vec::new(),
            options: 0,
            extensions: Vec::new(),
            fragment: None,
            knock: None,
            payload: 0,
            set: Vec::new(),
            cut: None,
        }
    }

    /// Returns the frame, for a host whose clock is the test's.
    pub fn frame(&self) -> Vec<u8> {
        self.frame_for(1)
    }

    /// Returns the frame, for a host whose clock goes `slowed` times as fast as the test's.
    pub fn frame_for(&self, slowed: u32) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for ethertype in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            // Identifier 7, no priority.
            frame.extend([0, 7]);
        }
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.ipv4(source.octets(), destination.octets(), slowed));
            }
            (source, destination) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(self.ipv6(octets(source), octets(destination), slowed));
            }
        }
        for &(at, byte) in &self.set {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(self.cut.unwrap_or(usize::MAX).max(SHORTEST));
        frame
    }

    /// Returns the packet as on a link without a header: the frame without Ethernet header and tags.
    pub fn bare(&self) -> Vec<u8> {
        self.bare_for(1)
    }

    /// As [`Datagram::frame_for`], without link header.
    pub fn bare_for(&self, slowed: u32) -> Vec<u8> {
        let mut packet = self.frame_for(slowed);
        let header = SHORTEST + 4 * self.tags.len();
        packet.drain(..header.min(packet.len()));
        packet.resize(packet.len().max(SHORTEST), 0);
        packet
    }

    /// Returns whether [`Datagram::bare`] means the same packet: not if there are more tags than are read, or if the
    /// link header is overwritten or cut.
    pub fn is_same_bare(&self) -> bool {
        let untagged = self.tags.is_empty();
        self.tags.len() <= 2
            && self.set.iter().all(|&(at, _)| untagged && at >= SHORTEST)
            && self.cut.is_none_or(|cut| untagged && cut >= 2 * SHORTEST)
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], slowed: u32) -> Vec<u8> {
        let body = self.body(slowed);
        let header = 20 + 4 * usize::from(self.options);
        let fragment = self.fragment.map_or(0, |Fragment { offset, more }| {
            offset | if more { 0x2000 } else { 0 }
        });
        let mut packet = vec![0x45 + self.options, 0];
        packet.extend(short(header + body.len()));
        packet.extend([0x12, 0x34]);
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(source);
        packet.extend(destination);
        // End-of-list options.
        packet.resize(header, 0);
        packet.extend(body);
        packet
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], slowed: u32) -> Vec<u8> {
        // From the inside out, as each header names the one behind it.
        let mut next = self.protocol;
        let mut rest = self.body(slowed);
        if let Some(Fragment { offset, more }) = self.fragment {
            let field = offset << 3 | u16::from(more);
            let [high, low] = field.to_be_bytes();
            rest.splice(0..0, [next, 0, high, low, 0, 0, 0x12, 0x34]);
            next = FRAGMENT;
        }
        for &(number, more) in self.extensions.iter().rev() {
            let length = match number {
                // A fragment header has no length field; the byte is reserved.
                FRAGMENT => 8,
                AUTHENTICATION => 8 + 4 * usize::from(more),
                _ => 8 + 8 * usize::from(more),
            };
            let mut header = vec![0; length];
            header[0] = next;
            header[1] = more;
            rest.splice(0..0, header);
            next = number;
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(short(rest.len()));
        packet.extend([next, 64]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(rest);
        packet
    }

    /// Returns transport header and payload; for a later fragment, 16 bytes from the middle of the payload.
    fn body(&self, slowed: u32) -> Vec<u8> {
        let mut body = Vec::new();
        let mut payload = Vec::new();
        if let Some(knock) = &self.knock {
            payload.extend(knock.message(slowed));
        }
        payload.resize(payload.len() + usize::from(self.payload), 0);
        if self.fragment.is_some_and(|fragment| fragment.offset > 0) {
            body.resize(16 + payload.len(), 0);
            return body;
        }
        match self.protocol {
            TCP => {
                body.extend(self.source.port().to_be_bytes());
                body.extend(self.destination.port().to_be_bytes());
                body.extend(self.sequence.to_be_bytes());
                body.extend([0, 0, 0, 0, 5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            UDP => {
                body.extend(self.source.port().to_be_bytes());
                body.extend(self.destination.port().to_be_bytes());
                body.extend(short(8 + payload.len()));
                body.extend([0, 0]);
            }
            _ => body.resize(8, 0),
        }
        body.extend(payload);
        body
    }
}

/// Letters of TCP's flags, as tcpdump prints them, lowest bit first.
const FLAGS: &str = "FSRPAUEC";

impl fmt::Display for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            source,
            destination,
            flags,
            sequence,
            tags,
            options,
            extensions,
            fragment,
            knock,
            payload,
            set,
            cut,
        } = self;
        match *protocol {
            TCP => write!(f, "tcp")?,
            UDP => write!(f, "udp")?,
            other => write!(f, "ip{other}")?,
        }
        write!(f, " {source} > {destination}")?;
        if *flags != 0 {
            let set = |(bit, _): &(usize, char)| flags >> bit & 1 == 1;
            let letters = FLAGS.chars().enumerate().filter(set);
            let letters: String = letters.map(|(_, letter)| letter).collect();
            write!(f, " flags={letters}")?;
        }
        if *sequence != 0 {
            write!(f, " sequence={sequence}")?;
        }
        list(f, "tags", tags.iter().map(|tag| format!("{tag:x}")))?;
        if *options != 0 {
            write!(f, " options={options}")?;
        }
        let shown = extensions.iter().map(|(number, more)| match more {
            0 => number.to_string(),
            more => format!("{number}+{more}"),
        });
        list(f, "extensions", shown)?;
        if let Some(Fragment { offset, more }) = fragment {
            write!(f, " fragment={offset}{}", if *more { "+" } else { "" })?;
        }
        if let Some(knock) = knock {
            write!(f, " knock={knock}")?;
        }
        if *payload != 0 {
            write!(f, " payload={payload}")?;
        }
        let bytes = set.iter().map(|(at, byte)| format!("{at}:{byte:02x}"));
        list(f, "set", bytes)?;
        if let Some(cut) = cut {
            write!(f, " cut={cut}")?;
        }
        Ok(())
    }
}

impl FromStr for Datagram {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let mut next = || words.next().ok_or("the packet ends early".to_owned());
        let protocol = match next()? {
            "tcp" => TCP,
            "udp" => UDP,
            other => number(
                other
                    .strip_prefix("ip")
                    .ok_or(format!("no `{other}` here"))?,
            )?,
        };
        let source: SocketAddr = number(next()?)?;
        if next()? != ">" {
            return Err("a packet goes from SOURCE > DESTINATION".to_owned());
        }
        let destination: SocketAddr = number(next()?)?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(format!(
                "{source} and {destination} are of different families"
            ));
        }
        let mut datagram = Self::new(protocol, source, destination);
        for word in words {
            let (key, value) = word.split_once('=').ok_or(format!("`{word}` has no ="))?;
            datagram.put(key, value)?;
        }
        Ok(datagram)
    }
}

impl Datagram {
    fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        let hexadecimal = |digits: &str| {
            u16::from_str_radix(digits, 16).map_err(|error| format!("{digits}: {error}"))
        };
        match key {
            "flags" => {
                for letter in value.chars() {
                    let bit = FLAGS.find(letter).ok_or(format!("no TCP flag {letter}"))?;
                    self.flags |= 1 << bit;
                }
            }
            "sequence" => self.sequence = number(value)?,
            "tags" => {
                let tags: Result<_, _> = value.split(',').map(hexadecimal).collect();
                self.tags = tags?;
            }
            "options" => self.options = number(value)?,
            "extensions" => {
                for extension in value.split(',') {
                    let (kind, more) = extension.split_once('+').unwrap_or((extension, "0"));
                    self.extensions.push((number(kind)?, number(more)?));
                }
            }
            "fragment" => {
                let offset = value.trim_end_matches('+');
                self.fragment = Some(Fragment {
                    offset: number(offset)?,
                    more: offset != value,
                });
            }
            "knock" => self.knock = Some(Box::new(value.parse()?)),
            "payload" => self.payload = number(value)?,
            "set" => {
                for byte in value.split(',') {
                    let (at, byte) = byte.split_once(':').ok_or("a byte is PLACE:VALUE")?;
                    let [_, low] = hexadecimal(byte)?.to_be_bytes();
                    self.set.push((number(at)?, low));
                }
            }
            "cut" => self.cut = Some(number(value)?),
            _ => return Err(format!("a packet has no `{key}`")),
        }
        Ok(())
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    items: impl Iterator<Item = String>,
) -> fmt::Result {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        Ok(())
    } else {
        write!(f, " {name}={}", items.join(","))
    }
}

fn number<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("`{text}`: {error}"))
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("a packet is shorter than 64 KiB")
        .to_be_bytes()
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => unreachable!("the constructor admits one family"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_reading() {
        for line in [
            "tcp 198.51.100.1:4000 > 192.0.2.1:22 flags=SA sequence=7",
            "udp [2001:db8::1]:1 > [2001:db8::2]:2 tags=8100,88a8 extensions=0+1,60,44 fragment=3+ payload=9",
            "udp 198.51.100.1:4000 > 192.0.2.1:41641 knock=alice,time=5,action=2 payload=9",
            "ip58 198.51.100.1:0 > 192.0.2.1:0 options=2 set=14:ff,15:00 cut=30",
        ] {
            let datagram: Datagram = line.parse().expect(line);
            assert_eq!(datagram.to_string(), line);
        }
    }

    #[test]
    fn frames_are_laid_out_as_the_rfcs_have_it() {
        let frame = |line: &str| line.parse::<Datagram>().expect(line).frame();
        let udp = frame("udp 198.51.100.1:258 > 192.0.2.1:772 tags=8100 options=1 payload=2");
        assert_eq!(udp[12..20], [0x81, 0, 0, 7, 8, 0, 0x46, 0]);
        assert_eq!(udp[20..22], 34_u16.to_be_bytes());
        assert_eq!(udp[42..50], [1, 2, 3, 4, 0, 10, 0, 0]);
        let tcp =
            frame("tcp [2001:db8::1]:1 > [2001:db8::2]:2 extensions=51+1 fragment=0+ flags=S");
        assert_eq!(tcp[18..21], [0, 12 + 8 + 20, AUTHENTICATION]);
        assert_eq!(tcp[54..56], [FRAGMENT, 1]);
        assert_eq!(tcp[66..70], [TCP, 0, 0, 1]);
        assert_eq!(tcp[74 + 13], 2);
        assert_eq!(tcp.len(), 74 + 20);
    }
}
