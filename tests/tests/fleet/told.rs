//! What the service of one host says of the grants of others, and for which of them its hooks run.

use std::{fs, path::PathBuf};

use knockgate_tests::{
    fleet::{Fleet, Host},
    gate_config::{BOB, Gate},
    lab::Source::{self, A, B, C},
    run::{wait_for_value, wait_until},
};
use serde_json::Value;

/// Returns the sources of the events of a host with this name.
fn sources(host: &Host, event: &str) -> Vec<String> {
    let events = host.events(event).into_iter();
    let sources = events.filter_map(|event| event["source"].as_str().map(ToOwned::to_owned));
    sources.collect()
}

/// Waits until a host has said that a gate is open for somebody.
#[track_caller]
fn says_opened(host: &Host, who: Source) {
    let address = host.scenario.address(who).to_string();
    wait_until(&format!("{who:?} is said to have opened"), || {
        sources(host, "gate.opened").contains(&address)
    });
}

fn hook(on: &str, script: &str) -> String {
    let run = ["/bin/sh", "-c", script];
    format!("[[gate.hook]]\non = {on:?}\nrun = {run:?}\n")
}

/// It is in no table, so each look at these would find that it has ended.
#[test]
fn what_opens_for_an_address_is_not_said_to_end_for_the_network_around_it() {
    Fleet::run(2, |fleet| {
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        second.configure(&[Gate::ssh().key("grant_to = \"prefix\"")], "");
        fleet.start();
        first.in_fleet("allow {C} --gate ssh --fleet").exits(0);
        says_opened(second, C);
        // Each of these is found by a look of its own.
        for rounds in 1..=2 {
            second.knockgate("allow {B} --gate ssh --for 1h").exits(0);
            wait_until("it is said to have begun", || {
                sources(second, "gate.opened").len() == rounds + 1
            });
            second.knockgate("revoke {B} --here").exits(0);
            wait_until("it is said to have ended", || {
                sources(second, "gate.closed").len() >= rounds
            });
        }
        let of_b = second.scenario.address(B).to_string();
        assert_eq!(sources(second, "gate.closed"), [&*of_b, &*of_b]);
    });
}

/// Its first grant may come before the service has seen that there is another configuration.
#[test]
fn a_gate_that_is_new_has_its_hooks_for_a_grant_that_waits_for_it() {
    Fleet::run(2, |fleet| {
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        let file = second.scenario.lab.folder().join("notes");
        let script = format!("echo $KNOCKGATE_SOURCE >>{}", file.display());
        let ssh = Gate::ssh().to_string();
        let both = format!("{ssh}{}{}", Gate::mail(), hook("opened", &script));
        second.configure_with(&ssh, &second.section());
        fleet.start();
        let mut expected = Vec::new();
        // What the service looks at first when it goes on is a matter of chance.
        for (rounds, who) in (1..).zip([A, B, C]) {
            first.scenario.knock(who, BOB);
            wait_until("there is no such gate", || {
                second.events("fleet.refused").len() == rounds
            });
            second.signal(libc::SIGSTOP);
            second.configure_with(&both, &second.section());
            second.knockgate("reload").exits(0);
            second.signal(libc::SIGCONT);
            expected.push(second.scenario.address(who).to_string());
            wait_for_value(
                "the hook has run",
                || fs::read_to_string(&file).unwrap_or_default(),
                |notes| notes.lines().eq(&expected),
            );
            second.configure_with(&ssh, &second.section());
            second.knockgate("reload").exits(0);
            wait_until("the gate is closed", || {
                sources(second, "gate.closed").len() == rounds
            });
        }
    });
}

/// Nothing is given that nobody says any more.
#[test]
fn what_arrives_while_hooks_of_a_service_that_ends_run_is_said_by_the_next() {
    Fleet::run(2, |fleet| {
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        let begun = second.scenario.lab.folder().join("begun");
        let slow = hook("opened", &format!("touch {}; sleep 4", begun.display()));
        second.configure_with(&format!("{}{slow}", Gate::ssh()), &second.section());
        fleet.start();
        second.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        wait_until("its hook runs", || begun.exists());
        let ending = second.asked_to_end();
        first.in_fleet("allow {C} --gate ssh --fleet").exits(0);
        assert_eq!(ending.ends(), Some(0));
        second.serve();
        says_opened(second, C);
    });
}

/// As where a service is killed in between.
#[test]
fn what_was_given_and_not_said_is_said_by_the_next_service() {
    Fleet::run(2, |fleet| {
        let [first, second] = fleet.hosts.as_slice() else {
            panic!("two hosts")
        };
        fleet.start();
        first.in_fleet("allow {C} --gate ssh --fleet").exits(0);
        says_opened(second, C);
        second.stop();
        // What a service knows that has not come to say it.
        let file = state_file(second);
        let text = fs::read_to_string(&file).expect("the service has written it");
        let mut state: Value = serde_json::from_str(&text).expect("a document");
        assert_eq!(state["grants"].as_array().map(Vec::len), Some(1));
        state["grants"] = serde_json::json!([]);
        fs::write(file, state.to_string()).expect("it is ours");
        second.serve();
        says_opened(second, C);
        let opened = second.events("gate.opened");
        assert_eq!(opened[0]["origin"], "h1", "{opened:?}");
    });
}

/// The file in which a service leaves what it knows of grants.
fn state_file(host: &Host) -> PathBuf {
    let files = fs::read_dir(host.scenario.lab.state()).expect("the service has made it");
    let mut paths = files.map(|file| file.expect("readable").path());
    let is_it = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains("\"closings\"")
    };
    paths.find(is_it).expect("the service has written it")
}
