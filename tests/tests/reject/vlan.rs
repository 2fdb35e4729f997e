//! VLANs, on a kernel with VLAN devices: both host and client have devices, so an answer that arrives at the client's
//! device had its tags.

use std::net::IpAddr;

use knockgate_tests::{
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, HOST_MAC, Lab, WAN},
    need::kernel_has,
    network::{add_address, ip},
    scenario::Attach,
    tap::Tap,
};
use netlab::packet::{ACK, Packet, SYN, Tag};

use crate::{
    answer::{Answer, is_answer},
    frame,
    testbed::{self, FENCE, Testbed},
};

/// A VLAN device: its name, the device below it, the protocol of its tag, the VLAN id, and its networks.
struct Device {
    name: &'static str,
    within: Option<&'static str>,
    protocol: &'static str,
    id: &'static str,
    networks: [&'static str; 2],
    tags: &'static [Tag],
}

const DEVICES: [Device; 3] = [
    Device {
        name: "seven",
        within: None,
        protocol: "802.1Q",
        id: "7",
        networks: ["10.78.0.", "fd78::"],
        tags: &[Tag::vlan(7)],
    },
    Device {
        name: "five",
        within: None,
        protocol: "802.1ad",
        id: "5",
        networks: ["10.79.0.", "fd79::"],
        tags: &[Tag::service(5)],
    },
    Device {
        name: "five.seven",
        within: Some("five"),
        protocol: "802.1Q",
        id: "7",
        networks: ["10.80.0.", "fd80::"],
        tags: &[Tag::service(5), Tag::vlan(7)],
    },
];

#[test]
fn native() {
    answers_go_back_into_their_vlan(Attach::Native);
}

#[test]
fn generic() {
    answers_go_back_into_their_vlan(Attach::Generic);
}

#[test]
fn tcx() {
    answers_go_back_into_their_vlan(Attach::Tcx);
}

fn answers_go_back_into_their_vlan(attach: Attach) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if !attach.is_there() || !join(&lab) {
        return;
    }
    let testbed = Testbed::new(lab, attach);
    testbed.without_limits();
    testbed.up();
    for device in &DEVICES {
        let tap = Tap::open(&testbed.lab.client, device.name);
        for family in [Family::V4, Family::V6] {
            let [client, host] = ["2", "1"].map(|number| device.address(family, number));
            let asks: [(&str, &dyn Fn(u16) -> Packet); 4] = [
                ("SYN", &|port| {
                    Packet::tcp((client, 4000), (host, port), SYN)
                }),
                ("ACK", &|port| {
                    Packet::tcp((client, 4000), (host, port), ACK)
                }),
                ("segment with data", &|port| {
                    Packet::tcp((client, 4000), (host, port), ACK).with_payload(b"anyone?")
                }),
                ("datagram", &|port| {
                    Packet::udp((client, 4000), (host, port), b"anyone?")
                }),
            ];
            for (what, ask) in asks {
                let answer = |port| {
                    let asked = ask(port);
                    let tagged = device
                        .tags
                        .iter()
                        .fold(asked.clone(), |packet, &tag| packet.tagged(tag));
                    testbed
                        .wire
                        .send(&testbed.lab, &[tagged.frame(CLIENT_MAC, HOST_MAC)]);
                    let mut seen = fence(&testbed, &tap, device, (client, 5000), host);
                    seen.extend(fence(&testbed, &tap, device, (client, 5001), host));
                    seen.retain(|frame| is_answer(frame));
                    assert!(seen.len() <= 1, "{} answers to one packet", seen.len());
                    let asked = asked.frame(CLIENT_MAC, HOST_MAC);
                    seen.pop().map(|answer| Answer::read(&answer, &asked))
                };
                let [of_host, of_gate] = [testbed::CLOSED, testbed::GUARDED].map(answer);
                let row = format!("{what} in {} ({family:?}, {attach:?})", device.name);
                assert!(of_host.is_some(), "the host does not answer a {row}");
                assert_eq!(of_gate, of_host, "{row}");
            }
        }
    }
}

/// Sends a packet that the host answers last. Returns the answers before that.
fn fence(
    testbed: &Testbed,
    tap: &Tap,
    device: &Device,
    from: (IpAddr, u16),
    host: IpAddr,
) -> Vec<Vec<u8>> {
    let packet = Packet::tcp(from, (host, FENCE), SYN);
    let packet = device
        .tags
        .iter()
        .fold(packet, |packet, &tag| packet.tagged(tag));
    testbed
        .wire
        .send(&testbed.lab, &[packet.frame(CLIENT_MAC, HOST_MAC)]);
    let ports = [FENCE.to_be_bytes(), from.1.to_be_bytes()].concat();
    tap.until(|frame| {
        let at = frame::ETHERNET + frame::header_length(frame);
        frame.get(at..at + 4) == Some(&ports)
    })
}

/// Makes the devices at both ends. Returns whether the kernel has such devices.
fn join(lab: &Lab) -> bool {
    let ends = [(&lab.host, WAN, "1"), (&lab.client, CLIENT_INTERFACE, "2")];
    ends.into_iter().all(|(netns, interface, number)| {
        DEVICES.iter().all(|device| {
            let Device {
                name,
                within,
                protocol,
                id,
                ..
            } = *device;
            let within = within.unwrap_or(interface);
            let link =
                format!("link add link {within} name {name} type vlan protocol {protocol} id {id}");
            if !kernel_has("VLAN devices", netns, &link) {
                return false;
            }
            ip(netns, &format!("link set {name} up"));
            for (family, length) in [(Family::V4, 24), (Family::V6, 64)] {
                let address = device.address(family, number);
                add_address(netns, name, &format!("{address}/{length}"));
            }
            true
        })
    })
}

impl Device {
    fn address(&self, family: Family, number: &str) -> IpAddr {
        let [v4, v6] = self.networks;
        let network = if family == Family::V4 { v4 } else { v6 };
        format!("{network}{number}").parse().expect("well-formed")
    }
}
