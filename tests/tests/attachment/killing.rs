//! Commands that are killed half-way: right before each system call that changes pins or attachments.

use knockgate_tests::{
    killed::killed_before,
    lab::{Source::A, WAN},
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
                let is_done =
                    up.code == Some(0) || up.code == Some(1) && up.stderr.contains("up already");
                assert!(is_done, "killed before call {nth}: {up:?}");
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
                let is_done =
                    up.code == Some(0) || up.code == Some(1) && up.stderr.contains("up already");
                assert!(is_done, "killed before call {nth}: {up:?}");
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

/// Returns the numbers of calls to try: the first ones, a few of those that pin tables, which are all alike, and every
/// call after the last table of two interfaces.
fn points() -> impl Iterator<Item = usize> {
    let tables = 32;
    (0..4)
        .chain((10..2 * tables - 2).step_by(9))
        .chain(2 * tables - 2..2 * tables + 60)
}
