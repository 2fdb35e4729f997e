use super::*;
use crate::fleet::keys::FleetKey;

fn codec(fleet: &str, keys: &[&FleetKey]) -> Codec {
    let keys = keys.iter().map(|key| (*key).clone()).collect();
    Codec::new(fleet, Keyring::new(keys).expect("there is one"))
}

fn key() -> FleetKey {
    FleetKey::random().expect("a random key")
}

const HEAD: Mark = Mark {
    number: 12,
    nonce: u64::MAX,
};

fn grant() -> Grant {
    Grant {
        user: Some("alice".into()),
        key: Some("alice/laptop".into()),
        print: Some(u64::MAX),
        origin: "edge-1".into(),
        serial: 1_700_000_000_000_000,
        given: 1_699_999_999_000_000,
        end: 1_700_000_030_000,
        left: 30_000,
        head: HEAD,
    }
}

fn source() -> IpNet {
    "2001:db8::/64".parse().expect("a network")
}

#[test]
fn what_is_written_is_read() {
    let key = key();
    let codec = codec("edge", &[&key]);
    let read = |(key, value): (String, Vec<u8>)| (codec.read(&key, &value), key);
    let (record, name) = read(codec.grant("ssh", source(), &grant()));
    assert_eq!(name, "grant/ssh/2001:db8::_64");
    let expected = Record::Grant {
        gate: "ssh".into(),
        source: source(),
        grant: grant(),
    };
    assert_eq!(record, Ok(expected));
    let revocation = Revocation {
        gate: None,
        network: Some(source()),
        host: "edge-2".into(),
        nonce: u64::MAX,
        after: 7,
    };
    let (record, name) = read(codec.revocation(12, &revocation));
    assert_eq!(name, "revoke/00000000000000000012");
    assert_eq!(record, Ok(Record::Revocation(12, revocation)));
    let (record, name) = read(codec.head(HEAD));
    assert_eq!(
        (name.as_str(), record),
        (head_key(), Ok(Record::Head(HEAD)))
    );
    let (record, name) = read(codec.seen("alice/laptop", Seen { time: 77 }));
    assert_eq!(name, "seen/alice/laptop");
    let user = "alice/laptop".parse().expect("a name");
    assert_eq!(record, Ok(Record::Seen(user, Seen { time: 77 })));
    let packet = Packet {
        end: "ABCDEFGHIJKLMNOPQRSTUV".into(),
        time: 78,
        host: "edge-1".into(),
    };
    let print = Fingerprint {
        hash: [0xab; 32],
        end: *b"ABCDEFGHIJKLMNOPQRSTUV",
        time: 78,
    };
    let (record, name) = read(codec.packet(&print, "edge-1"));
    assert_eq!(name, format!("fwknop/{}", "ab".repeat(32)));
    assert_eq!(record, Ok(Record::Packet(print, packet)));
    let host = Host {
        version: "0.1".into(),
        configuration: "ab".into(),
        serial: 5,
        clock: 6,
        run: u64::MAX,
        lag: None,
    };
    let (record, _) = read(codec.host("edge-1", &host));
    assert_eq!(record, Ok(Record::Host("edge-1".into(), host)));
}

#[test]
fn no_byte_can_be_changed_and_no_record_renamed() {
    let key = key();
    let codec = codec("edge", &[&key]);
    let (name, value) = codec.grant("ssh", source(), &grant());
    for place in 0..value.len() {
        let mut changed = value.clone();
        changed[place] ^= 1;
        let refusal = codec.read(&name, &changed).expect_err("it was changed");
        let expected = if place < 2 {
            Refusal::Version
        } else {
            Refusal::Forged
        };
        assert_eq!(refusal, expected, "{place}");
        assert!(codec.read(&name, &value[..place]).is_err(), "{place}");
    }
    for other in [
        "grant/mail/2001:db8::_64",
        "grant/ssh/2001:db8::_65",
        "host/edge-1",
    ] {
        assert_eq!(codec.read(other, &value), Err(Refusal::Forged));
    }
    assert_eq!(codec.read(&name, &[b'1'; 5000]), Err(Refusal::Forged));
    let other_fleet = self::codec("core", &[&key]);
    assert_eq!(other_fleet.read(&name, &value), Err(Refusal::Forged));
}

#[test]
fn during_a_rotation_two_keys_verify_and_the_first_signs() {
    let (old, new) = (key(), key());
    let (before, during, after) = (
        codec("edge", &[&old]),
        codec("edge", &[&new, &old]),
        codec("edge", &[&new]),
    );
    let of_old = before.grant("ssh", source(), &grant());
    let of_new = during.grant("ssh", source(), &grant());
    let reads = |codec: &Codec, (key, value): &(String, Vec<u8>)| codec.read(key, value).is_ok();
    assert!(reads(&during, &of_old) && reads(&during, &of_new) && reads(&after, &of_new));
    assert!(!reads(&after, &of_old) && !reads(&before, &of_new));
    assert!(before.is_by_own_key(&of_old.1) && after.is_by_own_key(&of_new.1));
    assert!(!during.is_by_own_key(&of_old.1) && during.is_by_own_key(&of_new.1));
}

#[test]
fn what_is_signed_and_makes_no_sense_is_refused() {
    let key = key();
    let codec = codec("edge", &[&key]);
    let read = |(key, value): (String, Vec<u8>)| codec.read(&key, &value);
    let long = Grant {
        left: 367 * 86_400_000,
        ..grant()
    };
    assert_eq!(
        read(codec.grant("ssh", source(), &long)),
        Err(Refusal::TooLong)
    );
    let later = Grant {
        end: grant().end + 2,
        ..grant()
    };
    assert_eq!(
        read(codec.grant("ssh", source(), &later)),
        Err(Refusal::Malformed)
    );
    let ahead = Grant {
        given: grant().serial + 1,
        ..grant()
    };
    assert_eq!(
        read(codec.grant("ssh", source(), &ahead)),
        Err(Refusal::Malformed)
    );
    for place in [
        "grant/ssh/2001:db8::1_64",
        "grant/ssh/2001:DB8::_64",
        "grant/ssh/::_0",
        "grant/ssh/10.0.0.1",
        "grant/10.0.0.1_32",
        "grant/s h/10.0.0.1_32",
    ] {
        let signed = codec.signed(place.into(), 0, &grant());
        assert_eq!(read(signed), Err(Refusal::Malformed), "{place}");
    }
    for (name, body) in [
        ("host/a b", "{}"),
        ("other", "{}"),
        ("revoke/x", "{}"),
        ("revoke/0", "{}"),
    ] {
        let signed = codec.signed(name.into(), 0, &body);
        assert_eq!(read(signed), Err(Refusal::Malformed), "{name}");
    }
}

#[test]
fn newest_times_grow_byte_by_byte() {
    let key = key();
    let codec = codec("edge", &[&key]);
    let value = |time| codec.seen("alice", Seen { time }).1;
    let times = [0, 9, 10, 1_700_000_000_000_000_000, u64::MAX];
    assert!(times.map(value).is_sorted());
    // By whichever key.
    let other = self::codec("edge", &[&self::key()]);
    assert!(value(9) < other.seen("alice", Seen { time: 10 }).1);
}
