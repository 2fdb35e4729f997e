//! An interface is guarded only while the program is attached to it: what happens when an interface is deleted and
//! made again, renamed, swapped or moved, when the program is detached, and when commands are killed or run at the
//! same time.
//!
//! [`repair`] tests `up`, [`damaged`] `up` where pins are gone, [`serving`] `run`, [`naming`] renamed and moved interfaces, [`killing`] commands that are
//! killed half-way, [`locking`] commands at the same time, [`rooting`] the pin root, [`following`] `events --follow`,
//! [`tcx`] what is particular to TCX, and [`dispatcher`] the place behind libxdp's.

mod damaged;
mod dispatcher;
mod following;
mod killing;
mod locking;
mod naming;
mod repair;
mod rooting;
mod serving;
mod tcx;

use std::{fs, path::PathBuf};

use knockgate_tests::{
    foreign,
    gate_config::Gate,
    lab::{Family, Source::A, WAN},
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
};
use serde_json::{Value, json};

/// Returns a gate at which A knocks, while B gets a grant by hand.
fn ssh() -> Gate {
    Gate::ssh().open_for("1m").within("1m")
}

/// Ways in which an existing interface loses the program.
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
                // The kernel detaches the program a moment later. A service may attach it again before this is seen.
                wait_until("nothing is attached, or it is again", || {
                    let is_attached =
                        scenario.lab.interface().contains("xdp") || !listed(scenario).is_empty();
                    !is_attached || link_of(scenario, WAN).exists()
                });
            }
        }
    }
}

fn link_of(scenario: &Scenario, interface: &str) -> PathBuf {
    scenario.lab.pin_root().join(interface).join("link")
}

/// Returns the ids of the programs at TCX.
fn listed(scenario: &Scenario) -> Vec<u32> {
    foreign::programs_at_tcx(&scenario.lab.host, WAN)
}

/// Runs `row` with every attach mode.
fn in_all_modes(row: impl Fn(&Scenario)) {
    for attach in Attach::ALL {
        Scenario::run(attach, Family::V4, &[], &row);
    }
}

/// Runs `row` with generic attach, where the mode makes no difference.
fn in_generic_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], row);
}

/// Writes the configuration, for these interfaces.
fn configure(scenario: &Scenario, interfaces: &[&str], gates: impl std::fmt::Display) {
    scenario.configure(gates);
    let text = fs::read_to_string(scenario.lab.config()).expect("it was just written");
    let one = format!("interfaces = [\"{WAN}\"]");
    assert!(text.contains(&one));
    scenario
        .lab
        .configure(&text.replace(&one, &format!("interfaces = {interfaces:?}")));
}

/// Starts the service and waits until it reports the instance or an interface.
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

/// Asserts what `status` prints of each interface (present name, former name, whether it is guarded), and the exit
/// status.
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

/// Waits until `status` says that every interface is guarded.
#[track_caller]
fn is_guarded(scenario: &Scenario) {
    wait_until("everything is guarded", || {
        scenario.knockgate("status").code == Some(0)
    });
    scenario.closed(A, "22/tcp");
}
