//! Keys that change while the gate is up: what ends with them, and what is refused.

use std::{fs, io, path::PathBuf, process::Command, thread, time::Duration};

use knockgate_tests::{
    gate_config::Gate,
    keys::{configure, knock, new_key, outcome, owners_file},
    killed::{Call, killed_at_call},
    lab::{Family, Source::A},
    run::{run, wait_until},
    scenario::{Attach, Scenario},
};

fn with_gate(row: impl Fn(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &gate());
        scenario.knockgate("up").exits(0);
        row(scenario);
    });
}

fn gate() -> Gate {
    Gate::new("ssh", "22/tcp").open_for("1h")
}

/// Writes the configuration with one text in the place of another.
fn edit(scenario: &Scenario, from: &str, to: &str) {
    let text = scenario.lab.configured().expect("it was written");
    let edited = text.replacen(from, to, 1);
    assert_ne!(text, edited);
    scenario.lab.configure(&edited);
}

fn folder(scenario: &Scenario, name: &str) -> PathBuf {
    scenario.lab.folder().join(name)
}

/// Makes another folder of keys, `other`, in which the slot of alice's key is another key's.
fn copy_as(scenario: &Scenario, name: &str) {
    let [from, to] = ["keys", "other"].map(|name| folder(scenario, name));
    let copied = run(Command::new("cp").arg("-a").args([&from, &to]));
    copied.exits(0);
    let (old, new) = (to.join("alice.toml"), to.join(format!("{name}.toml")));
    let text = fs::read_to_string(&old).expect("it was copied");
    let (before, secret) = text.split_once("secret  = \"").expect("it has one");
    let digits = "0".repeat(8);
    fs::write(
        &old,
        format!("{before}secret  = \"{digits}{}", &secret[8..]),
    )
    .expect("writable");
    fs::rename(old, new).expect("writable");
}

fn alice(state: &str) -> (String, String) {
    ("alice".to_owned(), state.to_owned())
}

/// Returns name and state of every key in the folder of the configuration.
fn listed(scenario: &Scenario) -> Vec<(String, String)> {
    let document = scenario.knockgate("key list --json").exits(0).json();
    let keys = document["keys"].as_array().expect("a list");
    let text = |key: &serde_json::Value, of: &str| key[of].as_str().expect("a text").to_owned();
    keys.iter()
        .map(|key| (text(key, "name"), text(key, "state")))
        .collect()
}

/// As after a command that was killed when it had written the file.
#[test]
fn a_key_that_is_revoked_in_its_file_alone_is_revoked_again() {
    with_gate(|scenario| {
        let key = new_key(scenario, "alice --gate ssh");
        knock(scenario, &key, "--then 22/tcp").exits(0);
        let file = folder(scenario, "keys").join("alice.toml");
        let text = fs::read_to_string(&file).expect("its file");
        let revoked = "revoked = \"2020-01-01T00:00:00Z\"\nbound ";
        fs::write(&file, text.replace("bound ", revoked)).expect("writable");
        assert_eq!(listed(scenario)[0].1, "revoked");
        scenario.open(A, "22/tcp");
        let again = scenario.knockgate("key revoke alice");
        again.exits(0).says(&["key alice was revoked already"]);
        assert_eq!(scenario.lab.list("grants").len(), 0);
        knock(scenario, &key, "").exits(0);
        wait_until("it has arrived", || outcome(scenario, "revoked") == 1);
        scenario.closed(A, "22/tcp");
    });
}

/// A key that does not fit keeps others from being made, and none from being revoked.
#[test]
fn a_key_that_does_not_fit_keeps_no_other_from_being_revoked() {
    with_gate(|scenario| {
        let key = new_key(scenario, "alice --gate ssh");
        knock(scenario, &key, "--then 22/tcp").exits(0);
        let folder = folder(scenario, "keys");
        let text = fs::read_to_string(folder.join("alice.toml")).expect("its file");
        let copy = folder.join("zed.toml");
        let copied = run(Command::new("cp")
            .arg("-a")
            .args([&folder.join("alice.toml"), &copy]));
        copied.exits(0);
        fs::write(&copy, text.replace("slot    = 0", "slot    = 300")).expect("writable");
        for command in ["new bob", "rotate alice --overlap 0s", "rotate-host"] {
            let refused = scenario.knockgate(&format!("key {command}"));
            refused
                .exits(1)
                .prints_nothing()
                .says(&["zed has the slot 300"]);
        }
        let now = fs::read_to_string(folder.join("alice.toml"));
        assert_eq!(now.expect("its file"), text);
        assert!(!folder.join("bob.toml").exists());
        let revoked = scenario.knockgate("key revoke alice");
        revoked.exits(0).says(&["zed has the slot 300"]);
        assert_eq!(scenario.lab.list("grants").len(), 0);
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn what_a_key_has_opened_ends_where_its_owner_ends_it() {
    with_gate(|scenario| {
        let stolen = new_key(scenario, "alice --gate ssh");
        knock(scenario, &stolen, "--then 22/tcp").exits(0);
        let rotated = scenario.knockgate("key rotate alice --overlap 0s");
        let text = rotated
            .exits(0)
            .says(&["a grant has ended with it"])
            .stdout
            .clone();
        scenario.closed(A, "22/tcp");
        let key = owners_file(scenario, "new.toml", &text);
        knock(scenario, &key, "--then 22/tcp").exits(0);
        scenario.knockgate("revoke --all").exits(0);

        let key = new_key(scenario, "bob --gate ssh --expires 15s");
        knock(scenario, &key, "--then 22/tcp").exits(0);
        wait_until("it has expired", || {
            listed(scenario).contains(&("bob".to_owned(), "expired".to_owned()))
        });
        // By itself, a key ends what it can open, and not what it has opened.
        scenario.knockgate("key new carol").exits(0);
        scenario.open(A, "22/tcp");
        let revoked = scenario.knockgate("key revoke bob");
        revoked.exits(0).says(&["a grant has ended with it"]);
        scenario.closed(A, "22/tcp");
    });
}

/// A slot is given again where the file of its key was removed by hand.
#[test]
fn a_key_has_no_grant_of_the_one_before_it_in_its_slot() {
    with_gate(|scenario| {
        let key = new_key(scenario, "alice --gate ssh");
        knock(scenario, &key, "--then 22/tcp").exits(0);
        fs::remove_file(folder(scenario, "keys").join("alice.toml")).expect("its file");
        let made = scenario.knockgate("key new carol --gate ssh");
        made.exits(0).says(&["a grant has ended with it"]);
        assert!(made.stdout.contains("slot        = 0\n"), "{made:?}");
        assert_eq!(scenario.lab.list("grants").len(), 0);
        scenario.closed(A, "22/tcp");
    });
}

/// Into the same tables, and into larger ones.
#[test]
fn a_key_of_another_folder_has_no_grant_of_the_one_before_it_in_its_slot() {
    for limits in ["limits = {", "limits = { keys = 300,"] {
        with_gate(|scenario| {
            let key = new_key(scenario, "alice --gate ssh");
            knock(scenario, &key, "--then 22/tcp").exits(0);
            copy_as(scenario, "carol");
            edit(scenario, "/keys\"", "/other\"");
            let text = scenario.lab.configured().expect("it was written");
            scenario.lab.configure(&text.replace("limits = {", limits));
            scenario.knockgate("reload").exits(0);
            assert_eq!(scenario.lab.list("grants").len(), 0, "{limits}");
            scenario.closed(A, "22/tcp");
        });
    }
}

#[test]
fn keys_are_changed_in_the_folder_that_is_in_force() {
    with_gate(|scenario| {
        let key = new_key(scenario, "alice --gate ssh");
        copy_as(scenario, "alice");
        let file = folder(scenario, "other").join("alice.toml");
        let before = fs::read_to_string(&file).expect("it was copied");
        edit(scenario, "/keys\"", "/other\"");
        for command in [
            "new bob --gate ssh",
            "revoke alice",
            "rotate alice --overlap 0s",
            "rotate-host",
            "reset alice",
        ] {
            let refused = scenario.knockgate(&format!("key {command}"));
            refused.exits(1).prints_nothing();
            refused.says(&["/keys,", "/other:", "`knockgate reload`"]);
        }
        assert_eq!(listed(scenario), [alice("valid")]);
        assert_eq!(fs::read_to_string(&file).expect("it is there"), before);
        knock(scenario, &key, "--then 22/tcp").exits(0);
        // Also where the trial of the other folder would return to the first.
        scenario.knockgate("up --try 5m").exits(0);
        let refused = scenario.knockgate("key revoke alice");
        refused
            .exits(1)
            .says(&["`knockgate confirm`", "/keys without this change"]);
        assert_eq!(listed(scenario), [alice("valid")]);
        scenario.knockgate("confirm").exits(0);
        scenario.knockgate("key revoke alice").exits(0);
        assert_eq!(listed(scenario), [alice("revoked")]);
    });
}

#[test]
fn a_key_is_made_for_what_is_in_force() {
    with_gate(|scenario| {
        let more = "[[gate]]\nname = \"web\"\nprotect = [\"80/tcp\"]\n[[gate]]";
        for (from, to, command, says) in [
            ("[[gate]]", more, "new bob --gate web", "gate web"),
            ("41641/udp", "41642/udp", "new bob", "port 41642/udp"),
            ("41641/udp", "41642/udp", "rotate alice", "port 41642/udp"),
            (
                "limits = {",
                "limits = { keys = 2,",
                "new bob",
                "all 1 slots",
            ),
        ] {
            // One slot is in force.
            configure(scenario, "", &gate());
            edit(scenario, "limits = {", "limits = { keys = 1,");
            scenario.knockgate("reload").exits(0);
            if listed(scenario).is_empty() {
                new_key(scenario, "alice");
            }
            let text = scenario.lab.configured().expect("it was written");
            let text = text.replace("limits = { keys = 1,", "limits = {");
            scenario.lab.configure(&text);
            edit(scenario, from, to);
            let refused = scenario.knockgate(&format!("key {command}"));
            refused.exits(1).prints_nothing();
            refused.says(&[says, "`knockgate reload`"]);
            assert_eq!(listed(scenario), [alice("valid")], "{command}");
        }
    });
}

#[test]
fn what_nobody_reads_changes_no_key_and_is_no_success() {
    with_gate(|scenario| {
        let key = new_key(scenario, "alice --gate ssh");
        let closed = |command: &str| {
            let words: Vec<&str> = command.split(' ').collect();
            let mut command = scenario.lab.knockgate_command(&words);
            let (reader, writer) = io::pipe().expect("two descriptors");
            drop(reader);
            let output = command.stdout(writer).output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), said)
        };
        for command in [
            "key new bob --gate ssh",
            "key rotate alice --overlap 0s",
            "key rotate-host --overlap 0s",
        ] {
            let (status, said) = closed(command);
            assert_eq!(status, Some(1), "{command}: {said}");
            assert!(said.contains("nothing was changed"), "{command}: {said}");
        }
        assert_eq!(closed("key list"), (Some(0), String::new()));
        assert_eq!(listed(scenario), [alice("valid")]);
        knock(scenario, &key, "--then 22/tcp").exits(0);
    });
}

/// A key in the slot of another one, whose gates are not its own, however far a command has come that was killed.
#[test]
fn a_key_in_the_slot_of_another_never_opens_what_that_one_opened() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "max_ahead = \"100ms\"", &gate());
        let text = scenario.lab.configured().expect("it was written");
        scenario.lab.configure(&format!("{text}{}", Gate::mail()));
        scenario.knockgate("up").exits(0);
        new_key(scenario, "alice --gate ssh");
        let owners = new_key(scenario, "zed --gate mail");
        let in_slot_0 = |path: &PathBuf| {
            let text = fs::read_to_string(path).expect("it was written");
            let lines = text.lines().map(|line| match line.strip_prefix("slot ") {
                Some(rest) => format!("slot {}\n", rest.replace('1', "0")),
                None => format!("{line}\n"),
            });
            fs::write(path, lines.collect::<String>()).expect("writable");
        };
        let keys = folder(scenario, "keys");
        let [alice, zed] = ["alice.toml", "zed.toml"].map(|name| keys.join(name));
        for path in [&owners, &zed] {
            in_slot_0(path);
        }
        // Of both, one is there at a time.
        let exchange = |gone: &PathBuf, there: &PathBuf| {
            let aside =
                |path: &PathBuf| folder(scenario, "").join(path.file_name().expect("a name"));
            fs::rename(gone, aside(gone)).expect("writable");
            if aside(there).exists() {
                fs::rename(aside(there), there).expect("writable");
            }
        };
        exchange(&alice, &zed);
        let up = || scenario.lab.knockgate_command(&["up"]);
        for nth in 0.. {
            exchange(&zed, &alice);
            scenario.knockgate("up").exits(0);
            exchange(&alice, &zed);
            let ended = !killed_at_call(up(), nth, Call::changes_an_entry);
            thread::sleep(Duration::from_millis(200));
            knock(scenario, &owners, "").exits(0);
            scenario.closed(A, "22/tcp");
            if ended {
                assert!(nth > 2, "{nth} calls");
                break;
            }
        }
    });
}

/// Those of another folder are in the tables when the command is killed, and the folder of the configuration that stays cannot be used.
#[test]
fn keys_of_a_folder_that_is_not_in_force_open_nothing() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "max_ahead = \"100ms\"", &gate());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let [keys, other] = ["keys", "other"].map(|name| folder(scenario, name));
        let copied = run(Command::new("cp").arg("-a").args([&keys, &other]));
        copied.exits(0);
        scenario.knockgate("key revoke alice").exits(0);
        edit(scenario, "/keys\"", "/other\"");
        let reload = scenario.lab.knockgate_command(&["reload"]);
        assert!(killed_at_call(reload, 0, Call::renames));
        fs::write(keys.join("broken.toml"), "no key").expect("writable");
        scenario
            .knockgate("status")
            .exits(0)
            .says(&["no key opens anything"]);
        thread::sleep(Duration::from_millis(200));
        knock(scenario, &key, "").exits(0);
        scenario.closed(A, "22/tcp");
    });
}
