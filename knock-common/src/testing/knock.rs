//! Makes authenticated knocks, by crates of other people: what the program decides by is compared with these.

use std::{
    hash::Hasher as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// What a knock says; see [`message`](crate::knock::authenticated::message).
#[derive(Debug, Clone)]
pub struct Knock {
    pub host: [u8; 16],
    pub key: [u8; 32],
    pub time: u64,
    pub slot: u16,
    pub version: u8,
    pub flags: u8,
    pub gate: u32,
    pub action: u8,
    pub reserved: u8,
    pub seconds: u16,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub port: u16,
    pub rest: [u8; 6],
}

impl Knock {
    /// One that opens the first gate of the key in slot 0 for the address that it comes from. Keys are zeros.
    pub fn at(time: u64) -> Self {
        Self {
            host: [0; 16],
            key: [0; 32],
            time,
            slot: 0,
            version: 1,
            flags: 4,
            gate: 0,
            action: 1,
            reserved: 0,
            seconds: 0,
            v4: Ipv4Addr::UNSPECIFIED,
            v6: Ipv6Addr::UNSPECIFIED,
            port: 0,
            rest: [0; 6],
        }
    }

    fn body(&self) -> [u8; 48] {
        let mut body = Vec::new();
        body.extend(self.time.to_be_bytes());
        body.extend(self.slot.to_be_bytes());
        body.extend([self.version, self.flags]);
        body.extend(self.gate.to_be_bytes());
        body.extend([self.action, self.reserved]);
        body.extend(self.seconds.to_be_bytes());
        body.extend(self.v4.octets());
        body.extend(self.v6.octets());
        body.extend(self.port.to_be_bytes());
        body.extend(self.rest);
        body.try_into().expect("48 bytes")
    }

    /// Returns the message.
    pub fn sealed(&self) -> [u8; 64] {
        let body = self.body();
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length");
        mac.update(&body);
        let mut tag = [0; 16];
        tag.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        self.sealed_with(tag)
    }

    /// Returns the message with this tag, by which it is masked.
    pub fn sealed_with(&self, tag: [u8; 16]) -> [u8; 64] {
        let body = self.body();
        let mut message = [0; 64];
        message[..16].copy_from_slice(&tag);
        for (block, place) in (0_u64..).zip(0..3) {
            let mut hasher = SipHasher24::new_with_key(&self.host);
            hasher.write(&tag);
            hasher.write(&block.to_le_bytes());
            let mask = hasher.finish128().as_bytes();
            for (index, mask) in mask.into_iter().enumerate() {
                let at = 16 * place + index;
                message[16 + at] = body[at] ^ mask;
            }
        }
        message
    }
}

/// Returns a gate as a knock names it.
pub fn gate(name: &str) -> u32 {
    let digest = Sha256::digest(name.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}
