//! `run` keeps the gate on its interfaces.

use knockgate_tests::{
    foreign::ForeignProgram,
    lab::{
        WAN,
        Who::{A, B},
    },
    run::wait_until,
};
use serde_json::Value;

use crate::{Damage, SSH, configure, expect_status, is_guarded, said, serve, trial, trials};

#[test]
fn what_is_lost_is_put_back_and_said() {
    trials(|trial| {
        trial.configure(SSH);
        let mut service = serve(trial);
        trial.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        for (number, damage) in Damage::ALL.into_iter().enumerate() {
            damage.happens_to(trial);
            wait_until("it is said that the interface is guarded again", || {
                about(trial, WAN).len() == 2 * (number + 1)
            });
            is_guarded(trial);
            trial.open(B, "22/tcp");
            let said = about(trial, WAN);
            let names: Vec<&str> = said.iter().map(|(name, _)| name.as_str()).collect();
            let [.., "interface.lost", "interface.guarded"] = names.as_slice() else {
                panic!("{damage:?}: {names:?}");
            };
        }
        assert!(service.goes_on());
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

/// A new service looks at what is attached, not at what is pinned.
#[test]
fn a_service_that_takes_over_puts_back_what_is_lost() {
    trial(|trial| {
        trial.up(SSH);
        for damage in Damage::ALL {
            damage.happens_to(trial);
            trial.open(A, "22/tcp");
            let service = serve_when_guarded(trial);
            is_guarded(trial);
            service.signal(libc::SIGTERM);
            assert_eq!(service.ends(), Some(0));
        }
    });
}

#[test]
fn absent_interfaces_are_waited_for() {
    trial(|trial| {
        configure(trial, &[WAN, "wan1", "wan2"], SSH);
        // `up` has nobody to wait.
        trial.knockgate("up").exits(1).says(&["wan1"]);
        trial.lab.assert_untouched();
        let mut service = serve(trial);
        trial.closed(A, "22/tcp");
        expect_status(
            trial,
            &[
                (WAN, None, true),
                ("wan1", None, false),
                ("wan2", None, false),
            ],
        );
        assert_eq!(
            about(trial, "wan1"),
            [("interface.lost".to_owned(), Some("gone".to_owned()))]
        );
        trial.lab.add_interface("wan2");
        trial.lab.add_interface("wan1");
        is_guarded(trial);
        // One that goes is waited for, too.
        trial
            .lab
            .client("ip", &["link", "delete", "wan1-peer"])
            .exits(0);
        wait_until("it is missed", || trial.knockgate("status").code == Some(7));
        trial.lab.add_interface("wan1");
        is_guarded(trial);
        assert!(service.goes_on());
    });
}

#[test]
fn nothing_but_absent_interfaces_are_waited_for() {
    trial(|trial| {
        configure(trial, &["wan1"], SSH);
        let _service = serve(trial);
        expect_status(trial, &[("wan1", None, false)]);
        trial.lab.add_interface("wan1");
        wait_until("it is guarded", || {
            trial.knockgate("status").code == Some(0)
        });
    });
}

/// It stays as it is, and the service goes on with the others.
#[test]
fn an_interface_taken_down_by_itself_stays_down() {
    trial(|trial| {
        trial.lab.add_interface("wan1");
        configure(trial, &[WAN, "wan1"], SSH);
        let mut service = serve(trial);
        trial.knockgate(&format!("down -i {WAN}")).exits(0);
        wait_until("it is said", || {
            about(trial, WAN) == [("interface.lost".to_owned(), Some("down".to_owned()))]
        });
        // The service puts this one back, and so has looked at both.
        knockgate_tests::foreign::detach(&crate::link_of(trial, "wan1"));
        wait_until("the other is put back", || about(trial, "wan1").len() == 2);
        expect_status(trial, &[(WAN, None, false), ("wan1", None, true)]);
        assert!(service.goes_on());
        trial.knockgate("up").exits(0);
        is_guarded(trial);
        trial.knockgate("down").exits(0);
        assert_eq!(service.ends(), Some(0));
        trial.lab.assert_untouched();
    });
}

#[test]
fn a_program_that_took_the_place_is_waited_for() {
    trial(|trial| {
        trial.configure(SSH);
        let mut service = serve(trial);
        // Whoever is first after the damage may be the service.
        let program = wait_for_place(trial);
        expect_status(trial, &[(WAN, None, false)]);
        assert!(service.goes_on());
        drop(program);
        is_guarded(trial);
    });
}

/// A foreign program in the gate's place while the service runs: it is stopped for that moment.
fn wait_for_place(trial: &knockgate_tests::trial::Trial) -> ForeignProgram {
    let pid = trial.lab.gate.processes();
    let signal = |signal| {
        for pid in &pid {
            // SAFETY: kill takes no pointers.
            unsafe { libc::kill((*pid).try_into().expect("a process id is positive"), signal) };
        }
    };
    signal(libc::SIGSTOP);
    Damage::Detached.happens_to(trial);
    let program = ForeignProgram::linked(&trial.lab);
    signal(libc::SIGCONT);
    wait_until("it is missed", || {
        about(trial, WAN)
            .iter()
            .any(|(name, _)| name == "interface.lost")
    });
    program
}

/// Starts a service on a gate that is pinned.
fn serve_when_guarded(trial: &knockgate_tests::trial::Trial) -> knockgate_tests::run::Running {
    let mut command = trial.lab.knockgate_command(&["run"]);
    let mut service = knockgate_tests::run::Running::start(&mut command, trial.lab.folder());
    wait_until("everything is guarded", || {
        assert!(service.goes_on(), "the service has ended by itself");
        trial.knockgate("status").code == Some(0)
    });
    service
}

/// What has been said of an interface: events and their reasons.
fn about(trial: &knockgate_tests::trial::Trial, interface: &str) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    said(trial)
        .iter()
        .filter(|event| event["interface"] == interface)
        .map(|event| {
            (
                text(&event["event"]).unwrap_or_default(),
                text(&event["reason"]),
            )
        })
        .collect()
}
