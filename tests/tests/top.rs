//! `knockgate top` on a terminal: what it shows of a gate, and that it gives the terminal back.

use std::fs::File;

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    keys,
    lab::{Family, Source::A},
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
};
use netlab::pty::Terminal;

/// The sequence after which the terminal shows what it showed before, and the one that shows its cursor.
const AS_BEFORE: &str = "\x1b[?1049l";
const CURSOR: &str = "\x1b[?25h";

fn in_generic_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], row);
}

fn start(scenario: &Scenario, terminal: &Terminal) -> Running {
    let mut command = scenario
        .lab
        .knockgate_command(&["top", "--interval", "200ms"]);
    terminal.attach(&mut command).expect("a descriptor");
    let top = Running::attached(&mut command);
    wait_until("the instance is shown", || {
        terminal.printed().contains("GRANTS")
    });
    assert!(!is_ordinary(terminal));
    top
}

fn is_ordinary(terminal: &Terminal) -> bool {
    terminal.is_ordinary().expect("it is open")
}

#[track_caller]
fn assert_given_back(terminal: &Terminal) {
    wait_until("the terminal shows what it showed before", || {
        let printed = terminal.printed();
        printed.contains(AS_BEFORE) && printed.contains(CURSOR)
    });
    assert!(is_ordinary(terminal));
}

#[test]
fn it_follows_an_instance_and_gives_the_terminal_back() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh().within("1m"));
        let terminal = Terminal::open().expect("a terminal");
        let mut top = start(scenario, &terminal);
        scenario.closed(A, "22/tcp");
        scenario.knock(A, ALICE);
        // The grant, and from the events that it was denied before.
        for shown in ["alice", "no_grant"] {
            wait_until(&format!("{shown} is shown"), || {
                terminal.printed().contains(shown)
            });
        }
        // Keys go on to mean what they say whatever the size.
        terminal.resize(20, 5).expect("it is open");
        terminal.resize(140, 40).expect("it is open");
        terminal.types("ry").expect("it is open");
        wait_until("the grant has ended", || {
            let grants = scenario.knockgate("grants --json").exits(0).json();
            grants["grants"] == serde_json::json!([])
        });
        scenario.knockgate("down").exits(0);
        wait_until("it says that nothing is up", || {
            // Where a part of what follows stood there before, it is not printed again.
            terminal.printed().contains("NOTHING")
        });
        assert!(top.goes_on());
        scenario.knockgate("up").exits(0);
        terminal.types("q").expect("it is open");
        assert_eq!(top.ends(), Some(0));
        assert_given_back(&terminal);
    });
}

/// The key and the new size become known together. A key that is lost then would be read only with the next one.
#[test]
fn no_key_is_lost_while_the_terminal_is_resized() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh());
        for _ in 0..20 {
            let terminal = Terminal::open().expect("a terminal");
            let top = start(scenario, &terminal);
            for columns in 81..91 {
                terminal.resize(columns, 24).expect("it is open");
            }
            terminal.types("q").expect("it is open");
            assert_eq!(top.ends(), Some(0));
        }
    });
}

/// The name of a key has its user's in it.
#[test]
fn a_grant_is_shown_with_its_key() {
    in_generic_mode(|scenario| {
        keys::configure(scenario, "", &Gate::new("ssh", "22/tcp"));
        scenario.knockgate("up").exits(0);
        let key = keys::new_key(scenario, "carol/phone --gate ssh");
        keys::knock(scenario, &key, "--then 22/tcp").exits(0);
        let terminal = Terminal::open().expect("a terminal");
        let top = start(scenario, &terminal);
        wait_until("the key is shown", || {
            terminal.printed().contains("carol/phone")
        });
        terminal.types("q").expect("it is open");
        assert_eq!(top.ends(), Some(0));
    });
}

#[test]
fn signals_give_the_terminal_back() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let terminal = Terminal::open().expect("a terminal");
            let top = start(scenario, &terminal);
            top.signal(signal);
            assert_eq!(top.ends(), Some(0));
            assert_given_back(&terminal);
        }
        let terminal = Terminal::open().expect("a terminal");
        let mut top = start(scenario, &terminal);
        // There is no shell that could let it go on, so it must not stop.
        terminal.types("\x1a").expect("it is open");
        top.signal(libc::SIGTSTP);
        wait_until("the terminal shows what it showed before", || {
            terminal.printed().contains(AS_BEFORE)
        });
        wait_until("it has the terminal again", || !is_ordinary(&terminal));
        assert!(top.goes_on());
        terminal.types("q").expect("it is open");
        assert_eq!(top.ends(), Some(0));
        assert!(is_ordinary(&terminal));
    });
}

/// As while `up` loads a program, or stands still.
#[test]
fn pins_that_another_keeps_locked_keep_no_key_waiting() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh().within("1m"));
        let terminal = Terminal::open().expect("a terminal");
        let top = start(scenario, &terminal);
        scenario.knock(A, ALICE);
        wait_until("the grant is shown", || {
            terminal.printed().contains("alice")
        });
        let root = File::open(scenario.lab.pin_root()).expect("it is up");
        root.lock().expect("nobody else has it");
        terminal.types("ry").expect("it is open");
        wait_until("it says why nothing was ended", || {
            terminal.printed().contains("keeps")
        });
        drop(root);
        terminal.types("q").expect("it is open");
        assert_eq!(top.ends(), Some(0));
    });
}

/// SIGSTOP cannot be caught: the shell takes the terminal back by itself.
#[test]
fn it_has_the_terminal_again_after_it_was_stopped() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh());
        let terminal = Terminal::open().expect("a terminal");
        let top = start(scenario, &terminal);
        top.signal(libc::SIGSTOP);
        terminal.becomes_ordinary().expect("it is open");
        top.signal(libc::SIGCONT);
        wait_until("it has the terminal again", || !is_ordinary(&terminal));
        terminal.types("q").expect("it is open");
        assert_eq!(top.ends(), Some(0));
        assert!(is_ordinary(&terminal));
    });
}

#[test]
fn it_ends_with_its_terminal() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh());
        let terminal = Terminal::open().expect("a terminal");
        let top = start(scenario, &terminal);
        terminal.hangs_up().expect("it is open");
        top.ends();
    });
}

#[test]
fn without_a_terminal_or_an_instance_it_says_so() {
    in_generic_mode(|scenario| {
        scenario.knockgate("top").exits(5).prints_nothing();
        scenario.up(Gate::ssh());
        scenario
            .knockgate("top")
            .exits(1)
            .prints_nothing()
            .says(&["needs a terminal", "--json"]);
    });
}
