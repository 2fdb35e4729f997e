//! Clients as people have them: knockgate's own, Debian's `knock`, OpenSSH, nmap, what a browser does.

use std::time::Duration;

use knockgate_tests::{
    lab::{
        Family,
        Who::{A, B},
    },
    need,
    network::ip,
    run::Run,
    sshd::Sshd,
    trial::Trial,
};
use netlab::host::find_program;

use crate::{SSH, behaviours};

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

/// The steps that open [`SSH`], as the client takes them.
const STEPS: [&str; 3] = ["7000/udp", "8443/tcp", "9301/udp"];

fn knockgate_knock(trial: &Trial) {
    trial.up(SSH);
    knock(trial, &STEPS).exits(0).prints_nothing();
    trial.open(A, "22/tcp");
    trial.closed(B, "22/tcp");
}

fn knockgate_knock_then(trial: &Trial) {
    trial.up(SSH);
    let [first, second, third] = STEPS;
    knock(trial, &[first, second, third, "--then", "22/tcp"])
        .exits(0)
        .prints_nothing();
    trial.open(A, "22/tcp");
}

fn knockgate_knock_then_with_a_wrong_sequence(trial: &Trial) {
    trial.up(SSH);
    let [first, second, third] = STEPS;
    let wrong = [first, third, second, "--retries", "1", "--then", "22/tcp"];
    knock(trial, &wrong)
        .exits(6)
        .prints_nothing()
        .says(&["22/tcp"]);
    trial.closed(A, "22/tcp");
}

/// Standard output belongs to the connection alone; the echo service never speaks first.
fn knockgate_knock_connect(trial: &Trial) {
    trial.up(SSH);
    let [first, second, third] = STEPS;
    // Standard input is empty and ends at once, which ends the connection in order.
    knock(trial, &[first, second, third, "--connect", "22/tcp"])
        .exits(0)
        .prints_nothing();
    trial.open(A, "22/tcp");
}

/// It sends its knocks with nothing between them, from source ports of the kernel's choice.
fn debian_knock(trial: &Trial) {
    trial.up(SSH);
    let client = find_program("knock").expect("the row needs it");
    let host = trial.family.host().to_string();
    let knocks = [&host, "7000:udp", "8443:tcp", "9301:udp"];
    trial.lab.client(client, &knocks).exits(0);
    trial.open(A, "22/tcp");
    trial.closed(B, "22/tcp");
}

/// Knocks over TCP alone, for clients that do nothing else, and with time for those that wait for an answer.
const TCP: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "1m"
[[gate.knock]]
user = "alice"
sequence = ["7000/tcp", "8443/tcp", "9301/tcp"]
within = "10m"
"#;
const TCP_PORTS: [&str; 3] = ["7000", "8443", "9301"];

/// It tries each port again, a second later and from another source port.
fn plain_ssh(trial: &Trial) {
    trial.up(TCP);
    let ssh = find_program("ssh").expect("the row needs it");
    let host = trial.family.host().to_string();
    for port in TCP_PORTS {
        let options = ["-F", "none", "-o", "ConnectionAttempts=2"];
        let to = ["-p", port, &host];
        trial
            .lab
            .client(&ssh, &[&options[..], &to].concat())
            .exits(255)
            .says(&["refused"]);
    }
    trial.open(A, "22/tcp");
    trial.closed(B, "22/tcp");
}

fn plain_nmap(trial: &Trial) {
    trial.up(TCP);
    for port in TCP_PORTS {
        nmap(trial, port, "closed");
    }
    trial.open(A, "22/tcp");
    trial.closed(B, "22/tcp");
}

/// Where no answer comes, it tries again from another source port.
fn nmap_that_gets_no_answer(trial: &Trial) {
    trial.up(TCP);
    let client = trial.family.address(A).to_string();
    let route = |command: &str| {
        ip(
            &trial.lab.gate,
            &format!("route {command} blackhole {client}"),
        );
    };
    route("add");
    for port in TCP_PORTS {
        nmap(trial, port, "filtered");
    }
    route("del");
    let stats = trial.knockgate("stats --json").exits(0).json();
    let knocks = stats["knocks"].as_array().expect("knocks is a list");
    let repeated = knocks.iter().find(|row| row["result"] == "duplicate");
    let repeated = repeated.and_then(|row| row["count"].as_u64());
    assert!(repeated > Some(0), "nmap tried no port again: {stats}");
    trial.open(A, "22/tcp");
}

fn nmap(trial: &Trial, port: &str, state: &str) {
    let nmap = find_program("nmap").expect("the row needs it");
    let host = trial.family.host().to_string();
    // Without `-n` it first waits for name servers, of which the namespace has none.
    let mut arguments = vec!["-n", "-Pn", "-p", port, &host];
    if trial.family == Family::V6 {
        arguments.push("-6");
    }
    let run = trial.lab.client(nmap, &arguments);
    let shown = &run.exits(0).stdout;
    assert!(
        shown.contains(&format!("{port}/tcp {state} ")),
        "{port} is {state}: {shown}"
    );
}

/// It opens two connections to each address that it is given, and tries a port that refuses it again.
fn a_browser(trial: &Trial) {
    trial.up(TCP);
    for port in TCP_PORTS {
        trial.knock(
            A,
            &format!("{port}/tcp {port}/tcp 200ms {port}/tcp {port}/tcp"),
        );
    }
    trial.open(A, "22/tcp");
    trial.closed(B, "22/tcp");
}

fn openssh_through_knockgate(trial: &Trial) {
    const PORT: u16 = 2022;
    trial.up(&SSH.replace("22/tcp", "2022/tcp"));
    let server = Sshd::start(&trial.lab, PORT);
    let host = trial.family.host();
    let waited = trial.connect(A, host, PORT, Duration::from_millis(300));
    assert!(waited.is_err(), "2022/tcp is open before any knock");
    let binary = need::knockgate().display();
    let steps = STEPS.join(" ");
    let proxy = format!("{binary} knock %h {steps} --connect {PORT}/tcp");
    let run = server.ssh(&trial.lab, host, &proxy, "echo through the gate");
    assert_eq!(run.exits(0).stdout, "through the gate\n");
}

fn knock(trial: &Trial, rest: &[&str]) -> Run {
    let host = trial.family.host().to_string();
    let arguments = [&["knock", &host], rest].concat();
    trial.lab.client(need::knockgate(), &arguments)
}
