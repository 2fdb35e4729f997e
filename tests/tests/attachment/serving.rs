//! `run` keeps its interfaces guarded.

use std::time::Duration;

use knockgate_tests::{
    attempt::Outcome,
    foreign::ForeignProgram,
    lab::{
        Source::{A, B},
        WAN,
    },
    manager::Manager,
    network::{ip, set},
    run::{Running, wait_until},
};
use serde_json::Value;

use crate::{
    Damage, configure, expect_status, in_all_modes, in_generic_mode, is_guarded, serve, ssh,
};

#[test]
fn what_is_lost_is_put_back_and_said() {
    in_all_modes(|scenario| {
        scenario.configure(ssh());
        let mut service = serve(scenario);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        for (number, damage) in Damage::ALL.into_iter().enumerate() {
            damage.happens_to(scenario);
            wait_until("it is said that the interface is guarded again", || {
                about(scenario, WAN).len() == 2 * (number + 1)
            });
            is_guarded(scenario);
            scenario.open(B, "22/tcp");
            let said = about(scenario, WAN);
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

/// The command may be stopped, and nothing can be repaired before it has ended.
#[test]
fn what_is_lost_while_a_command_never_ends_is_said() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let _service = serve(scenario);
        let holder = scenario.hold_lock();
        Damage::MadeAgain.happens_to(scenario);
        wait_until("it is said that the interface is lost", || {
            about(scenario, WAN)
                .iter()
                .any(|(name, _)| name == "interface.lost")
        });
        drop(holder);
        is_guarded(scenario);
    });
}

/// A new service checks what is attached, not what is pinned.
#[test]
fn a_service_that_takes_over_puts_back_what_is_lost() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        for damage in Damage::ALL {
            damage.happens_to(scenario);
            scenario.open(A, "22/tcp");
            let service = scenario.lab.serve(&[]);
            is_guarded(scenario);
            service.signal(libc::SIGTERM);
            assert_eq!(service.ends(), Some(0));
        }
    });
}

/// What makes them may start after the service.
#[test]
fn the_service_is_ready_before_absent_interfaces_appear() {
    in_generic_mode(|scenario| {
        configure(scenario, &["wan1"], ssh());
        let manager = Manager::listen(scenario.lab.folder());
        let mut command = scenario.lab.knockgate_command(&["run"]);
        manager.hears(&mut command);
        let _service = Running::start(&mut command, scenario.lab.folder());
        manager.is_told_of_readiness();
        expect_status(scenario, &[("wan1", None, false)]);
    });
}

#[test]
fn absent_interfaces_are_waited_for() {
    in_generic_mode(|scenario| {
        configure(scenario, &[WAN, "wan1", "wan2"], ssh());
        // `up` does not wait.
        scenario.knockgate("up").exits(1).says(&["wan1"]);
        scenario.lab.assert_untouched();
        let mut service = serve(scenario);
        scenario.closed(A, "22/tcp");
        expect_status(
            scenario,
            &[
                (WAN, None, true),
                ("wan1", None, false),
                ("wan2", None, false),
            ],
        );
        assert_eq!(
            about(scenario, "wan1"),
            [("interface.lost".to_owned(), Some("gone".to_owned()))]
        );
        scenario.lab.add_interface("wan2");
        scenario.lab.add_interface("wan1");
        is_guarded(scenario);
        // An interface that disappears is waited for, too.
        scenario
            .lab
            .client("ip", &["link", "delete", "wan1-peer"])
            .exits(0);
        wait_until("it is missed", || {
            scenario.knockgate("status").code == Some(7)
        });
        scenario.lab.add_interface("wan1");
        is_guarded(scenario);
        assert!(service.goes_on());
    });
}

#[test]
fn nothing_but_absent_interfaces_are_waited_for() {
    in_generic_mode(|scenario| {
        configure(scenario, &["wan1"], ssh());
        let _service = serve(scenario);
        expect_status(scenario, &[("wan1", None, false)]);
        scenario.lab.add_interface("wan1");
        wait_until("it is guarded", || {
            scenario.knockgate("status").code == Some(0)
        });
    });
}

/// On a bridged interface, where the table of addresses decides until the host has a network that it cannot list.
#[test]
fn a_network_that_is_routed_to_the_host_is_guarded_soon() {
    in_generic_mode(|scenario| {
        let host = &scenario.lab.host;
        set(host, &["ipv4/ip_forward", "ipv6/conf/all/forwarding"], "0");
        ip(host, &format!("link set {WAN} promisc on"));
        scenario.configure(format!("addresses = \"host\"\n{}", ssh()));
        let mut service = serve(scenario);
        let there = scenario.lab.route_to_host(scenario.family);
        wait_until("the network is guarded", || {
            let outcome = scenario.connect(A, there, 22, Duration::from_millis(300));
            matches!(outcome, Err(Outcome::Silent))
        });
        scenario.closed(A, "22/tcp");
        assert!(service.goes_on());
    });
}

/// The service leaves it alone, and continues with the others.
#[test]
fn an_interface_taken_down_by_itself_stays_down() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("wan1");
        configure(scenario, &[WAN, "wan1"], ssh());
        let mut service = serve(scenario);
        scenario.knockgate(&format!("down -i {WAN}")).exits(0);
        wait_until("it is said", || {
            about(scenario, WAN) == [("interface.lost".to_owned(), Some("down".to_owned()))]
        });
        // The service repairs this one, so it has checked both.
        knockgate_tests::foreign::detach(&crate::link_of(scenario, "wan1"));
        wait_until("the other is put back", || {
            about(scenario, "wan1").len() == 2
        });
        expect_status(scenario, &[(WAN, None, false), ("wan1", None, true)]);
        assert!(service.goes_on());
        // Nor does the next one attach anything to it.
        service.signal(libc::SIGKILL);
        service.ends();
        let manager = Manager::listen(scenario.lab.folder());
        let mut command = scenario.lab.knockgate_command(&["run"]);
        manager.hears(&mut command);
        let mut service = Running::start(&mut command, scenario.lab.folder());
        manager.is_told_of_readiness();
        expect_status(scenario, &[(WAN, None, false), ("wan1", None, true)]);
        assert!(service.goes_on());
        scenario.knockgate("up").exits(0);
        is_guarded(scenario);
        scenario.knockgate("down").exits(0);
        assert_eq!(service.ends(), Some(0));
        scenario.lab.assert_untouched();
    });
}

/// Nor where no link is left that shows that it was guarded.
#[test]
fn the_only_interface_that_was_there_stays_down() {
    in_generic_mode(|scenario| {
        configure(scenario, &[WAN, "wan1"], ssh());
        let service = serve(scenario);
        scenario.closed(A, "22/tcp");
        scenario.knockgate(&format!("down -i {WAN}")).exits(0);
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        let manager = Manager::listen(scenario.lab.folder());
        let mut command = scenario.lab.knockgate_command(&["run"]);
        manager.hears(&mut command);
        let _service = Running::start(&mut command, scenario.lab.folder());
        manager.is_told_of_readiness();
        expect_status(scenario, &[(WAN, None, false), ("wan1", None, false)]);
        scenario.knockgate("up").exits(1);
        scenario.closed(A, "22/tcp");
    });
}

#[test]
fn a_program_that_took_the_place_is_waited_for() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let mut service = serve(scenario);
        // The service might be the first to attach a program after the damage.
        let program = wait_for_place(scenario);
        expect_status(scenario, &[(WAN, None, false)]);
        assert!(service.goes_on());
        drop(program);
        is_guarded(scenario);
    });
}

/// Attaches a foreign program in place of knockgate's. The service is stopped for that moment.
fn wait_for_place(scenario: &knockgate_tests::scenario::Scenario) -> ForeignProgram {
    let pid = scenario.lab.host.processes();
    let signal = |signal| {
        for pid in &pid {
            // SAFETY: kill takes no pointers.
            unsafe { libc::kill((*pid).try_into().expect("a process id is positive"), signal) };
        }
    };
    signal(libc::SIGSTOP);
    Damage::Detached.happens_to(scenario);
    let program = ForeignProgram::linked(&scenario.lab);
    signal(libc::SIGCONT);
    wait_until("it is missed", || {
        about(scenario, WAN)
            .iter()
            .any(|(name, _)| name == "interface.lost")
    });
    program
}

/// Returns the events about an interface, with their reasons.
fn about(
    scenario: &knockgate_tests::scenario::Scenario,
    interface: &str,
) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    scenario
        .lab
        .events_if_any()
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

/// The last resort where the binary is gone, as docs/operations.md says.
#[test]
fn without_the_service_a_removed_pin_opens_the_ports_for_good() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let service = serve(scenario);
        let remove_pin = || {
            let link = scenario.lab.pin_root().join(WAN).join("link");
            std::fs::remove_file(link).expect("it is pinned");
        };
        remove_pin();
        is_guarded(scenario);
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        scenario.closed(A, "22/tcp");
        remove_pin();
        scenario.open(A, "22/tcp");
        scenario.knockgate("status").exits(7);
    });
}
