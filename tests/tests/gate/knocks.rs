//! Which knocks open a gate: the last k probes of a source are the sequence, or it stays closed.

use std::net::{SocketAddr, UdpSocket};

use knockgate_tests::{
    attempt::Outcome,
    lab::{
        Family,
        Who::{self, A, B, C},
    },
    trial::{Attach, Trial},
};

use crate::{ALICE, SSH, behaviours};

/// Who knocks what, in the notation of [`Trial::knock`], and for whom 22/tcp is open then. It must be
/// closed for everyone else.
struct Row {
    gate: &'static str,
    knocks: &'static [(Who, &'static str)],
    open: &'static [Who],
}

impl Row {
    /// Both families knock at one gate, so that most of the time goes into what is tried.
    fn check(&self, attach: Attach) {
        Trial::run(attach, Family::V4, &[], |v4| {
            v4.up(self.gate);
            for trial in [v4, &v4.over(Family::V6)] {
                for (who, steps) in self.knocks {
                    trial.knock(*who, steps);
                }
                trial.expect_each("22/tcp", &[A, B, C].map(|who| (who, self.outcome(who))));
            }
        });
    }

    fn outcome(&self, who: Who) -> Outcome {
        if self.open.contains(&who) {
            Outcome::Open
        } else {
            Outcome::Silent
        }
    }
}

/// Makes two tests of each row: one for each way to attach.
macro_rules! rows {
    ($($row:ident: $gate:ident, [$($knock:expr),*] => $open:expr;)*) => {$(
        mod $row {
            use super::*;

            const ROW: Row = Row { gate: $gate, knocks: &[$($knock),*], open: &$open };

            #[test]
            fn native() {
                ROW.check(Attach::Native);
            }

            #[test]
            fn generic() {
                ROW.check(Attach::Generic);
            }
        }
    )*};
}

rows! {
    nobody_knocked: SSH, [] => [];
    the_sequence_opens_for_its_source_alone: SSH, [(A, ALICE)] => [A];
    all_knocks_over_tcp: TCP, [(A, "7000/tcp 8443/tcp 9301/tcp")] => [A];
    all_knocks_over_udp: UDP, [(A, "7000/udp 8443/udp 9301/udp")] => [A];
    two_knocks_are_enough_where_configured: TWO, [(A, "7000/udp 8443/tcp")] => [A];
    twelve_knocks: TWELVE, [(A, "7001/udp 7004/tcp 7002/udp 7009/tcp 7003/udp 7012/tcp \
        7005/udp 7011/tcp 7006/udp 7010/tcp 7007/udp 7008/tcp")] => [A];

    the_last_knock_is_missing: SSH, [(A, "7000/udp 8443/tcp")] => [];
    the_first_knock_is_missing: SSH, [(A, "8443/tcp 9301/udp")] => [];
    wrong_order: SSH, [(A, "8443/tcp 7000/udp 9301/udp")] => [];
    right_port_of_the_wrong_protocol: SSH, [(A, "7000/tcp 8443/tcp 9301/udp")] => [];
    first_knock_repeated: SSH, [(A, "7000/udp 7000/udp 8443/tcp 9301/udp")] => [A];
    middle_knock_repeated: SSH, [(A, "7000/udp 8443/tcp 8443/tcp 9301/udp")] => [A];
    each_knock_from_two_source_ports: SSH, [(A, "7000/udp 7000/udp 8443/tcp 8443/tcp 9301/udp \
        9301/udp")] => [A];
    first_knock_repeated_too_late: SSH, [(A, "7000/udp 8443/tcp 7000/udp 9301/udp")] => [];
    again_after_a_broken_run: SSH, [(A, "7000/udp 9301/udp"), (A, ALICE)] => [A];

    foreign_tcp_probe_inside: SSH, [(A, "7000/udp 1234/tcp 8443/tcp 9301/udp")] => [];
    foreign_udp_probe_inside: SSH, [(A, "7000/udp 8443/tcp 1234/udp 9301/udp")] => [];
    foreign_probe_before: SSH, [(A, "1234/tcp 7000/udp 8443/tcp 9301/udp")] => [A];
    foreign_probe_after: SSH, [(A, "7000/udp 8443/tcp 9301/udp 1234/tcp")] => [A];
    sweep_over_the_ports_in_order: SWEPT, [(A, "6999/udp 7000/udp 7001/udp 7002/udp 7003/udp")] => [];
    sweep_that_tries_each_port_twice: SWEPT, [(A, "7000/udp 7000/udp 7001/udp 7001/udp 7002/udp 7002/udp \
        7003/udp 7003/udp")] => [];
    sweep_backwards: SWEPT, [(A, "7003/udp 7002/udp 7001/udp 7000/udp 6999/udp")] => [];

    too_late: HASTY, [(A, "7000/udp 8443/tcp 6000ms 9301/udp")] => [];
    late_and_then_in_time: HASTY, [(A, "7000/udp 8443/tcp 6000ms 9301/udp"), (A, ALICE)] => [A];

    each_knock_arrives_twice: SSH, [(A, "7000/udp@4000 7000/udp@4000 8443/tcp@4001 8443/tcp@4001 \
        9301/udp@4002 9301/udp@4002")] => [A];
    an_earlier_knock_arrives_again: SSH,
        [(A, "7000/udp@4000 8443/tcp@4001 7000/udp@4000 9301/udp@4002")] => [A];
    a_duplicate_is_no_second_knock: DOUBLE, [(A, "7000/udp@4000 7000/udp@4000 9301/udp")] => [];
    a_second_knock_on_the_same_port: DOUBLE, [(A, "7000/udp 7000/udp 9301/udp")] => [A];
    a_sequence_that_overlaps_itself: DOUBLE, [(A, "7000/udp 7000/udp 7000/udp 9301/udp")] => [A];
    fixed_source_ports_can_knock_again: SSH, [
        (A, "7000/udp@4000 8443/tcp@4001 1234/udp@4003"),
        (A, "7000/udp@4000 8443/tcp@4001 9301/udp@4002")
    ] => [A];

    sources_knock_apart: SSH, [(A, "7000/udp"), (B, "8443/tcp"), (A, "9301/udp")] => [];
    sources_knock_at_the_same_time: SSH, [
        (A, "7000/udp"), (B, "7000/udp"), (B, "8443/tcp"), (A, "8443/tcp"), (A, "9301/udp")
    ] => [A];
    either_of_two_users: USERS, [(A, ALICE), (B, "7100/tcp 8543/udp 9401/tcp")] => [A, B];
    half_of_each_of_two_users: USERS, [(A, "7000/udp 8443/tcp 9401/tcp")] => [];
    a_knock_of_another_user_inside: USERS, [(A, "7000/udp 7100/tcp 8443/tcp 9301/udp")] => [];

    protected_and_open_ports_break_nothing: OPEN_PORTS, [(A, "7000/udp 22/tcp 80/tcp 8443/tcp \
        53/udp 9301/udp")] => [A];
    an_undeclared_port_breaks_even_if_it_listens: OPEN_PORTS,
        [(A, "7000/udp 25/tcp 8443/tcp 9301/udp")] => [];
    listening_ports_break_nothing_by_default: SSH,
        [(A, "7000/udp 25/tcp 80/tcp 8443/tcp 53/udp 9301/udp")] => [A];
}

behaviours! {
    a_conversation_of_the_hosts_breaks_nothing;
    a_datagram_to_a_socket_without_a_peer_breaks_the_run;
}

/// Between any two knocks come datagrams to a socket of the host's, such as a VPN has.
const CONVERSING: &str = "7000/udp 4500/udp@4600 8443/tcp 4500/udp@4600 4500/udp@4600 9301/udp";

fn a_conversation_of_the_hosts_breaks_nothing(trial: &Trial) {
    trial.up(OPEN_PORTS);
    let peer = SocketAddr::new(trial.family.address(A), 4600);
    let _socket = socket_of_the_host(trial, Some(peer));
    trial.knock(A, CONVERSING);
    trial.open(A, "22/tcp");
    // Its peer has no other way in.
    trial.knock(B, CONVERSING);
    trial.closed(B, "22/tcp");
}

fn a_datagram_to_a_socket_without_a_peer_breaks_the_run(trial: &Trial) {
    trial.up(OPEN_PORTS);
    let _socket = socket_of_the_host(trial, None);
    trial.knock(A, CONVERSING);
    trial.closed(A, "22/tcp");
}

/// A UDP socket of the gate's, connected to its peer where it has one.
fn socket_of_the_host(trial: &Trial, peer: Option<SocketAddr>) -> UdpSocket {
    let own = SocketAddr::new(trial.family.host(), 4500);
    trial.lab.gate.run(|| {
        let socket = UdpSocket::bind(own).expect("the port is free");
        if let Some(peer) = peer {
            socket.connect(peer).expect("the peer is on the network");
        }
        socket
    })
}

const TCP: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/tcp", "8443/tcp", "9301/tcp"]
within = "10s"
"#;

const UDP: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/udp", "9301/udp"]
within = "10s"
"#;

const TWO: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp"]
within = "10s"
"#;

const TWELVE: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7001/udp", "7004/tcp", "7002/udp", "7009/tcp", "7003/udp", "7012/tcp",
    "7005/udp", "7011/tcp", "7006/udp", "7010/tcp", "7007/udp", "7008/tcp"]
within = "10s"
"#;

const SWEPT: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "7002/udp"]
within = "10s"
[[gate.knock]]
user = "bob"
sequence = ["7003/udp", "7001/udp"]
within = "10s"
"#;

const HASTY: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
within = "5s"
"#;

const DOUBLE: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "7000/udp", "9301/udp"]
within = "10s"
"#;

const USERS: &str = r#"
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
within = "10s"
[[gate.knock]]
user = "bob"
sequence = ["7100/tcp", "8543/udp", "9401/tcp"]
within = "10s"
"#;

const OPEN_PORTS: &str = r#"
open_ports = ["80/tcp", "53/udp"]
[[gate]]
name = "ssh"
protect = ["22/tcp"]
open_for = "10m"
[[gate.knock]]
user = "alice"
sequence = ["7000/udp", "8443/tcp", "9301/udp"]
within = "10s"
"#;
