use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
    thread,
};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn key(name: &str, slot: u16) -> HostKey {
    HostKey {
        name: name.parse().expect("a name"),
        slot,
        state: KeyState::Valid,
        secret: Secret::random().expect("randomness"),
        created: at(1_700_000_000),
        expires: None,
        bound: false,
        gates: vec![],
        replaced: false,
    }
}

fn host() -> Host {
    Host {
        id: *b"0123456789abcdef",
        secret: Secret::new([7; 16]),
        previous: None,
    }
}

/// A folder of keys below a temporary one, as `knockgate key` leaves it.
fn filled(keys: &[&[HostKey]]) -> (tempfile::TempDir, Folder) {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(temporary.path().join("new/keys"));
    let lock = folder.lock().expect("nobody else has it");
    lock.save_host(&host()).expect("saved");
    for keys in keys {
        lock.save(&keys[0].name, keys).expect("saved");
    }
    (temporary, folder)
}

fn refusal(folder: &Folder) -> String {
    format!("{:#}", folder.load().expect_err("it is refused"))
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o7777
}

#[test]
fn a_key_is_derived_as_documented() {
    // `printf 'knockgate knock 1\x00\x01…\x0f' | openssl mac -digest SHA256 -macopt hexkey:0b0b…0b HMAC`
    let id = std::array::from_fn(|nth| u8::try_from(nth).expect("below 16"));
    let derived = derive(&Secret::new([0x0b; 32]), &id);
    assert_eq!(
        derived.to_hex().as_str(),
        "fe7b9b6ef4fc88dab3e034834ce80e77f9ea3fbe56752f33d9034da8385164ee"
    );
    let elsewhere = derive(&Secret::new([0x0b; 32]), b"0123456789abcdef");
    assert_ne!(derived, elsewhere);
}

#[test]
fn keys_survive_the_folder() {
    let laptop = HostKey {
        expires: Some(at(1_800_000_000)),
        bound: true,
        gates: vec!["ssh".to_owned(), "web.1".to_owned()],
        ..key("alice/laptop", 2)
    };
    let before = HostKey {
        state: KeyState::Revoked {
            since: at(1_750_000_000),
        },
        replaced: true,
        ..key("alice/laptop", 0)
    };
    let bob = key("bob", 1);
    let (_temporary, folder) = filled(&[
        &[laptop.clone(), before.clone()],
        std::slice::from_ref(&bob),
    ]);
    let set = folder.load().expect("it is as it was written");
    assert_eq!(set.keys, [before, bob.clone(), laptop.clone()]);
    assert_eq!(set.host, Some(host()));
    assert_eq!(set.get(&laptop.name), Some(&laptop));
    assert_eq!(set.named(&laptop.name).count(), 2);

    let lock = folder.lock().expect("nobody else has it");
    let rotated = Host {
        secret: Secret::new([8; 16]),
        previous: Some((host().secret, at(1_760_000_000))),
        ..host()
    };
    lock.save_host(&rotated).expect("saved");
    lock.save(&laptop.name, &[]).expect("removed");
    let set = folder.load().expect("readable");
    assert_eq!(set.keys, [bob]);
    assert_eq!(set.host, Some(rotated));
}

#[test]
fn a_folder_that_is_not_there_has_no_keys() {
    let set = Folder::open("/nonexistent/keys")
        .load()
        .expect("nothing is wrong");
    assert!(set.keys.is_empty() && set.host.is_none());
}

#[test]
fn what_is_written_is_the_owners_alone() {
    let (_temporary, folder) = filled(&[&[key("alice/laptop", 0)]]);
    assert_eq!(mode(folder.path()), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.path()).expect("readable") {
        let entry = entry.expect("readable");
        assert_eq!(mode(&entry.path()), 0o600);
        names.push(entry.file_name());
    }
    names.sort();
    assert_eq!(names, ["alice@laptop.toml", "host"]);
}

#[test]
fn what_others_can_use_is_refused_with_what_repairs_it() {
    let alice = key("alice", 0);
    let (_temporary, folder) = filled(&[std::slice::from_ref(&alice)]);
    let file = folder.file_of(&alice.name);
    for (path, good, bad) in [
        (folder.path(), 0o700, [0o755, 0o770, 0o701]),
        (&file, 0o600, [0o640, 0o604, 0o620]),
        (&folder.path().join("host"), 0o600, [0o644, 0o660, 0o602]),
    ] {
        for bad in bad {
            fs::set_permissions(path, Permissions::from_mode(bad)).expect("own file");
            let error = refusal(&folder);
            let repair = format!("`chmod {good:o} {}`", path.display());
            assert!(error.contains(&repair), "{error}");
            assert!(error.contains(&format!("{bad:04o}")), "{error}");
        }
        fs::set_permissions(path, Permissions::from_mode(good)).expect("own file");
        folder.load().expect("repaired");
    }
}

/// Puts something at a path where a key's file is expected.
type Spoil = fn(&Path);

#[test]
fn links_and_strange_files_are_refused() {
    let alice = key("alice", 0);
    let spoilt: [(&str, Spoil, &str); 7] = [
        (
            "bob.toml",
            |path| symlink("alice.toml", path).expect("a link"),
            "is a symbolic link",
        ),
        (
            "bob.toml",
            |path| fs::create_dir(path).expect("a folder"),
            "is no ordinary file",
        ),
        (
            "bob.toml",
            |path| drop(UnixListener::bind(path).expect("a socket")),
            "cannot read",
        ),
        (
            "notes.txt",
            |path| fs::write(path, "").expect("a file"),
            "is no file of a key",
        ),
        (
            "alice.toml~",
            |path| fs::write(path, "").expect("a file"),
            "is no file of a key",
        ),
        (
            "..toml",
            |path| fs::write(path, "").expect("a file"),
            "is no file of a key",
        ),
        (
            "alice@.toml",
            |path| fs::write(path, "").expect("a file"),
            "is no file of a key",
        ),
    ];
    for (name, spoil, says) in spoilt {
        let (_temporary, folder) = filled(&[std::slice::from_ref(&alice)]);
        let path = folder.path().join(name);
        spoil(&path);
        let error = refusal(&folder);
        assert!(error.contains(says), "{name}: {error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    let (temporary, folder) = filled(&[&[alice]]);
    let link = temporary.path().join("link");
    symlink(folder.path(), &link).expect("a link");
    let error = refusal(&Folder::open(link));
    assert!(error.contains("no link to one is followed"), "{error}");
}

#[test]
fn a_file_that_cannot_be_used_is_refused_and_its_secret_is_not_shown() {
    let alice = key("alice", 0);
    let (_temporary, folder) = filled(&[std::slice::from_ref(&alice)]);
    let path = folder.file_of(&alice.name);
    let good = fs::read_to_string(&path).expect("readable");
    let secret = alice.secret.to_hex();
    for (from, to, says) in [
        (
            secret.as_str(),
            &secret[1..],
            "line 5: this is not a secret of 32 bytes",
        ),
        ("slot    = 0", "slot    = 70000", "line 4: "),
        ("slot    = 0\n", "", "missing field `slot`"),
        ("bound ", "bount ", "unknown field `bount`"),
        ("[]", "[\"no gate\"]", "may hold only letters"),
        ("[[key]]", "[[key]", "line 3: "),
    ] {
        fs::write(&path, good.replacen(from, to, 1)).expect("own file");
        let error = refusal(&folder);
        assert!(error.contains(says), "{error}");
        assert!(!error.contains(&secret[1..]), "{error}");
    }
    fs::write(&path, "key = []").expect("own file");
    assert!(refusal(&folder).contains("it has no [[key]]"));
}

#[test]
fn two_keys_with_one_slot_and_keys_without_a_host_are_refused() {
    let (_temporary, folder) = filled(&[&[key("alice", 3)], &[key("bob", 3)]]);
    let error = refusal(&folder);
    assert!(error.contains("have the same slot, 3"), "{error}");
    assert!(
        error.contains("alice.toml") && error.contains("bob.toml"),
        "{error}"
    );
    let (_temporary, folder) = filled(&[&[key("alice", 3)]]);
    fs::remove_file(folder.path().join("host")).expect("own file");
    let error = refusal(&folder);
    assert!(
        error.contains("host is missing, without which key alice"),
        "{error}"
    );
}

#[test]
fn what_a_crash_leaves_is_ignored_and_then_removed() {
    let (_temporary, folder) = filled(&[&[key("alice", 0)]]);
    let left = folder.path().join(".new-x1y2z3");
    fs::write(&left, "slot").expect("own file");
    assert_eq!(folder.load().expect("ignored").keys.len(), 1);
    drop(folder.lock().expect("nobody else has it"));
    assert!(!left.exists());
}

#[test]
fn one_at_a_time_changes_the_folder() {
    let (_temporary, folder) = filled(&[]);
    thread::scope(|scope| {
        for nth in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                let lock = folder.lock().expect("the others are quick");
                let set = lock.folder().load().expect("readable");
                let slot = set.free_slot(8, at(0)).expect("one for each");
                let key = key(&format!("user{nth}"), slot);
                lock.save(&key.name.clone(), &[key]).expect("saved");
            });
        }
    });
    let set = folder.load().expect("no slot twice");
    let slots: Vec<u16> = set.keys.iter().map(|key| key.slot).collect();
    assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn the_lowest_slot_is_given_and_then_that_of_the_key_that_ended_first() {
    let now = at(1_700_000_000);
    let day = |days: i64| now + SignedDuration::from_hours(24 * days);
    let revoked = |name: &str, slot, since| HostKey {
        state: KeyState::Revoked { since },
        ..key(name, slot)
    };
    let expired = |name: &str, slot, end| HostKey {
        expires: Some(end),
        ..key(name, slot)
    };
    let mut set = KeySet::default();
    assert_eq!(set.free_slot(4, now), Some(0));
    set.keys = vec![key("a", 0), revoked("b", 1, day(-2)), key("d", 3)];
    assert_eq!(set.free_slot(4, now), Some(2));
    set.keys.insert(2, expired("c", 2, day(-3)));
    assert_eq!(set.free_slot(5, now), Some(4));
    assert_eq!(set.free_slot(4, now), Some(2));
    set.keys[2] = expired("c", 2, day(1));
    assert_eq!(set.free_slot(4, now), Some(1));
    // Above what the table holds, a slot is of no use.
    assert_eq!(set.free_slot(1, now), None);
    set.keys[1] = revoked("b", 1, now - SignedDuration::from_hours(23));
    assert_eq!(set.free_slot(4, now), None);
}

#[test]
fn a_key_is_put_at_its_slot() {
    let mut set = KeySet::default();
    for (name, slot, before) in [
        ("b", 3, None),
        ("a", 0, None),
        ("c", 1, None),
        ("d", 3, Some("b")),
    ] {
        let had_it = set.put(key(name, slot));
        let had_it = had_it.map(|key| key.name.to_string());
        assert_eq!(had_it.as_deref(), before, "{name}");
    }
    let rows = set.keys.iter();
    let rows: Vec<_> = rows.map(|key| (key.name.to_string(), key.slot)).collect();
    assert_eq!(
        rows,
        [("a", 0), ("c", 1), ("d", 3)].map(|(name, slot)| (name.to_owned(), slot))
    );
}

#[test]
fn a_key_has_ended_when_it_expires_or_is_revoked() {
    let mut key = key("alice", 0);
    assert_eq!(key.ended(at(100)), None);
    key.expires = Some(at(100));
    assert_eq!(key.ended(at(99)), None);
    assert_eq!(key.ended(at(100)), Some(at(100)));
    key.state = KeyState::Revoked { since: at(50) };
    assert_eq!(key.ended(at(99)), Some(at(50)));
    assert_eq!(key.ended(at(200)), Some(at(50)));
    key.state = KeyState::Revoked { since: at(150) };
    assert_eq!(key.ended(at(200)), Some(at(100)));
}

#[test]
fn only_a_key_that_waits_for_its_time_is_reset() {
    let ahead = SignedDuration::from_secs(15);
    let after_reset = |newest| newest_after_reset(at(newest), at(1_000), ahead);
    assert_eq!(after_reset(5_000), Some(at(1_015)));
    assert_eq!(after_reset(1_016), Some(at(1_015)));
    // The clock of a client may be that much ahead.
    assert_eq!(after_reset(1_015), None);
    assert_eq!(after_reset(900), None);
}
