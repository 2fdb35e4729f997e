//! Native mode where a driver has limits: frames longer than a page, and what is said where it is refused.

use knockgate_tests::{
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, GATE_MAC, Lab, WAN, Who::A},
    network::ip,
    run::wait_until,
    trial::{Attach, Trial},
    wire,
};
use netlab::packet::{Extension, Packet, SYN};

use crate::{ALICE, SSH};

/// Frames of this MTU take several pages.
const LARGE: &str = "9000";

#[test]
fn a_large_mtu_is_guarded_v4() {
    Trial::run(Attach::Native, Family::V4, &[], a_large_mtu_is_guarded);
}

#[test]
fn a_large_mtu_is_guarded_v6() {
    Trial::run(Attach::Native, Family::V6, &[], a_large_mtu_is_guarded);
}

fn a_large_mtu_is_guarded(trial: &Trial) {
    enlarge(&trial.lab);
    trial.up(SSH);
    let interface = trial.lab.interface();
    assert!(
        interface.contains("xdp") && !interface.contains("xdpgeneric"),
        "{interface}"
    );
    trial.closed(A, "22/tcp");
    for length in [1000, 4000, 8000] {
        denied_and_counted_whole(trial, &probe(trial).with_payload(&vec![9; length]));
    }
    if trial.family == Family::V6 {
        // These headers are longer than a page, so that TCP's is in none but the later buffers.
        for count in [2, 3, 4] {
            let extension = Extension::DestinationOptions(255);
            let packet =
                (0..count).fold(probe(trial), |packet, _| packet.with_extension(extension));
            denied_and_counted_whole(trial, &packet);
        }
    }
    trial.knock(A, ALICE);
    trial.open(A, "22/tcp");
}

fn probe(trial: &Trial) -> Packet {
    Packet::tcp(
        (trial.family.address(A), 4000),
        (trial.family.host(), 22),
        SYN,
    )
}

/// Sends a packet to the guarded port; it adds one to what is denied for want of a grant, with all its bytes.
fn denied_and_counted_whole(trial: &Trial, packet: &Packet) {
    let frame = packet.frame(CLIENT_MAC, GATE_MAC);
    let (packets, bytes) = denied(trial);
    wire::send(&trial.lab, std::slice::from_ref(&frame));
    wait_until("the packet is denied", || denied(trial).0 != packets);
    assert_eq!(denied(trial), (packets + 1, bytes + frame.len() as u64));
}

fn denied(trial: &Trial) -> (u64, u64) {
    let stats = trial.knockgate("stats --json").exits(0).json();
    let rows = stats["packets"].as_array().expect("packets is a list");
    let rows = rows.iter().filter(|row| row["reason"] == "no_grant");
    rows.fold((0, 0), |(packets, bytes), row| {
        let number = |name: &str| row[name].as_u64().expect("a number");
        (packets + number("packets"), bytes + number("bytes"))
    })
}

/// A gate that rejects needs each frame in one piece.
#[test]
fn a_refusal_for_the_mtu_names_the_limit_and_the_command() {
    Trial::run(Attach::Native, Family::V4, &[], |trial| {
        enlarge(&trial.lab);
        trial.configure(&SSH.replace("open_for", "deny = \"reject\"\nopen_for"));
        let refused = trial.lab.knockgate(&["up"]);
        refused
            .exits(1)
            .says(&["veth", "MTU of 3506", "`ip link set dev PEER mtu 3506`"]);
        assert!(!refused.stderr.contains("os error"), "{}", refused.stderr);
        trial.lab.assert_untouched();
    });
}

#[test]
fn a_device_without_native_mode_is_named() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    ip(&lab.gate, "link add top type bridge");
    let configure = |attach: &str| {
        lab.configure(&format!(
            "interfaces = [\"top\"]\nattach = \"{attach}\"\nallow = [\"192.0.2.0/24\"]\n{SSH}"
        ));
    };
    configure("native");
    let said = ["top, bridge,", "no native XDP"];
    lab.knockgate(&["up"]).exits(1).says(&said);
    let checked = lab.knockgate(&["check"]);
    checked.exits(0);
    assert!(
        checked.stdout.contains("no native XDP"),
        "{}",
        checked.stdout
    );
    configure("auto");
    lab.knockgate(&["up"])
        .exits(0)
        .says(&said)
        .says(&["generic mode"]);
}

fn enlarge(lab: &Lab) {
    for (netns, interface) in [(&lab.gate, WAN), (&lab.client, CLIENT_INTERFACE)] {
        ip(netns, &format!("link set {interface} mtu {LARGE}"));
    }
}
