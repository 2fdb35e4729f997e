//! What a key opens and closes.

use std::{net::IpAddr, path::Path};

use knock_common::{
    knock::authenticated::message::{action, flag},
    testing::knock::Knock,
};
use knockgate_tests::{
    gate_config::Gate,
    keys::{configure, knock, made, new_key, now, outcome, send},
    lab::{
        Family,
        Source::{A, B},
    },
    run::{Running, wait_until},
    scenario::Scenario,
};

use crate::{events, hook, in_generic_mode, noted, notes, serve, ssh};

/// With a service that notes down what opens and closes the gate, and the file of a key.
pub fn with_key(gate: &Gate, row: impl FnOnce(&Scenario, &Path, Running)) {
    in_generic_mode(|scenario| {
        let script = format!("echo {} >>{}", crate::NOTE, crate::file(scenario).display());
        let hooks = [hook("opened", &script), hook("closed", &script)].concat();
        configure(scenario, "", gate);
        let text = scenario.lab.configured().expect("written above");
        scenario.lab.configure(&format!("{text}{hooks}"));
        let service = serve(scenario);
        let key = new_key(scenario, "alice --gate ssh");
        row(scenario, &key, service);
    });
}

/// Knocks from A, for its address and this one.
pub fn knock_for_both(scenario: &Scenario, key: &Path, action: u8, v6: IpAddr) {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (scenario.address(A), v6) else {
        panic!("{v6} is one of IPv6");
    };
    let knock = Knock {
        flags: flag::IPV4 | flag::IPV6,
        action,
        v4,
        v6,
        ..made(key, now())
    };
    send(scenario, A, &knock.sealed());
}

/// The kernel reports the address that the knock comes from.
#[test]
fn a_knock_for_both_addresses_opens_and_closes_each() {
    with_key(&ssh(), |scenario, key, _service| {
        let v6 = Family::V6.address(A);
        let knocks = |action| knock_for_both(scenario, key, action, v6);
        let opened = format!("gate.opened {v6}");
        let closed = format!("gate.closed {v6} asked");
        knocks(action::OPEN);
        let mut expected = vec!["gate.opened A", &opened];
        noted(scenario, &expected);
        // Given again, both last longer.
        knocks(action::OPEN);
        expected.extend(["gate.opened A", &opened]);
        noted(scenario, &expected);
        knocks(action::CLOSE);
        expected.extend(["gate.closed A asked", &closed]);
        noted(scenario, &expected);
        for name in ["gate.opened", "gate.closed"] {
            let of_other = events(scenario, name).into_iter();
            let of_other: Vec<_> = of_other
                .filter(|event| event["source"] == v6.to_string())
                .collect();
            assert!(!of_other.is_empty());
            for event in of_other {
                assert_eq!(
                    (&event["user"], &event["key"]),
                    (&"alice".into(), &"alice".into())
                );
            }
        }
    });
}

/// A hook would add what nothing removes.
#[test]
fn what_was_used_up_before_it_was_found_is_not_said_to_open_afterwards() {
    with_key(&ssh().key("connections = 1"), |scenario, key, _service| {
        let [v6, later] = [A, B].map(|who| Family::V6.address(who));
        knock_for_both(scenario, key, action::OPEN, v6);
        scenario.over(Family::V6).open(A, "22/tcp");
        let used = format!("gate.closed {v6} used");
        noted(scenario, &["gate.opened A", &used]);
        // By the time that this one is said to open, the other would be, too.
        knock_for_both(scenario, key, action::OPEN, later);
        let opened = format!("gate.opened {later}");
        let expected = ["gate.opened A", &used, "gate.opened A", &opened];
        noted(scenario, &expected);
        scenario.knockgate("revoke --all").exits(0);
        let revoked = format!("gate.closed {later} revoked");
        let ends = ["gate.closed A revoked", &revoked];
        noted(scenario, &[&expected[..], &ends].concat());
    });
}

/// A key ends what it has opened itself.
#[test]
fn a_key_that_closes_leaves_the_grants_of_others() {
    with_key(&ssh(), |scenario, key, _service| {
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        noted(scenario, &["gate.opened A"]);
        knock(scenario, key, "--close").exits(0);
        wait_until("the knock has been judged", || {
            outcome(scenario, "closed") == 1
        });
        scenario.open(A, "22/tcp");
        // The service looks at the grants meanwhile, and finds none that is new.
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        wait_until("B's is noted", || {
            notes(scenario).contains(&"gate.opened B".to_owned())
        });
        scenario.knockgate("revoke {A}").exits(0);
        wait_until("its end is noted", || {
            notes(scenario).contains(&"gate.closed A revoked".to_owned())
        });
        let mut opened = notes(scenario);
        opened.retain(|note| note.starts_with("gate.opened"));
        assert_eq!(opened, ["gate.opened A", "gate.opened B"]);
    });
}
