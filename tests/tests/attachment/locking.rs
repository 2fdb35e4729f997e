//! Commands that run at the same time.

use std::thread;

use knockgate_tests::{
    lab::{WAN, Who::A},
    run::{Running, wait_until},
};

use crate::{SSH, expect_status, trial};

/// Whatever order `up` and `down` come in: an `up` that ends after `down` has ended, and says that it is up, is.
#[test]
fn an_up_that_has_succeeded_is_up() {
    trial(|trial| {
        trial.configure(SSH);
        for _ in 0..12 {
            let (first, down) = thread::scope(|scope| {
                let first = scope.spawn(|| trial.knockgate("up"));
                let down = scope.spawn(|| trial.knockgate("down"));
                (first.join().expect("it ran"), down.join().expect("it ran"))
            });
            first.exits(0);
            down.exits(0);
            let last = trial.knockgate("up");
            let is_up =
                last.code == Some(0) || last.code == Some(1) && last.stderr.contains("up already");
            assert!(is_up, "{last:?}");
            expect_status(trial, &[(WAN, None, true)]);
            trial.knockgate("down").exits(0);
            trial.lab.assert_untouched();
        }
    });
}

/// One of them brings it up, and the others leave that alone.
#[test]
fn of_several_at_once_one_brings_it_up() {
    trial(|trial| {
        trial.configure(SSH);
        for _ in 0..4 {
            let codes: Vec<_> = thread::scope(|scope| {
                let runs: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| trial.knockgate("up").code))
                    .collect();
                runs.into_iter()
                    .map(|run| run.join().expect("it ran"))
                    .collect()
            });
            let succeeded = codes.iter().filter(|code| **code == Some(0)).count();
            assert_eq!(succeeded, 1, "{codes:?}");
            expect_status(trial, &[(WAN, None, true)]);
            trial.closed(A, "22/tcp");
            trial.knockgate("down").exits(0);
            trial.lab.assert_untouched();
        }
    });
}

/// A grant is given to the gate that is up when the command has ended, or to none.
#[test]
fn grants_go_to_the_gate_that_is_up() {
    trial(|trial| {
        trial.up(SSH);
        // Whoever holds the lock while the gate is taken down and brought up.
        let root = trial
            .lab
            .pin_root()
            .to_str()
            .expect("made of ASCII")
            .to_owned();
        let mut holder = trial.lab.gate.command("flock");
        holder.args(["--close", &root, "sleep", "600"]);
        let holder = Running::start(&mut holder, trial.lab.folder());
        wait_until("the lock is held", || {
            trial
                .lab
                .gate
                .command("flock")
                .args(["-n", &root, "true"])
                .status()
                .is_ok_and(|status| !status.success())
        });
        let mut allow = trial
            .lab
            .knockgate_command(&["allow", "10.77.1.3", "--gate", "ssh"]);
        let allow = Running::start(&mut allow, trial.lab.folder());
        // What waits has not opened anything yet.
        let opens = || trial.lab.gate.processes();
        wait_until("it waits", || opens().len() >= 3);
        drop(holder);
        assert_eq!(allow.ends(), Some(0));
        let grants = trial.knockgate("grants --json").exits(0).json();
        assert_eq!(grants["grants"].as_array().map(Vec::len), Some(1));
    });
}
