//! Each grant that opens a gate closes it once: under another configuration, and where its connections are limited.

use knockgate_tests::{
    gate_config::{ALICE, BOB, Gate},
    lab::Source::{A, B},
    run::wait_until,
    scenario::Scenario,
};

use crate::{events, hook, in_generic_mode, noted, noting, serve, ssh};

/// Gives B a grant and takes it away, which the service sees later than everything before.
fn give_and_take(scenario: &Scenario) {
    let opened = events(scenario, "gate.opened").len();
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    wait_until("the service has seen it", || {
        events(scenario, "gate.opened").len() > opened
    });
    scenario.knockgate("revoke {B}").exits(0);
}

/// The grant is in new tables, which the service does not know until it sees that there is another configuration.
#[test]
fn a_grant_of_a_configuration_that_was_not_seen_yet_has_not_ended() {
    in_generic_mode(|scenario| {
        scenario.configure(noting(scenario, &ssh(), &["opened", "closed"]));
        let service = serve(scenario);
        let mut expected = Vec::new();
        // What the service looks at first when it goes on is a matter of chance.
        for round in 0..4 {
            service.signal(libc::SIGSTOP);
            let text = scenario.lab.configured().expect("written above");
            let [before, after] = match round % 2 {
                0 => ["grants = 1024", "grants = 2048"],
                _ => ["grants = 2048", "grants = 1024"],
            };
            scenario.lab.configure(&text.replace(before, after));
            scenario.knockgate("reload").exits(0);
            scenario.knock(A, ALICE);
            service.signal(libc::SIGCONT);
            expected.push("gate.opened A");
            noted(scenario, &expected);
            give_and_take(scenario);
            expected.extend(["gate.opened B", "gate.closed B revoked"]);
            noted(scenario, &expected);
            let live = scenario.lab.list("grants");
            assert_eq!(live.len(), 1, "{live:?}");
            scenario.knockgate("revoke {A}").exits(0);
            expected.push("gate.closed A revoked");
            noted(scenario, &expected);
        }
    });
}

/// Which network a report means depends on the configuration that was in force.
#[test]
fn a_gate_that_opens_for_another_network_now_is_said_to_open_once() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let service = serve(scenario);
        let mut knocks = 0;
        // What the service looks at first when it goes on is a matter of chance.
        for round in 0..4 {
            service.signal(libc::SIGSTOP);
            let to = ["prefix", "address"][round % 2];
            scenario.configure(ssh().key(format!("grant_to = {to:?}")));
            scenario.knockgate("reload").exits(0);
            scenario.knock(A, ALICE);
            service.signal(libc::SIGCONT);
            knocks += 1;
            // As long as a report may take.
            for _ in 0..2 {
                give_and_take(scenario);
                wait_until("the service has seen that", || {
                    let closed = events(scenario, "gate.closed");
                    closed
                        .last()
                        .is_some_and(|event| event["reason"] == "revoked")
                });
            }
            let mut opened = events(scenario, "gate.opened");
            opened.retain(|event| event["user"] == "alice");
            assert_eq!(opened.len(), knocks, "{opened:?}");
        }
    });
}

/// It is still for the address alone, whatever knocks open the gate for now.
#[test]
fn a_grant_that_is_used_up_under_another_configuration_ends_as_it_began() {
    in_generic_mode(|scenario| {
        let gate = |to| {
            let gate = ssh()
                .key("connections = 1")
                .key(format!("grant_to = {to:?}"));
            noting(scenario, &gate, &["opened", "closed"])
        };
        scenario.configure(gate("address"));
        let _service = serve(scenario);
        scenario.knock(A, ALICE);
        noted(scenario, &["gate.opened A"]);
        scenario.configure(gate("prefix"));
        scenario.knockgate("reload").exits(0);
        wait_until("the service has seen that", || {
            !events(scenario, "config.applied").is_empty()
        });
        scenario.open(A, "22/tcp");
        let mut expected = vec!["gate.opened A", "gate.closed A used"];
        noted(scenario, &expected);
        for _ in 0..2 {
            give_and_take(scenario);
            expected.extend(["gate.opened B", "gate.closed B revoked"]);
            noted(scenario, &expected);
        }
    });
}

/// Its first knock may come before the service has seen that there is another configuration.
#[test]
fn a_gate_that_is_new_has_its_name_and_its_hooks() {
    in_generic_mode(|scenario| {
        let file = crate::file(scenario);
        let script = format!("echo {} >>{}", crate::NOTE, file.display());
        let mail = format!("{}{}", Gate::mail().open_for("1h"), hook("opened", &script));
        scenario.configure(ssh());
        let service = serve(scenario);
        let mut expected = Vec::new();
        // What the service looks at first when it goes on is a matter of chance.
        for _ in 0..4 {
            service.signal(libc::SIGSTOP);
            scenario.configure(format!("{}{mail}", ssh()));
            scenario.knockgate("reload").exits(0);
            scenario.knock(A, BOB);
            service.signal(libc::SIGCONT);
            expected.push("gate.opened A");
            noted(scenario, &expected);
            let opened = events(scenario, "gate.opened");
            assert!(
                opened.iter().all(|event| event["gate"] == "mail"),
                "{opened:?}"
            );
            scenario.configure(ssh());
            scenario.knockgate("reload").exits(0);
            wait_until("the service has seen that", || {
                events(scenario, "gate.closed").len() == expected.len()
            });
        }
    });
}

/// As with a new gate: the service may not have seen that there is another configuration.
#[test]
fn a_user_who_is_new_is_named() {
    in_generic_mode(|scenario| {
        scenario.configure(ssh());
        let service = serve(scenario);
        let bob = ssh().user("bob", BOB);
        // What the service looks at first when it goes on is a matter of chance.
        for knocks in 1..=4 {
            service.signal(libc::SIGSTOP);
            scenario.configure(&bob);
            scenario.knockgate("reload").exits(0);
            scenario.knock(A, BOB);
            service.signal(libc::SIGCONT);
            wait_until("the service has seen it", || {
                events(scenario, "gate.opened").len() == knocks
            });
            let opened = events(scenario, "gate.opened");
            assert!(
                opened.iter().all(|event| event["user"] == "bob"),
                "{opened:?}"
            );
            scenario.configure(ssh());
            scenario.knockgate("reload").exits(0);
            wait_until("the service has seen that", || {
                events(scenario, "gate.closed").len() == knocks
            });
        }
    });
}

/// By the hooks that it had.
#[test]
fn a_gate_that_is_gone_is_closed() {
    in_generic_mode(|scenario| {
        let mail = "[[gate]]\nname = \"mail\"\nprotect = [\"25/tcp\"]\n";
        let file = crate::file(scenario);
        let script = format!("echo {} >>{}", crate::NOTE, file.display());
        let hook = hook("closed", &script);
        scenario.configure(format!("{}{mail}{hook}", ssh()));
        let service = serve(scenario);
        scenario
            .knockgate("allow {A} --gate mail --for 1h")
            .exits(0);
        wait_until("it is seen", || !events(scenario, "gate.opened").is_empty());
        service.signal(libc::SIGSTOP);
        scenario.configure(ssh());
        scenario.knockgate("reload").exits(0);
        service.signal(libc::SIGCONT);
        noted(scenario, &["gate.closed A revoked"]);
        assert_eq!(events(scenario, "gate.closed")[0]["gate"], "mail");
    });
}

/// It stays in the tables until its time is over.
#[test]
fn a_grant_whose_last_connection_has_closed_the_gate_is_said_to_once() {
    in_generic_mode(|scenario| {
        let gate = ssh().key("connections = 1");
        scenario.configure(noting(scenario, &gate, &["opened", "closed"]));
        let _service = serve(scenario);
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        noted(scenario, &["gate.opened A"]);
        scenario.open(A, "22/tcp");
        let mut expected = vec!["gate.opened A", "gate.closed A used"];
        noted(scenario, &expected);
        for _ in 0..2 {
            give_and_take(scenario);
            expected.extend(["gate.opened B", "gate.closed B revoked"]);
            noted(scenario, &expected);
        }
        scenario.knockgate("revoke {A}").exits(0);
        give_and_take(scenario);
        expected.extend(["gate.opened B", "gate.closed B revoked"]);
        noted(scenario, &expected);
        // Given again, it is another one.
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        expected.push("gate.opened A");
        noted(scenario, &expected);
        scenario.knockgate("revoke {A}").exits(0);
        expected.push("gate.closed A revoked");
        noted(scenario, &expected);
    });
}

/// The kernel reports the address whose packet was the last.
#[test]
fn a_network_whose_last_connection_was_made_is_closed_too() {
    for to in ["address", "prefix"] {
        in_generic_mode(|scenario| {
            let gate = ssh()
                .key("connections = 1")
                .key(format!("grant_to = {to:?}"));
            scenario.configure(noting(scenario, &gate, &["opened", "closed"]));
            let _service = serve(scenario);
            let network = scenario.family.network();
            let allow = format!("allow {network} --gate ssh --for 1h");
            scenario.knockgate(&allow).exits(0);
            let opened = format!("gate.opened {network}");
            noted(scenario, &[&opened]);
            scenario.open(A, "22/tcp");
            let closed = format!("gate.closed {network} used");
            noted(scenario, &[&opened, "gate.closed A used", &closed]);
        });
    }
}

/// What a hook adds for one event, it can remove for the other.
#[test]
fn what_a_knock_opens_for_a_network_begins_and_ends_with_it() {
    in_generic_mode(|scenario| {
        let gate = ssh().key("grant_to = \"prefix\"").key("connections = 2");
        scenario.configure(noting(scenario, &gate, &["opened", "closed"]));
        let _service = serve(scenario);
        let network = scenario.family.network();
        let event = |rest: &str| format!("gate.{}", rest.replace("NET", network));
        let opened = event("opened NET");
        scenario.knock(A, ALICE);
        noted(scenario, &[&opened]);
        scenario.knockgate("revoke --all").exits(0);
        let revoked = event("closed NET revoked");
        noted(scenario, &[&opened, &revoked]);
        scenario.knock(B, ALICE);
        noted(scenario, &[&opened, &revoked, &opened]);
        for who in [A, B] {
            scenario.open(who, "22/tcp");
        }
        let used = event("closed NET used");
        noted(scenario, &[&opened, &revoked, &opened, &used]);
        // It is said once, though the grant is in the tables until its end.
        scenario.knockgate("revoke --all").exits(0);
        scenario.knock(A, ALICE);
        noted(scenario, &[&opened, &revoked, &opened, &used, &opened]);
    });
}

/// No packet makes the kernel report that.
#[test]
fn a_lower_limit_closes_the_gate_for_grants_that_have_reached_it() {
    in_generic_mode(|scenario| {
        let gate = |connections| {
            let gate = ssh().key(format!("connections = {connections}"));
            noting(scenario, &gate, &["opened", "closed"])
        };
        scenario.configure(gate(5));
        let _service = serve(scenario);
        scenario.knock(A, ALICE);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        for who in [A, B] {
            scenario.open(who, "22/tcp");
        }
        noted(scenario, &["gate.opened A", "gate.opened B"]);
        scenario.configure(gate(1));
        scenario.knockgate("reload").exits(0);
        let expected = [
            "gate.opened A",
            "gate.opened B",
            "gate.closed A used",
            "gate.closed B used",
        ];
        noted(scenario, &expected);
        scenario.knockgate("revoke --all").exits(0);
        give_and_take(scenario);
        let more = ["gate.opened B", "gate.closed B revoked"];
        noted(scenario, &[&expected[..], &more].concat());
    });
}
