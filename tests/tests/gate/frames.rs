//! Knocks and attempts as no honest client sends them: tagged, with options, in fragments.

use std::{net::UdpSocket, time::Duration};

use knockgate_tests::{
    lab::{
        CLIENT_MAC, Family, GATE_MAC,
        Who::{self, A},
    },
    run::wait_until,
    trial::Trial,
    wire,
};
use netlab::packet::{ACK, Extension, FIN, Packet, RST, SYN, Tag};

use crate::{SSH, behaviours};

behaviours! {
    plain_frames_knock;
    knocks_in_a_vlan;
    knocks_in_two_vlans;
    knocks_with_a_priority_tag;
    knocks_with_options_or_extension_headers;
    segments_that_are_no_syn_are_no_probes;
    every_wrapping_reaches_the_host_without_a_gate;
    no_wrapping_reaches_the_host_past_the_gate;
    whatever_the_flags_and_tags_it_is_counted_as_denied;
    a_cut_short_header_is_malformed;
}

fn plain_frames_knock(trial: &Trial) {
    assert_knocks_open(trial, |packet| packet);
}

fn knocks_in_a_vlan(trial: &Trial) {
    assert_knocks_open(trial, |packet| packet.tagged(Tag::vlan(7)));
}

fn knocks_in_two_vlans(trial: &Trial) {
    assert_knocks_open(trial, |packet| {
        packet.tagged(Tag::service(5)).tagged(Tag::vlan(7))
    });
}

fn knocks_with_a_priority_tag(trial: &Trial) {
    assert_knocks_open(trial, |packet| packet.tagged(Tag::PRIORITY));
}

fn knocks_with_options_or_extension_headers(trial: &Trial) {
    assert_knocks_open(trial, |packet| wrapped(trial, packet));
}

/// Between the knocks, and without breaking the run: what stateless scanners and dying connections send.
fn segments_that_are_no_syn_are_no_probes(trial: &Trial) {
    trial.up(SSH);
    let mut frames = Vec::new();
    for knock in knocks(trial) {
        for flags in [ACK, RST, FIN, SYN | ACK, SYN | RST, SYN | FIN, 0] {
            frames.push(frame(&tcp(trial, A, 1234, flags)));
            frames.push(frame(&tcp(trial, A, 8443, flags)));
        }
        frames.push(frame(&knock));
    }
    wire::send(&trial.lab, &frames);
    trial.open(A, "22/tcp");
}

/// Proves of the next row's datagrams that each of them is one that a host would take.
fn every_wrapping_reaches_the_host_without_a_gate(trial: &Trial) {
    for (what, answered) in wrapped_datagrams(trial, Duration::from_mins(1)) {
        assert!(answered, "{what}: no answer");
    }
}

fn no_wrapping_reaches_the_host_past_the_gate(trial: &Trial) {
    trial.up(&SSH.replace("22/tcp", "51820/udp"));
    for (what, answered) in wrapped_datagrams(trial, Duration::from_millis(300)) {
        assert!(!answered, "{what}: answered");
    }
}

fn whatever_the_flags_and_tags_it_is_counted_as_denied(trial: &Trial) {
    trial.up(SSH);
    let attempts = [
        tcp(trial, A, 22, SYN),
        tcp(trial, A, 22, ACK),
        tcp(trial, A, 22, SYN | FIN),
        tcp(trial, A, 22, 0),
        tcp(trial, A, 22, SYN).tagged(Tag::PRIORITY),
        tcp(trial, A, 22, SYN)
            .tagged(Tag::service(5))
            .tagged(Tag::vlan(7)),
        wrapped(trial, tcp(trial, A, 22, SYN)),
    ];
    let frames: Vec<Vec<u8>> = attempts.iter().map(frame).collect();
    assert_denies(trial, "no_grant", &frames);
}

/// A first fragment without the whole header, a frame that ends before the port, more tags than are read.
fn a_cut_short_header_is_malformed(trial: &Trial) {
    trial.up(SSH);
    let syn = tcp(trial, A, 22, SYN);
    let fragments = syn.fragments(CLIENT_MAC, GATE_MAC, &[8]);
    let whole = frame(&syn);
    let tagged = (0..3).fold(syn, |packet, _| packet.tagged(Tag::vlan(7)));
    let frames = [
        fragments[0].clone(),
        whole[..whole.len() - 18].to_vec(),
        frame(&tagged),
    ];
    assert_denies(trial, "malformed", &frames);
}

/// Brings the gate up, sends the knocks as `wrap` leaves them, and expects the port to open.
fn assert_knocks_open(trial: &Trial, wrap: impl Fn(Packet) -> Packet) {
    trial.up(SSH);
    let frames: Vec<Vec<u8>> = knocks(trial)
        .into_iter()
        .map(|knock| frame(&wrap(knock)))
        .collect();
    wire::send(&trial.lab, &frames);
    trial.open(A, "22/tcp");
}

fn knocks(trial: &Trial) -> [Packet; 3] {
    [
        udp(trial, A, 7000),
        tcp(trial, A, 8443, SYN),
        udp(trial, A, 9301),
    ]
}

/// Sends a datagram to 51820/udp in each of the ways that a host undoes, and says which were answered.
fn wrapped_datagrams(trial: &Trial, wait: Duration) -> Vec<(&'static str, bool)> {
    let answered = |frames: &dyn Fn(Packet) -> Vec<Vec<u8>>| {
        let source = trial.source(A);
        let to = (trial.family.host(), 51820);
        let datagram = Packet::udp((source.ip(), source.port()), to, &[7; 32]);
        let socket = trial.lab.client.run(|| UdpSocket::bind(source));
        let socket = socket.expect("the port is the trial's own");
        socket
            .set_read_timeout(Some(wait))
            .expect("a live socket takes a timeout");
        wire::send(&trial.lab, &frames(datagram));
        socket.recv(&mut [0; 64]).is_ok()
    };
    let whole = |packet: Packet| vec![frame(&packet)];
    let pieces = |packet: Packet| packet.fragments(CLIENT_MAC, GATE_MAC, &[8, 24]);
    vec![
        ("plain", answered(&whole)),
        (
            "priority tag",
            answered(&|packet| whole(packet.tagged(Tag::PRIORITY))),
        ),
        (
            "options or extension headers",
            answered(&|packet| whole(wrapped(trial, packet))),
        ),
        ("fragments", answered(&pieces)),
        (
            "fragments of both",
            answered(&|packet| pieces(wrapped(trial, packet))),
        ),
        (
            "fragments, the last first",
            answered(&|packet| pieces(packet).into_iter().rev().collect()),
        ),
    ]
}

/// IPv4 options, or the extension headers that a host reads through.
fn wrapped(trial: &Trial, packet: Packet) -> Packet {
    match trial.family {
        // Three times "no operation", then the end of the list.
        Family::V4 => packet.with_options(&[1, 1, 1]),
        Family::V6 => packet
            .with_extension(Extension::HopByHop(0))
            .with_extension(Extension::Routing(0))
            .with_extension(Extension::DestinationOptions(2)),
    }
}

fn tcp(trial: &Trial, who: Who, port: u16, flags: u8) -> Packet {
    let source = trial.source(who);
    Packet::tcp(
        (source.ip(), source.port()),
        (trial.family.host(), port),
        flags,
    )
}

fn udp(trial: &Trial, who: Who, port: u16) -> Packet {
    let source = trial.source(who);
    Packet::udp(
        (source.ip(), source.port()),
        (trial.family.host(), port),
        b"",
    )
}

fn frame(packet: &Packet) -> Vec<u8> {
    packet.frame(CLIENT_MAC, GATE_MAC)
}

/// Sends the frames and expects every one of them to be counted as denied for this reason.
#[track_caller]
fn assert_denies(trial: &Trial, reason: &str, frames: &[Vec<u8>]) {
    let before = denied(trial, reason);
    wire::send(&trial.lab, frames);
    let expected = frames.len() as u64;
    wait_until("the frames are counted", || {
        denied(trial, reason) - before >= expected
    });
    assert_eq!(
        denied(trial, reason) - before,
        expected,
        "counted as {reason}"
    );
}

/// How many packets have been denied for this reason.
fn denied(trial: &Trial, reason: &str) -> u64 {
    let stats = trial.knockgate("stats --json").exits(0).json();
    let rows = stats["packets"].as_array().expect("packets is a list");
    rows.iter()
        .filter(|row| row["verdict"] == "deny" && row["reason"] == reason)
        .filter_map(|row| row["packets"].as_u64())
        .sum()
}
