//! Existing clients: knockgate's own, Debian's `knock`, OpenSSH, nmap, and the behaviour of a browser.

use std::time::Duration;

use knockgate_tests::{
    gate_config::{ALICE_STEPS, Gate},
    lab::{
        Family,
        Source::{A, B},
    },
    need,
    network::ip,
    run::Run,
    scenario::Scenario,
    sshd::Sshd,
};
use netlab::host::find_program;

use crate::behaviours;

behaviours! {
    knockgate_knock;
    knockgate_knock_then;
    knockgate_knock_then_with_a_wrong_sequence;
    knockgate_knock_connect;
    debian_knock needs "knock";
    plain_ssh needs "ssh";
    plain_nmap needs "nmap";
    nmap_that_gets_no_answer needs "nmap";
    a_browser;
    openssh_through_knockgate needs "ssh" needs "ssh-keygen" needs "sshd" needs "unshare";
}

fn knockgate_knock(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    knock(scenario, &ALICE_STEPS).exits(0).prints_nothing();
    scenario.open(A, "22/tcp");
    scenario.closed(B, "22/tcp");
}

fn knockgate_knock_then(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    let [first, second, third] = ALICE_STEPS;
    knock(scenario, &[first, second, third, "--then", "22/tcp"])
        .exits(0)
        .prints_nothing();
    scenario.open(A, "22/tcp");
}

fn knockgate_knock_then_with_a_wrong_sequence(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    let [first, second, third] = ALICE_STEPS;
    let wrong = [first, third, second, "--retries", "1", "--then", "22/tcp"];
    knock(scenario, &wrong)
        .exits(6)
        .prints_nothing()
        .says(&["22/tcp"]);
    scenario.closed(A, "22/tcp");
}

/// Standard output belongs to the connection alone; the echo service never speaks first.
fn knockgate_knock_connect(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    let [first, second, third] = ALICE_STEPS;
    // Standard input is empty, so the connection is closed at once.
    knock(scenario, &[first, second, third, "--connect", "22/tcp"])
        .exits(0)
        .prints_nothing();
    scenario.open(A, "22/tcp");
}

/// It sends its knocks without pauses, from source ports that the kernel chooses.
fn debian_knock(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    let client = find_program("knock").expect("the row needs it");
    let host = scenario.family.host().to_string();
    let knocks = [&host, "7000:udp", "8443:tcp", "9301:udp"];
    scenario.lab.client(client, &knocks).exits(0);
    scenario.open(A, "22/tcp");
    scenario.closed(B, "22/tcp");
}

/// Returns a gate with knocks over TCP only, and with time for clients that wait for an answer.
fn over_tcp() -> Gate {
    Gate::ssh()
        .open_for("1m")
        .within("10m")
        .knocks("7000/tcp 8443/tcp 9301/tcp")
}
const TCP_PORTS: [&str; 3] = ["7000", "8443", "9301"];

/// It tries each port again, a second later, from another source port.
fn plain_ssh(scenario: &Scenario) {
    scenario.up(over_tcp());
    let ssh = find_program("ssh").expect("the row needs it");
    let host = scenario.family.host().to_string();
    for port in TCP_PORTS {
        let options = ["-F", "none", "-o", "ConnectionAttempts=2"];
        let to = ["-p", port, &host];
        scenario
            .lab
            .client(&ssh, &[&options[..], &to].concat())
            .exits(255)
            .says(&["refused"]);
    }
    scenario.open(A, "22/tcp");
    scenario.closed(B, "22/tcp");
}

fn plain_nmap(scenario: &Scenario) {
    scenario.up(over_tcp());
    for port in TCP_PORTS {
        nmap(scenario, port, "closed");
    }
    scenario.open(A, "22/tcp");
    scenario.closed(B, "22/tcp");
}

/// Without an answer, it tries again from another source port.
fn nmap_that_gets_no_answer(scenario: &Scenario) {
    scenario.up(over_tcp());
    let client = scenario.family.address(A).to_string();
    let route = |command: &str| {
        ip(
            &scenario.lab.host,
            &format!("route {command} blackhole {client}"),
        );
    };
    let repeated = || scenario.lab.stats().knocks("duplicate");
    let before = repeated();
    route("add");
    for port in TCP_PORTS {
        nmap(scenario, port, "filtered");
    }
    route("del");
    assert!(repeated() > before, "nmap tried no port again");
    scenario.open(A, "22/tcp");
}

fn nmap(scenario: &Scenario, port: &str, state: &str) {
    let nmap = find_program("nmap").expect("the row needs it");
    let host = scenario.family.host().to_string();
    // Without `-n` it waits for name servers, and the namespace has none.
    let mut arguments = vec!["-n", "-Pn", "-p", port, &host];
    if scenario.family == Family::V6 {
        arguments.push("-6");
    }
    let run = scenario.lab.client(nmap, &arguments);
    let shown = &run.exits(0).stdout;
    assert!(
        shown.contains(&format!("{port}/tcp {state} ")),
        "{port} is {state}: {shown}"
    );
}

/// It opens two connections to each address, and tries again if a port refuses.
fn a_browser(scenario: &Scenario) {
    scenario.up(over_tcp());
    for port in TCP_PORTS {
        scenario.knock(
            A,
            &format!("{port}/tcp {port}/tcp 200ms {port}/tcp {port}/tcp"),
        );
    }
    scenario.open(A, "22/tcp");
    scenario.closed(B, "22/tcp");
}

fn openssh_through_knockgate(scenario: &Scenario) {
    const PORT: u16 = 2022;
    scenario.up(Gate::ssh().protect("2022/tcp"));
    let server = Sshd::start(&scenario.lab, PORT);
    let host = scenario.family.host();
    let waited = scenario.connect(A, host, PORT, Duration::from_millis(300));
    assert!(waited.is_err(), "2022/tcp is open before any knock");
    let binary = need::knockgate().display();
    let steps = ALICE_STEPS.join(" ");
    let proxy = format!("{binary} knock %h {steps} --connect {PORT}/tcp");
    let run = server.ssh(&scenario.lab, host, &proxy, "echo through the gate");
    assert_eq!(run.exits(0).stdout, "through the gate\n");
}

fn knock(scenario: &Scenario, rest: &[&str]) -> Run {
    let host = scenario.family.host().to_string();
    let arguments = [&["knock", &host], rest].concat();
    scenario.lab.client(need::knockgate(), &arguments)
}
