//! The examples for people who write clients: each value follows from those before it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use knock_common::testing::knock::{Knock, gate};
use serde_json::Value;
use sha2::Sha256;

const VECTORS: &str = include_str!("../../../docs/clients/vectors.json");

#[test]
fn every_example_is_what_it_says() {
    let vectors: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    assert!(vectors.len() >= 3);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().expect("a string");
        let bytes = |name: &str| hex(text(name));
        let mut mac = Hmac::<Sha256>::new_from_slice(&bytes("root")).expect("any length");
        mac.update(b"knockgate knock 1");
        mac.update(&bytes("host_id"));
        let key = mac.finalize().into_bytes();
        assert_eq!(key.as_slice(), bytes("key"));
        let body = bytes("body");
        let number = |at: usize, length: usize| {
            let digits = body[at..at + length].iter();
            digits.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let name = text("gate");
        let named = if name.is_empty() { 0 } else { gate(name) };
        assert_eq!(number(12, 4), u64::from(named));
        let knock = Knock {
            host: bytes("host_secret").try_into().expect("16 bytes"),
            key: key.into(),
            slot: u16::try_from(number(8, 2)).expect("two bytes"),
            version: body[10],
            flags: body[11],
            gate: named,
            action: body[16],
            seconds: u16::try_from(number(18, 2)).expect("two bytes"),
            v4: <[u8; 4]>::try_from(&body[20..24]).expect("4 bytes").into(),
            v6: <[u8; 16]>::try_from(&body[24..40])
                .expect("16 bytes")
                .into(),
            port: u16::try_from(number(40, 2)).expect("two bytes"),
            ..Knock::at(number(0, 8))
        };
        let message = knock.sealed();
        assert_eq!(message.as_slice(), bytes("message"));
        assert_eq!(message[..16], bytes("tag"));
        let mask: Vec<u8> = message[16..]
            .iter()
            .zip(&body)
            .map(|(c, b)| c ^ b)
            .collect();
        assert_eq!(mask, bytes("mask"));
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(|pair| byte(pair).expect("two digits")).collect()
}
