//! An authenticated knock as bytes: 64 that nobody can tell from random ones, and as many random ones as it pleases.
//!
//! Made with other crates than those parts of knock-common that verify it, so that each checks the other.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use siphasher::sip128::SipHasher24;

use crate::keys::Secret;

const VERSION: u8 = 1;
const LISTED_V4: u8 = 1;
const LISTED_V6: u8 = 2;
const OBSERVED: u8 = 4;
const SOURCE_PORT: u8 = 8;
const OPEN: u8 = 1;
const CLOSE: u8 = 2;
const TAG: usize = 16;
const BODY: usize = 48;
/// The length of the packets of one key says nothing: each has from none to this many bytes more.
const MOST_PADDING: u8 = 192;

/// What a packet asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request<'r> {
    /// Unix time, ns. Each packet of a key must be later than all before it.
    pub(super) time: u64,
    pub(super) slot: u16,
    /// `None`: the first of the key's gates.
    pub(super) gate: Option<&'r str>,
    /// An own earlier grant is to end.
    pub(super) close: bool,
    /// 0: as long as the gate says.
    pub(super) seconds: u16,
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
    /// In place of addresses: that from which the host sees the packet come.
    pub(super) observed: bool,
    /// The only source port that may pass.
    pub(super) source_port: Option<u16>,
}

impl Request<'_> {
    fn body(&self) -> [u8; BODY] {
        let mut flags = 0;
        for (is_set, flag) in [
            (self.v4.is_some(), LISTED_V4),
            (self.v6.is_some(), LISTED_V6),
            (self.observed, OBSERVED),
            (self.source_port.is_some(), SOURCE_PORT),
        ] {
            if is_set {
                flags |= flag;
            }
        }
        let gate = self.gate.map_or([0; 4], |name| {
            let digest = Sha256::digest(name);
            [digest[0], digest[1], digest[2], digest[3]]
        });
        let v4 = self.v4.map_or([0; 4], |address| address.octets());
        let v6 = self.v6.map_or([0; 16], |address| address.octets());
        let mut body = [0; BODY];
        let mut at = 0;
        for field in [
            self.time.to_be_bytes().as_slice(),
            &self.slot.to_be_bytes(),
            &[VERSION, flags],
            &gate,
            &[if self.close { CLOSE } else { OPEN }, 0],
            &self.seconds.to_be_bytes(),
            &v4,
            &v6,
            &self.source_port.unwrap_or(0).to_be_bytes(),
        ] {
            body[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        body
    }

    /// Signs it with the key for the host, and masks it with the host's secret.
    fn seal(&self, key: &Secret<32>, host: &Secret<16>) -> [u8; TAG + BODY] {
        let body = self.body();
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of any length");
        mac.update(&body);
        let signature = mac.finalize().into_bytes();
        let mut packet = [0; TAG + BODY];
        let (tag, rest) = packet.split_at_mut(TAG);
        tag.copy_from_slice(&signature[..TAG]);
        let hasher = SipHasher24::new_with_key(host.bytes());
        for ((number, masked), plain) in (0_u64..).zip(rest.chunks_mut(16)).zip(body.chunks(16)) {
            let mut message = [0; TAG + 8];
            message[..TAG].copy_from_slice(tag);
            message[TAG..].copy_from_slice(&number.to_le_bytes());
            let mask = hasher.hash(&message).as_bytes();
            for ((byte, plain), mask) in masked.iter_mut().zip(plain).zip(mask) {
                *byte = plain ^ mask;
            }
        }
        packet
    }

    /// Returns the datagram, with random bytes behind it.
    pub(super) fn datagram(&self, key: &Secret<32>, host: &Secret<16>) -> Result<Vec<u8>> {
        let failed = |error| anyhow!("the system has no random numbers: {error}");
        let mut packet = self.seal(key, host).to_vec();
        let padding = padding(getrandom::u64().map_err(failed)?);
        let sealed = packet.len();
        packet.resize(sealed + padding, 0);
        getrandom::fill(&mut packet[sealed..]).map_err(failed)?;
        Ok(packet)
    }
}

/// Returns how many bytes the random `number` stands for.
fn padding(number: u64) -> usize {
    let lengths = u64::from(MOST_PADDING) + 1;
    // So few of so many that no length is noticeably likelier than another.
    usize::try_from(number % lengths).unwrap_or_default()
}

/// Returns the body of a packet, without looking at the tag.
#[cfg(test)]
pub(super) fn unmasked(packet: &[u8], host: &Secret<16>) -> [u8; BODY] {
    let (tag, rest) = packet.split_at(TAG);
    let hasher = SipHasher24::new_with_key(host.bytes());
    std::array::from_fn(|at| {
        let number = u64::try_from(at / 16).expect("below 3");
        let message = [tag, &number.to_le_bytes()].concat();
        rest[at] ^ hasher.hash(&message).as_bytes()[at % 16]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> (Secret<32>, Secret<16>) {
        let count = |first: u8| move |nth: usize| first + u8::try_from(nth).expect("below 32");
        (
            Secret::new(std::array::from_fn(count(32))),
            Secret::new(std::array::from_fn(count(0))),
        )
    }

    fn observed() -> Request<'static> {
        Request {
            time: 1_790_000_000_123_456_789,
            slot: 7,
            gate: None,
            close: false,
            seconds: 0,
            v4: None,
            v6: None,
            observed: true,
            source_port: None,
        }
    }

    /// Made by a client of nothing but Python's standard library, with the same secrets and time.
    #[test]
    fn packets_are_those_of_another_client() {
        let (key, host) = secrets();
        let listed = Request {
            slot: 258,
            gate: Some("ssh"),
            close: true,
            seconds: 300,
            v4: Some("203.0.113.7".parse().expect("an address")),
            v6: Some("2001:db8::7".parse().expect("an address")),
            observed: false,
            source_port: Some(40_112),
            ..observed()
        };
        for (request, body, packet) in [
            (
                observed(),
                "18d75b842b4ecd1500070104000000000100000000000000000000000000000000000000000000000000000000000000",
                "551ac88d95a52962f22360e7ca389ba26f2af2ffedac6ac008a7974c7600d226\
                 dd89efca1a2b788f9d7802457faaa94db345609f43bdb28694ab0b51030a4a49",
            ),
            (
                listed,
                "18d75b842b4ecd150102010b7f5a55cf0200012ccb00710720010db80000000000000000000000079cb0000000000000",
                "21dcc85e887daafc461b5c94d77e22e9488f8270ada635039e0e245bc3801477\
                 dc7ce12addf6ac748cae59b068f912c7cd0b13c58665ee3e886755eebaa65fbb",
            ),
        ] {
            let hex = base16ct::lower::encode_string;
            assert_eq!(hex(&request.body()), body);
            let sealed = request.seal(&key, &host);
            assert_eq!(hex(&sealed), packet);
            assert_eq!(unmasked(&sealed, &host), request.body());
        }
    }

    #[test]
    fn two_packets_have_nothing_in_common_and_every_length_occurs() {
        let (key, host) = secrets();
        let mut lengths = std::collections::BTreeSet::new();
        let mut sealed = std::collections::BTreeSet::new();
        for nth in 0..10_000 {
            let request = Request {
                time: observed().time + nth,
                ..observed()
            };
            let packet = request.datagram(&key, &host).expect("randomness");
            lengths.insert(packet.len());
            assert!(sealed.insert(packet[..TAG].to_vec()));
        }
        assert_eq!(lengths, (64..=256).collect());
    }
}
