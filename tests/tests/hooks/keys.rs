//! What a key opens and closes.

use std::{net::IpAddr, path::Path};

use knock_common::{
    knock::authenticated::message::{action, flag},
    testing::knock::Knock,
};
use knockgate_tests::{
    keys::{configure, knock, made, new_key, now, outcome, send},
    lab::{Family, Source::A},
    run::wait_until,
    scenario::Scenario,
};

use crate::{events, hook, in_generic_mode, noted, notes, serve, ssh};

/// With a service that notes down what opens and closes the gate, and the file of a key.
fn with_key(row: impl FnOnce(&Scenario, &Path)) {
    in_generic_mode(|scenario| {
        let script = format!("echo {} >>{}", crate::NOTE, crate::file(scenario).display());
        let hooks = [hook("opened", &script), hook("closed", &script)].concat();
        configure(scenario, "", &ssh());
        let text = scenario.lab.configured().expect("written above");
        scenario.lab.configure(&format!("{text}{hooks}"));
        let service = serve(scenario);
        let key = new_key(scenario, "alice --gate ssh");
        row(scenario, &key);
        drop(service);
    });
}

/// The kernel reports the address that the knock comes from.
#[test]
fn a_knock_for_both_addresses_opens_and_closes_each() {
    with_key(|scenario, key| {
        let addresses = [Family::V4, Family::V6].map(|family| family.address(A));
        let [IpAddr::V4(v4), IpAddr::V6(v6)] = addresses else {
            panic!("{addresses:?}");
        };
        let knocks = |action| {
            let knock = Knock {
                flags: flag::IPV4 | flag::IPV6,
                action,
                v4,
                v6,
                ..made(key, now())
            };
            send(scenario, A, &knock.sealed());
        };
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

/// A key ends what it has opened itself.
#[test]
fn a_key_that_closes_leaves_the_grants_of_others() {
    with_key(|scenario, key| {
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
