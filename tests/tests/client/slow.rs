//! Paths with a long delay, and paths that reorder packets.

use std::time::Duration;

use knockgate_tests::{gate_config::ALICE_STEPS, lab::Lab, path::Latency, run::Run};

use crate::{knock, nearly_all_succeed, rounds, scenario, ssh};

const HOST: &str = "10.77.0.1";

fn knocks(latency: Latency, rounds: usize) -> Vec<Run> {
    let Some(scenario) = scenario(Lab::build_slow(&[], latency)) else {
        return Vec::new();
    };
    scenario.up(ssh());
    let [first, second, third] = ALICE_STEPS;
    (0..rounds)
        .map(|_| {
            let run = knock(&scenario, &[HOST, first, second, third, "--then", "22/tcp"]);
            scenario.knockgate("revoke --all").exits(0);
            run
        })
        .collect()
}

#[test]
fn a_path_that_reorders() {
    let latency = Latency {
        delay: Duration::from_millis(200),
        jitter: Duration::from_millis(150),
    };
    let runs = knocks(latency, rounds(8));
    nearly_all_succeed("a jitter of 150 ms", &runs);
}

#[test]
fn a_path_that_takes_long() {
    let latency = Latency {
        delay: Duration::from_millis(650),
        jitter: Duration::ZERO,
    };
    let runs = knocks(latency, rounds(3));
    nearly_all_succeed("a round trip of 1.3 s", &runs);
}

/// The first attempt has no pauses beyond those that were asked for.
#[test]
fn a_knock_on_a_good_path_needs_one_try() {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return;
    };
    scenario.up(ssh());
    let [first, second, third] = ALICE_STEPS;
    let run = knock(
        &scenario,
        &[
            "-v",
            HOST,
            first,
            second,
            third,
            "--then",
            "22/tcp",
            "--timeout",
            "20s",
        ],
    );
    run.exits(0).says(&["22/tcp is open"]);
    assert_eq!(run.stderr.matches("knock 1 of 3").count(), 1, "{run:#?}");
}
