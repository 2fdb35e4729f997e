//! What guards something, but from which somebody has removed a pin: it guards until something is in its place.

use std::{cell::Cell, fs, path::PathBuf};

use knockgate_tests::{
    gate_config::Gate,
    killed::{Call, count, killed_at_call},
    lab::{
        Source::{A, B, C},
        WAN,
    },
    run::wait_until,
    scenario::{Attach, Scenario},
    service::{echoes, is_silent},
};

use crate::{configure, expect_status, in_all_modes, in_generic_mode, is_guarded, listed, ssh};

/// Removes a table that is opened by no command.
fn damage(scenario: &Scenario) {
    let pin = scenario.lab.pin_root().join(WAN).join("cursor");
    fs::remove_file(pin).expect("it is pinned");
}

/// Removes the pin of the program from the directory of an interface. Returns it.
fn unpin_program(scenario: &Scenario, interface: &str) -> PathBuf {
    let name = match scenario.attach {
        Attach::Tcx => "program_tcx",
        _ => "program",
    };
    let pin = scenario.lab.pin_root().join(interface).join(name);
    fs::remove_file(&pin).expect("it is pinned");
    pin
}

/// Runs `up` to its end. Returns how often nothing was attached when it was about to change a pin.
fn moments_of_up(scenario: &Scenario) -> usize {
    count(scenario.lab.knockgate_command(&["up"]), |call| {
        call.changes_pins()
            && !scenario.lab.interface().contains("xdp")
            && listed(scenario).is_empty()
    })
}

#[test]
fn it_is_replaced_with_no_moment_in_which_nothing_is_attached() {
    in_all_modes(|scenario| {
        scenario.up(ssh());
        damage(scenario);
        assert_eq!(moments_of_up(scenario), 0);
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("up").exits(0).says(&["up already"]);
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

/// The link carries the program without its pin.
#[test]
fn a_program_that_is_not_pinned_guards_until_another_one_does() {
    in_all_modes(|scenario| {
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let pin = unpin_program(scenario, WAN);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("status").exits(7);
        assert_eq!(moments_of_up(scenario), 0);
        assert!(pin.exists());
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");

        let pin = unpin_program(scenario, WAN);
        scenario.configure(ssh().protect("22/tcp 25/tcp"));
        assert_eq!(moments_of_up(scenario), 0);
        assert!(pin.exists());
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.closed(A, "25/tcp");
        scenario.open(B, "22/tcp");
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

/// It has given up the privilege to ask the kernel whose program that is.
#[test]
fn the_service_puts_a_program_back_that_is_not_pinned() {
    in_all_modes(|scenario| {
        scenario.up(ssh());
        let _service = scenario.lab.serve(&[]);
        let pin = unpin_program(scenario, WAN);
        wait_until("it is pinned", || {
            let interface = scenario.lab.interface();
            assert!(interface.contains("xdp") || !listed(scenario).is_empty());
            pin.exists()
        });
        is_guarded(scenario);
    });
}

/// Another interface has it, which may be taken down by itself.
#[test]
fn a_program_that_is_pinned_elsewhere_is_pinned_again() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        let pin = unpin_program(scenario, WAN);
        expect_status(scenario, &[(WAN, None, true), ("wan1", None, true)]);
        scenario.knockgate("up").exits(0);
        assert!(pin.exists());
        scenario.knockgate("down -i wan1").exits(0);
        expect_status(scenario, &[(WAN, None, true), ("wan1", None, false)]);
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn it_stays_where_nothing_can_replace_it() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        damage(scenario);
        configure(scenario, &[WAN, "absent0"], ssh());
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["there is no interface", "absent0"]);
        scenario.closed(A, "22/tcp");
        let text = fs::read_to_string(scenario.lab.config()).expect("it was just written");
        let native = text
            .replace(", \"absent0\"", "")
            .replace("\"generic\"", "\"native\"");
        scenario.lab.configure(&native);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["generic mode", "knockgate down"]);
        scenario.closed(A, "22/tcp");
    });
}

/// What undoes a replacement puts back what is pinned.
#[test]
fn a_program_that_is_not_pinned_stays_where_nothing_can_replace_it() {
    in_all_modes(|scenario| {
        scenario.up(ssh());
        unpin_program(scenario, WAN);
        configure(scenario, &[WAN, "wan9"], ssh().protect("25/tcp"));
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["there is no interface", "wan9"]);
        scenario.closed(A, "22/tcp");
        scenario.open(A, "25/tcp");
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

/// Its link tells in which mode it is, with or without the pin of the program.
#[test]
fn a_program_that_is_not_pinned_keeps_its_mode() {
    in_generic_mode(|scenario| {
        for command in ["up", "reload"] {
            scenario.up(ssh());
            unpin_program(scenario, WAN);
            let text = fs::read_to_string(scenario.lab.config()).expect("it was just written");
            scenario
                .lab
                .configure(&text.replace("\"generic\"", "\"native\""));
            scenario
                .knockgate(command)
                .exits(1)
                .says(&["generic mode", "knockgate down"]);
            scenario.closed(A, "22/tcp");
        }
    });
}

/// The next one finishes or undoes it.
#[test]
fn its_replacement_may_be_killed() {
    killed_in_place_of(damage);
}

#[test]
fn the_replacement_of_a_program_that_is_not_pinned_may_be_killed() {
    let unpin = |scenario: &Scenario| drop(unpin_program(scenario, WAN));
    killed_in_place_of(unpin);
    killed_in_place_of(|scenario| {
        unpin(scenario);
        damage(scenario);
    });
}

/// Has each of the first calls be the last one of an `up` that protects another port in place of what has been damaged.
fn killed_in_place_of(damaged: impl Fn(&Scenario)) {
    in_generic_mode(|scenario| {
        for nth in 0.. {
            scenario.up(ssh());
            scenario.configure(ssh().open_for("2m"));
            scenario.knockgate("reload").exits(0);
            damaged(scenario);
            scenario.configure(ssh().protect("25/tcp"));
            let up = scenario.lab.knockgate_command(&["up"]);
            let (calls, is_renamed) = (Cell::new(0), Cell::new(false));
            let ended = !killed_at_call(up, nth, |call: &Call| {
                let is_wanted = call.changes_a_link() || call.renames() || call.removes();
                // The last one is not made.
                is_renamed.set(is_renamed.get() || (call.renames() && calls.get() < nth));
                calls.set(calls.get() + usize::from(is_wanted));
                is_wanted
            });
            assert!(scenario.lab.interface().contains("xdp"));
            scenario.knockgate("status");
            let closed = if is_renamed.get() { "25/tcp" } else { "22/tcp" };
            scenario.closed(A, closed);
            scenario.knockgate("up").exits(0);
            expect_status(scenario, &[(WAN, None, true)]);
            scenario.closed(A, "25/tcp");
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
            if ended || nth == 6 {
                return;
            }
        }
    });
}

/// Another interface has all tables, so nothing ends.
#[test]
fn what_is_pinned_elsewhere_is_pinned_again() {
    in_all_modes(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        damage(scenario);
        assert_eq!(moments_of_up(scenario), 0);
        assert!(scenario.lab.pin_root().join(WAN).join("cursor").exists());
        expect_status(scenario, &[(WAN, None, true), ("wan1", None, true)]);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

/// The configuration does not name it any more: it is said to be open, and not to be guarded.
#[test]
fn what_is_left_out_is_not_called_guarded() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        for name in [WAN, "wan1"] {
            let pin = scenario.lab.pin_root().join(name).join("cursor");
            fs::remove_file(pin).expect("it is pinned");
        }
        scenario.configure(ssh());
        let up = scenario.knockgate("up");
        up.exits(0)
            .says(&["wan0 is guarded", "wan1 is no longer guarded"]);
        assert!(!up.stderr.contains("wan1 is guarded"), "{up:?}");
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

/// It is of the generation before, whether or not all its pins are there.
#[test]
fn what_is_left_out_is_settled() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        let wan1 = scenario.lab.pin_root().join("wan1");
        fs::remove_file(wan1.join("cursor")).expect("it is pinned");
        scenario.configure(ssh());
        let reload = scenario.lab.knockgate_command(&["reload"]);
        // The first gives the new directory its name, the second takes that of the other away.
        assert!(killed_at_call(reload, 1, Call::renames));
        assert!(wan1.exists());
        scenario.knockgate("status").exits(0);
        assert!(!wan1.exists());
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.closed(A, "22/tcp");
    });
}

/// To take it down first would open every port.
#[test]
fn what_lacks_pins_is_not_called_another_version() {
    in_generic_mode(|scenario| {
        for table in ["grant", "cursor"] {
            scenario.up(ssh());
            let pin = scenario.lab.pin_root().join(WAN).join(table);
            fs::remove_file(pin).expect("it is pinned");
            for command in ["status", "reload"] {
                let run = scenario.knockgate(command);
                assert!(!run.stderr.contains("knockgate down"), "{run:?}");
                if command == "reload" || table == "grant" {
                    run.exits(1).says(&["has not all pins", "knockgate up"]);
                }
            }
            assert_eq!(moments_of_up(scenario), 0, "{table}");
            expect_status(scenario, &[(WAN, None, true)]);
            scenario.closed(A, "22/tcp");
        }
    });
}

/// What the gate has been denying is not a connection from before the gate.
#[test]
fn a_connection_that_was_revoked_stays_revoked() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        scenario.knockgate("allow {C} --gate ssh --for 1h").exits(0);
        let mut revoked = scenario.connected(B, 22);
        let mut kept = scenario.connected(C, 22);
        scenario.knockgate("revoke {B}").exits(0);
        damage(scenario);
        scenario.in_session(&kept, &["up"]).exits(0);
        assert!(is_silent(&mut revoked, b"revoked"));
        assert!(echoes(&mut kept, b"kept"));
    });
}

/// It began under a grant that has been revoked, and passes under the next one without a session.
#[test]
fn a_connection_that_passes_by_a_grant_alone_goes_on() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let allow = "allow {C} --gate ssh --for 1h";
        scenario.knockgate(allow).exits(0);
        let mut flow = scenario.connected(C, 22);
        scenario.knockgate("revoke {C}").exits(0);
        scenario.knockgate(allow).exits(0);
        assert!(echoes(&mut flow, b"by the grant"));
        damage(scenario);
        scenario.in_session(&flow, &["up"]).exits(0);
        assert!(echoes(&mut flow, b"by its session"));
    });
}

/// As where nothing is damaged: the sessions of a gate that has gone end with it.
#[test]
fn a_connection_of_a_gate_that_is_gone_does_not_go_on() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        scenario.knockgate("allow {C} --gate ssh --for 1h").exits(0);
        let mut flow = scenario.connected(C, 22);
        damage(scenario);
        scenario.configure(Gate::new("shell", "22/tcp"));
        scenario.knockgate("up").exits(0);
        assert!(is_silent(&mut flow, b"of another gate"));
    });
}
