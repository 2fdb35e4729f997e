//! Guards a device above a veth. Packets from the client's sockets arrive there with an offloaded checksum, as at the
//! veth itself.

use knockgate_tests::{
    lab::{CLIENT_MAC, Family, HOST_MAC, Lab, Source, WAN},
    need::kernel_has,
    network::{add_address, ip},
    scenario::Attach,
    wire::OffloadedWire,
};
use netlab::packet::{ACK, FIN, SYN, mac};

use crate::{
    answer::Answer,
    frame,
    testbed::{self, Testbed},
};

/// The device above the veth, and the veth's MAC address then.
const TOP: &str = "top";
const WAN_MAC: &str = "02:00:00:00:00:11";

#[test]
fn bridge() {
    answers_are_the_hosts(&format!("link add {TOP} type bridge"), Some(TOP));
}

#[test]
fn macvlan() {
    let add = format!("link add link {WAN} name {TOP} type macvlan mode bridge");
    answers_are_the_hosts(&add, None);
}

#[test]
fn macvlan_on_a_bridge() {
    let top = format!("link add link below name {TOP} type macvlan mode bridge");
    answers_are_the_hosts_on(|lab| {
        stack(lab, "link add below type bridge", Some("below")) && stack(lab, &top, None)
    });
}

fn answers_are_the_hosts(add: &str, bridge: Option<&str>) {
    answers_are_the_hosts_on(|lab| stack(lab, add, bridge));
}

/// `stack` returns whether the kernel has what it makes.
fn answers_are_the_hosts_on(stack: impl Fn(&Lab) -> bool) {
    for attach in [Attach::Generic, Attach::Tcx] {
        let Some(lab) = Lab::build(&[]) else {
            return;
        };
        if attach.is_there() && stack(&lab) {
            ask(&Testbed::new(lab, attach), attach);
        }
    }
}

fn ask(testbed: &Testbed, attach: Attach) {
    testbed.without_limits();
    move_addresses(&testbed.lab);
    testbed.up_on(TOP);
    let unsummed = OffloadedWire::open(&testbed.lab);
    let mut wrong = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (what, frame) in frames() {
            for left_out in [false, true] {
                let asked = |port: u16| {
                    let mut frame = frame(family, port);
                    if left_out {
                        let (start, offset) = frame::leave_sum(&mut frame);
                        unsummed.send(&testbed.lab, &frame, start, offset);
                        testbed.answer(family, &frame)
                    } else {
                        testbed.ask(family, &frame)
                    }
                };
                let [host, gate] = [testbed::CLOSED, testbed::GUARDED].map(asked);
                if host.is_none() || gate != host {
                    let sum = if left_out { "left out" } else { "complete" };
                    wrong.push(said(
                        &format!("{what}, sum {sum} ({family:?})"),
                        host.as_ref(),
                        gate.as_ref(),
                    ));
                }
            }
            // A checksum that is neither correct nor the sum of the pseudo-header gets no answer.
            let mut damaged = frame(family, testbed::GUARDED);
            *damaged.last_mut().expect("not empty") ^= 1;
            let gate = testbed.ask(family, &damaged);
            if gate.is_some() {
                wrong.push(said(
                    &format!("{what}, damaged ({family:?})"),
                    None,
                    gate.as_ref(),
                ));
            }
            // At TCX, not even if it looks left out and is not.
            let mut forged = frame(family, testbed::GUARDED);
            let _ = frame::leave_sum(&mut forged);
            let gate = testbed.ask(family, &forged);
            if gate.is_some() == (attach == Attach::Tcx) {
                wrong.push(said(
                    &format!("{what}, sum forged ({family:?})"),
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
            frame::tcp(family, port, flags, |frame, _, _| {
                frame.extend(vec![9; length]);
            })
        })
    };
    let datagram = |length: usize| -> Frame {
        Box::new(move |family, port| frame::udp(family, port, &vec![9; length], |_, _, _| {}))
    };
    vec![
        ("SYN", segment(SYN, 0)),
        ("ACK", segment(ACK, 0)),
        ("FIN with data", segment(FIN | ACK, 33)),
        ("datagram", datagram(3)),
        ("datagram longer than what is quoted", datagram(1400)),
    ]
}

/// Adds a device above the host's veth, which becomes a port of `bridge` if that is given. Returns whether the kernel
/// has such devices.
fn stack(lab: &Lab, add: &str, bridge: Option<&str>) -> bool {
    if !kernel_has("such a device", &lab.host, add) {
        return false;
    }
    if let Some(bridge) = bridge {
        ip(
            &lab.host,
            &format!("link set {WAN} master {bridge}\nlink set {bridge} up"),
        );
    }
    true
}

/// Moves the host's IP and MAC addresses to the device above.
fn move_addresses(lab: &Lab) {
    let (host_mac, client_mac) = (mac(HOST_MAC), mac(CLIENT_MAC));
    ip(
        &lab.host,
        &format!(
            "link set {WAN} address {WAN_MAC}\n\
             link set {TOP} address {host_mac} up\n\
             address flush dev {WAN}"
        ),
    );
    for (family, length) in [(Family::V4, 16), (Family::V6, 48)] {
        add_address(&lab.host, TOP, &format!("{}/{length}", family.host()));
        let client = family.address(Source::A);
        ip(
            &lab.host,
            &format!("neighbour replace {client} lladdr {client_mac} dev {TOP} nud permanent"),
        );
    }
}
