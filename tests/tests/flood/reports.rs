//! Reports during a flood are bounded, and the events that are left out are counted.

use std::{
    thread,
    time::{Duration, Instant},
};

use knockgate_tests::{
    flood::Flood,
    lab::{Family, Source::A},
    observe::events_of,
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
    let service = scenario.lab.serve(&[]);
    let reader = scenario.lab.follow_events();
    for aim in [PROTECTED, FIRST_KNOCK] {
        let mut flood = Flood::new(&scenario.lab, scenario.family, aim);
        let lost = lost(&reader);
        let before = service.cpu_time();
        let meter = flood.meter();
        let ((), sent) = flood.during(|| meter.wait(Duration::from_secs(3), 20 * A_FLOOD));
        let worked = service.cpu_time().saturating_sub(before);
        let flooded = flood.cpu_time();
        eprintln!("{aim:?}: {sent} frames in {flooded:?}, for which the service worked {worked:?}");
        assert!(
            worked < flooded / 10,
            "{aim:?}: for {flooded:?} of flood, the service worked for {worked:?}"
        );
        // Each is the first packet of its source, and would have been reported.
        wait_until("what was left out is counted", || {
            self::lost(&reader) - lost > sent / 100 * 95
        });
    }
}

#[test]
fn outcomes_are_bounded_native_v4() {
    outcomes_are_bounded(Attach::Native, Family::V4);
}

/// Thousands of sources that know the sequence: reports of them are bounded, the rest is counted, and earlier events
/// can still be read.
fn outcomes_are_bounded(attach: Attach, family: Family) {
    const SOURCES: u8 = 50;
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    let _service = scenario.lab.serve(&[]);
    scenario.closed(A, "22/tcp");
    let denied = |event: &Value| event["event"] == "packet.denied";
    wait_until("the denial is reported", || {
        scenario.lab.events().iter().any(denied)
    });
    let reader = scenario.lab.follow_events();
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
        let stats = scenario.lab.stats();
        // Some get lost on the way.
        stats.knocks("opened") + stats.knocks("table_full") > sent / 2
    });
    let seconds = begun.elapsed().as_secs() + 2;
    wait_until("what was left out is counted", || lost(&reader) > 0);
    let outcomes = events_of(&reader)
        .iter()
        .filter(|event| event["event"] == "gate.opened" || event["event"] == "gate.refused")
        .count() as u64;
    let cpus = thread::available_parallelism().expect("the kernel knows its CPUs");
    let most = 2 * 64 * seconds * cpus.get() as u64;
    eprintln!("{outcomes} of {sent} outcomes in {seconds} s; {most} is the most");
    assert!(outcomes <= most, "{outcomes} of {sent}, {most} at most");
    assert!(outcomes > 0, "nothing at all is reported");
    assert!(
        scenario.lab.events().iter().any(denied),
        "what came before has been flushed"
    );
}

/// Returns how many events were left out, according to the service.
fn lost(reader: &Running) -> u64 {
    events_of(reader)
        .iter()
        .filter(|event| event["event"] == "events.lost")
        .filter_map(|event| event["lost"].as_u64())
        .sum()
}
