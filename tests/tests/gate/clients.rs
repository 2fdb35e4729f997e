//! Clients as people have them: knockgate's own, Debian's `knock`, OpenSSH.

use std::time::Duration;

use knockgate_tests::{
    lab::Who::{A, B},
    need,
    run::Run,
    sshd::Sshd,
    trial::Trial,
};

use crate::{SSH, behaviours};

behaviours! {
    knockgate_knock;
    knockgate_knock_then;
    knockgate_knock_then_with_a_wrong_sequence;
    knockgate_knock_connect;
    debian_knock needs "knock";
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
    let client = need::tool("knock").expect("the row needs it");
    let host = trial.family.host().to_string();
    let knocks = [&host, "7000:udp", "8443:tcp", "9301:udp"];
    trial.lab.client(client, &knocks).exits(0);
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
