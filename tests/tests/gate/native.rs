//! Native mode with drivers that have limits: frames longer than a page, and the messages of a refusal.

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, HOST_MAC, Lab, Source::A, WAN},
    need,
    network::ip,
    run::wait_until,
    scenario::{Attach, Scenario},
    wire,
};
use netlab::packet::{Extension, Packet, SYN};

/// Frames of this MTU take several pages.
const LARGE: &str = "9000";

#[test]
fn a_large_mtu() {
    Scenario::run_over_both(Attach::Native, &[], a_large_mtu_is_guarded);
}

fn a_large_mtu_is_guarded(scenario: &Scenario) {
    enlarge(&scenario.lab);
    scenario.up(Gate::ssh());
    let interface = scenario.lab.interface();
    assert!(
        interface.contains("xdp") && !interface.contains("xdpgeneric"),
        "{interface}"
    );
    scenario.closed(A, "22/tcp");
    for length in [1000, 4000, 8000] {
        denied_and_counted_whole(scenario, &probe(scenario).with_payload(&vec![9; length]));
    }
    if scenario.family == Family::V6 {
        // These headers are longer than a page, so that TCP's header is in a later buffer.
        for count in [2, 3, 4] {
            let extension = Extension::DestinationOptions(255);
            let packet = (0..count).fold(probe(scenario), |packet, _| {
                packet.with_extension(extension)
            });
            denied_and_counted_whole(scenario, &packet);
        }
    }
    scenario.knock(A, ALICE);
    scenario.open(A, "22/tcp");
}

fn probe(scenario: &Scenario) -> Packet {
    Packet::tcp(
        (scenario.family.address(A), 4000),
        (scenario.family.host(), 22),
        SYN,
    )
}

/// Sends a packet to the protected port, and expects it to be counted once under `no_grant`, with all its bytes.
fn denied_and_counted_whole(scenario: &Scenario, packet: &Packet) {
    let frame = packet.frame(CLIENT_MAC, HOST_MAC);
    let denied = || {
        let stats = scenario.lab.stats();
        (stats.packets("no_grant"), stats.bytes("no_grant"))
    };
    let (packets, bytes) = denied();
    wire::send(&scenario.lab, std::slice::from_ref(&frame));
    wait_until("the packet is denied", || denied().0 != packets);
    assert_eq!(denied(), (packets + 1, bytes + frame.len() as u64));
}

/// With a gate that rejects, each frame must be in one buffer.
#[test]
fn a_refusal_for_the_mtu_names_the_limit_and_the_command() {
    Scenario::run(Attach::Native, Family::V4, &[], |scenario| {
        enlarge(&scenario.lab);
        scenario.configure(Gate::ssh().key("deny = \"reject\""));
        let refused = scenario.lab.knockgate(&["up"]);
        if need::large_pages() {
            // The frames fit into a page.
            refused.exits(0);
            return;
        }
        refused
            .exits(1)
            .says(&["veth", "MTU of 3506", "`ip link set dev PEER mtu 3506`"]);
        assert!(!refused.stderr.contains("os error"), "{}", refused.stderr);
        scenario.lab.assert_untouched();
    });
}

#[test]
fn a_device_without_native_mode_is_named() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    ip(&lab.host, "link add top type bridge");
    let configure = |attach: &str| {
        lab.configure(&format!(
            "interfaces = [\"top\"]\nattach = \"{attach}\"\nallow = [\"192.0.2.0/24\"]\n{}",
            Gate::ssh()
        ));
    };
    configure("native");
    let said = ["top, bridge,", "no native XDP"];
    lab.knockgate(&["up"]).exits(1).says(&said);
    let checked = lab.knockgate(&["check"]);
    checked.exits(0);
    // An older kernel says so only when it is asked to attach.
    assert_eq!(
        checked.stdout.contains("no native XDP"),
        need::xdp_features(),
        "{}",
        checked.stdout
    );
    configure("auto");
    lab.knockgate(&["up"])
        .exits(0)
        .says(&said)
        .says(&[if need::tcx() {
            "at TCX"
        } else {
            "generic mode"
        }]);
}

fn enlarge(lab: &Lab) {
    for (netns, interface) in [(&lab.host, WAN), (&lab.client, CLIENT_INTERFACE)] {
        ip(netns, &format!("link set {interface} mtu {LARGE}"));
    }
}
