//! Commands that are killed half-way: right before each system call that changes pins or attachments.

use knockgate_tests::{
    is_thorough,
    killed::{Call, count, killed_at_call, killed_before},
    lab::{
        Source::{A, B},
        WAN,
    },
};

use crate::{configure, expect_status, in_generic_mode, ssh};

/// Afterwards, either nothing is up, or `status` says that the interface is not guarded; the next `up` guards it.
#[test]
fn up_that_is_killed_is_brought_to_its_end_by_the_next() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        for nth in points() {
            let ended = !killed_before(scenario.lab.knockgate_command(&["up"]), nth);
            if !ended {
                match scenario.knockgate("status").code {
                    Some(5 | 7) => {}
                    // The call before which it was killed was the last one.
                    Some(0) => scenario.closed(A, "22/tcp"),
                    code => panic!("killed before call {nth}: status exits {code:?}"),
                }
                let up = scenario.knockgate("up");
                assert_eq!(up.code, Some(0), "killed before call {nth}: {up:?}");
            }
            expect_status(scenario, &[(WAN, None, true), ("wan1", None, true)]);
            scenario.closed(A, "22/tcp");
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
            if ended {
                return;
            }
        }
        panic!("`up` makes more calls than expected");
    });
}

/// The next `down` completes it, and `up` reverts it.
#[test]
fn down_that_is_killed_is_brought_to_its_end_by_the_next() {
    in_generic_mode(|scenario| {
        for (nth, next) in (0..200).step_by(7).zip(["down", "up"].into_iter().cycle()) {
            scenario.up(ssh());
            let ended = !killed_before(scenario.lab.knockgate_command(&["down"]), nth);
            if !ended && next == "up" {
                let up = scenario.knockgate("up");
                assert_eq!(up.code, Some(0), "killed before call {nth}: {up:?}");
                expect_status(scenario, &[(WAN, None, true)]);
                scenario.closed(A, "22/tcp");
            }
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
            if ended {
                return;
            }
        }
        panic!("`down` makes more calls than expected");
    });
}

/// It attaches nothing to tables of which some are gone, since others would be made in their place, with no room for what they are
/// for.
#[test]
fn a_service_does_not_guard_from_what_a_killed_down_has_left() {
    in_generic_mode(|scenario| {
        let down = || scenario.lab.knockgate_command(&["down"]);
        scenario.configure(format!("allow = [\"{{B}}/32\"]\n{}", ssh()));
        scenario.knockgate("up").exits(0);
        let calls = count(down(), Call::removes);
        // Before and behind the pins of the configuration and of the program, and when only what identifies the instance is left.
        for nth in [2, 12, calls / 2, calls - 12, calls - 3] {
            scenario.knockgate("up").exits(0);
            let service = scenario.lab.serve(&[]);
            assert!(
                killed_at_call(down(), nth, Call::removes),
                "{nth} of {calls}"
            );
            // The service completes it.
            assert_eq!(service.ends(), Some(0), "{nth} of {calls}");
            scenario.knockgate("up").exits(0);
            scenario.open(B, "22/tcp");
            scenario.closed(A, "22/tcp");
        }
    });
}

/// What is left of the one is no reason not to find the other.
#[test]
fn a_down_of_one_interface_that_is_killed_keeps_no_command_from_the_others() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        scenario.knockgate("up").exits(0);
        let down = || scenario.lab.knockgate_command(&["down", "-i", WAN]);
        assert!(killed_at_call(down(), 20, Call::removes));
        scenario.knockgate("revoke --all").exits(0);
        expect_status(scenario, &[(WAN, None, false), ("wan1", None, true)]);
        scenario.knockgate("up").exits(0);
        expect_status(scenario, &[(WAN, None, true), ("wan1", None, true)]);
        scenario.closed(A, "22/tcp");
    });
}

/// Returns the numbers of calls to try: the first ones, a few of those that pin tables, which are all alike, and those after the last
/// table of two interfaces: each of them before a release.
fn points() -> impl Iterator<Item = usize> {
    let tables = 36;
    let step = if is_thorough() { 1 } else { 3 };
    (0..4)
        .chain((10..2 * tables - 2).step_by(9))
        .chain((2 * tables - 2..2 * tables + 60).step_by(step))
}
