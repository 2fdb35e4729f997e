//! Warnings about keys, with folders of keys that are part of the test.

use jiff::{SignedDuration, Timestamp};

use super::{
    warnings::{KNOCK, codes, host},
    *,
};
use crate::keys::{Folder, Host, HostKey, KeyState, Secret};

fn alice(slot: u16) -> HostKey {
    HostKey {
        name: "alice".parse().expect("a name"),
        slot,
        state: KeyState::Valid,
        secret: Secret::new([1; 32]),
        created: Timestamp::now(),
        expires: None,
        bound: false,
        gates: vec![],
        replaced: false,
    }
}

fn common() -> Host {
    Host {
        id: [0; 16],
        secret: Secret::new([2; 16]),
        previous: None,
    }
}

/// With the keys that are in the file system of this test.
#[test]
fn keys_that_open_nothing_or_end_soon_are_warned_of() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(temporary.path().join("keys"));
    let text = GOOD.replace(
        KNOCK,
        &format!(
            "[[gate.knock]]\nuser = \"alice\"\nkey = \"alice\"\n[knock]\nports = [\"4164/udp\"]\nkeys = \"{}\"\n",
            folder.path().display()
        ),
    );
    let host = HostFacts {
        has_keys: true,
        ..host()
    };
    let expect = |what: &str, expected: &[(&str, usize, &str)]| {
        let (_, findings) = Config::parse_on(&text, "k.toml", &host).expect("valid");
        assert_eq!(findings.len(), expected.len(), "{what}: {findings:#?}");
        for (finding, (code, line, says)) in findings.iter().zip(expected) {
            assert_eq!(
                (finding.code, finding.line),
                (*code, Some(*line)),
                "{what}: {finding}"
            );
            assert!(finding.message.contains(says), "{what}: {finding}");
        }
    };
    expect(
        "no folder",
        &[("missing-key-file", 10, "`knockgate key new alice`")],
    );

    let now = Timestamp::now();
    let days = |days: i64| now + SignedDuration::from_hours(24 * days);
    let good = alice(0);
    let lock = folder.lock().expect("nobody else has it");
    lock.save_host(&common()).expect("saved");
    let with = |key: &HostKey| {
        lock.save(&key.name, std::slice::from_ref(key))
            .expect("saved");
    };
    with(&good);
    expect("a good key", &[]);
    for (days_left, expected) in [
        (15, None),
        (13, Some("expires at")),
        (-1, Some("expired at")),
    ] {
        with(&HostKey {
            expires: Some(days(days_left)),
            ..good.clone()
        });
        let expected = expected.map(|says| ("ending-key", 10, says));
        expect("a key that ends", expected.as_slice());
    }
    with(&HostKey {
        state: KeyState::Revoked { since: now },
        ..good.clone()
    });
    expect("a revoked key", &[("ending-key", 10, "was revoked at")]);
    with(&HostKey {
        gates: vec!["ssh".to_owned(), "sssh".to_owned()],
        ..good.clone()
    });
    expect(
        "a gate that is not there",
        &[("key-for-unknown-gate", 12, "a gate \"sssh\"")],
    );
    with(&good);
    let bob = HostKey {
        name: "bob".parse().expect("a name"),
        slot: 1,
        expires: Some(days(13)),
        ..good.clone()
    };
    with(&bob);
    expect(
        "a key that no gate names",
        &[("ending-key", 12, "key bob expires")],
    );
    with(&HostKey {
        expires: Some(days(-1)),
        ..bob
    });
    expect("one that has ended", &[]);

    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o750)).expect("ours");
    expect(
        "a folder for others",
        &[("unusable-keys", 12, "`chmod 700 ")],
    );
}

/// `up` refuses them, so `check` does, though the file itself is valid.
#[test]
fn keys_that_cannot_be_used_are_an_error() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(temporary.path().join("keys"));
    let text = GOOD.replace(
        KNOCK,
        &format!(
            "[[gate.knock]]\nuser = \"alice\"\nkey = \"alice\"\n[knock]\nports = [\"4164/udp\"]\nkeys = \"{}\"\n[limits]\nkeys = 3\n",
            folder.path().display()
        ),
    );
    let host = HostFacts {
        has_keys: true,
        ..host()
    };
    let errors = || -> Vec<String> {
        let (_, findings) = Config::parse_on(&text, "k.toml", &host).expect("valid");
        let errors = findings.into_iter();
        let errors = errors.filter(|finding| finding.level == Level::Error);
        errors
            .map(|error| format!("{} {}", error.code, error.message))
            .collect()
    };
    let lock = folder.lock().expect("nobody else has it");
    lock.save_host(&common()).expect("saved");
    let with_slot = |slot: u16| {
        let key = alice(slot);
        lock.save(&key.name.clone(), &[key]).expect("saved");
    };
    with_slot(2);
    assert_eq!(errors(), [] as [&str; 0]);
    with_slot(3);
    assert_eq!(
        errors(),
        [
            "unusable-keys the key alice has the slot 3, but `keys` in [limits] is 3: set it to 4 or more"
        ]
    );
    with_slot(2);
    fs::write(folder.path().join("alice.toml~"), "").expect("ours");
    let errors = errors();
    assert!(
        errors[0].contains("alice.toml~ is no file of a key"),
        "{errors:?}"
    );
}

#[test]
fn a_key_whose_file_names_the_gate_opens_it_too() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(temporary.path().join("keys"));
    let ports = format!(
        "[knock]\nports = [\"4164/udp\"]\nkeys = \"{}\"\n",
        folder.path().display()
    );
    let without = GOOD.replace(KNOCK, &ports);
    let host = HostFacts {
        has_keys: true,
        ..host()
    };
    assert_eq!(codes(&without, &host), ["gate-without-knocks"]);
    let lock = folder.lock().expect("nobody else has it");
    lock.save_host(&common()).expect("saved");
    let key = HostKey {
        gates: vec!["ssh".to_owned()],
        ..alice(0)
    };
    lock.save(&key.name.clone(), &[key]).expect("saved");
    assert_eq!(codes(&without, &host), [] as [&str; 0]);
    let beside = format!("{GOOD}{ports}");
    assert_eq!(codes(&beside, &host), ["sequence-beside-key"]);
    // Where the keys are not known, nothing is said.
    assert_eq!(
        codes(
            &without,
            &HostFacts {
                has_keys: false,
                ..host
            }
        ),
        [] as [&str; 0]
    );
}

#[test]
fn a_clock_that_nothing_keeps_right_is_warned_of_where_it_matters() {
    let host = HostFacts {
        clock_is_free: true,
        ..host()
    };
    assert_eq!(codes(GOOD, &host), [] as [&str; 0]);
    let text = format!("{GOOD}[knock]\nports = [\"4164/udp\"]\n");
    assert_eq!(codes(&text, &host), ["clock-not-synchronised"]);
}
