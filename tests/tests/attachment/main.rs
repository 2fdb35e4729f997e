//! Closed is what is attached, not what is pinned: what becomes of a gate whose interface is made again, renamed,
//! swapped or moved, whose program is detached, or whose commands are killed or run at the same time.
//!
//! [`repair`] is about `up`, [`serving`] about `run`, [`naming`] about other names and namespaces, [`killing`] about
//! commands that are killed half-way, [`locking`] about two at once, [`rooting`] about where pins lie, and
//! [`following`] about `events --follow`.

mod following;
mod killing;
mod locking;
mod naming;
mod repair;
mod rooting;
mod serving;

use std::{fs, path::PathBuf};

use knockgate_tests::{
    foreign,
    lab::{Family, WAN, Who::A},
    run::{Running, wait_until},
    trial::{Attach, Trial},
};
use serde_json::{Value, json};

/// One gate, which A has to knock at and B is granted by hand.
const SSH: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "1m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
within = "1m"
"#;

/// The knocks that open [`SSH`].
const ALICE: &str = "7000/udp 8443/tcp 9301/udp";

/// Ways to lose the gate on an interface that is still there.
#[derive(Clone, Copy, Debug)]
enum Damage {
    MadeAgain,
    Detached,
    LinkUnpinned,
}

impl Damage {
    const ALL: [Self; 3] = [Self::MadeAgain, Self::Detached, Self::LinkUnpinned];

    fn happens_to(self, trial: &Trial) {
        match self {
            Self::MadeAgain => trial.lab.make_again(),
            Self::Detached => foreign::detach(&link_of(trial, WAN)),
            Self::LinkUnpinned => {
                fs::remove_file(link_of(trial, WAN)).expect("it is pinned there");
                // The kernel detaches it a moment later.
                wait_until("nothing is attached", || {
                    !trial.lab.interface().contains("xdp")
                });
            }
        }
    }
}

fn link_of(trial: &Trial, interface: &str) -> PathBuf {
    trial.lab.pin_root().join(interface).join("link")
}

/// Both ways to attach.
fn trials(row: impl Fn(&Trial)) {
    for attach in [Attach::Generic, Attach::Native] {
        Trial::run(attach, Family::V4, &[], &row);
    }
}

/// As [`trials`], but one way to attach, where that makes no difference.
fn trial(row: impl FnOnce(&Trial)) {
    Trial::run(Attach::Generic, Family::V4, &[], row);
}

/// The configuration for these interfaces.
fn configure(trial: &Trial, interfaces: &[&str], gates: &str) {
    trial.configure(gates);
    let text = fs::read_to_string(trial.lab.config()).expect("it was just written");
    let one = format!("interfaces = [\"{WAN}\"]");
    assert!(text.contains(&one));
    trial
        .lab
        .configure(&text.replace(&one, &format!("interfaces = {interfaces:?}")));
}

/// Starts the service and waits until it hands on events.
fn serve(trial: &Trial) -> Running {
    let mut command = trial.lab.knockgate_command(&["run"]);
    let mut service = Running::start(&mut command, trial.lab.folder());
    wait_until("the service serves", || {
        assert!(service.goes_on(), "the service has ended by itself");
        trial.knockgate("events").code == Some(0)
            && said(trial)
                .iter()
                .any(|event| event["event"] == "gate.up" || is_about_interface(event))
    });
    service
}

fn is_about_interface(event: &Value) -> bool {
    event["event"]
        .as_str()
        .is_some_and(|name| name.starts_with("interface."))
}

/// What the service has said so far.
fn said(trial: &Trial) -> Vec<Value> {
    events(&trial.knockgate("events --json").stdout)
}

fn events(text: &str) -> Vec<Value> {
    text.lines()
        // The last line may still be in the writing.
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Asserts what `status` says of each interface: its present name, its former one, and whether it is guarded; and
/// its exit status.
#[track_caller]
fn expect_status(trial: &Trial, expected: &[(&str, Option<&str>, bool)]) {
    let all = expected.iter().all(|(_, _, guarded)| *guarded);
    let run = trial.knockgate("status --json");
    run.exits(if all { 0 } else { 7 });
    let rows: Vec<Value> = run.json()["interfaces"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            let guarded = row["guarded"] == true;
            assert_eq!(guarded, row["attach"].is_string(), "{row}");
            json!([row["name"], row["renamed_from"], guarded])
        })
        .collect();
    let expected: Vec<Value> = expected
        .iter()
        .map(|(name, before, guarded)| json!([name, before, guarded]))
        .collect();
    assert_eq!(rows, expected);
}

/// Waits until `status` says that everything is guarded.
#[track_caller]
fn is_guarded(trial: &Trial) {
    wait_until("everything is guarded", || {
        trial.knockgate("status").code == Some(0)
    });
    trial.closed(A, "22/tcp");
}
