//! How flows that began under a grant end: with it, by themselves, and not by anyone else's doing.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use knockgate_tests::{
    lab::{CLIENT_MAC, GATE_MAC, Who::A},
    packet::{ACK, FIN, Packet, RST},
    raw,
    run::{given_time, wait_until},
    trial::Trial,
};

use crate::{
    ALICE, behaviours,
    grants::{assert_cut, assert_echo, echoes, short},
};

behaviours! {
    cut_flows_end_with_their_grant;
    what_is_forged_ends_no_session;
    a_session_ends_when_both_sides_have_closed;
    a_session_ends_when_the_host_is_reset;
    a_half_closed_session_goes_on;
    a_session_ends_when_it_is_idle;
}

fn cut_flows_end_with_their_grant(trial: &Trial) {
    trial.up(&short("1h", "established = \"cut\"\nconnections = 1"));
    trial.knock(A, ALICE);
    let mut stream = trial.connected(A, 22);
    assert_echo(&mut stream, b"under the grant");
    assert_eq!(sessions(trial), 0, "nothing is remembered");
    // The one connection is used up, so what closes is the grant and not the port alone.
    trial.closed(A, "22/tcp");
    trial.ends(A);
    assert_cut(&mut stream);
}

/// Someone who knows both ends, and not where the sequence numbers are.
fn what_is_forged_ends_no_session(trial: &Trial) {
    trial.up(&short("1h", ""));
    trial.knock(A, ALICE);
    let mut stream = trial.connected(A, 22);
    assert_echo(&mut stream, b"under the grant");
    let forged = [RST, RST | ACK, FIN, FIN | ACK, FIN | RST].map(|flags| frame(&stream, flags));
    raw::send(&trial.lab, &forged);
    trial.ends(A);
    assert_echo(&mut stream, b"after it");
    raw::send(&trial.lab, &forged);
    assert_echo(&mut stream, b"and still");
    assert_eq!(sessions(trial), 1, "the flow is listed");
}

fn a_session_ends_when_both_sides_have_closed(trial: &Trial) {
    // The echo closes too, once it has read to the end.
    assert_ends(trial, drop);
}

fn a_session_ends_when_the_host_is_reset(trial: &Trial) {
    assert_ends(trial, |stream| {
        // Closed so, a socket sends a reset in place of a FIN.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a live socket takes options");
    });
}

/// Ends a connection that has outlived its grant, and expects nothing of its flow to pass any more.
fn assert_ends(trial: &Trial, end: impl FnOnce(TcpStream)) {
    trial.up(&short("1h", ""));
    trial.knock(A, ALICE);
    let mut stream = trial.connected(A, 22);
    assert_echo(&mut stream, b"under the grant");
    let late = frame(&stream, ACK);
    trial.ends(A);
    assert_eq!(sessions(trial), 1, "the flow goes on");
    end(stream);
    wait_until("no session is listed", || sessions(trial) == 0);
    assert_denied(trial, late);
}

/// Whoever sends to an end and then waits for the answer, which takes its time.
fn a_half_closed_session_goes_on(trial: &Trial) {
    trial.up(&short("1h", ""));
    trial.knock(A, ALICE);
    let mut stream = trial.connected(A, 22);
    trial.ends(A);
    // More than the host's send buffer takes, so that it can't close before the client has read.
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

fn a_session_ends_when_it_is_idle(trial: &Trial) {
    given_time(Duration::from_secs(2), |idle| {
        let keys = format!("session_idle = \"{}s\"", idle.as_secs());
        trial.up(&short("1h", &keys));
        trial.knock(A, ALICE);
        let mut stream = trial.connected(A, 22);
        let begun = Instant::now();
        let first = echoes(&mut stream, b"under the grant");
        trial.ends(A);
        let second = echoes(&mut stream, b"after it");
        if begun.elapsed() >= idle {
            trial.knockgate("down").exits(0);
            return false;
        }
        assert_eq!(
            [first, second],
            [true; 2],
            "it goes on while it is not idle"
        );
        thread::sleep(idle + Duration::from_millis(200));
        assert_cut(&mut stream);
        assert_eq!(sessions(trial), 0, "the flow has ended");
        true
    });
}

/// A segment from a stream's client to its host, with these flags and numbers that fit nothing.
fn frame(stream: &TcpStream, flags: u8) -> Vec<u8> {
    let ends = |address: SocketAddr| (address.ip(), address.port());
    let local = stream.local_addr().expect("a connected socket");
    let peer = stream.peer_addr().expect("a connected socket");
    Packet::tcp(ends(local), ends(peer), flags).frame(CLIENT_MAC, GATE_MAC)
}

fn sessions(trial: &Trial) -> usize {
    let sessions = trial.knockgate("sessions --json").exits(0).json();
    sessions["sessions"].as_array().expect("a list").len()
}

/// Sends a frame and expects it to be denied, since its source has nothing any more.
#[track_caller]
fn assert_denied(trial: &Trial, frame: Vec<u8>) {
    let denied = || {
        let stats = trial.knockgate("stats --json").exits(0).json();
        let rows = stats["packets"].as_array().expect("a list");
        rows.iter()
            .filter(|row| row["reason"] == "no_grant")
            .filter_map(|row| row["packets"].as_u64())
            .sum::<u64>()
    };
    let before = denied();
    raw::send(&trial.lab, &[frame]);
    wait_until("the packet is denied", || denied() > before);
}
