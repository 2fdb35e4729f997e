//! Interfaces that have been renamed, or moved to another namespace.

use std::{thread, time::Duration};

use knockgate_tests::{
    attempt::Outcome,
    lab::{Source::A, WAN},
    network::ip,
    run::wait_until,
    scenario::Scenario,
};

use crate::{configure, expect_status, in_all_modes, in_generic_mode, serve, ssh};

#[test]
fn a_renamed_interface_stays_guarded() {
    in_all_modes(|scenario| {
        scenario.up(ssh());
        scenario.lab.rename(WAN, "ext0");
        expect_status(scenario, &[("ext0", Some(WAN), true)]);
        scenario.closed(A, "22/tcp");
        scenario
            .knockgate("up")
            .exits(0)
            .says(&["up already", "ext0"]);
        // Both names work.
        scenario.knockgate("down -i ext0").exits(0);
        scenario.lab.rename("ext0", WAN);
        scenario.lab.assert_untouched();
    });
}

/// Its link is pinned under the name before, which the configuration names no more.
#[test]
fn a_configuration_may_take_up_the_new_name() {
    in_all_modes(|scenario| {
        scenario.up(ssh());
        scenario.lab.rename(WAN, "ext0");
        configure(scenario, &["ext0"], ssh());
        scenario.knockgate("reload").exits(0);
        scenario.closed(A, "22/tcp");
        expect_status(scenario, &[("ext0", None, true)]);
        scenario.knockgate("down").exits(0);
        scenario.lab.rename("ext0", WAN);
        scenario.lab.assert_untouched();
    });
}

/// Of two interfaces that have exchanged their names, the configuration names one from then on. The other one is that which it has
/// named before, so it stays guarded, as one that was renamed does.
#[test]
fn a_configuration_may_name_one_of_two_that_exchanged_names() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("lan0");
        configure(scenario, &[WAN, "lan0"], ssh());
        scenario.knockgate("up").exits(0);
        swap(scenario);
        configure(scenario, &["lan0"], ssh());
        scenario.knockgate("reload").exits(0);
        scenario.closed(A, "22/tcp");
        expect_status(scenario, &[("lan0", None, true), (WAN, Some("lan0"), true)]);
    });
}

/// Each link is pinned for the name that its interface has.
#[test]
fn after_an_exchange_of_names_each_is_taken_down_by_itself() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("lan0");
        configure(scenario, &[WAN, "lan0"], ssh());
        scenario.knockgate("up").exits(0);
        swap(scenario);
        configure(scenario, &[WAN, "lan0"], ssh().protect("22/tcp 25/tcp"));
        scenario.knockgate("reload").exits(0);
        expect_status(scenario, &[("lan0", None, true), (WAN, None, true)]);
        // It is the clients' interface that is called lan0 now.
        let down = || scenario.knockgate(&format!("down -i {WAN}"));
        down().exits(0);
        down().exits(0);
        scenario.closed(A, "25/tcp");
        scenario.knockgate("up").exits(0);
        configure(scenario, &[WAN], ssh());
        let reloaded = scenario.knockgate("reload");
        reloaded.exits(0).says(&["lan0 is no longer guarded"]);
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.open(A, "22/tcp");
    });
}

/// One has taken the name of another, which has got a new one: two links are to be pinned for one name.
#[test]
fn names_that_move_on_by_one_keep_their_links() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("lan0");
        configure(scenario, &[WAN, "lan0"], ssh());
        scenario.knockgate("up").exits(0);
        scenario.lab.rename("lan0", "ext0");
        scenario.lab.rename(WAN, "lan0");
        configure(scenario, &[WAN, "lan0"], ssh().protect("22/tcp 25/tcp"));
        scenario.knockgate("reload");
        scenario.closed(A, "25/tcp");
        let status = scenario.knockgate("status --json").json();
        let rows = status["interfaces"].as_array().expect("a list");
        for name in ["lan0", "ext0"] {
            let row = rows.iter().find(|row| row["name"] == name);
            assert_eq!(
                row.map(|row| &row["guarded"]),
                Some(&true.into()),
                "{name}: {status}"
            );
        }
    });
}

/// The renamed interface stays guarded, and `status` reports that the one with its old name is not.
#[test]
fn another_interface_under_the_name_is_told_and_guarded_by_up() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("lan0");
        scenario.up(ssh());
        swap(scenario);
        expect_status(scenario, &[("lan0", Some(WAN), true), (WAN, None, false)]);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("status").exits(7).says(&["lan0"]);
        scenario.knockgate("up").exits(0);
        expect_status(scenario, &[("lan0", Some(WAN), true), (WAN, None, true)]);
        scenario.closed(A, "22/tcp");
        swap(scenario);
        expect_status(scenario, &[("lan0", Some(WAN), true), (WAN, None, true)]);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

#[test]
fn another_interface_under_the_name_is_guarded_by_the_service() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("lan0");
        scenario.configure(ssh());
        let mut service = serve(scenario);
        swap(scenario);
        wait_until("both are guarded", || {
            let run = scenario.knockgate("status --json");
            let rows = run.json()["interfaces"].as_array().map_or(0, Vec::len);
            run.code == Some(0) && rows == 2
        });
        scenario.closed(A, "22/tcp");
        assert!(service.goes_on());
    });
}

#[test]
fn two_guarded_interfaces_may_swap_their_names() {
    in_generic_mode(|scenario| {
        scenario.lab.add_interface("lan0");
        configure(scenario, &["lan0", WAN], ssh());
        scenario.knockgate("up").exits(0);
        swap(scenario);
        expect_status(
            scenario,
            &[("lan0", Some(WAN), true), (WAN, Some("lan0"), true)],
        );
        scenario.closed(A, "22/tcp");
        scenario.knockgate("up").exits(0).says(&["up already"]);
    });
}

#[test]
fn an_interface_in_another_namespace_is_not_guarded_here() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        let elsewhere = scenario.lab.client.name();
        ip(
            &scenario.lab.host,
            &format!("link set {WAN} netns {elsewhere}"),
        );
        expect_status(scenario, &[(WAN, None, false)]);
        scenario.knockgate("status").exits(7).says(&["namespace"]);
        scenario.knockgate("up").exits(1).says(&[WAN]);
        // Another interface of that name can be guarded; the first stays guarded in its new namespace.
        scenario.lab.add_interface(WAN);
        expect_status(scenario, &[(WAN, None, false)]);
        scenario.knockgate("up").exits(0);
        expect_status(scenario, &[(WAN, None, true)]);
        let moved = scenario.lab.client("ip", &["link", "show", WAN]);
        assert!(moved.exits(0).stdout.contains("xdp"), "{moved:?}");
        scenario.knockgate("down").exits(0);
        let moved = scenario.lab.client("ip", &["link", "show", WAN]);
        assert!(!moved.exits(0).stdout.contains("xdp"), "{moved:?}");
        scenario.lab.assert_untouched();
    });
}

/// The tables for replies know interfaces by their index.
#[test]
fn a_renamed_interface_answers_as_before() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh().key("deny = \"reject\""));
        let mut service = serve(scenario);
        scenario.refused(A, "22/tcp");
        scenario.lab.rename(WAN, "ext0");
        // The service reads the addresses at once, then every two seconds.
        for _ in 0..5 {
            assert_eq!(
                scenario.attempt(A, "22/tcp", Outcome::Refused),
                Outcome::Refused
            );
            thread::sleep(Duration::from_secs(1));
        }
        scenario.lab.rename("ext0", WAN);
        scenario.lab.make_again();
        is_answering(scenario);
        assert!(service.goes_on());
    });
}

/// Without the service, which would write the tables again.
#[test]
fn a_renamed_interface_answers_after_a_reload() {
    in_generic_mode(|scenario| {
        scenario.up(ssh());
        scenario.lab.rename(WAN, "ext0");
        scenario.closed(A, "22/tcp");
        scenario.configure(ssh().key("deny = \"reject\""));
        scenario.knockgate("reload").exits(0);
        scenario.refused(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        scenario.lab.rename("ext0", WAN);
    });
}

fn is_answering(scenario: &Scenario) {
    wait_until("it answers again", || {
        scenario.knockgate("status").code == Some(0)
            && scenario.attempt(A, "22/tcp", Outcome::Refused) == Outcome::Refused
    });
}

fn swap(scenario: &Scenario) {
    scenario.lab.rename(WAN, "aside");
    scenario.lab.rename("lan0", WAN);
    scenario.lab.rename("aside", "lan0");
}
