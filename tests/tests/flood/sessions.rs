//! Sessions: thousands of flows, forged and real, do not keep others from being remembered.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use knockgate_tests::{
    lab::{
        CLIENT_MAC, Family, HOST_MAC,
        Source::{A, B},
    },
    scenario::Attach,
    service::echoes,
    wire::Wire,
};
use netlab::packet::{ACK, Packet, SYN};
use serde_json::Value;

use crate::{client, config, scenario};

/// Connections that one source begins, each from another port.
const HALF_OPEN: u16 = 10_000;

#[test]
fn half_open_flows_native_v4() {
    half_open_flows_leave_room(Attach::Native, Family::V4);
}

#[test]
fn half_open_flows_generic_v6() {
    half_open_flows_leave_room(Attach::Generic, Family::V6);
}

#[test]
fn bogus_flows_native_v6() {
    bogus_flows_leave_room(Attach::Native, Family::V6);
}

#[test]
fn bogus_flows_generic_v4() {
    bogus_flows_leave_room(Attach::Generic, Family::V4);
}

#[test]
fn real_connections_native_v4() {
    real_connections_of_one_source_leave_room(Attach::Native, Family::V4);
}

#[test]
fn real_connections_generic_v6() {
    real_connections_of_one_source_leave_room(Attach::Generic, Family::V6);
}

#[test]
fn a_full_table_is_reported_native_v6() {
    a_full_table_is_reported(Attach::Native, Family::V6);
}

#[test]
fn a_full_table_is_reported_generic_v4() {
    a_full_table_is_reported(Attach::Generic, Family::V4);
}

/// A source with a grant begins ten times as many connections as the table has room for, and completes none;
/// then the session of another source still outlives its grant.
fn half_open_flows_leave_room(attach: Attach, family: Family) {
    forged_flows_leave_room(attach, family, &[SYN]);
}

/// The same, followed by segments that look like the end of a handshake and data.
fn bogus_flows_leave_room(attach: Attach, family: Family) {
    forged_flows_leave_room(attach, family, &[SYN, ACK, ACK]);
}

fn forged_flows_leave_room(attach: Attach, family: Family, packets: &[u8]) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.configure(&config(attach, 1024));
    scenario.lab.knockgate(&["up"]).exits(0);
    let source = client(family, 200, 1);
    let granted = source.to_string();
    let arguments = ["allow", &granted, "--gate", "ssh", "--for", "1h"];
    scenario.lab.knockgate(&arguments).exits(0);
    let flow = |number| packets.iter().map(move |flags| (number, *flags));
    let syns: Vec<Vec<u8>> = (0..HALF_OPEN)
        .flat_map(flow)
        .map(|(number, flags)| Packet::tcp((source, 10_000 + number), (family.host(), 22), flags))
        .map(|packet| packet.frame(CLIENT_MAC, HOST_MAC))
        .collect();
    let wire = Wire::open(&scenario.lab);
    for syns in syns.chunks(200) {
        wire.send(&scenario.lab, syns);
    }
    let half_open = scenario.lab.session_count();
    assert!(
        half_open > 900,
        "only {half_open} flows: the table was to be filled"
    );

    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    let mut connection = scenario.connected(B, 22);
    assert!(echoes(&mut connection, b"hello"));
    for syns in syns.chunks(200) {
        wire.send(&scenario.lab, syns);
    }
    scenario.ends(B);
    assert!(echoes(&mut connection, b"hello"));
    let other = family.address(B).to_string();
    let is_of_other = |flow: &Value| {
        let source = flow["source"].as_str();
        source.is_some_and(|source| source.contains(&other))
    };
    let stays = scenario.lab.list("sessions").iter().any(is_of_other);
    assert!(stays, "the connection goes on, and is no session");
}

/// A source with a grant establishes more connections than there is room for; then the session of another source still
/// outlives its grant.
fn real_connections_of_one_source_leave_room(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.configure(&config(attach, 64));
    scenario.lab.knockgate(&["up"]).exits(0);
    scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
    let mut connections: Vec<TcpStream> = (0..100).map(|_| scenario.connected(A, 22)).collect();
    for connection in &mut connections {
        assert!(echoes(connection, b"hello"));
    }
    assert_eq!(scenario.lab.session_count(), 64, "the table is full");
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    let mut other = scenario.connected(B, 22);
    assert!(echoes(&mut other, b"hello"));
    connections.extend((0..100).map(|_| scenario.connected(A, 22)));
    scenario.ends(B);
    assert!(echoes(&mut other, b"hello"));
}

/// A connection that finds the table full passes only while its grant lasts, and an event reports it.
fn a_full_table_is_reported(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.configure(&config(attach, 1));
    scenario.lab.knockgate(&["up"]).exits(0);
    scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
    let mut first = scenario.connected(A, 22);
    assert!(echoes(&mut first, b"hello"));
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    let mut second = scenario.connected(B, 22);
    assert!(echoes(&mut second, b"hello"));
    let events = scenario.lab.events();
    let refused = events
        .iter()
        .filter(|event| event["event"] == "session.refused");
    let refused: Vec<_> = refused.collect();
    // Its SYN is refused again if the answer is so late that it is sent again.
    assert!(!refused.is_empty(), "{events:?}");
    for refused in refused {
        assert_eq!(refused["reason"], "table_full");
        assert_eq!(refused["gate"], "ssh");
        assert_eq!(refused["source"], family.address(B).to_string());
    }
    scenario.ends(B);
    second
        .write_all(b"anyone?")
        .expect("the local stack takes it");
    second
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a live socket");
    let answer = second.read(&mut [0; 16]);
    assert!(answer.is_err(), "it outlived its grant: {answer:?}");
    assert!(echoes(&mut first, b"hello"));
}
