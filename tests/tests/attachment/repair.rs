//! `up` on a gate that is up.

use std::fs;

use knockgate_tests::{
    foreign::{ForeignProgram, PROGRAM_NAME},
    lab::{
        WAN,
        Who::{A, B},
    },
};

use crate::{Damage, SSH, configure, expect_status, link_of, trial, trials};

/// Status tells it, the port shows it, and `up` closes it again without losing a grant.
#[test]
fn what_is_lost_is_put_back_with_its_grants() {
    trials(|trial| {
        for damage in Damage::ALL {
            trial.up(SSH);
            trial.knockgate("allow {B} --gate ssh --for 1h").exits(0);
            trial.closed(A, "22/tcp");
            damage.happens_to(trial);
            trial.open(A, "22/tcp");
            expect_status(trial, &[(WAN, None, false)]);
            let status = trial.knockgate("status");
            status.exits(7).says(&[WAN, "NOT GUARDED"]);
            assert!(
                status.stdout.contains("NOT GUARDED"),
                "{damage:?}: {status:?}"
            );
            trial.knockgate("up").exits(0).says(&[WAN, "again"]);
            expect_status(trial, &[(WAN, None, true)]);
            trial.closed(A, "22/tcp");
            trial.open(B, "22/tcp");
            trial.knockgate("up").exits(1).says(&["up already"]);
            trial.knockgate("down").exits(0);
            trial.lab.assert_untouched();
        }
    });
}

#[test]
fn an_interface_taken_down_by_itself_is_put_back() {
    trial(|trial| {
        trial.lab.add_interface("wan1");
        configure(trial, &[WAN, "wan1"], SSH);
        trial.knockgate("up").exits(0);
        for name in [WAN, "wan1"] {
            trial.knockgate(&format!("down -i {name}")).exits(0);
            expect_status(
                trial,
                &[(WAN, None, name != WAN), ("wan1", None, name == WAN)],
            );
            // The tables are those of the other interface's directory.
            trial.knockgate("allow {B} --gate ssh --for 1h").exits(0);
            trial.knockgate("up").exits(0);
            expect_status(trial, &[(WAN, None, true), ("wan1", None, true)]);
            trial.closed(A, "22/tcp");
            trial.open(B, "22/tcp");
        }
        trial.knockgate("down").exits(0);
        trial.lab.assert_untouched();
    });
}

/// The others are put back, and it is not said that all is well.
#[test]
fn one_that_is_gone_does_not_keep_the_others_from_being_put_back() {
    trial(|trial| {
        trial.lab.add_interface("wan1");
        configure(trial, &[WAN, "wan1"], SSH);
        trial.knockgate("up").exits(0);
        trial
            .lab
            .client("ip", &["link", "delete", "wan1-peer"])
            .exits(0);
        Damage::Detached.happens_to(trial);
        trial
            .knockgate("up")
            .exits(1)
            .says(&["wan1", "NOT GUARDED"]);
        expect_status(trial, &[(WAN, None, true), ("wan1", None, false)]);
        trial.closed(A, "22/tcp");
    });
}

#[test]
fn another_configuration_is_not_applied_by_a_repair() {
    trial(|trial| {
        trial.up(SSH);
        Damage::Detached.happens_to(trial);
        trial.configure(&SSH.replace("22/tcp", "25/tcp"));
        trial
            .knockgate("up")
            .exits(1)
            .says(&["another configuration", "NOT GUARDED"]);
        // What never was on an interface has nothing to lose.
        fs::remove_file(link_of(trial, WAN)).expect("it is pinned there");
        trial.knockgate("up").exits(0);
        trial.closed(A, "25/tcp");
    });
}

#[test]
fn a_program_that_took_the_place_is_named() {
    trial(|trial| {
        trial.up(SSH);
        Damage::Detached.happens_to(trial);
        let program = ForeignProgram::linked(&trial.lab);
        let id = program.id.to_string();
        let status = trial.knockgate("status");
        status.exits(7);
        assert!(status.stdout.contains(PROGRAM_NAME), "{status:?}");
        trial
            .knockgate("up")
            .exits(1)
            .says(&[WAN, PROGRAM_NAME, &id]);
        drop(program);
        trial.knockgate("up").exits(0);
        trial.closed(A, "22/tcp");
    });
}
