//! What a gate reaches and what it leaves alone.

use std::time::Duration;

use knockgate_tests::{
    attempt::Outcome,
    lab::Who::{A, B, C},
    network::ip,
    trial::Trial,
};

use crate::{ALICE, SSH, behaviours};

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
    monitor_mode_denies_nothing;
    down_opens_everything;
}

/// Proves that the services answer, so that silence in every other row is the gate's doing.
fn without_a_gate_all_is_open(trial: &Trial) {
    for port in ["22/tcp", "25/tcp", "80/tcp", "53/udp", "51820/udp"] {
        trial.open(A, port);
        trial.open(C, port);
    }
    trial.refused(A, "7000/tcp");
}

fn other_ports_are_untouched(trial: &Trial) {
    let others = |trial: &Trial| {
        for who in [A, B] {
            trial.open(who, "80/tcp");
            trial.open(who, "53/udp");
            trial.refused(who, "1234/tcp");
            trial.refused(who, "22/udp");
        }
    };
    trial.up(SSH);
    others(trial);
    trial.knock(A, "7000/udp 8443/tcp");
    others(trial);
    trial.knock(A, ALICE);
    others(trial);
    trial.open(A, "22/tcp");
    others(trial);
}

/// ARP and neighbour discovery are neither TCP nor UDP.
fn neighbours_find_each_other(trial: &Trial) {
    trial.up(SSH);
    for netns in [&trial.lab.gate, &trial.lab.client] {
        ip(netns, "neighbour flush nud permanent");
    }
    let outcome = trial.attempt(A, "80/tcp", Outcome::Open);
    // The first SYN may have had to wait for an answer.
    assert!(
        matches!(outcome, Outcome::Open | Outcome::OpenLate),
        "80/tcp: {outcome:?}"
    );
}

fn knock_ports_answer_as_any_closed_port(trial: &Trial) {
    trial.up(SSH);
    // A right knock, a wrong one, one behind a right one, and ports that no sequence has.
    for port in [
        "7000/udp", "9301/udp", "7000/udp", "8443/tcp", "1234/tcp", "1234/udp",
    ] {
        trial.refused(A, port);
    }
    trial.closed(A, "22/tcp");
}

fn a_grant_is_for_its_gate_alone(trial: &Trial) {
    trial.up(&format!("{SSH}{MAIL}"));
    trial.knock(A, ALICE);
    trial.open(A, "22/tcp");
    trial.closed(A, "25/tcp");
    trial.knock(B, "7100/tcp 8543/udp 9401/tcp");
    trial.open(B, "25/tcp");
    trial.closed(B, "22/tcp");
}

fn a_protected_udp_port(trial: &Trial) {
    trial.up(&SSH.replace("22/tcp", "51820/udp"));
    trial.closed(A, "51820/udp");
    trial.knock(A, ALICE);
    trial.open(A, "51820/udp");
    trial.closed(B, "51820/udp");
    // The TCP port of the same number was never protected.
    trial.refused(B, "51820/tcp");
}

fn one_gate_of_several_ports(trial: &Trial) {
    trial.up(&SSH.replace("\"22/tcp\"", "\"22/tcp\", \"25/tcp\", \"51820/udp\""));
    for port in ["22/tcp", "25/tcp", "51820/udp"] {
        trial.closed(A, port);
    }
    trial.knock(A, ALICE);
    for port in ["22/tcp", "25/tcp", "51820/udp"] {
        trial.open(A, port);
        trial.closed(B, port);
    }
}

fn only_these_sources_may_knock(trial: &Trial) {
    trial.up(&SSH.replace("open_for", "sources = [\"{network}\"]\nopen_for"));
    trial.knock(C, ALICE);
    trial.closed(C, "22/tcp");
    trial.knock(B, ALICE);
    trial.open(B, "22/tcp");
    trial.closed(C, "22/tcp");
}

fn the_allow_list_always_passes(trial: &Trial) {
    trial.up(&format!("allow = [\"{{network}}\"]\n{SSH}"));
    trial.open(A, "22/tcp");
    trial.open(B, "22/tcp");
    trial.closed(C, "22/tcp");
    trial.knock(C, ALICE);
    trial.open(C, "22/tcp");
    trial.knockgate("revoke --all").exits(0);
    trial.open(A, "22/tcp");
}

fn only_packets_to_these_addresses(trial: &Trial) {
    trial.up(&format!("addresses = [\"{{host}}\"]\n{SSH}"));
    let other = trial.family.other_host_address();
    let there = || {
        trial
            .connect(A, other, 22, Duration::from_mins(1))
            .map(drop)
    };
    trial.closed(A, "22/tcp");
    assert_eq!(there(), Ok(()), "the other address is not guarded");
    trial.knock(A, ALICE);
    trial.open(A, "22/tcp");
}

fn monitor_mode_denies_nothing(trial: &Trial) {
    trial.up(&format!("mode = \"monitor\"\n{SSH}"));
    trial.open(A, "22/tcp");
    trial.open(B, "22/tcp");
}

fn down_opens_everything(trial: &Trial) {
    trial.up(SSH);
    assert_eq!(trial.attempt(A, "22/tcp", Outcome::Silent), Outcome::Silent);
    trial.knockgate("down").exits(0);
    trial.open(A, "22/tcp");
    trial.lab.assert_untouched();
}

const MAIL: &str = r#"
[[gate]]
name = "mail"
protect = ["25/tcp"]
open_for = "10m"
[[gate.knock]]
user = "bob"
sequence = ["7100/tcp", "8543/udp", "9401/tcp"]
within = "10s"
"#;
