//! `events --follow` goes on when what it follows ends.

use knockgate_tests::{
    lab::Who::{A, B},
    run::{Running, wait_until},
    trial::Trial,
};

use crate::{ALICE, SSH, events, said, serve, trial};

#[test]
fn a_reader_follows_the_next_service() {
    trial(|trial| {
        trial.configure(SSH);
        let service = serve(trial);
        let mut reader = follow(trial);
        opens(trial, &reader, 1);
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        // Nobody but the reader is there now.
        opens(trial, &reader, 2);
        let service = serve_again(trial);
        opens(trial, &reader, 3);
        service.signal(libc::SIGKILL);
        assert_eq!(service.ends(), None);
        let _service = serve_again(trial);
        opens(trial, &reader, 4);
        assert!(reader.goes_on());
    });
}

#[test]
fn a_reader_follows_the_next_gate() {
    trial(|trial| {
        trial.up(SSH);
        let mut reader = follow(trial);
        opens(trial, &reader, 1);
        trial.knockgate("down").exits(0);
        trial.up(SSH);
        opens(trial, &reader, 2);
        trial.knockgate("down").exits(0);
        let _service = serve(trial);
        opens(trial, &reader, 3);
        assert!(reader.goes_on());
    });
}

fn follow(trial: &Trial) -> Running {
    let mut command = trial
        .lab
        .knockgate_command(&["events", "--follow", "--json"]);
    Running::start(&mut command, trial.lab.folder())
}

/// Knocks until the reader has seen it open; it has seen it `before` this often, counting each time once.
#[track_caller]
fn opens(trial: &Trial, reader: &Running, times: usize) {
    let seen = || {
        let events = events(&reader.stdout());
        events
            .iter()
            .filter(|event| event["event"] == "gate.opened")
            .count()
    };
    let before = seen();
    trial.knock(if times.is_multiple_of(2) { A } else { B }, ALICE);
    wait_until("the reader has seen the gate open", || seen() > before);
}

/// A service on a gate that is up says nothing by itself.
fn serve_again(trial: &Trial) -> Running {
    let mut command = trial.lab.knockgate_command(&["run"]);
    let mut service = Running::start(&mut command, trial.lab.folder());
    wait_until("the service serves", || {
        assert!(service.goes_on(), "the service has ended by itself");
        // It keeps what it has said; without one, who reads an event uses it up.
        trial.knock(A, ALICE);
        !said(trial).is_empty() && !said(trial).is_empty()
    });
    service
}
