use std::{collections::BTreeMap, fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::keys::{HostKey, KeyState, PersonKey};

/// A configuration with two gates, one of which names a key, and its folder of keys.
struct Host {
    folder: tempfile::TempDir,
    config: Config,
    root: PinRoot,
}

impl Host {
    fn new(slots: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = format!(
            "[limits]\nkeys = {slots}\n[knock]\nports = ['41641/udp']\nkeys = '{}'\n\
             [[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\n\
             [[gate]]\nname = 'web'\nprotect = ['443/tcp']\n[[gate.knock]]\nuser = 'alice'\nkey = 'alice/laptop'\n",
            folder.path().join("keys").display()
        );
        let (config, _) = Config::parse(&text, "k.toml").expect("valid");
        let root = PinRoot::new("/nonexistent/pins");
        Self {
            folder,
            config,
            root,
        }
    }

    fn store(&self) -> Store<'_> {
        Store {
            folder: Folder::open(&self.config.knock.keys),
            config: &self.config,
            root: &self.root,
        }
    }

    /// Gives a command as it is typed behind `knockgate key`.
    fn give(&self, words: &[&str]) -> Result<String> {
        let mut out = Vec::new();
        self.give_to(words, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn give_to(&self, words: &[&str], out: &mut impl Write) -> Result<()> {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(subcommand)]
            command: Command,
        }
        let line = Line::try_parse_from(["key"].iter().chain(words))?;
        carry_out(&line.command, &self.store(), out)
    }

    /// Returns every file of the folder with its text.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let entries = fs::read_dir(&self.config.knock.keys).expect("it was made");
        let files = entries.map(|entry| entry.expect("readable").path());
        files
            .map(|path| (path.clone(), fs::read_to_string(path).expect("ours")))
            .collect()
    }

    fn refusal(&self, words: &[&str]) -> String {
        let error = self.give(words).expect_err("it is refused");
        format!("{error:#}")
    }

    fn set(&self) -> KeySet {
        self.store().folder.load().expect("readable")
    }

    fn key(&self, name: &str) -> HostKey {
        let name = name.parse().expect("a name");
        self.set().get(&name).expect("there is one").clone()
    }

    /// Returns name, slot and state of each key, as `list` shows them.
    fn listed(&self) -> Vec<(String, &'static str)> {
        let document = list::document(&self.store()).expect("readable");
        let rows = document.keys.into_iter();
        rows.map(|row| (row.name, row.state)).collect()
    }

    /// Lets the end of every key of a name be two days ago.
    fn end(&self, name: &str) {
        let name = name.parse().expect("a name");
        let lock = self.store().folder.lock().expect("nobody else has it");
        let mut keys: Vec<HostKey> = self.set().named(&name).cloned().collect();
        keys.sort_by_key(|key| key.replaced);
        for key in &mut keys {
            key.expires = Some(Timestamp::now() - SignedDuration::from_hours(48));
        }
        lock.save(&name, &keys).expect("saved");
    }
}

#[test]
fn a_new_key_opens_its_own_gates_and_those_that_name_it() {
    let host = Host::new(4);
    host.give(&[
        "new",
        "alice/laptop",
        "--gate",
        "ssh",
        "--gate",
        "ssh",
        "--bound",
        "--expires",
        "90d",
    ])
    .expect("made");
    let key = host.key("alice/laptop");
    assert_eq!((key.slot, key.bound, key.state), (0, true, KeyState::Valid));
    assert_eq!(key.gates, ["ssh"]);
    let lifetime = key.expires.expect("a time").duration_since(key.created);
    assert_eq!(lifetime, SignedDuration::from_hours(90 * 24));
    assert_eq!(
        gates_of(&host.config, &key.name, &key.gates),
        ["ssh", "web"]
    );

    host.give(&["new", "bob"]).expect("made");
    let bob = host.key("bob");
    assert_eq!((bob.slot, bob.bound, bob.expires), (1, false, None));
    assert_ne!(bob.secret, key.secret);
    assert_eq!(
        gates_of(&host.config, &bob.name, &bob.gates),
        [] as [&str; 0]
    );
}

#[test]
fn what_cannot_be_made_is_refused_and_changes_nothing() {
    let host = Host::new(2);
    for (words, says) in [
        (
            ["new", "alice", "--gate", "shs"].as_slice(),
            "did you mean \"ssh\"?",
        ),
        (
            &["new", "alice", "--gate", "database"],
            "the gates are ssh, web",
        ),
        (&["new", "alice laptop"], "such as alice or alice/laptop"),
        (&["new", "alice", "--expires", "0d"], "opens nothing"),
        (&["new", "alice", "--qr", "--json"], "cannot be used with"),
        (&["revoke", "alice"], "there is no key alice"),
        (&["rotate", "alice"], "there is no key alice"),
        (&["rotate-host"], "there are no keys yet"),
    ] {
        let error = host.refusal(words);
        assert!(error.contains(says), "{words:?}: {error}");
        assert!(host.set().keys.is_empty() && host.set().host.is_none());
    }
    host.give(&["new", "alice"]).expect("made");
    let error = host.refusal(&["new", "alice"]);
    assert!(error.contains("`knockgate key rotate alice`"), "{error}");
    let error = host.refusal(&["revoke", "alic"]);
    assert!(error.contains("did you mean alice?"), "{error}");
    host.give(&["new", "bob"]).expect("made");
    let error = host.refusal(&["new", "carol"]);
    assert!(error.contains("all 2 slots for keys are taken"), "{error}");

    let mut without_port = Host::new(2);
    without_port.config.knock.ports.clear();
    let error = without_port.refusal(&["new", "alice"]);
    assert!(error.contains("ports = [\"41641/udp\"]"), "{error}");
}

#[test]
fn a_revoked_key_ends_and_its_name_can_be_given_again() {
    let host = Host::new(4);
    host.give(&["new", "alice"]).expect("made");
    let first = host.key("alice");
    host.give(&["revoke", "alice"]).expect("revoked");
    assert!(matches!(host.key("alice").state, KeyState::Revoked { .. }));
    host.give(&["revoke", "alice"]).expect("nothing to do");
    assert!(
        host.refusal(&["rotate", "alice"])
            .contains("`knockgate key new alice`")
    );
    host.give(&["new", "alice"]).expect("made");
    let second = host.key("alice");
    assert_eq!((first.slot, second.slot), (0, 1));
    assert_ne!(first.secret, second.secret);
    assert_eq!(
        host.listed(),
        [
            ("alice".to_owned(), "valid"),
            ("alice".to_owned(), "revoked")
        ]
    );
}

#[test]
fn a_rotated_key_works_beside_its_successor_for_a_while() {
    let host = Host::new(4);
    host.give(&[
        "new",
        "alice",
        "--gate",
        "web",
        "--bound",
        "--expires",
        "30d",
    ])
    .expect("made");
    host.give(&["rotate", "alice"]).expect("rotated");
    let set = host.set();
    let [old, new] = set.keys.as_slice() else {
        panic!("two keys, not {set:?}");
    };
    assert!(old.replaced && !new.replaced);
    assert_eq!((&new.gates, new.bound), (&old.gates, true));
    assert_ne!(old.secret, new.secret);
    let days = |key: &HostKey, from: Timestamp| {
        let left = key.expires.expect("a time").duration_since(from);
        left.as_hours() / 24
    };
    assert_eq!((days(old, new.created), days(new, new.created)), (7, 30));
    assert_eq!(
        host.listed(),
        [
            ("alice".to_owned(), "valid"),
            ("alice".to_owned(), "replaced")
        ]
    );

    host.give(&["rotate", "alice", "--overlap", "0s", "--expires", "1d"])
        .expect("rotated");
    let set = host.set();
    let ended = |slot: usize| set.keys[slot].ended(Timestamp::now()).is_some();
    // The one before ends too: it was to work no longer than its successor.
    assert_eq!([ended(0), ended(1), ended(2)], [true, true, false]);
    // For good, and with what they have opened.
    let is_revoked = |key: &HostKey| key.state != KeyState::Valid;
    assert!(set.keys[..2].iter().all(is_revoked), "{set:?}");
    assert_eq!(days(&set.keys[2], set.keys[2].created), 1);

    host.give(&["revoke", "alice"]).expect("revoked");
    assert!(matches!(host.key("alice").state, KeyState::Revoked { .. }));
}

#[test]
fn every_key_of_a_name_is_revoked() {
    let host = Host::new(4);
    host.give(&["new", "alice"]).expect("made");
    host.give(&["rotate", "alice"]).expect("rotated");
    host.give(&["revoke", "alice"]).expect("revoked");
    let states: Vec<_> = host.listed().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["revoked", "revoked"]);
}

/// Its grants may be live, and the clock may be set back.
#[test]
fn a_key_that_has_expired_is_revoked_too() {
    let host = Host::new(4);
    host.give(&["new", "alice"]).expect("made");
    host.end("alice");
    assert_eq!(host.key("alice").state, KeyState::Valid);
    host.give(&["revoke", "alice"]).expect("revoked");
    let since = host.key("alice").state;
    assert!(matches!(since, KeyState::Revoked { .. }));
    host.give(&["revoke", "alice"]).expect("nothing to write");
    assert_eq!(host.key("alice").state, since);
}

/// A new key leaves what one that has expired has opened.
#[test]
fn a_new_key_revokes_what_still_works_under_its_name_alone() {
    let host = Host::new(4);
    host.give(&["new", "alice"]).expect("made");
    host.end("alice");
    for _ in 0..2 {
        host.give(&["rotate", "alice", "--expires", "30d"])
            .expect("rotated");
    }
    let lock = host.store().folder.lock().expect("nobody else has it");
    let name = "alice".parse().expect("a name");
    let mut keys = host.set().newest_first(&name);
    keys[0].expires = Some(keys[0].created);
    lock.save(&name, &keys).expect("saved");
    drop(lock);
    host.give(&["new", "alice"])
        .expect("the newest has expired");
    let states: Vec<_> = host.listed().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["valid", "expired", "revoked", "expired"]);
}

/// Writes nothing, as standard output does whose reader has gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_printed_changes_nothing() {
    let host = Host::new(2);
    let refused = |words: &[&str]| {
        let error = host.give_to(words, &mut Closed).expect_err("not printed");
        assert!(error.to_string().contains("nothing was changed"), "{error}");
    };
    refused(&["new", "alice"]);
    assert_eq!(host.files(), BTreeMap::new());
    host.give(&["new", "alice"]).expect("made");
    host.give(&["new", "bob"]).expect("made");
    host.end("bob");
    let before = host.files();
    for words in [
        ["new", "carol"].as_slice(),
        &["new", "carol", "--json"],
        &["new", "bob", "--qr"],
        &["rotate", "alice", "--overlap", "0s"],
        &["rotate-host"],
        &["rotate-host", "--json"],
    ] {
        refused(words);
        assert_eq!(host.files(), before, "{words:?}");
    }
}

#[test]
fn the_slot_of_a_key_that_has_ended_is_given_again_where_no_other_is_free() {
    let host = Host::new(2);
    for name in ["alice", "bob"] {
        host.give(&["new", name]).expect("made");
    }
    host.end("alice");
    host.give(&["new", "carol"]).expect("made");
    assert_eq!(host.key("carol").slot, 0);
    let file = host.folder.path().join("keys/alice.toml");
    assert!(!file.exists(), "nothing is kept of alice's key");
    // Also for the very name that had it.
    host.end("bob");
    host.give(&["new", "bob"]).expect("made");
    assert_eq!(host.key("bob").slot, 1);
    assert_eq!(host.set().keys.len(), 2);
}

#[test]
fn a_new_secret_of_the_host_leaves_time_for_everyone() {
    let host = Host::new(4);
    host.give(&["new", "alice"]).expect("made");
    let before = host.set().host.expect("made with the first key");
    host.give(&["rotate-host"]).expect("rotated");
    let after = host.set().host.expect("there is one");
    assert_eq!(before.id, after.id);
    assert_ne!(before.secret, after.secret);
    let (previous, until) = after.previous.expect("it still works");
    assert_eq!(previous, before.secret);
    let days = until.duration_since(Timestamp::now()).as_hours() / 24;
    assert!((29..=30).contains(&days), "{days}");

    let error = host.refusal(&["rotate-host"]);
    assert!(error.contains("--anyway"), "{error}");
    host.give(&["rotate-host", "--anyway", "--overlap", "0s"])
        .expect("rotated");
    host.give(&["rotate-host"])
        .expect("nobody uses the one before");
}

#[test]
fn what_is_printed_leads_to_what_the_host_keeps() {
    let host = Host::new(4);
    let printed = host
        .give(&[
            "new",
            "alice/laptop",
            "--gate",
            "ssh",
            "--host",
            "host.example",
        ])
        .expect("made");
    let person = PersonKey::parse(&printed).expect("the file of a person");
    let set = host.set();
    let (kept, common) = (&set.keys[0], set.host.as_ref().expect("there is one"));
    assert_eq!(person.key(), kept.secret);
    assert_eq!(
        (person.host_id, &person.host_secret),
        (common.id, &common.secret)
    );
    assert_eq!((person.slot, person.port), (kept.slot, 41_641));
    assert_eq!(person.host.as_deref(), Some("host.example"));
    assert_eq!(person.gates, ["ssh", "web"]);
    let file = fs::read_to_string(host.folder.path().join("keys/alice@laptop.toml"));
    let root = person.root.to_hex();
    assert!(!file.expect("ours").contains(root.as_str()));

    let printed = host
        .give(&["rotate", "alice/laptop", "--json"])
        .expect("made");
    let document: serde_json::Value = serde_json::from_str(&printed).expect("one document");
    assert_eq!(document["slot"], 1);
    assert_ne!(document["root"], root.as_str());
    assert_eq!(document["host_secret"], common.secret.to_hex().as_str());

    let printed = host.give(&["new", "bob", "--qr"]).expect("made");
    assert!(
        printed.contains("host_secret = ") && printed.contains('█'),
        "{printed}"
    );
    let printed = host.give(&["rotate-host"]).expect("rotated");
    let secret = host.set().host.expect("there is one").secret.to_hex();
    assert_eq!(printed, format!("host_secret = \"{}\"\n", secret.as_str()));
}
