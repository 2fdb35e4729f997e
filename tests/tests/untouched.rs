//! Packets that are not for a protected port pass unchanged: captures after XDP, without knockgate and with a gate in
//! each of its states, are equal byte for byte and in the same order.

use std::{net::IpAddr, slice};

use knockgate_tests::{
    gate_config::{ALICE, BOB, Gate},
    lab::{Family, HOST_MAC, Lab, Source, WAN},
    scenario::{Attach, Scenario},
    tap::Tap,
    wire::Wire,
};
use netlab::packet::{Extension, Packet, SYN, Tag};

/// The source MAC address of the load, which tells it from packets of the two kernels.
const LOAD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// An ethertype for local experiments; a frame of this type ends a capture.
const END: [u8; 2] = [0x88, 0xb5];

fn gates() -> String {
    let tunnel = Gate::new("tunnel", "51820/udp")
        .key("grant_to = \"prefix\"")
        .user("alice", BOB);
    [Gate::ssh(), tunnel]
        .map(|gate| gate.within("10m").to_string())
        .concat()
}

#[test]
fn native() {
    nothing_else_is_touched(Attach::Native);
}

#[test]
fn generic() {
    nothing_else_is_touched(Attach::Generic);
}

#[test]
fn tcx() {
    if Attach::Tcx.is_there() {
        nothing_else_is_touched(Attach::Tcx);
    }
}

fn nothing_else_is_touched(attach: Attach) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let scenario = Scenario::new(attach, Family::V4, lab);
    let load = load();
    let tap = Tap::open(&scenario.lab.host, WAN);
    let without = pass(&scenario.lab, &tap, &load);
    // The kernel removes a tag before the capture; otherwise frames are as sent.
    assert_eq!(without.len(), load.len(), "some were lost without a gate");
    for (arrived, sent) in without.iter().zip(&load) {
        let tagged = matches!(sent[12..14], [0x81, 0x00] | [0x88, 0xa8]);
        assert!(
            tagged || arrived == sent,
            "changed without a gate: {sent:02x?}"
        );
    }

    let expect = |when: &str| assert_same(&pass(&scenario.lab, &tap, &load), &without, when);
    scenario.up(gates());
    expect("closed");
    scenario.knock(Source::A, "7000/udp 8443/tcp");
    expect("knocked on, and closed");
    scenario.knock(Source::A, &format!("{ALICE} {BOB}"));
    scenario.open(Source::A, "22/tcp");
    scenario.open(Source::B, "51820/udp");
    expect("open");
    scenario.knockgate("revoke --all").exits(0);
    expect("closed again");
    scenario.knockgate("down").exits(0);
    scenario.up(format!("mode = \"monitor\"\n{}", gates()));
    expect("in monitor mode");
    scenario.knockgate("down").exits(0);
    scenario.up(format!(
        "allow = [\"{{network}}\"]\naddresses = [\"{{host}}\"]\n{}",
        gates()
    ));
    expect("with an allow list and addresses");
}

/// Sends the load. Returns the frames of it that arrive.
fn pass(lab: &Lab, tap: &Tap, load: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let end = ethernet(HOST_MAC, END, &[0; 46]);
    let wire = Wire::open(lab);
    let mut arrived = Vec::new();
    // The queue of a veth with a program has 256 frames; more are lost before its other end has read them.
    for part in load.chunks(200) {
        wire.send(lab, part);
        wire.send(lab, slice::from_ref(&end));
        arrived.extend(tap.until(|frame| frame == end));
    }
    arrived.retain(|frame| frame[6..12] == LOAD_MAC);
    arrived
}

/// Asserts that two captures are equal. A failure shows the first difference only.
#[track_caller]
fn assert_same(now: &[Vec<u8>], before: &[Vec<u8>], when: &str) {
    let differs = now
        .iter()
        .zip(before)
        .position(|(now, before)| now != before);
    if let Some(at) = differs {
        panic!(
            "{when}: frame {at} arrives as {:02x?}, and did as {:02x?}",
            now[at], before[at]
        );
    }
    assert_eq!(now.len(), before.len(), "{when}: the last ones are missing");
}

fn load() -> Vec<Vec<u8>> {
    let mut load = not_ip();
    for family in [Family::V4, Family::V6] {
        for who in [Source::A, Source::B, Source::C] {
            load.extend(ports(family.address(who), family));
        }
        load.extend(wrapped(family));
        load.extend(protocols(family));
    }
    load.extend(messages());
    load
}

/// Returns ARP frames, and frames of ethertypes that knockgate does not read, of all lengths.
fn not_ip() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for operation in 1..=4 {
        // Ethernet, IPv4, lengths of their addresses; then sender and target.
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
        arp.extend(LOAD_MAC);
        arp.extend([10, 77, 1, 2]);
        arp.extend([0; 6]);
        arp.extend([10, 77, 0, 1]);
        frames.push(ethernet([0xff; 6], [0x08, 0x06], &arp));
        frames.push(ethernet(HOST_MAC, [0x08, 0x06], &arp));
    }
    // LLDP, PPPoE, MPLS, MACsec, PTP, jumbo, 802.1X, the old type of QinQ; then 802.3 with LLC, as STP uses it.
    for ethertype in [
        0x88cc_u16, 0x8863, 0x8864, 0x8847, 0x8848, 0x88e5, 0x88f7, 0x8870, 0x888e, 0x9100, 0x0026,
    ] {
        frames.push(ethernet(HOST_MAC, ethertype.to_be_bytes(), &[0x42; 46]));
        frames.push(ethernet(
            [1, 0x80, 0xc2, 0, 0, 0],
            ethertype.to_be_bytes(),
            &[0x42; 46],
        ));
    }
    for length in [0, 1, 2, 45, 46, 47, 1499, 1500] {
        let body = vec![0x5a; length];
        frames.push(ethernet(HOST_MAC, [0x88, 0xcc], &body));
    }
    // Ethertypes of IP before packets of another version.
    frames.push(ethernet(HOST_MAC, [0x08, 0x00], &[0x65; 60]));
    frames.push(ethernet(HOST_MAC, [0x86, 0xdd], &[0x45; 60]));
    for tags in [&[[0x81, 0x00]][..], &[[0x88, 0xa8], [0x81, 0x00]]] {
        let mut body: Vec<u8> = Vec::new();
        for tag in &tags[1..] {
            body.extend([0, 7]);
            body.extend(tag);
        }
        body.extend([0, 7, 0x88, 0xcc]);
        body.extend([0x33; 46]);
        frames.push(ethernet(HOST_MAC, tags[0], &body));
    }
    frames
}

/// Returns packets of both transports to ports beside the protected ones, knock ports, open ports and others.
fn ports(source: IpAddr, family: Family) -> Vec<Vec<u8>> {
    let from = (source, 40_000);
    let mut packets = Vec::new();
    for port in [
        0, 1, 21, 23, 25, 53, 80, 443, 1234, 7000, 8443, 51819, 51821, 65535,
    ] {
        for host in [family.host(), family.other_host_address()] {
            for flags in [0, SYN, 0x10, 0x04, 0x01, 0x29, 0x12, 0xff] {
                packets.push(Packet::tcp(from, (host, port), flags));
            }
            for length in [0, 1, 100, 1400] {
                packets.push(Packet::udp(from, (host, port), &vec![0x77; length]));
                let segment = Packet::tcp(from, (host, port), 0x18);
                packets.push(segment.with_payload(&vec![0x77; length]));
            }
        }
    }
    // The numbers of protected ports with the other transport, and as source ports.
    packets.push(Packet::udp(from, (family.host(), 22), b"not tcp"));
    packets.push(Packet::tcp(from, (family.host(), 51820), SYN));
    packets.push(Packet::tcp((source, 22), (family.host(), 40_000), 0x12));
    packets.push(Packet::udp(
        (source, 51820),
        (family.host(), 40_000),
        b"back",
    ));
    packets.iter().map(frame).collect()
}

/// Returns packets with tags, options, extension headers and fragments, to a port that is not protected.
fn wrapped(family: Family) -> Vec<Vec<u8>> {
    let from = (family.address(Source::A), 40_000);
    let plain = Packet::udp(from, (family.host(), 53), &[0x44; 1200]).identified(77);
    let wrapped = match family {
        Family::V4 => plain.clone().with_options(&[7, 39, 4]),
        Family::V6 => plain
            .clone()
            .with_extension(Extension::HopByHop(0))
            .with_extension(Extension::Routing(0))
            .with_extension(Extension::DestinationOptions(4)),
    };
    let mut frames = Vec::new();
    for packet in [plain, wrapped] {
        frames.push(frame(&packet));
        frames.push(frame(&packet.clone().tagged(Tag::PRIORITY)));
        frames.push(frame(&packet.clone().tagged(Tag::vlan(7))));
        frames.push(frame(
            &packet.clone().tagged(Tag::service(5)).tagged(Tag::vlan(7)),
        ));
        frames.extend(packet.fragments(LOAD_MAC, HOST_MAC, &[600]));
        let cuts: Vec<usize> = (1..150).map(|piece| piece * 8).collect();
        frames.extend(packet.fragments(LOAD_MAC, HOST_MAC, &cuts));
        // A wrong checksum, and a byte of padding.
        let mut spoilt = frame(&packet);
        *spoilt.last_mut().expect("it has bytes") ^= 0xff;
        spoilt.push(0);
        frames.push(spoilt);
    }
    frames
}

/// Returns packets of every IP protocol that knockgate does not read: ICMP, IGMP, GRE, ESP, AH, SCTP, tunnels and all
/// others.
fn protocols(family: Family) -> Vec<Vec<u8>> {
    let read: &[u8] = match family {
        Family::V4 => &[6, 17],
        // Including extension headers, to which authentication belongs in IPv6, but not in IPv4.
        Family::V6 => &[0, 6, 17, 43, 44, 51, 60],
    };
    let (from, to) = (family.address(Source::A), family.host());
    let mut frames = Vec::new();
    for protocol in (0..=u8::MAX).filter(|protocol| !read.contains(protocol)) {
        // Bytes that would be port 22 and port 22.
        let packet = Packet::other(from, to, protocol, &[0, 22, 0, 22, 1, 2, 3, 4]);
        frames.push(frame(&packet));
        frames.push(frame(&packet.clone().with_options(&[1; 4])));
        frames.push(frame(&packet.clone().tagged(Tag::PRIORITY)));
        let long = Packet::other(from, to, protocol, &[0x66; 1000]);
        frames.extend(long.fragments(LOAD_MAC, HOST_MAC, &[8, 512]));
    }
    if family == Family::V6 {
        // AH over ESP, ICMPv6 and SCTP.
        for protocol in [50, 58, 132] {
            let packet = Packet::other(from, to, protocol, &[1; 40]);
            frames.push(frame(&packet.with_extension(Extension::Authentication(3))));
        }
    }
    frames
}

/// Returns ICMP messages of both families, including neighbour discovery, with correct checksums, and SCTP's first
/// message.
fn messages() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for kind in [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 15, 17] {
        let mut body = vec![kind, 0, 0, 0, 0, 1, 0, 1];
        body.extend([
            0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 0, 1, 10, 77, 1, 2,
        ]);
        body.extend([0, 22, 0x9c, 0x40, 0, 0, 0, 0]);
        let sum = netlab::packet::checksum(&body).to_be_bytes();
        body[2..4].copy_from_slice(&sum);
        let (from, to) = (Family::V4.address(Source::A), Family::V4.host());
        frames.push(frame(&Packet::other(from, to, 1, &body)));
    }
    let from = Family::V6.address(Source::A);
    let groups = ["fd77::1", "ff02::1", "ff02::2", "ff02::1:ff00:1"];
    for to in groups.map(|to| to.parse::<IpAddr>().expect("well-formed")) {
        for kind in [
            1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143,
        ] {
            let mut body = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            body.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            body.extend([1, 1]);
            body.extend(LOAD_MAC);
            frames.push(frame(&Packet::other(from, to, 58, &body)));
        }
    }
    for family in [Family::V4, Family::V6] {
        let init = [
            &[0x9c, 0x40, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20][..],
            &[0; 16],
        ]
        .concat();
        let (from, to) = (family.address(Source::A), family.host());
        frames.push(frame(&Packet::other(from, to, 132, &init)));
    }
    frames
}

fn frame(packet: &Packet) -> Vec<u8> {
    packet.frame(LOAD_MAC, HOST_MAC)
}

fn ethernet(to: [u8; 6], ethertype: [u8; 2], body: &[u8]) -> Vec<u8> {
    [&to[..], &LOAD_MAC, &ethertype, body].concat()
}
