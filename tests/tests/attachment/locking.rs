//! Commands that run at the same time.

use std::{fs, thread};

use knockgate_tests::{
    lab::{Source::A, WAN},
    run::{Running, wait_until},
};

use crate::{expect_status, in_generic_mode, ssh};

/// However `up` and `down` overlap, both succeed, and the next `up` leaves everything guarded.
#[test]
fn an_up_that_has_succeeded_is_up() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        for _ in 0..12 {
            let (first, down) = thread::scope(|scope| {
                let first = scope.spawn(|| scenario.knockgate("up"));
                let down = scope.spawn(|| scenario.knockgate("down"));
                (first.join().expect("it ran"), down.join().expect("it ran"))
            });
            first.exits(0);
            down.exits(0);
            let last = scenario.knockgate("up");
            last.exits(0);
            expect_status(scenario, &[(WAN, None, true)]);
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
        }
    });
}

/// One of them brings it up, and the others find nothing to change.
#[test]
fn several_at_once_bring_it_up() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        for _ in 0..4 {
            let codes: Vec<_> = thread::scope(|scope| {
                let runs: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| scenario.knockgate("up").code))
                    .collect();
                runs.into_iter()
                    .map(|run| run.join().expect("it ran"))
                    .collect()
            });
            assert_eq!(codes, [Some(0); 4]);
            expect_status(scenario, &[(WAN, None, true)]);
            scenario.closed(A, "22/tcp");
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
        }
    });
}

/// Commands that read hold no lock. Those that find a part of the pins wait for who removes them.
#[test]
fn readers_see_it_up_or_not_at_all() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let holder = scenario.hold_lock();
        // In place of a `down` that has come this far.
        let pins = scenario.lab.pin_root().join(WAN);
        fs::remove_file(pins.join("grant")).expect("it is pinned");
        let readers = ["status", "stats", "grants", "sources", "sessions"].map(|command| {
            let mut command = scenario.lab.knockgate_command(&[command]);
            Running::start(&mut command, scenario.lab.folder())
        });
        wait_until("they wait", || scenario.lab.host.processes().len() >= 7);
        fs::remove_dir_all(pins).expect("it is there");
        drop(holder);
        for reader in readers {
            assert_eq!(reader.ends(), Some(5), "nothing is up");
        }
    });
}

/// As where `down` has the lock. There is no next service or instance that it could wait for.
#[test]
fn events_that_find_nothing_any_more_say_so() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let holder = scenario.hold_lock();
        let mut events = scenario.lab.knockgate_command(&["events"]);
        let events = Running::start(&mut events, scenario.lab.folder());
        wait_until("it waits", || scenario.lab.host.processes().len() >= 3);
        // It reads the ring once it has the lock, and has found the tables before.
        thread::sleep(std::time::Duration::from_millis(500));
        fs::remove_dir_all(scenario.lab.pin_root().join(WAN)).expect("it is there");
        drop(holder);
        assert_eq!(events.ends(), Some(5), "nothing is up");
    });
}

/// `allow` waits for the lock, so that its grant is in the tables that are in use when it ends.
#[test]
fn grants_go_to_the_instance_that_is_up() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let holder = scenario.hold_lock();
        let mut allow = scenario
            .lab
            .knockgate_command(&["allow", "10.77.1.3", "--gate", "ssh"]);
        let allow = Running::start(&mut allow, scenario.lab.folder());
        // A waiting command has opened no tables yet.
        let opens = || scenario.lab.host.processes();
        wait_until("it waits", || opens().len() >= 3);
        drop(holder);
        assert_eq!(allow.ends(), Some(0));
        assert_eq!(scenario.lab.list("grants").len(), 1);
    });
}
