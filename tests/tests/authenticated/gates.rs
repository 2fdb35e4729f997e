//! Keys and gates between network namespaces: knockgate's own client, the plain ones of docs/clients, and what outlives a
//! reload, `down` and a crash.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use knockgate_tests::{
    gate_config::Gate,
    lab::{
        Family,
        Source::{A, B},
    },
    run::wait_until,
    scenario::{Attach, Scenario},
};

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/clients");

fn ssh() -> Gate {
    Gate::new("ssh", "22/tcp")
}

/// Writes a configuration with a port for authenticated knocks, and `knock`, further keys of `[knock]`.
fn configure(scenario: &Scenario, knock: &str, gate: &Gate) {
    let keys = scenario.lab.folder().join("keys");
    let keys = keys.display();
    scenario.configure(format!(
        "[knock]\nports = [\"41641/udp\"]\nkeys = \"{keys}\"\n{knock}\n{gate}"
    ));
}

/// Makes a key, and returns the file of its owner.
fn new_key(scenario: &Scenario, arguments: &str) -> PathBuf {
    let made = scenario.knockgate(&format!("key new {arguments}"));
    let text = made.exits(0).stdout.clone();
    owners_file(scenario, "owner.toml", &text)
}

/// Writes what `key new` or `key rotate` has printed into a file that nobody else can read.
fn owners_file(scenario: &Scenario, name: &str, text: &str) -> PathBuf {
    let file = scenario.lab.folder().join(name);
    fs::write(&file, text).expect("the temporary folder is writable");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("it is ours");
    file
}

fn knock(scenario: &Scenario, key: &Path, options: &str) {
    let host = scenario.family.host().to_string();
    let key = key.to_string_lossy();
    let mut arguments = vec!["knock", &*host, "--key", &*key];
    arguments.extend(options.split_whitespace());
    scenario
        .lab
        .client(knockgate_tests::need::knockgate(), &arguments)
        .exits(0);
}

fn outcome(scenario: &Scenario, name: &str) -> u64 {
    let stats = scenario.knockgate("stats --json").exits(0).json();
    let rows = stats["authenticated"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["outcome"] == name);
    row.and_then(|row| row["count"].as_u64())
        .expect("it is counted")
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
                knock(scenario, &key, "--then 22/tcp");
                scenario.open(A, "22/tcp");
                scenario.closed(B, "22/tcp");
                let grants = scenario.lab.list("grants");
                assert_eq!(grants[0]["user"], "alice");
                assert_eq!(grants[0]["key"], "alice/laptop");
                knock(scenario, &key, "--close");
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
            knock(scenario, key, "--then 22/tcp");
        }
        // The old one ends at once.
        scenario.knockgate("key revoke alice").exits(0);
        assert_eq!(scenario.lab.list("grants").len(), 0);
        scenario.closed(A, "22/tcp");
        for key in [&old, &new] {
            knock(scenario, key, "");
        }
        wait_until("both have arrived", || outcome(scenario, "revoked") == 2);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("key reset alice").exits(1);
    });
}

/// A knock that was captured opens nothing later, whatever has happened in between.
#[test]
fn nothing_makes_a_knock_count_twice() {
    Scenario::run(Attach::Generic, Family::V4, &["python3"], |scenario| {
        configure(scenario, "max_ahead = \"1s\"", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let captured = capture(scenario, &key);
        let mut sent = 0;
        let mut replay = |what: &str| {
            let before = ["opened", "duplicate", "replay"].map(|name| outcome(scenario, name));
            send(scenario, &captured);
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
        send(scenario, &captured);
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
        send(scenario, &captured);
        wait_until("it has arrived", || {
            outcome(scenario, "duplicate") + outcome(scenario, "replay") == 1
        });
        assert_eq!(outcome(scenario, "opened"), 0);
        // The key opens again when `max_ahead` has passed.
        wait_until("a new knock counts", || {
            knock(scenario, &key, "");
            !scenario.lab.list("grants").is_empty()
        });
    });
}

/// Returns a knock that the plain client makes, in hexadecimal digits.
fn capture(scenario: &Scenario, key: &Path) -> String {
    let program = format!(
        "import sys, tomllib; sys.path.insert(0, {CLIENTS:?}); sys.dont_write_bytecode = True\n\
         import knock; print(knock.knock(tomllib.load(open(sys.argv[1], 'rb'))).hex())"
    );
    let key = key.to_string_lossy();
    let made = scenario.lab.client("python3", &["-c", &program, &key]);
    made.exits(0).stdout.trim().to_owned()
}

fn send(scenario: &Scenario, packet: &str) {
    let program = "import socket, sys\n\
                   to = (sys.argv[2], 41641)\n\
                   socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes.fromhex(sys.argv[1]), to)";
    let host = scenario.family.host().to_string();
    scenario
        .lab
        .client("python3", &["-c", program, packet, &host])
        .exits(0);
}

#[test]
fn a_captured_knock_is_an_alert() {
    Scenario::run(Attach::Generic, Family::V4, &["python3"], |scenario| {
        configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice/laptop --gate ssh");
        let service = scenario.lab.serve(&[]);
        let captured = capture(scenario, &key);
        send(scenario, &captured);
        let thief = scenario.address(B).to_string();
        let program = "import socket, sys\n\
                       out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                       out.bind((sys.argv[3], 0))\n\
                       out.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 41641))";
        let host = scenario.family.host().to_string();
        scenario
            .lab
            .client("python3", &["-c", program, &captured, &host, &thief])
            .exits(0);
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
