//! `reload` that is killed half-way: right before each system call that changes pins or attachments.

use std::fs;

use knockgate_tests::{
    killed::killed_before,
    lab::Source::{A, B},
};

use crate::{in_native_mode, ssh};

/// Afterwards the interface is guarded by the old configuration or by the new one, and whatever comes next finishes it.
#[test]
fn a_reload_that_is_killed_leaves_the_interface_guarded() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let configs = [ssh().protect("22/tcp 25/tcp"), ssh()];
        for (nth, config) in points().zip(configs.iter().cycle()) {
            scenario.configure(config);
            let command = scenario.lab.knockgate_command(&["reload"]);
            let ended = !killed_before(command, nth);
            // At once, before anything can finish it.
            scenario.closed(A, "22/tcp");
            scenario.open(B, "22/tcp");
            scenario.knockgate("status").exits(0);
            scenario.knockgate("reload").exits(0);
            scenario.closed(A, "22/tcp");
            scenario.open(B, "22/tcp");
            if config.to_string().contains("25/tcp") {
                scenario.closed(A, "25/tcp");
            } else {
                scenario.open(A, "25/tcp");
            }
            let left = fs::read_dir(scenario.lab.pin_root())
                .expect("it is up")
                .count();
            assert_eq!(left, 1, "killed before call {nth}: directories are left");
            if ended {
                scenario.knockgate("down").exits(0);
                scenario.lab.assert_untouched();
                return;
            }
        }
        panic!("`reload` makes more calls than expected");
    });
}

/// Returns the numbers of calls to try: the first ones, a few of those that pin tables, which are all alike, and every
/// call around the exchange of the directories; then a few of those that remove the old pins.
fn points() -> impl Iterator<Item = usize> {
    let tables = 39;
    (0..3)
        .chain((10..tables - 2).step_by(12))
        .chain(tables - 2..tables + 12)
        .chain((tables + 12..200).step_by(8))
}
