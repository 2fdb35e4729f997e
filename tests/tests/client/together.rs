//! Clients that knock from one address at the same time, so that each breaks the others' runs.

use std::fmt::Write as _;

use knockgate_tests::{
    gate_config::Gate, lab::Lab, run::Run, scenario::Scenario, service::Services,
};

use crate::{knock, knock_together, nearly_all_succeed, profiles, rounds, scenario};

const HOST: &str = "10.77.0.1";
const OTHER: &str = "10.77.0.9";

/// Ports, each protected by a gate of its own.
const PORTS: [u16; 5] = [2201, 2202, 2203, 2204, 2205];

/// Returns the three knocks of a gate, which no other gate has.
fn steps(gate: usize) -> [String; 3] {
    let gate = u16::try_from(gate).expect("a few gates");
    [
        format!("{}/udp", 7100 + gate),
        format!("{}/tcp", 8100 + 7 * gate),
        format!("{}/udp", 6900 - 3 * gate),
    ]
}

fn gates(deny: &str) -> String {
    let gates = PORTS.iter().enumerate().map(|(gate, port)| {
        Gate::new(&format!("gate{gate}"), &format!("{port}/tcp"))
            .open_for("30s")
            .key(format!("deny = {deny:?}"))
            .user(&format!("user{gate}"), &steps(gate).join(" "))
            .to_string()
    });
    gates.collect()
}

/// Runs `clients` at the same time, each for its own gate, at the addresses `hosts` in turn.
fn at_once(clients: usize, hosts: &[&str], deny: &str, rounds: usize) -> Vec<Run> {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return Vec::new();
    };
    let _services = Services::start(&scenario.lab.host, &PORTS, &[]);
    scenario.up(gates(deny));
    let steps: Vec<_> = (0..clients).map(steps).collect();
    let checked: Vec<_> = PORTS.iter().map(|port| format!("{port}/tcp")).collect();
    let arguments: Vec<Vec<&str>> = (0..clients)
        .map(|client| {
            let mut arguments = vec![hosts[client % hosts.len()]];
            arguments.extend(steps[client].iter().map(String::as_str));
            arguments.extend(["--then", &checked[client]]);
            arguments
        })
        .collect();
    let mut runs = Vec::new();
    for _ in 0..rounds {
        runs.extend(knock_together(&scenario, &arguments));
        scenario.knockgate("revoke --all").exits(0);
    }
    runs
}

#[test]
fn two_clients_at_one_address() {
    let runs = at_once(2, &[HOST], "drop", rounds(3));
    nearly_all_succeed("two clients at one address", &runs);
}

#[test]
fn five_clients_at_one_address() {
    let runs = at_once(5, &[HOST], "drop", rounds(2));
    nearly_all_succeed("five clients at one address", &runs);
}

/// Clients that knock at different addresses cannot coordinate, like those of two machines behind one NAT: only
/// random pauses separate them.
#[test]
fn two_clients_that_do_not_know_of_each_other() {
    let runs = at_once(2, &[HOST, OTHER], "drop", rounds(3));
    nearly_all_succeed("two clients at two addresses of a host", &runs);
}

#[test]
fn two_clients_that_do_not_know_of_each_other_are_refused_at_once() {
    let runs = at_once(2, &[HOST, OTHER], "reject", rounds(3));
    nearly_all_succeed("two clients at two addresses of a host that rejects", &runs);
}

#[test]
fn one_client_knocks_at_several_gates_one_after_the_other() {
    let Some(scenario) = scenario(Lab::build(&[])) else {
        return;
    };
    let _services = Services::start(&scenario.lab.host, &PORTS, &[]);
    scenario.up(gates("drop"));
    let mut text = String::new();
    for (gate, port) in PORTS.iter().enumerate() {
        // Some only send their knocks.
        let then = if gate % 2 == 0 {
            format!("then = \"{port}/tcp\"\n")
        } else {
            String::new()
        };
        write!(
            text,
            "[profile.gate{gate}]\nhost = \"{HOST}\"\nsequence = {:?}\n{then}",
            steps(gate)
        )
        .expect("a string takes everything");
    }
    profiles(&scenario, &text, 0o600);
    let names: Vec<_> = (0..PORTS.len()).map(|gate| format!("gate{gate}")).collect();
    let mut arguments = Vec::new();
    for name in &names {
        arguments.extend(["--profile", name]);
    }
    arguments.extend(["--retries", "0", "--timeout", "20s"]);
    knock(&scenario, &arguments).exits(0).prints_nothing();
    all_open(&scenario);
}

fn all_open(scenario: &Scenario) {
    assert_eq!(scenario.lab.list("grants").len(), PORTS.len());
}
