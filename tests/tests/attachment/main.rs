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
    gate_config::Gate,
    lab::{Family, Source::A, WAN},
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
};
use serde_json::{Value, json};

/// One gate, which A has to knock at and B is granted by hand.
fn ssh() -> Gate {
    Gate::ssh().open_for("1m").within("1m")
}

/// Ways to lose the gate on an interface that is still there.
#[derive(Clone, Copy, Debug)]
enum Damage {
    MadeAgain,
    Detached,
    LinkUnpinned,
    Replaced,
}

impl Damage {
    const ALL: [Self; 4] = [
        Self::MadeAgain,
        Self::Detached,
        Self::LinkUnpinned,
        Self::Replaced,
    ];

    fn happens_to(self, scenario: &Scenario) {
        match self {
            Self::MadeAgain => scenario.lab.make_again(),
            Self::Detached => foreign::detach(&link_of(scenario, WAN)),
            Self::Replaced => foreign::replace(&link_of(scenario, WAN)),
            Self::LinkUnpinned => {
                fs::remove_file(link_of(scenario, WAN)).expect("it is pinned there");
                // The kernel detaches it a moment later.
                wait_until("nothing is attached", || {
                    !scenario.lab.interface().contains("xdp")
                });
            }
        }
    }
}

fn link_of(scenario: &Scenario, interface: &str) -> PathBuf {
    scenario.lab.pin_root().join(interface).join("link")
}

/// Both ways to attach.
fn in_both_modes(row: impl Fn(&Scenario)) {
    for attach in [Attach::Generic, Attach::Native] {
        Scenario::run(attach, Family::V4, &[], &row);
    }
}

/// As [`in_both_modes`], but one way to attach, where that makes no difference.
fn in_generic_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], row);
}

/// The configuration for these interfaces.
fn configure(scenario: &Scenario, interfaces: &[&str], gates: impl std::fmt::Display) {
    scenario.configure(gates);
    let text = fs::read_to_string(scenario.lab.config()).expect("it was just written");
    let one = format!("interfaces = [\"{WAN}\"]");
    assert!(text.contains(&one));
    scenario
        .lab
        .configure(&text.replace(&one, &format!("interfaces = {interfaces:?}")));
}

/// Starts the service and waits until it hands on events.
fn serve(scenario: &Scenario) -> Running {
    let is_ready = |event: &Value| event["event"] == "gate.up" || is_about_interface(event);
    scenario.lab.serve_until(&[], "the service reports", || {
        scenario.knockgate("events").code == Some(0)
            && scenario.lab.events_if_any().iter().any(is_ready)
    })
}

fn is_about_interface(event: &Value) -> bool {
    event["event"]
        .as_str()
        .is_some_and(|name| name.starts_with("interface."))
}

/// Asserts what `status` says of each interface: its present name, its former one, and whether it is guarded; and
/// its exit status.
#[track_caller]
fn expect_status(scenario: &Scenario, expected: &[(&str, Option<&str>, bool)]) {
    let all = expected.iter().all(|(_, _, guarded)| *guarded);
    let run = scenario.knockgate("status --json");
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
fn is_guarded(scenario: &Scenario) {
    wait_until("everything is guarded", || {
        scenario.knockgate("status").code == Some(0)
    });
    scenario.closed(A, "22/tcp");
}
