//! What guards something, but from which somebody has removed a pin: it guards until something is in its place.

use std::fs;

use knockgate_tests::{
    killed::{Call, count, killed_at_call},
    lab::{
        Source::{A, B},
        WAN,
    },
    scenario::Scenario,
};

use crate::{configure, expect_status, in_all_modes, in_generic_mode, listed, ssh};

/// A table that is opened by no command.
fn damage(scenario: &Scenario) {
    let pin = scenario.lab.pin_root().join(WAN).join("cursor");
    fs::remove_file(pin).expect("it is pinned");
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

/// The next one finishes or undoes it.
#[test]
fn its_replacement_may_be_killed() {
    in_generic_mode(|scenario| {
        for nth in 0.. {
            scenario.up(ssh());
            scenario.configure(ssh().open_for("2m"));
            scenario.knockgate("reload").exits(0);
            damage(scenario);
            let up = scenario.lab.knockgate_command(&["up"]);
            let ended = !killed_at_call(up, nth, |call: &Call| {
                call.changes_a_link() || call.renames() || call.removes()
            });
            scenario.closed(A, "22/tcp");
            scenario.knockgate("status");
            scenario.closed(A, "22/tcp");
            scenario.knockgate("up").exits(0);
            expect_status(scenario, &[(WAN, None, true)]);
            scenario.closed(A, "22/tcp");
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
            if ended || nth == 5 {
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
