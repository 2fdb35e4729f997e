//! Interfaces that are called something else, or are elsewhere.

use std::{thread, time::Duration};

use knockgate_tests::{
    attempt::Outcome,
    lab::{WAN, Who::A},
    network::ip,
    run::wait_until,
    trial::Trial,
};

use crate::{SSH, configure, expect_status, serve, trial, trials};

#[test]
fn a_renamed_interface_stays_guarded() {
    trials(|trial| {
        trial.up(SSH);
        trial.lab.rename(WAN, "ext0");
        expect_status(trial, &[("ext0", Some(WAN), true)]);
        trial.closed(A, "22/tcp");
        trial.knockgate("up").exits(1).says(&["up already", "ext0"]);
        // By either name.
        trial.knockgate("down -i ext0").exits(0);
        trial.lab.rename("ext0", WAN);
        trial.lab.assert_untouched();
    });
}

/// The card that was guarded stays so, and the one that bears its name now is no secret.
#[test]
fn another_interface_under_the_name_is_told_and_guarded_by_up() {
    trial(|trial| {
        trial.lab.add_interface("lan0");
        trial.up(SSH);
        swap(trial);
        expect_status(trial, &[("lan0", Some(WAN), true), (WAN, None, false)]);
        trial.closed(A, "22/tcp");
        trial.knockgate("status").exits(7).says(&["lan0"]);
        trial.knockgate("up").exits(0);
        expect_status(trial, &[("lan0", Some(WAN), true), (WAN, None, true)]);
        trial.closed(A, "22/tcp");
        swap(trial);
        expect_status(trial, &[("lan0", Some(WAN), true), (WAN, None, true)]);
        trial.closed(A, "22/tcp");
        trial.knockgate("down").exits(0);
        trial.lab.assert_untouched();
    });
}

#[test]
fn another_interface_under_the_name_is_guarded_by_the_service() {
    trial(|trial| {
        trial.lab.add_interface("lan0");
        trial.configure(SSH);
        let mut service = serve(trial);
        swap(trial);
        wait_until("both are guarded", || {
            let run = trial.knockgate("status --json");
            let rows = run.json()["interfaces"].as_array().map_or(0, Vec::len);
            run.code == Some(0) && rows == 2
        });
        trial.closed(A, "22/tcp");
        assert!(service.goes_on());
    });
}

#[test]
fn two_guarded_interfaces_may_swap_their_names() {
    trial(|trial| {
        trial.lab.add_interface("lan0");
        configure(trial, &["lan0", WAN], SSH);
        trial.knockgate("up").exits(0);
        swap(trial);
        expect_status(
            trial,
            &[("lan0", Some(WAN), true), (WAN, Some("lan0"), true)],
        );
        trial.closed(A, "22/tcp");
        trial.knockgate("up").exits(1).says(&["up already"]);
    });
}

#[test]
fn an_interface_in_another_namespace_is_not_guarded_here() {
    trial(|trial| {
        trial.up(SSH);
        let elsewhere = trial.lab.client.name();
        ip(
            &trial.lab.gate,
            &format!("link set {WAN} netns {elsewhere}"),
        );
        expect_status(trial, &[(WAN, None, false)]);
        trial.knockgate("status").exits(7).says(&["namespace"]);
        trial.knockgate("up").exits(1).says(&[WAN]);
        // Another one of that name is guarded, and so is the first, where it is now.
        trial.lab.add_interface(WAN);
        expect_status(trial, &[(WAN, None, false)]);
        trial.knockgate("up").exits(0);
        expect_status(trial, &[(WAN, None, true)]);
        let moved = trial.lab.client("ip", &["link", "show", WAN]);
        assert!(moved.exits(0).stdout.contains("xdp"), "{moved:?}");
        trial.knockgate("down").exits(0);
        let moved = trial.lab.client("ip", &["link", "show", WAN]);
        assert!(!moved.exits(0).stdout.contains("xdp"), "{moved:?}");
        trial.lab.assert_untouched();
    });
}

/// What the kernel is told of the interface's addresses goes by its index.
#[test]
fn a_renamed_interface_answers_as_before() {
    trial(|trial| {
        trial.configure(&SSH.replace("open_for", "deny = \"reject\"\nopen_for"));
        let mut service = serve(trial);
        trial.refused(A, "22/tcp");
        trial.lab.rename(WAN, "ext0");
        // The service looks at once, and every two seconds.
        for _ in 0..5 {
            assert_eq!(
                trial.attempt(A, "22/tcp", Outcome::Refused),
                Outcome::Refused
            );
            thread::sleep(Duration::from_secs(1));
        }
        trial.lab.rename("ext0", WAN);
        trial.lab.make_again();
        is_answering(trial);
        assert!(service.goes_on());
    });
}

fn is_answering(trial: &Trial) {
    wait_until("it answers again", || {
        trial.knockgate("status").code == Some(0)
            && trial.attempt(A, "22/tcp", Outcome::Refused) == Outcome::Refused
    });
}

fn swap(trial: &Trial) {
    trial.lab.rename(WAN, "aside");
    trial.lab.rename("lan0", WAN);
    trial.lab.rename("aside", "lan0");
}
