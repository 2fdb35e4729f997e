//! Knocks and attempts in unusual frames: with tags, options, extension headers, or in fragments.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use knockgate_tests::{
    gate_config::Gate,
    lab::{
        CLIENT_MAC, Family, HOST_MAC,
        Source::{self, A},
    },
    run::wait_until,
    scenario::Scenario,
    wire::{self, frame},
};
use netlab::packet::{ACK, Extension, FIN, Packet, RST, SYN, Tag};

use crate::behaviours;

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

fn plain_frames_knock(scenario: &Scenario) {
    assert_knocks_open(scenario, |packet| packet);
}

fn knocks_in_a_vlan(scenario: &Scenario) {
    assert_knocks_open(scenario, |packet| packet.tagged(Tag::vlan(7)));
}

fn knocks_in_two_vlans(scenario: &Scenario) {
    assert_knocks_open(scenario, |packet| {
        packet.tagged(Tag::service(5)).tagged(Tag::vlan(7))
    });
}

fn knocks_with_a_priority_tag(scenario: &Scenario) {
    assert_knocks_open(scenario, |packet| packet.tagged(Tag::PRIORITY));
}

fn knocks_with_options_or_extension_headers(scenario: &Scenario) {
    assert_knocks_open(scenario, |packet| wrapped(scenario, packet));
}

/// Segments of scanners and of closing connections between the knocks do not break the run.
fn segments_that_are_no_syn_are_no_probes(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    let mut frames = Vec::new();
    for knock in knocks(scenario) {
        for flags in [ACK, RST, FIN, SYN | ACK, SYN | RST, SYN | FIN, 0] {
            frames.push(frame(&tcp(scenario, A, 1234, flags)));
            frames.push(frame(&tcp(scenario, A, 8443, flags)));
        }
        frames.push(frame(&knock));
    }
    wire::send(&scenario.lab, &frames);
    scenario.open(A, "22/tcp");
}

/// Shows that a host accepts each of the datagrams in the next row.
fn every_wrapping_reaches_the_host_without_a_gate(scenario: &Scenario) {
    for (what, answered) in wrapped_datagrams(scenario, Duration::from_mins(1)) {
        assert!(answered, "{what}: no answer");
    }
}

fn no_wrapping_reaches_the_host_past_the_gate(scenario: &Scenario) {
    scenario.up(Gate::ssh().protect("51820/udp"));
    for (what, answered) in wrapped_datagrams(scenario, Duration::from_millis(300)) {
        assert!(!answered, "{what}: answered");
    }
}

fn whatever_the_flags_and_tags_it_is_counted_as_denied(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    let attempts = [
        tcp(scenario, A, 22, SYN),
        tcp(scenario, A, 22, ACK),
        tcp(scenario, A, 22, SYN | FIN),
        tcp(scenario, A, 22, 0),
        tcp(scenario, A, 22, SYN).tagged(Tag::PRIORITY),
        tcp(scenario, A, 22, SYN)
            .tagged(Tag::service(5))
            .tagged(Tag::vlan(7)),
        wrapped(scenario, tcp(scenario, A, 22, SYN)),
    ];
    let frames: Vec<Vec<u8>> = attempts.iter().map(frame).collect();
    assert_denies(scenario, "no_grant", &frames);
}

/// A first fragment without the whole header, a frame that ends before the port, and more tags than are read.
fn a_cut_short_header_is_malformed(scenario: &Scenario) {
    scenario.up(Gate::ssh());
    let syn = tcp(scenario, A, 22, SYN);
    let fragments = syn.fragments(CLIENT_MAC, HOST_MAC, &[8]);
    let whole = frame(&syn);
    let tagged = (0..3).fold(syn, |packet, _| packet.tagged(Tag::vlan(7)));
    let frames = [
        fragments[0].clone(),
        whole[..whole.len() - 18].to_vec(),
        frame(&tagged),
    ];
    assert_denies(scenario, "malformed", &frames);
}

/// Brings an instance up, sends knocks changed by `wrap`, and expects the port to open.
fn assert_knocks_open(scenario: &Scenario, wrap: impl Fn(Packet) -> Packet) {
    scenario.up(Gate::ssh());
    let frames: Vec<Vec<u8>> = knocks(scenario)
        .into_iter()
        .map(|knock| frame(&wrap(knock)))
        .collect();
    wire::send(&scenario.lab, &frames);
    scenario.open(A, "22/tcp");
}

fn knocks(scenario: &Scenario) -> [Packet; 3] {
    [
        udp(scenario, A, 7000),
        tcp(scenario, A, 8443, SYN),
        udp(scenario, A, 9301),
    ]
}

/// Puts a packet into frames.
type InFrames<'f> = &'f dyn Fn(Packet) -> Vec<Vec<u8>>;

/// Sends a datagram to 51820/udp in each form that a host accepts. Returns which were answered within `wait`.
fn wrapped_datagrams(scenario: &Scenario, wait: Duration) -> Vec<(&'static str, bool)> {
    let whole = |packet: Packet| vec![frame(&packet)];
    let pieces = |packet: Packet| packet.fragments(CLIENT_MAC, HOST_MAC, &[8, 24]);
    let forms: [(&str, InFrames<'_>); 6] = [
        ("plain", &whole),
        ("priority tag", &|packet| {
            whole(packet.tagged(Tag::PRIORITY))
        }),
        ("options or extension headers", &|packet| {
            whole(wrapped(scenario, packet))
        }),
        ("fragments", &pieces),
        ("fragments of both", &|packet| {
            pieces(wrapped(scenario, packet))
        }),
        ("fragments, the last first", &|packet| {
            pieces(packet).into_iter().rev().collect()
        }),
    ];
    let forms = forms.into_iter().zip(1..);
    forms
        .map(|((what, frames), number)| (what, answered(scenario, wait, number, frames)))
        .collect()
}

/// Sends a datagram in these frames, again each second, since a busy kernel may drop any. Returns whether it was answered. `number` is
/// what the datagram contains, which tells its answer from a late one.
fn answered(scenario: &Scenario, wait: Duration, number: u8, frames: InFrames<'_>) -> bool {
    let source = scenario.source(A);
    let to = (scenario.family.host(), 51820);
    let content = [number; 32];
    let frames = frames(Packet::udp((source.ip(), source.port()), to, &content));
    let socket = scenario.lab.client.run(|| UdpSocket::bind(source));
    let socket = socket.expect("the port is the scenario's own");
    let pause = wait.min(Duration::from_secs(1));
    let timeout = socket.set_read_timeout(Some(pause));
    timeout.expect("a live socket takes a timeout");
    let begun = Instant::now();
    while begun.elapsed() < wait {
        wire::send(&scenario.lab, &frames);
        let mut answer = [0; 64];
        while let Ok(length) = socket.recv(&mut answer) {
            if answer[..length] == content {
                return true;
            }
        }
    }
    false
}

/// Adds IPv4 options, or extension headers that a host skips.
fn wrapped(scenario: &Scenario, packet: Packet) -> Packet {
    match scenario.family {
        // Three times "no operation", then the end of the list.
        Family::V4 => packet.with_options(&[1, 1, 1]),
        Family::V6 => packet
            .with_extension(Extension::HopByHop(0))
            .with_extension(Extension::Routing(0))
            .with_extension(Extension::DestinationOptions(2)),
    }
}

fn tcp(scenario: &Scenario, who: Source, port: u16, flags: u8) -> Packet {
    let source = scenario.source(who);
    Packet::tcp(
        (source.ip(), source.port()),
        (scenario.family.host(), port),
        flags,
    )
}

fn udp(scenario: &Scenario, who: Source, port: u16) -> Packet {
    let source = scenario.source(who);
    Packet::udp(
        (source.ip(), source.port()),
        (scenario.family.host(), port),
        b"",
    )
}

/// Sends frames, and expects every one of them to be counted as denied for this reason.
#[track_caller]
fn assert_denies(scenario: &Scenario, reason: &str, frames: &[Vec<u8>]) {
    let denied = || scenario.lab.stats().denied(reason);
    let before = denied();
    wire::send(&scenario.lab, frames);
    let expected = frames.len() as u64;
    wait_until("the frames are counted", || denied() - before >= expected);
    assert_eq!(denied() - before, expected, "counted as {reason}");
}
