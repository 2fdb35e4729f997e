//! Commands that are killed half-way: `reload` right before each system call that changes pins or attachments, and what takes
//! something away right before it waits for packets.

use std::{cell::Cell, fs};

use knockgate_tests::{
    gate_config::{ALICE, BOB, Gate},
    keys,
    killed::{Call, count, interrupted, killed_at_call, killed_before},
    lab::{
        Source::{A, B},
        WAN,
    },
    run::wait_until,
    service::{echoes, is_silent},
};

use crate::{in_native_mode, reload, serve, ssh};

/// Afterwards the interface is guarded by the old configuration or by the new one, and whatever comes next finishes it.
#[test]
fn a_reload_that_is_killed_leaves_the_interface_guarded() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let configs = [ssh().protect("22/tcp 25/tcp"), ssh()];
        scenario.configure(&configs[0]);
        let is_exchanged = Cell::new(false);
        let before = count(scenario.lab.knockgate_command(&["reload"]), |call| {
            is_exchanged.set(is_exchanged.get() || call.changes_a_link());
            call.changes_pins() && !is_exchanged.get()
        });
        assert!(
            is_exchanged.get() && before > 20,
            "{before} calls before the exchange"
        );
        for (nth, config) in points(before).zip(configs.iter().cycle().skip(1)) {
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

/// Returns the numbers of calls to try: the first ones, a few of those that pin tables, which are all alike, and every call around
/// the exchange of the programs, with `before` calls before it, and of the directories; then a few of those that remove the old pins.
fn points(before: usize) -> impl Iterator<Item = usize> {
    (0..3)
        .chain((10..before - 2).step_by(16))
        .chain(before - 2..before + 10)
        .chain((before + 10..300).step_by(12))
}

/// When the configuration is in force, before anything has ended; and when a grant has ended, before packets that have found it are
/// judged. The next command or the service does the rest: grants and sessions of a user who is gone, and of a source that may not
/// knock any more.
#[test]
fn what_no_longer_applies_ends_though_a_reload_is_killed() {
    for (nth, serves) in [(0, false), (0, true), (1, false)] {
        in_native_mode(|scenario| {
            scenario.up(ssh().user("bob", BOB));
            scenario.knock(B, BOB);
            let mut of_bob = scenario.connected(B, 22);
            scenario.knock(A, ALICE);
            let mut of_alice = scenario.connected(A, 22);
            // Nothing but the configuration before says whose this session is.
            scenario.ends(A);
            let service = serves.then(|| serve(scenario));
            scenario.configure(ssh().key("sources = [\"{B}/32\"]"));
            let command = scenario.lab.knockgate_command(&["reload"]);
            assert!(killed_at_call(command, nth, Call::waits_for_packets));
            if serves {
                let left = scenario.lab.pin_root();
                wait_until("the service has finished it", || {
                    fs::read_dir(left).expect("it is up").count() == 1
                });
            } else {
                scenario.knockgate("status").exits(0);
            }
            scenario.closed(B, "22/tcp");
            assert!(is_silent(&mut of_bob, b"from nobody"), "{nth}");
            assert!(is_silent(&mut of_alice, b"may not knock"), "{nth}");
            assert!(scenario.lab.list("grants").is_empty());
            drop(service);
        });
    }
}

/// What is not done is not forgotten by a command that could not do it either.
#[test]
fn what_no_longer_applies_ends_though_the_next_command_fails() {
    in_native_mode(|scenario| {
        scenario.up(ssh().user("bob", BOB));
        scenario.knock(B, BOB);
        let mut flow = scenario.connected(B, 22);
        scenario.configure(ssh());
        let reload = scenario.lab.knockgate_command(&["reload"]);
        assert!(killed_at_call(reload, 0, Call::waits_for_packets));
        let with_few_files = ["sh", "-c", "ulimit -n 30 && exec \"$@\"", "sh"];
        for command in ["status", "up"] {
            let run = scenario.lab.knockgate_under(&with_few_files, &[command]);
            assert_ne!(run.code, Some(0), "{run:?}");
            run.says(&["still not done"]);
        }
        scenario.knockgate("status").exits(0);
        scenario.closed(B, "22/tcp");
        assert!(is_silent(&mut flow, b"from nobody"));
    });
}

/// No packet that has found a grant may begin a session when sessions have been ended.
#[test]
fn sessions_end_once_no_packet_is_judged_by_the_grant() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        scenario.knock(A, ALICE);
        let mut flow = scenario.connected(A, 22);
        let revoke = || scenario.lab.knockgate_command(&["revoke", "--all"]);
        assert!(killed_at_call(revoke(), 0, Call::waits_for_packets));
        scenario.closed(A, "22/tcp");
        assert!(echoes(&mut flow, b"not ended yet"));
        assert_eq!(count(revoke(), Call::waits_for_packets), 1);
        assert!(is_silent(&mut flow, b"ended"));
    });
}

/// Nor may one that has found a key valid give a grant when those of the key have been ended.
#[test]
fn grants_end_once_no_packet_is_judged_by_the_key() {
    in_native_mode(|scenario| {
        keys::configure(scenario, "", &ssh());
        scenario.knockgate("up").exits(0);
        let key = keys::new_key(scenario, "carol --gate ssh");
        keys::knock(scenario, &key, "--then 22/tcp").exits(0);
        let revoke = scenario.lab.knockgate_command(&["key", "revoke", "carol"]);
        assert!(killed_at_call(revoke, 0, Call::waits_for_packets));
        assert_eq!(scenario.lab.list("grants").len(), 1);
        scenario.knockgate("up").exits(0);
        scenario.closed(A, "22/tcp");
        assert!(scenario.lab.list("grants").is_empty());
    });
}

#[test]
fn nothing_is_counted_twice_or_lost_though_a_reload_is_killed() {
    in_native_mode(|scenario| {
        let both = || format!("{}{}", ssh(), Gate::mail());
        let without = || scenario.lab.knockgate_command(&["reload"]);
        scenario.up(both());
        scenario.configure(ssh());
        let calls = count(without(), Call::changes_a_table);
        for nth in calls.saturating_sub(8)..calls {
            reload(scenario, both());
            scenario.closed(A, "25/tcp");
            scenario.closed(A, "22/tcp");
            let before = scenario.lab.stats().denied("no_grant");
            scenario.configure(ssh());
            killed_at_call(without(), nth, Call::changes_a_table);
            for _ in 0..2 {
                let after = scenario.lab.stats().denied("no_grant");
                assert_eq!(after, before, "killed before call {nth} of {calls}");
                scenario.knockgate("reload").exits(0);
            }
        }
    });
}

/// It was killed when its directories had their names, before it had made sessions of what is open.
#[test]
fn an_open_connection_is_kept_though_the_first_up_is_killed() {
    for next in ["up", "up --try 1m"] {
        in_native_mode(|scenario| {
            scenario.configure(ssh());
            let mut flow = scenario.connected(A, 22);
            let is_named = Cell::new(false);
            let up = scenario.lab.knockgate_command(&["up"]);
            assert!(killed_at_call(up, 0, |call| {
                is_named.replace(is_named.get() || call.renames())
            }));
            scenario.knockgate("status").exits(7);
            scenario.knockgate(next).exits(0);
            assert!(echoes(&mut flow, b"kept"), "{next}");
            scenario.closed(A, "22/tcp");
        });
    }
}

/// What another command was told on its command line while `reload` waited for it stays.
#[test]
fn a_reload_does_not_revert_what_has_come_up_while_it_waited() {
    in_native_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        scenario.configure(ssh());
        scenario.knockgate(&format!("up -i {WAN}")).exits(0);
        scenario.configure(ssh().protect("22/tcp 25/tcp"));
        let reload = scenario.lab.knockgate_command(&["reload"]);
        let code = interrupted(reload, Call::locks, || {
            let up = format!("up -i {WAN} -i wan1");
            scenario.knockgate(&up).exits(0);
        });
        assert_eq!(code, Some(0));
        let status = scenario.knockgate("status --json").exits(0).json();
        assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(2));
        scenario.closed(A, "25/tcp");
    });
}
