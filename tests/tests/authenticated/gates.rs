//! Keys and gates between network namespaces: knockgate's own client, the plain ones of docs/clients, and what outlives a
//! reload, `down` and a crash.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use knockgate_tests::{
    gate_config::Gate,
    keys::{configure, knock, new_key, outcome, owners_file, sealed, send},
    lab::{
        Family,
        Source::{A, B},
        WAN,
    },
    need,
    run::wait_until,
    scenario::{Attach, Scenario},
    service::{echoes, is_silent},
    sshd::Sshd,
};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/clients");

fn ssh() -> Gate {
    Gate::new("ssh", "22/tcp")
}

#[test]
fn a_key_opens_its_gate() {
    for family in [Family::V4, Family::V6] {
        for attach in [Attach::Native, Attach::Generic] {
            Scenario::run(attach, family, &[], |scenario| {
                configure(scenario, "", &ssh());
                scenario.knockgate("up").exits(0);
                let key = new_key(scenario, "alice/laptop --gate ssh");
                scenario.closed(A, "22/tcp");
                knock(scenario, &key, "--then 22/tcp").exits(0);
                scenario.open(A, "22/tcp");
                scenario.closed(B, "22/tcp");
                let grants = scenario.lab.list("grants");
                assert_eq!(grants[0]["user"], "alice");
                assert_eq!(grants[0]["key"], "alice/laptop");
                knock(scenario, &key, "--close").exits(0);
                scenario.closes(A, "22/tcp");
            });
        }
    }
}

#[test]
fn plain_clients_open_it() {
    let tools = ["bash", "openssl", "xxd", "python3"];
    Scenario::run(Attach::Generic, Family::V4, &tools, |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let host = scenario.family.host().to_string();
        for client in ["knock.sh", "knock.py"] {
            scenario.knockgate("revoke --all").exits(0);
            scenario.closed(A, "22/tcp");
            let client = Path::new(CLIENTS).join(client);
            scenario
                .lab
                .client(&client, &[&key.to_string_lossy(), &host])
                .exits(0);
            wait_until("the knock has arrived", || {
                !scenario.lab.list("grants").is_empty()
            });
            scenario.open(A, "22/tcp");
        }
    });
}

/// As README has it in `~/.ssh/config`; `--exact` admits that connection alone.
#[test]
fn ssh_knocks_by_itself() {
    const PORT: u16 = 2022;
    let tools = ["ssh", "sshd", "ssh-keygen"];
    for (attach, family, options) in [
        (Attach::Native, Family::V4, ""),
        (Attach::Generic, Family::V6, "--exact"),
    ] {
        Scenario::run(attach, family, &tools, |scenario| {
            configure(scenario, "", &Gate::new("ssh", "2022/tcp"));
            scenario.knockgate("up").exits(0);
            let key = new_key(scenario, "alice/laptop --gate ssh");
            let server = Sshd::start(&scenario.lab, PORT);
            let proxy = format!(
                "{} knock %h --key {} {options} --connect {PORT}/tcp",
                need::knockgate().display(),
                key.display()
            );
            let host = scenario.family.host();
            let run = server.ssh(&scenario.lab, host, &proxy, "echo through the gate");
            assert_eq!(run.exits(0).stdout, "through the gate\n");
            // The client knocks again where the connection takes longer than a second.
            assert!(outcome(scenario, "opened") >= 1);
            if !options.is_empty() {
                scenario.closed(A, "2022/tcp");
            }
        });
    }
}

#[test]
fn keys_change_while_the_gate_is_up() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let old = new_key(scenario, "alice --gate ssh");
        // Both work until the overlap ends.
        let rotated = scenario.knockgate("key rotate alice --overlap 1h");
        let new = owners_file(scenario, "new.toml", &rotated.exits(0).stdout);
        for key in [&old, &new] {
            scenario.knockgate("revoke --all").exits(0);
            knock(scenario, key, "--then 22/tcp").exits(0);
        }
        // The old one ends at once.
        scenario.knockgate("key revoke alice").exits(0);
        assert_eq!(scenario.lab.list("grants").len(), 0);
        scenario.closed(A, "22/tcp");
        for key in [&old, &new] {
            knock(scenario, key, "").exits(0);
        }
        wait_until("both have arrived", || outcome(scenario, "revoked") == 2);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("key reset alice").exits(1);
    });
}

#[test]
fn the_hosts_secret_changes_while_the_gate_is_up() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let old = new_key(scenario, "alice --gate ssh");
        let rotated = scenario.knockgate("key rotate-host --overlap 1h");
        let secret = rotated.exits(0).stdout.clone();
        let line = |text: &str| {
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with("host_secret"));
            line.expect("it has a secret of the host").to_owned()
        };
        let text = fs::read_to_string(&old).expect("it was written");
        assert_ne!(line(&text), line(&secret));
        let text = text.replace(&line(&text), &line(&secret));
        let new = owners_file(scenario, "new.toml", &text);
        for key in [&old, &new] {
            scenario.knockgate("revoke --all").exits(0);
            // One datagram in 4,096 that is made with the previous secret looks like one that is made with the present one:
            // then --then sends another.
            knock(scenario, key, "--then 22/tcp").exits(0);
        }
        // Once more, and only what was the present secret is the previous one.
        let other = outcome(scenario, "other");
        scenario.knockgate("key rotate-host --overlap 1h").exits(1);
        scenario
            .knockgate("key rotate-host --overlap 1h --anyway")
            .exits(0);
        scenario.knockgate("revoke --all").exits(0);
        wait_until("it is like any other datagram", || {
            knock(scenario, &old, "").exits(0);
            outcome(scenario, "other") > other
        });
        scenario.closed(A, "22/tcp");
        knock(scenario, &new, "--then 22/tcp").exits(0);
    });
}

/// The host's clock was ahead, a knock was accepted, and then the clock was set right: here both by the limit of what is ahead.
#[test]
fn a_key_is_reset_while_the_gate_is_up() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        let limit = |limit: &str| configure(scenario, &format!("max_ahead = \"{limit}\""), &ssh());
        limit("1h");
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        scenario.knockgate("key reset alice").exits(1);
        send(scenario, A, &capture(&key, 1800));
        wait_until("it has opened", || outcome(scenario, "opened") == 1);
        scenario.knockgate("revoke --all").exits(0);
        limit("1s");
        scenario.knockgate("reload").exits(0);
        knock(scenario, &key, "").exits(0);
        wait_until("it is behind", || outcome(scenario, "duplicate") == 1);
        scenario.closed(A, "22/tcp");
        let reset = scenario.knockgate("key reset alice");
        reset.exits(0).says(&["key rotate"]);
        // Until a second has passed, knocks are still behind: --then tries again.
        knock(scenario, &key, "--then 22/tcp").exits(0);
        scenario.knockgate("key reset alice").exits(1);
    });
}

/// A configuration that takes authenticated knocks from now on does not know what was accepted before.
#[test]
fn a_reload_that_begins_with_keys_says_that_they_wait() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "max_ahead = \"1s\"", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let captured = capture(&key, 0);
        send(scenario, A, &captured);
        wait_until("it has opened", || outcome(scenario, "opened") == 1);
        scenario.configure(ssh());
        scenario.knockgate("reload").exits(0);
        scenario.knockgate("revoke --all").exits(0);
        configure(scenario, "max_ahead = \"1s\"", &ssh());
        scenario
            .knockgate("reload")
            .exits(0)
            .says(&["the knocks of 1 key open nothing before 1s have passed"]);
        send(scenario, A, &captured);
        wait_until("it has arrived", || outcome(scenario, "duplicate") == 1);
        scenario.closed(A, "22/tcp");
        knock(scenario, &key, "--then 22/tcp").exits(0);
    });
}

/// The keys are in a table that both configurations use.
#[test]
fn an_up_that_fails_leaves_the_keys_as_they_were() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let text = scenario.lab.configured().expect("it was written");
        let folder = scenario.lab.folder();
        fs::rename(folder.join("keys"), folder.join("aside")).expect("the test's own");
        DirBuilder::new()
            .mode(0o700)
            .create(folder.join("keys"))
            .expect("the test's own");
        let more = text.replace(
            &format!("interfaces = [{WAN:?}]"),
            &format!("interfaces = [{WAN:?}, \"absent0\"]"),
        );
        assert_ne!(more, text);
        scenario.lab.configure(&more);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["there is no interface `absent0`"]);
        fs::remove_dir_all(folder.join("keys")).expect("the test's own");
        fs::rename(folder.join("aside"), folder.join("keys")).expect("the test's own");
        scenario.lab.configure(&text);
        knock(scenario, &key, "--then 22/tcp").exits(0);
        scenario.open(A, "22/tcp");
    });
}

/// A knock that was captured opens nothing later, whatever has happened in between.
#[test]
fn nothing_makes_a_knock_count_twice() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "max_ahead = \"1s\"", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let captured = capture(&key, 0);
        let mut sent = 0;
        let mut replay = |what: &str| {
            let before = ["opened", "duplicate", "replay"].map(|name| outcome(scenario, name));
            send(scenario, A, &captured);
            wait_until("the datagram has arrived", || {
                let now = ["opened", "duplicate", "replay"].map(|name| outcome(scenario, name));
                now.iter().sum::<u64>() > before.iter().sum()
            });
            sent += 1;
            let opened = outcome(scenario, "opened");
            assert_eq!(opened, before[0] + u64::from(sent == 1), "{what}");
        };
        replay("it is new");
        replay("again");
        scenario.knockgate("revoke --all").exits(0);
        // Tables of another size.
        configure(scenario, "max_ahead = \"1s\"", &ssh().open_for("5m"));
        let text = scenario.lab.configured().expect("it was written");
        let larger = text.replace("limits = {", "limits = { keys = 300,");
        assert_ne!(text, larger);
        scenario.lab.configure(&larger);
        scenario.knockgate("reload").exits(0);
        replay("after a reload with another number of slots");
        scenario.knockgate("down").exits(0);
        scenario.knockgate("up").exits(0);
        send(scenario, A, &captured);
        wait_until("it has arrived", || {
            outcome(scenario, "duplicate") + outcome(scenario, "replay") == 1
        });
        assert_eq!(outcome(scenario, "opened"), 0);
        // As after a crash or a reboot: the pins are gone, and nothing was noted.
        for pin in scenario.lab.pins() {
            let _ = fs::remove_file(scenario.lab.pin_root().join(pin));
        }
        let up = scenario.knockgate("up");
        up.exits(0).says(&["is not known"]);
        send(scenario, A, &captured);
        wait_until("it has arrived", || {
            outcome(scenario, "duplicate") + outcome(scenario, "replay") == 1
        });
        assert_eq!(outcome(scenario, "opened"), 0);
        // The key opens again when `max_ahead` has passed.
        wait_until("a new knock counts", || {
            knock(scenario, &key, "").exits(0);
            !scenario.lab.list("grants").is_empty()
        });
    });
}

/// Returns a knock that is made with a clock so many seconds ahead.
fn capture(key: &Path, ahead: u64) -> [u8; 64] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970") + Duration::from_secs(ahead);
    sealed(key, now.as_nanos().try_into().expect("before 2554"))
}

/// Whoever asks hears of the key: events while the service runs, and those that the next one reports.
#[test]
fn the_end_of_a_grant_names_its_key() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice/laptop --gate ssh");
        let closed = |reason: &str| {
            let events = scenario.lab.events();
            events.into_iter().any(|event| {
                event["event"] == "gate.closed"
                    && event["reason"] == reason
                    && event["user"] == "alice"
                    && event["key"] == "alice/laptop"
            })
        };
        let service = scenario.lab.serve(&[]);
        knock(scenario, &key, "--then 22/tcp --for 1s").exits(0);
        wait_until("it has ended in time", || closed("expired"));
        knock(scenario, &key, "--then 22/tcp").exits(0);
        let state = scenario.lab.state();
        wait_until("the service has noted the grant", || {
            let files = fs::read_dir(&state).into_iter().flatten().flatten();
            let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
            texts.any(|text| text.contains("\"key\":\"alice/laptop\""))
        });
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        scenario.knockgate("key revoke alice/laptop").exits(0);
        let service = scenario.lab.serve(&[]);
        wait_until("the next service reports it", || closed("revoked"));
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

/// By the kernel, and not again by whoever finds that the grant is gone.
#[test]
fn what_its_user_closes_is_reported_once() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        let _service = scenario.lab.serve(&[]);
        let key = new_key(scenario, "alice --gate ssh");
        let closed = || -> Vec<String> {
            let events = scenario.lab.events().into_iter();
            let closed = events.filter(|event| event["event"] == "gate.closed");
            let reasons = closed.map(|event| event["reason"].as_str().expect("one").to_owned());
            reasons.collect()
        };
        knock(scenario, &key, "--then 22/tcp").exits(0);
        knock(scenario, &key, "--close").exits(0);
        scenario.closes(A, "22/tcp");
        // Seen by the same look that finds the first one gone.
        scenario.knockgate("allow {B} --gate ssh").exits(0);
        wait_until("the service has looked", || {
            scenario.lab.events().iter().any(|event| {
                event["event"] == "gate.opened"
                    && event["source"] == scenario.address(B).to_string()
            })
        });
        assert_eq!(closed(), ["asked"]);
    });
}

/// The grant was given by hand, and is longer: it is not the key's to close.
#[test]
fn what_a_key_cannot_close_is_not_reported_as_closed() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        let _service = scenario.lab.serve(&[]);
        let key = new_key(scenario, "alice --gate ssh");
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        knock(scenario, &key, "--then 22/tcp").exits(0);
        knock(scenario, &key, "--close").exits(0);
        wait_until("it is counted", || outcome(scenario, "closed") == 1);
        scenario.open(A, "22/tcp");
        // Seen by a look after that.
        scenario.knockgate("allow {B} --gate ssh").exits(0);
        let sources = |name: &str| -> Vec<String> {
            let events = scenario.lab.events().into_iter();
            let events = events.filter(|event| event["event"] == name);
            let sources = events.map(|event| event["source"].as_str().expect("one").to_owned());
            sources.collect()
        };
        let [a, b] = [A, B].map(|source| scenario.address(source).to_string());
        wait_until("the service has looked", || {
            sources("gate.opened").contains(&b)
        });
        assert!(sources("gate.closed").is_empty());
        // By hand, and by the knock.
        let opened = sources("gate.opened");
        assert_eq!(opened.iter().filter(|source| **source == a).count(), 2);
    });
}

/// Nothing says any more whose they are, so they are not ended, and that is said.
#[test]
fn what_has_outlived_the_grant_of_a_revoked_key_is_named() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        knock(scenario, &key, "--then 22/tcp").exits(0);
        let mut outlived = scenario.connected(A, 22);
        scenario.ends(A);
        // This one is known to be another's.
        scenario.knockgate("allow {B} --gate ssh").exits(0);
        let mut other = scenario.connected(B, 22);
        scenario
            .knockgate("key revoke alice")
            .exits(0)
            .says(&["1 session at ssh goes on", "knockgate revoke ADDRESS"]);
        assert!(echoes(&mut outlived, b"goes on"));
        scenario.knockgate("revoke {A}").exits(0);
        assert!(is_silent(&mut outlived, b"revoked"));
        assert!(echoes(&mut other, b"goes on"));
    });
}

#[test]
fn a_captured_knock_is_an_alert() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice/laptop --gate ssh");
        let service = scenario.lab.serve(&[]);
        let captured = capture(&key, 0);
        send(scenario, A, &captured);
        let thief = scenario.address(B).to_string();
        send(scenario, B, &captured);
        wait_until("it is reported", || {
            let events = scenario.lab.events();
            events.iter().any(|event| {
                event["event"] == "knock.captured"
                    && event["key"] == "alice/laptop"
                    && event["source"] == thief.as_str()
            }) && events
                .iter()
                .any(|event| event["event"] == "alert" && event["user"] == "alice")
        });
        scenario.closed(B, "22/tcp");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}
