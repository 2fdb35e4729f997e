//! What follows on a link whose packets begin with the IP header gets them like that.

use std::net::IpAddr;

use knockgate_tests::{
    lab::{
        Source::{A, B},
        WAN,
    },
    neighbour::{Kind, Neighbour},
    scenario::Attach,
    tun::Tun,
};
use netlab::packet::{Packet, SYN};

use crate::{OTHER, PROTECTED, Udp, configure, followed_by, gate, in_mode, section};

const TUN: &str = "tun0";
/// The host's address on the device, and those of two sources behind it.
const HOST: &str = "10.88.0.1";
const STRANGER: &str = "10.88.1.2";
const FRIEND: &str = "10.88.1.3";

/// Each kind of link has an entry and an array of its own, and the program that follows on one cannot read the packets of the
/// other.
#[test]
fn packets_without_a_link_header_go_on_as_they_came() {
    in_mode(Attach::Generic, |scenario, pins| {
        let (ethernet, bare) = (Neighbour::new(), Neighbour::of(Kind::BARE_IP, None));
        ethernet.pin(&pins.at("ethernet"));
        bare.pin(&pins.at("bare"));
        let tun = Tun::create(&scenario.lab.host, TUN, &[&format!("{HOST}/16")]);
        let sections = format!(
            "{}{}",
            followed_by(&pins.at("ethernet")),
            section(TUN, &pins.at("bare"))
        );
        configure(scenario, sections, gate());
        scenario.knockgate("up").exits(0);
        let (other, protected) = (
            Udp::bind_any(scenario, OTHER),
            Udp::bind_any(scenario, PROTECTED),
        );
        let send = |from: &str, port, count| send(&tun, from, port, count);

        send(STRANGER, PROTECTED, 9);
        send(STRANGER, OTHER, 7);
        other.receives(7);
        assert_eq!((bare.count(OTHER), bare.count(PROTECTED)), (7, 0));
        assert_eq!(scenario.lab.stats().denied("no_grant"), 9);
        let allow = format!("allow {FRIEND} --gate ssh");
        scenario.knockgate(&allow).exits(0);
        send(FRIEND, PROTECTED, 5);
        protected.receives(5);
        assert_eq!(bare.count(PROTECTED), 5, "those that have a grant");
        // Knocks are packets that pass.
        send(STRANGER, 7000, 1);
        let syn = Packet::tcp((ip(STRANGER), 4001), (ip(HOST), 8443), SYN);
        tun.send([without_header(&syn).as_slice()]);
        send(STRANGER, 9301, 1);
        send(STRANGER, PROTECTED, 3);
        protected.receives(3);
        for (port, count) in [(7000, 1), (8443, 1), (9301, 1), (PROTECTED, 8)] {
            assert_eq!(bare.count(port), count, "port {port}");
        }
        assert_eq!(scenario.lab.stats().packets("not_ip"), 0);
        assert_eq!(ethernet.count(OTHER), 0, "it follows on {WAN} alone");

        other.send(scenario, A, 4);
        other.receives(4);
        protected.send(scenario, B, 2);
        assert_eq!((ethernet.count(OTHER), ethernet.count(PROTECTED)), (4, 0));
        assert_eq!((bare.count(OTHER), bare.count(PROTECTED)), (7, 8));
    });
}

/// Delivers so many datagrams.
fn send(tun: &Tun, from: &str, port: u16, count: usize) {
    let datagram = Packet::udp((ip(from), 4000), (ip(HOST), port), b"datagram");
    let bytes = without_header(&datagram);
    tun.send(vec![bytes.as_slice(); count]);
}

fn without_header(packet: &Packet) -> Vec<u8> {
    packet.frame([0; 6], [0; 6])[14..].to_vec()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("well-formed")
}
