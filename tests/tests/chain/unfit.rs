//! A neighbour that does not go with ours, when ours comes into force without anybody there: a service begins, an interface appears, a
//! trial ends. What is to follow never keeps an interface from being guarded.

use std::{fs, path::Path};

use knockgate_tests::{
    foreign,
    lab::{Source::A, WAN},
    neighbour::{Array, Kind, Neighbour},
    network::ip,
    run::{run, wait_until},
    scenario::{Attach, Scenario},
    version,
};
use serde_json::Value;

use crate::{
    alone, configure, followed_by, gate, in_mode, into::balancer, logged, section, status,
};

/// An interface without link header, which comes behind [`WAN`] in the order of names.
const TUN: &str = "xtun0";

fn add_tun(scenario: &Scenario) {
    let commands = format!("tuntap add {TUN} mode tun\nlink set {TUN} up");
    ip(&scenario.lab.host, &commands);
}

/// Returns whether an interface is guarded.
fn is_guarded(scenario: &Scenario, name: &str) -> bool {
    let run = scenario.knockgate("status --json");
    // Nothing may be up yet.
    if run.code == Some(5) {
        return false;
    }
    let status = run.json();
    let rows = status["interfaces"].as_array().expect("a list");
    rows.iter()
        .any(|row| row["name"] == name && row["guarded"] == Value::Bool(true))
}

/// What follows there takes frames in several buffers, and ours on such an interface does not.
#[test]
fn an_interface_that_appears_late_is_guarded_whatever_is_to_follow() {
    in_mode(Attach::Generic, |scenario, pins| {
        let pin = pins.at("next");
        Neighbour::of(Kind::FRAGS, None).pin(&pin);
        let sections = format!("{}{}", followed_by(&pin), section(TUN, &pin));
        configure(scenario, sections, gate());
        let _service = scenario
            .lab
            .serve_until(&[], "the first is guarded", || is_guarded(scenario, WAN));
        add_tun(scenario);
        wait_until("the second is guarded", || is_guarded(scenario, TUN));
        scenario.closed(A, "22/tcp");
    });
}

/// Makes unfit what is to follow.
type Spoil = fn(&Path);

#[test]
fn a_service_that_begins_guards_without_what_does_not_fit() {
    let table: Spoil = |pin| foreign::pin_map(pin);
    let frags: Spoil = |pin| Neighbour::of(Kind::FRAGS, None).pin(pin);
    for spoil in [table, frags] {
        in_mode(Attach::Generic, |scenario, pins| {
            let pin = pins.at("next");
            spoil(&pin);
            // With that, ours takes no frames in several buffers.
            configure(scenario, followed_by(&pin), gate().key("deny = \"reject\""));
            scenario.knockgate("up").exits(1);
            let _service = scenario
                .lab
                .serve_until(&[], "it is guarded", || is_guarded(scenario, WAN));
            scenario.refused(A, "22/tcp");
            assert!(status(scenario, 7)["next"]["program"].is_null());
            // Its owner mends it.
            let _ = fs::remove_file(&pin);
            Neighbour::new().pin(&pin);
            wait_until("it follows", || {
                scenario.knockgate("status").code == Some(0)
            });
        });
    }
}

/// One slot has room for the entry of one kind of interface. The other interface is not guarded, and keeps the first from nothing.
#[test]
fn a_service_that_begins_guards_the_interfaces_of_one_kind() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        add_tun(scenario);
        configure(
            scenario,
            format!("interfaces = [{WAN:?}, {TUN:?}]\n"),
            gate(),
        );
        let place = pins.at("array").display().to_string();
        let into = ["--into", &place];
        for _ in 0..2 {
            let service = scenario
                .lab
                .serve_until(&into, "it is guarded", || is_guarded(scenario, WAN));
            scenario.closed(A, "22/tcp");
            assert!(!is_guarded(scenario, TUN));
            // Killed; the next one finds what is up.
            drop(service);
        }
    });
}

/// The array decides which entry can be there at all, whatever has become of the program that is to follow.
#[test]
fn a_trial_in_a_slot_ends_though_what_follows_is_of_another_kind() {
    in_mode(Attach::Native, |scenario, pins| {
        let array = Array::pinned(2, pins.at("array"));
        let mut balancer = Neighbour::of(Kind::FRAGS, Some(&array));
        balancer.attach(&scenario.lab.host, WAN, true);
        let pin = pins.at("next");
        Neighbour::of(Kind::FRAGS, None).pin(&pin);
        configure(scenario, followed_by(&pin), gate());
        let place = format!("up --into {}", pins.at("array").display());
        scenario.knockgate(&place).exits(0);
        configure(scenario, alone(), gate().protect("2200/udp"));
        scenario.knockgate("up --try 1s").exits(0);
        Neighbour::new().pin(&pin);
        wait_until("it returns", || {
            let said = &scenario.knockgate("status").stderr;
            said.contains("is in force again")
        });
        scenario.closed(A, "22/tcp");
    });
}

/// The array keeps the program whose pin is gone, for as long as ours stays.
#[test]
fn a_service_of_another_version_keeps_what_is_up_where_nothing_is_pinned_to_follow() {
    in_mode(Attach::Generic, |scenario, pins| {
        let (lab, pin) = (&scenario.lab, pins.at("next"));
        let neighbour = Neighbour::new();
        neighbour.pin(&pin);
        configure(scenario, followed_by(&pin), gate());
        let mut up = lab.host.command(version::another(lab.folder()));
        up.arg("--config").arg(lab.config());
        up.arg("--pin-root").arg(lab.pin_root()).arg("up");
        run(up.env_remove("SSH_CONNECTION")).exits(0);
        fs::remove_file(&pin).expect("it was pinned above");
        let (mut service, said) = logged(scenario, &["run"]);
        wait_until("it takes over what is up", || {
            assert!(service.goes_on(), "{}", said());
            said().contains("the program that is up stays") && lab.is_served()
        });
        scenario.closed(A, "22/tcp");
        assert_eq!(status(scenario, 0)["next"]["program"], neighbour.id);
        assert!(service.goes_on(), "{}", said());
    });
}
