//! A gate on a device that stands on a veth. What the client's own sockets send arrives there with the
//! checksum left to hardware, as it does at the veth itself.

use knockgate_tests::{
    lab::{CLIENT_MAC, Family, GATE_MAC, Lab, WAN, Who},
    need::kernel_has,
    netns::ip,
    packet::{ACK, FIN, SYN},
    raw::UnsummedWire,
    trial::Attach,
};

use crate::field::{self, Answer, Field};

/// The device above, and the MAC address that the veth has then.
const TOP: &str = "top";
const WAN_MAC: &str = "02:00:00:00:00:11";

#[test]
fn bridge() {
    answers_are_the_hosts(&["link", "add", TOP, "type", "bridge"], Some(TOP));
}

#[test]
fn macvlan() {
    let add = [
        "link", "add", "link", WAN, "name", TOP, "type", "macvlan", "mode", "bridge",
    ];
    answers_are_the_hosts(&add, None);
}

#[test]
fn macvlan_on_a_bridge() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let below = ["link", "add", "below", "type", "bridge"];
    let top = [
        "link", "add", "link", "below", "name", TOP, "type", "macvlan", "mode", "bridge",
    ];
    if stack(&lab, &below, Some("below")) && stack(&lab, &top, None) {
        ask(&Field::new(lab, Attach::Generic));
    }
}

fn answers_are_the_hosts(add: &[&str], bridge: Option<&str>) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if stack(&lab, add, bridge) {
        ask(&Field::new(lab, Attach::Generic));
    }
}

fn ask(field: &Field) {
    field.without_limits();
    move_addresses(&field.lab);
    field.up_on(TOP);
    let unsummed = UnsummedWire::open(&field.lab);
    let mut wrong = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (what, frame) in frames() {
            for left_out in [false, true] {
                let asked = |port: u16| {
                    let mut frame = frame(family, port);
                    if left_out {
                        let (start, offset) = field::leave_sum(&mut frame);
                        unsummed.send(&field.lab, &frame, start, offset);
                        field.answer(family, &frame)
                    } else {
                        field.ask(family, &frame)
                    }
                };
                let [host, gate] = [field::CLOSED, field::GUARDED].map(asked);
                if host.is_none() || gate != host {
                    let sum = if left_out { "left out" } else { "complete" };
                    wrong.push(said(
                        &format!("{what}, sum {sum} ({family:?})"),
                        host.as_ref(),
                        gate.as_ref(),
                    ));
                }
            }
            // One whose sum is neither right nor that of its pseudo-header gets no answer.
            let mut damaged = frame(family, field::GUARDED);
            *damaged.last_mut().expect("not empty") ^= 1;
            let gate = field.ask(family, &damaged);
            if gate.is_some() {
                wrong.push(said(
                    &format!("{what}, damaged ({family:?})"),
                    None,
                    gate.as_ref(),
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn said(what: &str, host: Option<&Answer>, gate: Option<&Answer>) -> String {
    format!("{what}:\n  host {host:?}\n  gate {gate:?}")
}

type Frame = Box<dyn Fn(Family, u16) -> Vec<u8>>;

fn frames() -> Vec<(&'static str, Frame)> {
    let segment = |flags, length: usize| -> Frame {
        Box::new(move |family, port| {
            field::tcp(family, port, flags, |frame, _, _| {
                frame.extend(vec![9; length]);
            })
        })
    };
    let datagram = |length: usize| -> Frame {
        Box::new(move |family, port| field::udp(family, port, &vec![9; length], |_, _, _| {}))
    };
    vec![
        ("SYN", segment(SYN, 0)),
        ("ACK", segment(ACK, 0)),
        ("FIN with data", segment(FIN | ACK, 33)),
        ("datagram", datagram(3)),
        ("datagram longer than what is quoted", datagram(1400)),
    ]
}

/// Adds a device above the veth's end of the host; on a bridge the veth becomes a port.
fn stack(lab: &Lab, add: &[&str], bridge: Option<&str>) -> bool {
    if !kernel_has("such a device", &lab.gate, add) {
        return false;
    }
    let ip = |arguments: &[&str]| ip(&[&["-n", lab.gate.name()], arguments].concat());
    if let Some(bridge) = bridge {
        ip(&["link", "set", WAN, "master", bridge]);
        ip(&["link", "set", bridge, "up"]);
    }
    true
}

/// The host's addresses, of both layers, move to the device above.
fn move_addresses(lab: &Lab) {
    let ip = |arguments: &[&str]| ip(&[&["-n", lab.gate.name()], arguments].concat());
    let [gate_mac, client_mac] =
        [GATE_MAC, CLIENT_MAC].map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    ip(&["link", "set", WAN, "address", WAN_MAC]);
    ip(&["link", "set", TOP, "address", &gate_mac, "up"]);
    ip(&["address", "flush", "dev", WAN]);
    for family in [Family::V4, Family::V6] {
        let length = if family == Family::V4 { 16 } else { 48 };
        let address = format!("{}/{length}", family.host());
        let add = ["address", "add", &address, "dev", TOP];
        let nodad: &[&str] = if family == Family::V6 {
            &["nodad"]
        } else {
            &[]
        };
        ip(&[&add, nodad].concat());
        let client = family.address(Who::A).to_string();
        ip(&[
            "neighbour",
            "replace",
            &client,
            "lladdr",
            &client_mac,
            "dev",
            TOP,
            "nud",
            "permanent",
        ]);
    }
}
