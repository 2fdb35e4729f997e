//! `up` on an instance that is up already.

use std::{fs, io};

use knockgate_tests::{
    foreign::{ForeignProgram, PROGRAM_NAME},
    lab::{
        Source::{A, B},
        WAN,
    },
    network::ip,
};

use crate::{Damage, configure, expect_status, in_all_modes, in_generic_mode, is_guarded, ssh};

/// `status` reports the loss and the port is open; `up` closes it again and keeps the grants.
#[test]
fn what_is_lost_is_put_back_with_its_grants() {
    in_all_modes(|scenario| {
        for damage in Damage::ALL {
            scenario.up(ssh());
            scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
            scenario.closed(A, "22/tcp");
            damage.happens_to(scenario);
            scenario.open(A, "22/tcp");
            expect_status(scenario, &[(WAN, None, false)]);
            let status = scenario.knockgate("status");
            status.exits(7).says(&[WAN, "NOT GUARDED"]);
            assert!(
                status.stdout.contains("NOT GUARDED"),
                "{damage:?}: {status:?}"
            );
            // Also where nobody reads what it prints, as behind `status | true`.
            let (reader, closed) = io::pipe().expect("a pipe");
            drop(reader);
            let mut status = scenario.lab.knockgate_command(&["status"]);
            let ended = status.stdout(closed).status().expect("it starts");
            assert_eq!(ended.code(), Some(7), "{damage:?}");
            scenario.knockgate("up").exits(0).says(&[WAN, "again"]);
            expect_status(scenario, &[(WAN, None, true)]);
            scenario.closed(A, "22/tcp");
            scenario.open(B, "22/tcp");
            scenario.knockgate("up").exits(0).says(&["up already"]);
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
        }
    });
}

#[test]
fn an_interface_taken_down_by_itself_is_put_back() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        for name in [WAN, "wan1"] {
            scenario.knockgate(&format!("down -i {name}")).exits(0);
            expect_status(
                scenario,
                &[(WAN, None, name != WAN), ("wan1", None, name == WAN)],
            );
            // The tables are still pinned in the other interface's directory.
            scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
            scenario.knockgate("up").exits(0);
            expect_status(scenario, &[(WAN, None, true), ("wan1", None, true)]);
            scenario.closed(A, "22/tcp");
            scenario.open(B, "22/tcp");
        }
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

/// From which somebody has removed a pin: that is not what a `down` leaves which was killed.
#[test]
fn what_lacks_pins_is_put_back_when_its_interface_is_made_again() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        let pins = scenario.lab.pin_root().join(WAN);
        fs::remove_file(pins.join("cursor")).expect("it is pinned");
        scenario.lab.make_again();
        let status = scenario.knockgate("status");
        status.exits(7);
        assert!(status.stdout.contains("was detached"), "{status:?}");
        assert!(pins.exists());
        scenario.knockgate("up").exits(0);
        expect_status(scenario, &[(WAN, None, true), ("wan1", None, true)]);
        scenario.closed(A, "22/tcp");
    });
}

/// The same, by a service that runs or that starts.
#[test]
fn what_lacks_pins_is_put_back_by_the_service() {
    for starts in [false, true] {
        in_generic_mode(|scenario| {
            scenario.lab.add_interface("wan1");
            configure(scenario, &[WAN, "wan1"], ssh());
            scenario.knockgate("up").exits(0);
            let running = (!starts).then(|| scenario.lab.serve(&[]));
            let pin = scenario.lab.pin_root().join(WAN).join("cursor");
            fs::remove_file(&pin).expect("it is pinned");
            scenario.lab.make_again();
            let starting = starts.then(|| scenario.lab.serve(&[]));
            is_guarded(scenario);
            assert!(pin.exists());
            drop((running, starting));
        });
    }
}

/// A configuration that came into force meanwhile has pinned no link for it.
#[test]
fn what_lacks_pins_is_put_back_when_its_interface_comes_after_a_reload() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        ip(&scenario.lab.host, "link delete wan1");
        configure(scenario, &[WAN, "wan1"], ssh().protect("22/tcp 25/tcp"));
        scenario.knockgate("reload").exits(0);
        let pins = scenario.lab.pin_root().join("wan1");
        assert!(!pins.join("link").exists());
        fs::remove_file(pins.join("cursor")).expect("it is pinned");
        scenario.lab.add_interface("wan1");
        let status = scenario.knockgate("status");
        status.exits(7);
        assert!(
            status.stdout.contains("is not attached to it"),
            "{status:?}"
        );
        scenario.knockgate("up").exits(0);
        expect_status(scenario, &[(WAN, None, true), ("wan1", None, true)]);
    });
}

/// The others are repaired, and `up` still reports the missing one.
#[test]
fn one_that_is_gone_does_not_keep_the_others_from_being_put_back() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        scenario
            .lab
            .client("ip", &["link", "delete", "wan1-peer"])
            .exits(0);
        Damage::Detached.happens_to(scenario);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["wan1", "NOT GUARDED"]);
        expect_status(scenario, &[(WAN, None, true), ("wan1", None, false)]);
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn another_configuration_is_applied_together_with_the_repair() {
    in_all_modes(|scenario| {
        for damage in Damage::ALL {
            scenario.up(ssh());
            damage.happens_to(scenario);
            scenario.configure(ssh().protect("25/tcp"));
            scenario.knockgate("up").exits(0);
            expect_status(scenario, &[(WAN, None, true)]);
            scenario.closed(A, "25/tcp");
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
        }
    });
}

#[test]
fn a_program_that_took_the_place_is_named() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        Damage::Detached.happens_to(scenario);
        let program = ForeignProgram::linked(&scenario.lab);
        let id = program.id.to_string();
        let status = scenario.knockgate("status");
        status.exits(7);
        assert!(status.stdout.contains(PROGRAM_NAME), "{status:?}");
        scenario
            .knockgate("up")
            .exits(1)
            .says(&[WAN, PROGRAM_NAME, &id]);
        let taken = || {
            let check = scenario.knockgate("check --json").exits(0).json();
            let findings = check["findings"].as_array().expect("a list").clone();
            findings
                .into_iter()
                .find(|finding| finding["code"] == "interface-taken")
        };
        let message = taken().expect("a finding")["message"].to_string();
        for word in ["`up` will refuse", WAN, PROGRAM_NAME, &id] {
            assert!(message.contains(word), "{word:?} is missing in {message}");
        }
        drop(program);
        assert_eq!(taken(), None, "no program is there");
        scenario.knockgate("up").exits(0);
        assert_eq!(taken(), None, "the program is ours");
        scenario.closed(A, "22/tcp");
    });
}
