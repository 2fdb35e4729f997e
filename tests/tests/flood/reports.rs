//! What is reported during a flood is bounded, and what is left out is counted.

use std::{
    thread,
    time::{Duration, Instant},
};

use knockgate_tests::{
    flood::Flood,
    lab::{Family, Source::A},
    run::{Running, wait_until},
    scenario::Attach,
    wire::Wire,
};
use serde_json::Value;

use crate::{A_FLOOD, FIRST_KNOCK, PROTECTED, client, knocks, scenario};

#[test]
fn the_service_hardly_notices() {
    let Some((scenario, _turn)) = scenario(Attach::Native, Family::V4) else {
        return;
    };
    let mut command = scenario.lab.knockgate_command(&["run"]);
    let mut service = Running::start(&mut command, scenario.lab.folder());
    wait_until("the gate is up", || {
        assert!(service.goes_on(), "the service has ended by itself");
        scenario.knockgate("status").code == Some(0)
    });
    let mut reader = scenario
        .lab
        .knockgate_command(&["events", "--follow", "--json"]);
    let reader = Running::start(&mut reader, scenario.lab.folder());
    for aim in [PROTECTED, FIRST_KNOCK] {
        let mut flood = Flood::new(&scenario.lab, scenario.family, aim);
        let lost = lost(&reader);
        let before = service.cpu_time();
        let meter = flood.meter();
        let ((), sent) = flood.during(|| meter.wait(Duration::from_secs(3), A_FLOOD));
        let worked = service.cpu_time().saturating_sub(before);
        let flooded = flood.cpu_time();
        eprintln!("{aim:?}: {sent} frames in {flooded:?}, for which the service worked {worked:?}");
        assert!(
            worked < flooded / 10,
            "{aim:?}: for {flooded:?} of flood, the service worked for {worked:?}"
        );
        // Each would have been reported, being the first of its source.
        wait_until("what was left out is counted", || {
            self::lost(&reader) - lost > sent / 100 * 95
        });
    }
}

#[test]
fn outcomes_are_bounded_native_v4() {
    outcomes_are_bounded(Attach::Native, Family::V4);
}

/// Sources by the thousand that all know the sequence: what is reported of them is bounded, what is not is
/// counted, and what was there before is still to be read.
fn outcomes_are_bounded(attach: Attach, family: Family) {
    const SOURCES: u8 = 50;
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    let mut command = scenario.lab.knockgate_command(&["run"]);
    let mut service = Running::start(&mut command, scenario.lab.folder());
    wait_until("the gate is up", || {
        assert!(service.goes_on(), "the service has ended by itself");
        scenario.knockgate("status").code == Some(0)
    });
    scenario.closed(A, "22/tcp");
    let events = || -> Vec<Value> {
        let text = scenario.knockgate("events --json").exits(0).stdout.clone();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a line is one object"))
            .collect()
    };
    let denied = |event: &Value| event["event"] == "packet.denied";
    wait_until("the denial is reported", || events().iter().any(denied));
    let mut reader = scenario
        .lab
        .knockgate_command(&["events", "--follow", "--json"]);
    let reader = Running::start(&mut reader, scenario.lab.folder());
    wait_until("it reads", || reader.stdout().lines().count() > 0);

    let wire = Wire::open(&scenario.lab);
    let begun = Instant::now();
    let mut sent = 0_u64;
    for group in 100..200 {
        let knocks: Vec<Vec<u8>> = (1..=SOURCES)
            .flat_map(|number| knocks(family, client(family, group, number)))
            .collect();
        wire.send(&scenario.lab, &knocks);
        sent += u64::from(SOURCES);
    }
    wait_until("all have been counted", || {
        let stats = scenario.knockgate("stats --json").exits(0).json();
        let rows = stats["knocks"].as_array().expect("a list");
        let outcomes = rows.iter().filter(|row| {
            ["opened", "table_full"]
                .iter()
                .any(|result| row["result"] == *result)
        });
        let count: u64 = outcomes.filter_map(|row| row["count"].as_u64()).sum();
        // Some get lost on the way.
        count > sent / 2
    });
    let seconds = begun.elapsed().as_secs() + 2;
    wait_until("what was left out is counted", || lost(&reader) > 0);
    let said = reader.stdout();
    let outcomes = said
        .lines()
        .filter(|line| line.contains("\"gate.opened\"") || line.contains("\"gate.refused\""));
    let outcomes = outcomes.count() as u64;
    let cpus = thread::available_parallelism().expect("the kernel knows its CPUs");
    let most = 2 * 64 * seconds * cpus.get() as u64;
    eprintln!("{outcomes} of {sent} outcomes in {seconds} s; {most} is the most");
    assert!(outcomes <= most, "{outcomes} of {sent}, {most} at most");
    assert!(outcomes > 0, "nothing at all is reported");
    assert!(
        events().iter().any(denied),
        "what came before has been flushed"
    );
}

/// How many events the service has said that were left out.
fn lost(reader: &Running) -> u64 {
    let said = reader.stdout();
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "events.lost")
        .filter_map(|event| event["lost"].as_u64())
        .sum()
}
