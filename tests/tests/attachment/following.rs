//! `events --follow` continues when the service or the instance that it follows ends.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use knockgate_tests::{
    gate_config::ALICE,
    lab::Source::{A, B},
    observe::events_of,
    run::{Running, wait_until},
    scenario::Scenario,
};

use crate::{in_generic_mode, serve, ssh};

#[test]
fn a_reader_follows_the_next_service() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let service = serve(scenario);
        let mut reader = scenario.lab.follow_events();
        opens(scenario, &reader, 1);
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        // Now only the reader takes events from the kernel.
        opens(scenario, &reader, 2);
        let service = serve_again(scenario);
        opens(scenario, &reader, 3);
        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        let _service = serve_again(scenario);
        opens(scenario, &reader, 4);
        assert!(reader.goes_on());
    });
}

#[test]
fn a_reader_follows_the_next_instance() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let mut reader = scenario.lab.follow_events();
        opens(scenario, &reader, 1);
        scenario.knockgate("down").exits(0);
        scenario.up(ssh());
        opens(scenario, &reader, 2);
        scenario.knockgate("down").exits(0);
        let _service = serve(scenario);
        opens(scenario, &reader, 3);
        assert!(reader.goes_on());
    });
}

/// On a host where nothing happens, no event would tell the service that a reader has gone.
#[test]
fn readers_that_have_gone_are_forgotten() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let service = serve(scenario);
        let before = service.descriptors();
        for _ in 0..8 {
            let reader = scenario.lab.follow_events();
            wait_until("it reads", || !reader.stdout().is_empty());
            drop(reader);
        }
        wait_until("they are forgotten", || service.descriptors() <= before);
    });
}

/// As `printf 'follow\n' | ncat -U`.
#[test]
fn a_reader_that_sends_nothing_more_gets_events_until_it_has_gone() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let service = serve(scenario);
        let named = scenario.lab.pin_root().display().to_string();
        let socket = format!("/run/knockgate/{}.sock", named.replace('/', "%"));
        let mut stream = UnixStream::connect(socket).expect("the service listens");
        stream.write_all(b"follow\n").expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is connected");
        let mut lines = BufReader::new(stream).lines();
        let mut next = || lines.next().expect("not at its end").expect("readable");
        // What was there before it came.
        while !next().contains("gate.up") {}
        scenario.knock(A, ALICE);
        while !next().contains("gate.opened") {}
        let with_it = service.descriptors();
        drop(lines);
        wait_until("it is forgotten", || service.descriptors() < with_it);
    });
}

/// Knocks, and waits until the reader has printed that the gate opened. A and B knock by turns.
#[track_caller]
fn opens(scenario: &Scenario, reader: &Running, times: usize) {
    let seen = || {
        events_of(reader)
            .iter()
            .filter(|event| event["event"] == "gate.opened")
            .count()
    };
    let before = seen();
    scenario.knock(if times.is_multiple_of(2) { A } else { B }, ALICE);
    wait_until("the reader has seen the gate open", || seen() > before);
}

/// Starts a service on an instance that is up, where it reports nothing by itself.
fn serve_again(scenario: &Scenario) -> Running {
    scenario
        .lab
        .serve_until(&[], "the service keeps events", || {
            scenario.knock(A, ALICE);
            // A service keeps events for later readers; without a service, reading an event removes it.
            (0..2).all(|_| !scenario.lab.events_if_any().is_empty())
        })
}
