//! How flows that began under a grant end: with the grant, or by themselves, but not by forged packets.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use knockgate_tests::{
    gate_config::ALICE,
    lab::{CLIENT_MAC, Family, HOST_MAC, Source::A},
    run::{given_time, wait_until},
    scenario::Scenario,
    service::echoes,
    wire,
};
use netlab::packet::{ACK, FIN, Packet, RST, SYN};

use crate::{
    behaviours,
    behind::Behind,
    grants::{assert_cut, assert_echo, short},
};

behaviours! {
    cut_flows_end_with_their_grant;
    what_is_forged_ends_no_session;
    a_session_ends_when_both_sides_have_closed;
    a_session_ends_when_the_host_is_reset;
    a_half_closed_session_goes_on;
    a_session_ends_when_it_is_idle;
    a_connection_on_the_ports_of_an_old_one_is_new;
    flows_to_foreign_addresses_are_not_remembered;
    a_forwarded_session_outlives_its_grant;
    a_session_with_a_network_of_this_host_outlives_its_grant;
}

fn cut_flows_end_with_their_grant(scenario: &Scenario) {
    scenario.up(short("1h", "established = \"cut\"\nconnections = 1"));
    scenario.knock(A, ALICE);
    let mut stream = scenario.connected(A, 22);
    assert_echo(&mut stream, b"under the grant");
    assert!(
        scenario.lab.list("sessions").is_empty(),
        "it does not go on"
    );
    // But it has a place in the table, for its connection to be counted once.
    let status = scenario.knockgate("status --json").exits(0).json();
    assert_eq!(status["tables"][2]["name"], "sessions");
    assert_eq!(status["tables"][2]["used"], 1);
    // The grant's only connection is used up, so the port is closed to new ones already.
    scenario.closed(A, "22/tcp");
    scenario.ends(A);
    assert_cut(&mut stream);
}

/// The attacker knows addresses and ports, but not the sequence numbers.
fn what_is_forged_ends_no_session(scenario: &Scenario) {
    scenario.up(short("1h", ""));
    scenario.knock(A, ALICE);
    let mut stream = scenario.connected(A, 22);
    assert_echo(&mut stream, b"under the grant");
    let forged = [RST, RST | ACK, FIN, FIN | ACK, FIN | RST].map(|flags| frame(&stream, flags));
    wire::send(&scenario.lab, &forged);
    scenario.ends(A);
    assert_echo(&mut stream, b"after it");
    wire::send(&scenario.lab, &forged);
    assert_echo(&mut stream, b"and still");
    assert_eq!(scenario.lab.session_count(), 1, "the flow is listed");
}

fn a_session_ends_when_both_sides_have_closed(scenario: &Scenario) {
    // The echo service closes its side too, at the end of its input.
    assert_ends(scenario, drop);
}

fn a_session_ends_when_the_host_is_reset(scenario: &Scenario) {
    assert_ends(scenario, |stream| {
        // A socket that is closed like this sends a reset in place of a FIN.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a live socket takes options");
    });
}

/// Ends a connection that has outlived its grant, and expects later packets of the flow to be denied.
fn assert_ends(scenario: &Scenario, end: impl FnOnce(TcpStream)) {
    scenario.up(short("1h", ""));
    scenario.knock(A, ALICE);
    let mut stream = scenario.connected(A, 22);
    assert_echo(&mut stream, b"under the grant");
    let late = frame(&stream, ACK);
    scenario.ends(A);
    assert_eq!(scenario.lab.session_count(), 1, "the flow goes on");
    end(stream);
    wait_until("no session is listed", || scenario.lab.session_count() == 0);
    assert_denied(scenario, late);
}

/// A client that closes its sending side and then waits for a slow answer.
fn a_half_closed_session_goes_on(scenario: &Scenario) {
    scenario.up(short("1h", ""));
    scenario.knock(A, ALICE);
    let mut stream = scenario.connected(A, 22);
    scenario.ends(A);
    // More than the host's send buffer takes, so that it cannot close before the client has read.
    let sent = vec![7; 8 << 20];
    let mut received = Vec::new();
    let mut reader = stream.try_clone().expect("a live socket");
    thread::scope(|scope| {
        scope.spawn(|| {
            stream.write_all(&sent).expect("the connection takes bytes");
            stream.shutdown(Shutdown::Write).expect("a live socket");
        });
        thread::sleep(Duration::from_millis(500));
        reader
            .read_to_end(&mut received)
            .expect("the other half goes on");
    });
    assert_eq!(received.len(), sent.len(), "everything came back");
}

/// Closes a connection, and waits until the host has closed its side too: the next `up` makes sessions of connections that are open.
fn close_both_sides(stream: &mut TcpStream) {
    stream.shutdown(Shutdown::Write).expect("a live socket");
    stream.set_read_timeout(None).expect("a live socket");
    let ended = stream.read_to_end(&mut Vec::new());
    ended.expect("no gate is up that could cut it");
}

fn a_session_ends_when_it_is_idle(scenario: &Scenario) {
    given_time(Duration::from_secs(2), |idle| {
        let keys = format!("session_idle = \"{}s\"", idle.as_secs());
        scenario.up(short("1h", &keys));
        scenario.knock(A, ALICE);
        let mut stream = scenario.connected(A, 22);
        let begun = Instant::now();
        let first = echoes(&mut stream, b"under the grant");
        scenario.ends(A);
        let second = echoes(&mut stream, b"after it");
        // Its slot does not say whether it has been idle for so short a time.
        let listed = scenario.lab.session_count();
        if begun.elapsed() >= idle {
            scenario.knockgate("down").exits(0);
            close_both_sides(&mut stream);
            return false;
        }
        assert_eq!(
            [first, second],
            [true; 2],
            "it goes on while it is not idle"
        );
        assert_eq!(listed, 1, "the flow is listed");
        thread::sleep(idle + Duration::from_millis(200));
        assert_cut(&mut stream);
        assert_eq!(scenario.lab.session_count(), 0, "the flow has ended");
        // The next family may begin with another time, and so with another `up`.
        scenario.knockgate("down").exits(0);
        close_both_sides(&mut stream);
        true
    });
}

/// Even if its sequence number is the same.
fn a_connection_on_the_ports_of_an_old_one_is_new(scenario: &Scenario) {
    scenario.up(short("1m", "connections = 1"));
    scenario.knock(A, ALICE);
    let (from, host) = (scenario.source(A), scenario.family.host());
    let syn = Packet::tcp((from.ip(), from.port()), (host, 22), SYN).frame(CLIENT_MAC, HOST_MAC);
    let before = scenario.lab.stats().packets("grant");
    wire::send(&scenario.lab, std::slice::from_ref(&syn));
    // The client's kernel has no such connection, and sends a reset when the host answers.
    wait_until("the reset has passed", || {
        scenario.lab.stats().packets("grant") - before >= 2
    });
    for _ in 0..5 {
        assert_counted(scenario, "used_up", syn.clone());
    }
}

fn flows_to_foreign_addresses_are_not_remembered(scenario: &Scenario) {
    scenario.up(short("1m", ""));
    scenario.knock(A, ALICE);
    let from = scenario.source(A);
    let foreign: IpAddr = match scenario.family {
        Family::V4 => [10, 77, 0, 77].into(),
        Family::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, 0x77].into(),
    };
    let syn = Packet::tcp((from.ip(), from.port()), (foreign, 22), SYN);
    assert_counted(scenario, "grant", syn.frame(CLIENT_MAC, HOST_MAC));
    assert_eq!(scenario.lab.session_count(), 0, "it is not this host's");
    let other = scenario.family.other_host_address();
    let connected = scenario.connect(A, other, 22, Duration::from_secs(20));
    let _stream = connected.expect("the gate is open");
    assert_eq!(scenario.lab.session_count(), 1);
}

/// A flow to another host, to which the guarded host forwards and for which it has no socket.
fn a_forwarded_session_outlives_its_grant(scenario: &Scenario) {
    let behind = Behind::of(scenario);
    scenario.up(short("1h", ""));
    scenario.knock(A, ALICE);
    let mut stream = behind
        .connect(scenario)
        .expect("the gate is open and the host forwards");
    assert_echo(&mut stream, b"under the grant");
    assert_eq!(scenario.lab.session_count(), 1, "the flow is listed");
    scenario.ends(A);
    assert_echo(&mut stream, b"after it");
}

/// The table of addresses does not have where the flow goes.
fn a_session_with_a_network_of_this_host_outlives_its_grant(scenario: &Scenario) {
    let there = scenario.lab.route_to_host(scenario.family);
    scenario.up(short("1h", ""));
    scenario.knock(A, ALICE);
    let connected = scenario.connect(A, there, 22, Duration::from_secs(20));
    let mut stream = connected.expect("the gate is open");
    assert_echo(&mut stream, b"under the grant");
    assert_eq!(scenario.lab.session_count(), 1, "the flow is listed");
    scenario.ends(A);
    assert_echo(&mut stream, b"after it");
}

/// Returns a segment from a stream's client to its host, with these flags and wrong sequence numbers.
fn frame(stream: &TcpStream, flags: u8) -> Vec<u8> {
    let ends = |address: SocketAddr| (address.ip(), address.port());
    let local = stream.local_addr().expect("a connected socket");
    let peer = stream.peer_addr().expect("a connected socket");
    Packet::tcp(ends(local), ends(peer), flags).frame(CLIENT_MAC, HOST_MAC)
}

/// Sends a frame, and expects it to be denied because its source has no grant any more.
#[track_caller]
fn assert_denied(scenario: &Scenario, frame: Vec<u8>) {
    assert_counted(scenario, "no_grant", frame);
}

/// Sends a frame, and expects it to be counted under this reason.
#[track_caller]
fn assert_counted(scenario: &Scenario, reason: &str, frame: Vec<u8>) {
    let packets = || scenario.lab.stats().packets(reason);
    let before = packets();
    wire::send(&scenario.lab, &[frame]);
    wait_until("the packet is counted", || packets() > before);
}
