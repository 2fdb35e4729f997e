//! The traffic that a gate affects, and the traffic that it does not.

use std::{net::IpAddr, time::Duration};

use knockgate_tests::{
    attempt::Outcome,
    gate_config::{ALICE, BOB, Gate},
    lab::{
        Family,
        Source::{A, B, C},
        WAN,
    },
    network::{add_address, ip, set},
    scenario::Scenario,
};

use crate::{behaviours, behind::Behind};

behaviours! {
    without_a_gate_all_is_open;
    other_ports_are_untouched;
    neighbours_find_each_other;
    knock_ports_answer_as_any_closed_port;
    a_grant_is_for_its_gate_alone;
    a_protected_udp_port;
    one_gate_of_several_ports;
    only_these_sources_may_knock;
    the_allow_list_always_passes;
    only_packets_to_these_addresses;
    only_packets_to_this_host;
    ipv6_by_an_interface_that_does_not_say_that_it_forwards;
    only_packets_to_a_network_of_this_host;
    only_a_network_behind_this_host;
    monitor_mode_denies_nothing;
    down_opens_everything;
}

/// Shows that the services answer, so that silence in the other rows is caused by the gate.
fn without_a_gate_all_is_open(scenario: &Scenario) {
    for port in ["22/tcp", "25/tcp", "80/tcp", "53/udp", "51820/udp"] {
        scenario.open(A, port);
        scenario.open(C, port);
    }
    scenario.refused(A, "7000/tcp");
}

fn other_ports_are_untouched(scenario: &Scenario) {
    let others = |scenario: &Scenario| {
        for who in [A, B] {
            scenario.open(who, "80/tcp");
            scenario.open(who, "53/udp");
            scenario.refused(who, "1234/tcp");
            scenario.refused(who, "22/udp");
        }
    };
    scenario.up(Gate::ssh());
    others(scenario);
    scenario.knock(A, "7000/udp 8443/tcp");
    others(scenario);
    scenario.knock(A, ALICE);
    others(scenario);
    scenario.open(A, "22/tcp");
    others(scenario);
}

/// ARP and neighbour discovery are neither TCP nor UDP.
fn neighbours_find_each_other(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    for netns in [&scenario.lab.host, &scenario.lab.client] {
        ip(netns, "neighbour flush nud permanent");
    }
    let outcome = scenario.attempt(A, "80/tcp", Outcome::Open);
    // The first SYN may have waited for neighbour discovery.
    assert!(
        matches!(outcome, Outcome::Open | Outcome::OpenLate),
        "80/tcp: {outcome:?}"
    );
}

fn knock_ports_answer_as_any_closed_port(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    // A right knock, a wrong one, a second right one, and ports of no sequence.
    for port in [
        "7000/udp", "9301/udp", "7000/udp", "8443/tcp", "1234/tcp", "1234/udp",
    ] {
        scenario.refused(A, port);
    }
    scenario.closed(A, "22/tcp");
}

fn a_grant_is_for_its_gate_alone(scenario: &Scenario) {
    scenario.up(format!("{}{}", Gate::ssh(), Gate::mail()));
    scenario.knock(A, ALICE);
    scenario.open(A, "22/tcp");
    scenario.closed(A, "25/tcp");
    scenario.knock(B, BOB);
    scenario.open(B, "25/tcp");
    scenario.closed(B, "22/tcp");
}

fn a_protected_udp_port(scenario: &Scenario) {
    scenario.up(Gate::ssh().protect("51820/udp"));
    scenario.closed(A, "51820/udp");
    scenario.knock(A, ALICE);
    scenario.open(A, "51820/udp");
    scenario.closed(B, "51820/udp");
    // The TCP port of the same number was never protected.
    scenario.refused(B, "51820/tcp");
}

fn one_gate_of_several_ports(scenario: &Scenario) {
    scenario.up(Gate::ssh().protect("22/tcp 25/tcp 51820/udp"));
    for port in ["22/tcp", "25/tcp", "51820/udp"] {
        scenario.closed(A, port);
    }
    scenario.knock(A, ALICE);
    for port in ["22/tcp", "25/tcp", "51820/udp"] {
        scenario.open(A, port);
        scenario.closed(B, port);
    }
}

fn only_these_sources_may_knock(scenario: &Scenario) {
    scenario.up(Gate::ssh().key("sources = [\"{network}\"]"));
    scenario.knock(C, ALICE);
    scenario.closed(C, "22/tcp");
    scenario.knock(B, ALICE);
    scenario.open(B, "22/tcp");
    scenario.closed(C, "22/tcp");
}

fn the_allow_list_always_passes(scenario: &Scenario) {
    scenario.up(format!("allow = [\"{{network}}\"]\n{}", Gate::ssh()));
    scenario.open(A, "22/tcp");
    scenario.open(B, "22/tcp");
    scenario.closed(C, "22/tcp");
    scenario.knock(C, ALICE);
    scenario.open(C, "22/tcp");
    scenario.knockgate("revoke --all").exits(0);
    scenario.open(A, "22/tcp");
}

fn only_packets_to_these_addresses(scenario: &Scenario) {
    scenario.up(format!("addresses = [\"{{host}}\"]\n{}", Gate::ssh()));
    let other = scenario.family.other_host_address();
    let there = || {
        scenario
            .connect(A, other, 22, Duration::from_mins(1))
            .map(drop)
    };
    scenario.closed(A, "22/tcp");
    assert_eq!(there(), Ok(()), "the other address is not guarded");
    scenario.knock(A, ALICE);
    scenario.open(A, "22/tcp");
}

/// Without the service, which would tell the program of the new address.
fn only_packets_to_this_host(scenario: &Scenario) {
    let behind = Behind::of(scenario);
    scenario.up(format!("addresses = \"host\"\n{}", Gate::ssh()));
    assert!(behind.connect(scenario).is_ok(), "it is another host");
    scenario.closed(A, "22/tcp");
    let (new, length) = match scenario.family {
        Family::V4 => ("10.77.0.17", 16),
        Family::V6 => ("fd77::17", 48),
    };
    add_address(&scenario.lab.host, WAN, &format!("{new}/{length}"));
    let new: IpAddr = new.parse().expect("an address");
    for address in [scenario.family.other_host_address(), new] {
        let outcome = scenario.connect(A, address, 22, Duration::from_millis(300));
        assert_eq!(outcome.map(drop), Err(Outcome::Silent), "{address}");
    }
    scenario.knock(A, ALICE);
    scenario.open(A, "22/tcp");
    let outcome = scenario.connect(A, new, 22, Duration::from_mins(1));
    assert_eq!(outcome.map(drop), Ok(()), "the gate is open there, too");
    let is_listed = || {
        let status = scenario.knockgate("status --json").exits(0).json();
        let listed = status["addresses"].as_array().expect("a list");
        listed.iter().any(|row| row["address"] == new.to_string())
    };
    assert!(!is_listed());
    scenario.knockgate("reload").exits(0);
    assert!(is_listed());
}

/// The kernel forwards it by the setting for all interfaces, and the routes, which the program asks, tell the interface's own.
fn ipv6_by_an_interface_that_does_not_say_that_it_forwards(scenario: &Scenario) {
    if scenario.family == Family::V4 {
        return;
    }
    let behind = Behind::of(scenario);
    scenario.up(format!("addresses = \"host\"\n{}", Gate::ssh()));
    let setting = format!("ipv6/conf/{WAN}/forwarding");
    for (forwarding, warned) in [("0", true), ("1", false)] {
        set(&scenario.lab.host, &[&setting], forwarding);
        let check = scenario.knockgate("check").exits(0).stdout.clone();
        assert_eq!(check.contains(&format!("{setting}=1")), warned, "{check}");
        if warned {
            let denied = behind.connect_within(scenario, Duration::from_millis(300));
            assert_eq!(denied.map(drop), Err(Outcome::Silent));
        } else {
            assert!(behind.connect(scenario).is_ok(), "it is another host");
        }
    }
}

/// Where the table of addresses cannot tell which of the packets that a bridged interface takes are for other hosts.
fn only_packets_to_a_network_of_this_host(scenario: &Scenario) {
    let host = &scenario.lab.host;
    let forwarding = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
    set(host, &forwarding, "0");
    ip(host, &format!("link set {WAN} promisc on"));
    let there = scenario.lab.route_to_host(scenario.family);
    let connect = |patience| scenario.connect(A, there, 22, patience).map(drop);
    // The instance of the other family may still be up.
    scenario.knockgate("down --all").exits(0);
    assert_eq!(connect(Duration::from_mins(1)), Ok(()), "nothing is up");
    scenario.up(format!("addresses = \"host\"\n{}", Gate::ssh()));
    let denied = connect(Duration::from_millis(300));
    assert_eq!(denied, Err(Outcome::Silent), "no address of the table");
    scenario.closed(A, "22/tcp");
    scenario.knock(A, ALICE);
    assert_eq!(connect(Duration::from_mins(1)), Ok(()), "the gate is open");
    ip(host, &format!("link set {WAN} promisc off"));
}

/// What it forwards there is judged, and its own port of the same number is not.
fn only_a_network_behind_this_host(scenario: &Scenario) {
    let behind = Behind::of(scenario);
    let gate = Gate::ssh().key(format!("protect_at = [{:?}]", behind.network()));
    scenario.up(format!("addresses = \"host\"\n{gate}"));
    let denied = behind.connect_within(scenario, Duration::from_millis(300));
    assert_eq!(denied.map(drop), Err(Outcome::Silent));
    scenario.open(A, "22/tcp");
    scenario.knock(A, ALICE);
    assert!(behind.connect(scenario).is_ok(), "the gate is open");
    scenario.knockgate("revoke --all").exits(0);
    let denied = behind.connect_within(scenario, Duration::from_millis(300));
    assert_eq!(denied.map(drop), Err(Outcome::Silent));
    let status = scenario.knockgate("status --json").exits(0).json();
    assert_eq!(status["gates"][0]["protect_at"][0], behind.network());
}

fn monitor_mode_denies_nothing(scenario: &Scenario) {
    scenario.up(format!("mode = \"monitor\"\n{}", Gate::ssh()));
    scenario.open(A, "22/tcp");
    scenario.open(B, "22/tcp");
}

fn down_opens_everything(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    assert_eq!(
        scenario.attempt(A, "22/tcp", Outcome::Silent),
        Outcome::Silent
    );
    scenario.knockgate("down").exits(0);
    scenario.open(A, "22/tcp");
    scenario.lab.assert_untouched();
}
