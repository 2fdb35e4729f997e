//! Hosts with several addresses, and link-local ones.

use std::fs;

use knockgate_tests::{
    gate_config::ALICE_STEPS,
    lab::{CLIENT_INTERFACE, Lab, WAN},
    need,
    network::{add_address, ip},
    run::Run,
    scenario::Scenario,
};

use crate::{knock, scenario, ssh};

/// Unused addresses in the host's network.
const DEAD: [&str; 2] = ["fd77::66", "10.77.0.66"];

/// Runs the client with its own hosts file.
fn knock_by_name(scenario: &Scenario, hosts: &str, arguments: &[&str]) -> Run {
    let file = scenario.lab.folder().join("hosts");
    fs::write(&file, hosts).expect("the temporary folder is writable");
    let file = file.to_str().expect("made of ASCII");
    let binary = need::knockgate().to_str().expect("made of ASCII");
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    let wrapper = ["--mount", "sh", "-c", script, "sh", file, binary, "knock"];
    scenario
        .lab
        .client("unshare", &[&wrapper[..], arguments].concat())
}

/// Returns a scenario in which packets to the dead addresses are lost silently, without an ICMP error.
fn with_dead_addresses() -> Option<Scenario> {
    let scenario = scenario(Lab::build(&["unshare"]))?;
    for address in DEAD {
        let neighbour = format!(
            "neighbour add {address} lladdr 02:00:00:00:00:66 nud permanent dev {CLIENT_INTERFACE}"
        );
        ip(&scenario.lab.client, &neighbour);
    }
    scenario.up(ssh());
    Some(scenario)
}

const DEAD_AND_LIVE: &str = "fd77::66 two.example\n10.77.0.1 two.example\n";

#[test]
fn a_dead_ipv6_address_and_a_live_ipv4_address() {
    let Some(scenario) = with_dead_addresses() else {
        return;
    };
    let [first, second, third] = ALICE_STEPS;
    let steps = ["two.example", first, second, third];
    for goal in ["--then", "--connect"] {
        let once = ["--retries", "0", "--timeout", "20s", "-v"];
        let arguments = [&steps[..], &[goal, "22/tcp"], &once].concat();
        let run = knock_by_name(&scenario, DEAD_AND_LIVE, &arguments);
        run.exits(0).prints_nothing().says(&[
            "two.example (fd77::66): knock 3 of 3",
            "two.example (10.77.0.1): 22/tcp is open",
        ]);
        scenario.knockgate("revoke --all").exits(0);
    }
}

#[test]
fn without_a_port_to_check_both_are_knocked_at() {
    let Some(scenario) = with_dead_addresses() else {
        return;
    };
    let [first, second, third] = ALICE_STEPS;
    let run = knock_by_name(
        &scenario,
        DEAD_AND_LIVE,
        &["two.example", first, second, third],
    );
    run.exits(0).prints_nothing();
    scenario.open(knockgate_tests::lab::Source::A, "22/tcp");
}

#[test]
fn two_dead_addresses_are_both_named() {
    let Some(scenario) = with_dead_addresses() else {
        return;
    };
    let [first, second, third] = ALICE_STEPS;
    let steps = ["two.example", first, second, third];
    let arguments = [&steps[..], &["--then", "22/tcp", "--retries", "0"]].concat();
    let hosts = "fd77::66 two.example\n10.77.0.66 two.example\n";
    knock_by_name(&scenario, hosts, &arguments).exits(6).says(&[
        "fd77::66",
        "10.77.0.66",
        "no answer within 1s",
        "--timeout 2s",
    ]);
}

#[test]
fn an_address_that_has_no_route_is_passed_over() {
    let Some(scenario) = with_dead_addresses() else {
        return;
    };
    let [first, second, third] = ALICE_STEPS;
    let steps = ["two.example", first, second, third];
    let hosts = "2001:db8::66 two.example\n10.77.0.1 two.example\n";
    let once = ["--retries", "0", "--timeout", "20s"];
    let arguments = [&steps[..], &["--then", "22/tcp"], &once].concat();
    knock_by_name(&scenario, hosts, &arguments)
        .exits(0)
        .prints_nothing();
    knock_by_name(
        &scenario,
        "2001:db8::66 far.example\n",
        &["far.example", first, second, third],
    )
    .exits(1)
    .says(&["2001:db8::66", "no route there"]);
}

#[test]
fn a_link_local_address_needs_its_link() {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return;
    };
    for (netns, interface, address) in [
        (&scenario.lab.host, WAN, "fe80::77/64"),
        (&scenario.lab.client, CLIENT_INTERFACE, "fe80::78/64"),
    ] {
        add_address(netns, interface, address);
    }
    scenario.up(ssh());
    let [first, second, third] = ALICE_STEPS;
    let to = |host| knock(&scenario, &[host, first, second, third, "--then", "22/tcp"]);
    to("fe80::77")
        .exits(1)
        .says(&["link-local", "fe80::77%eth0"]);
    to("fe80::77%nowhere0").exits(1).says(&["nowhere0"]);
    to("fe80::77%eth0").exits(0).prints_nothing();
}

#[test]
fn a_zone_has_no_place_in_what_a_packet_is_compared_with() {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return;
    };
    scenario.up(ssh());
    scenario
        .knockgate("allow fe80::1%eth0 --gate ssh")
        .exits(2)
        .says(&["fe80::1", "without %eth0"]);
    scenario
        .knockgate("revoke fe80::1%eth0/64")
        .exits(2)
        .says(&["fe80::/64", "without %eth0"]);
    scenario.configure(format!("allow = [\"fe80::1%eth0\"]\n{}", ssh()));
    scenario.knockgate("up").exits(3).says(&["fe80::1/128"]);
}
