//! Knocks during a flood open the gate, and no grant or session changes.

use std::time::{Duration, Instant};

use knockgate_tests::{
    flood::{Aim, Flood, Meter},
    gate_config::ALICE,
    lab::{
        Family, Lab,
        Source::{A, B},
    },
    scenario::Attach,
    wire::Wire,
};

use crate::{A_FLOOD, FIRST_KNOCK, PROTECTED, client, knocks, scenario};

/// How many clients knock, each once, and how many of them must succeed.
const CLIENTS: u8 = 100;
const SUCCEED: usize = 99;
const BETWEEN_KNOCKS: Duration = Duration::from_millis(20);
/// The queues between two namespaces may lose a knock, but hardly one of a hundred in each of three attempts.
const TRIES: u8 = 3;

#[test]
fn knocks_open_native_v4() {
    knocks_open(Attach::Native, Family::V4);
}

#[test]
fn knocks_open_generic_v6() {
    knocks_open(Attach::Generic, Family::V6);
}

#[test]
fn nothing_is_changed_native_v6() {
    nothing_is_changed(Attach::Native, Family::V6);
}

#[test]
fn nothing_is_changed_generic_v4() {
    nothing_is_changed(Attach::Generic, Family::V4);
}

fn knocks_open(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.knockgate(&["up"]).exits(0);
    for (group, aim) in (10..)
        .step_by(10)
        .zip([FIRST_KNOCK, PROTECTED, Aim::Anywhere])
    {
        let mut flood = Flood::new(&scenario.lab, family, aim);
        let opened = (0..TRIES).map(|round| {
            let begun = Instant::now();
            let meter = flood.meter();
            let (opened, sent) =
                flood.during(|| opened(&scenario.lab, family, group + round, &meter));
            assert!(sent > A_FLOOD, "{aim:?}: {sent} frames are no flood");
            eprintln!(
                "{aim:?}: {opened} of {CLIENTS}, {sent} frames in {:?}",
                begun.elapsed()
            );
            opened
        });
        let opened: Vec<usize> = opened.take_while(|&opened| opened < SUCCEED).collect();
        assert!(
            opened.len() < usize::from(TRIES),
            "{aim:?}: of {CLIENTS} that knocked, the gate opened for {opened:?}"
        );
    }
}

/// Knocks from a group of clients. Returns for how many of them the gate opened.
fn opened(lab: &Lab, family: Family, group: u8, flood: &Meter) -> usize {
    let wire = Wire::open(lab);
    let clients: Vec<[Vec<u8>; 3]> = (1..=CLIENTS)
        .map(|number| knocks(family, client(family, group, number)))
        .collect();
    // Each client begins one step after the one before it.
    let steps = clients.len() + 2;
    for now in 0..steps {
        for step in 0..3 {
            let client = now.checked_sub(step).and_then(|begun| clients.get(begun));
            if let Some(knocks) = client {
                wire.send(lab, &[knocks[step].clone()]);
            }
        }
        flood.wait(BETWEEN_KNOCKS, A_FLOOD / u64::from(CLIENTS));
    }
    let grants = lab.list("grants");
    let length = if family == Family::V4 { 32 } else { 128 };
    let is_granted = |number| {
        let source = format!("{}/{length}", client(family, group, number));
        grants.iter().any(|grant| grant["source"] == source)
    };
    (1..=CLIENTS).filter(|&number| is_granted(number)).count()
}

/// With a grant by hand, a grant by knocking, and an established connection.
fn nothing_is_changed(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.knockgate(&["up"]).exits(0);
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    scenario.knock(A, ALICE);
    let connection = scenario.connected(A, 22);
    let state = || {
        ["grants", "sessions"].map(|what| {
            let mut rows = scenario.lab.list(what);
            for row in &mut rows {
                for time in ["expires_in_ms", "idle_ms"] {
                    row.as_object_mut().expect("an object").remove(time);
                }
            }
            rows
        })
    };
    let before = state();
    assert_eq!(before.each_ref().map(Vec::len), [2, 1]);
    for aim in [PROTECTED, FIRST_KNOCK, Aim::Anywhere] {
        let mut flood = Flood::new(&scenario.lab, family, aim);
        let meter = flood.meter();
        flood.during(|| meter.wait(Duration::from_secs(2), A_FLOOD));
        assert_eq!(state(), before, "{aim:?}");
    }
    drop(connection);
    scenario.open(B, "22/tcp");
}
