//! Which knocks open a gate: the last k probes of a source are the sequence, or it stays closed.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
};

use knockgate_tests::{
    attempt::Outcome,
    gate_config::{ALICE, BOB, Gate},
    lab::{
        Family,
        Source::{self, A, B, C},
    },
    scenario::{Attach, Scenario},
};

use crate::behaviours;

/// A row: the knocks of each source, in the notation of [`Scenario::knock`], and the sources to which 22/tcp is open
/// afterwards. It must be closed to all others.
struct Row {
    what: &'static str,
    knocks: &'static [(Source, &'static str)],
    open: &'static [Source],
}

const fn row(
    what: &'static str,
    knocks: &'static [(Source, &'static str)],
    open: &'static [Source],
) -> Row {
    Row { what, knocks, open }
}

/// Tries all rows of a gate over both families. Verifying the program takes longer than a row, so the rows share one
/// instance, each with sources of its own; they run at the same time, since they mostly wait.
fn check(attach: Attach, gate: &str, rows: &[Row]) {
    Scenario::run(attach, Family::V4, &[], |scenario| {
        scenario.up(gate);
        let wrong: Vec<String> = thread::scope(|scope| {
            let tried: Vec<_> = rows
                .iter()
                .zip(1..)
                .map(|(row, group)| {
                    let own = scenario.with_sources_of_its_own(group);
                    scope.spawn(move || {
                        let families = [Family::V4, Family::V6];
                        families.map(|family| row.mistake(&own.over(family)))
                    })
                })
                .collect();
            let tried = tried
                .into_iter()
                .map(|row| row.join().expect("a row can be tried"));
            tried.flatten().flatten().collect()
        });
        assert!(wrong.is_empty(), "{attach:?}: {wrong:#?}");
    });
}

impl Row {
    /// Returns what differs from the expected result.
    fn mistake(&self, scenario: &Scenario) -> Option<String> {
        for (who, steps) in self.knocks {
            scenario.knock(*who, steps);
        }
        let expected = [A, B, C].map(|who| {
            let open = self.open.contains(&who);
            (who, if open { Outcome::Open } else { Outcome::Silent })
        });
        let seen = scenario.attempt_each("22/tcp", &expected);
        (seen != expected).then(|| format!("{} ({:?}): {seen:?}", self.what, scenario.family))
    }
}

/// Makes three tests of each gate with its rows, one for each attach mode.
macro_rules! gates {
    ($($gate:ident => [$($row:expr,)*];)*) => {$(
        mod $gate {
            use super::*;

            const ROWS: &[Row] = &[$($row),*];

            #[test]
            fn native() {
                check(Attach::Native, &super::$gate(), ROWS);
            }

            #[test]
            fn generic() {
                check(Attach::Generic, &super::$gate(), ROWS);
            }

            #[test]
            fn tcx() {
                check(Attach::Tcx, &super::$gate(), ROWS);
            }
        }
    )*};
}

gates! {
    ssh => [
        row("nobody knocked", &[], &[]),
        row("the sequence opens for its source alone", &[(A, ALICE)], &[A]),
        row("the last knock is missing", &[(A, "7000/udp 8443/tcp")], &[]),
        row("the first knock is missing", &[(A, "8443/tcp 9301/udp")], &[]),
        row("wrong order", &[(A, "8443/tcp 7000/udp 9301/udp")], &[]),
        row("right port of the wrong protocol", &[(A, "7000/tcp 8443/tcp 9301/udp")], &[]),
        row("first knock repeated", &[(A, "7000/udp 7000/udp 8443/tcp 9301/udp")], &[A]),
        row("middle knock repeated", &[(A, "7000/udp 8443/tcp 8443/tcp 9301/udp")], &[A]),
        row("each knock from two source ports", &[(A, "7000/udp 7000/udp 8443/tcp 8443/tcp 9301/udp 9301/udp")], &[A]),
        row("first knock repeated too late", &[(A, "7000/udp 8443/tcp 7000/udp 9301/udp")], &[]),
        row("again after a broken run", &[(A, "7000/udp 9301/udp"), (A, ALICE)], &[A]),
        row("foreign tcp probe inside", &[(A, "7000/udp 1234/tcp 8443/tcp 9301/udp")], &[]),
        row("foreign udp probe inside", &[(A, "7000/udp 8443/tcp 1234/udp 9301/udp")], &[]),
        row("foreign probe before", &[(A, "1234/tcp 7000/udp 8443/tcp 9301/udp")], &[A]),
        row("foreign probe after", &[(A, "7000/udp 8443/tcp 9301/udp 1234/tcp")], &[A]),
        row("each knock arrives twice", &[(A, "7000/udp@4000 7000/udp@4000 8443/tcp@4001 8443/tcp@4001 9301/udp@4002 9301/udp@4002")], &[A]),
        row("an earlier knock arrives again", &[(A, "7000/udp@4000 8443/tcp@4001 7000/udp@4000 9301/udp@4002")], &[A]),
        row("fixed source ports can knock again", &[(A, "7000/udp@4000 8443/tcp@4001 1234/udp@4003"), (A, "7000/udp@4000 8443/tcp@4001 9301/udp@4002")], &[A]),
        row("sources knock apart", &[(A, "7000/udp"), (B, "8443/tcp"), (A, "9301/udp")], &[]),
        row("sources knock at the same time", &[(A, "7000/udp"), (B, "7000/udp"), (B, "8443/tcp"), (A, "8443/tcp"), (A, "9301/udp")], &[A]),
        row("listening ports break nothing by default", &[(A, "7000/udp 25/tcp 80/tcp 8443/tcp 53/udp 9301/udp")], &[A]),
    ];
    over_tcp => [
        row("all knocks over tcp", &[(A, "7000/tcp 8443/tcp 9301/tcp")], &[A]),
    ];
    over_udp => [
        row("all knocks over udp", &[(A, "7000/udp 8443/udp 9301/udp")], &[A]),
    ];
    of_two_knocks => [
        row("two knocks are enough where configured", &[(A, "7000/udp 8443/tcp")], &[A]),
    ];
    of_twelve_knocks => [
        row("twelve knocks", &[(A, "7001/udp 7004/tcp 7002/udp 7009/tcp 7003/udp 7012/tcp 7005/udp 7011/tcp 7006/udp 7010/tcp 7007/udp 7008/tcp")], &[A]),
    ];
    swept => [
        row("sweep over the ports in order", &[(A, "6999/udp 7000/udp 7001/udp 7002/udp 7003/udp")], &[]),
        row("sweep that tries each port twice", &[(A, "7000/udp 7000/udp 7001/udp 7001/udp 7002/udp 7002/udp 7003/udp 7003/udp")], &[]),
        row("sweep backwards", &[(A, "7003/udp 7002/udp 7001/udp 7000/udp 6999/udp")], &[]),
    ];
    in_a_hurry => [
        row("too late", &[(A, "7000/udp 8443/tcp 11000ms 9301/udp")], &[]),
        row("late and then in time", &[(A, "7000/udp 8443/tcp 11000ms 9301/udp"), (A, ALICE)], &[A]),
    ];
    one_port_twice => [
        row("a duplicate is no second knock", &[(A, "7000/udp@4000 7000/udp@4000 9301/udp")], &[]),
        row("a second knock on the same port", &[(A, "7000/udp 7000/udp 9301/udp")], &[A]),
        row("a sequence that overlaps itself", &[(A, "7000/udp 7000/udp 7000/udp 9301/udp")], &[A]),
    ];
    two_users => [
        row("either of two users", &[(A, ALICE), (B, "7100/tcp 8543/udp 9401/tcp")], &[A, B]),
        row("half of each of two users", &[(A, "7000/udp 8443/tcp 9401/tcp")], &[]),
        row("a knock of another user inside", &[(A, "7000/udp 7100/tcp 8443/tcp 9301/udp")], &[]),
    ];
    with_open_ports => [
        row("protected and open ports break nothing", &[(A, "7000/udp 22/tcp 80/tcp 8443/tcp 53/udp 9301/udp")], &[A]),
        row("an undeclared port breaks even if it listens", &[(A, "7000/udp 25/tcp 8443/tcp 9301/udp")], &[]),
    ];
}

behaviours! {
    a_conversation_of_the_hosts_breaks_nothing;
    a_datagram_to_a_socket_without_a_peer_breaks_the_run;
}

/// Knocks, with datagrams to a socket of the host between them, as from a VPN peer.
const CONVERSING: &str = "7000/udp 4500/udp@4600 8443/tcp 4500/udp@4600 4500/udp@4600 9301/udp";

fn a_conversation_of_the_hosts_breaks_nothing(scenario: &Scenario) {
    scenario.up(with_open_ports());
    let peer = SocketAddr::new(scenario.family.address(A), 4600);
    let _socket = socket_of_the_host(scenario, Some(peer));
    scenario.knock(A, CONVERSING);
    scenario.open(A, "22/tcp");
    // From a source that is not the socket's peer, the same datagrams break the run.
    scenario.knock(B, CONVERSING);
    scenario.closed(B, "22/tcp");
}

fn a_datagram_to_a_socket_without_a_peer_breaks_the_run(scenario: &Scenario) {
    scenario.up(with_open_ports());
    let _socket = socket_of_the_host(scenario, None);
    scenario.knock(A, CONVERSING);
    scenario.closed(A, "22/tcp");
}

/// Opens a UDP socket on the host, connected to `peer` if there is one.
fn socket_of_the_host(scenario: &Scenario, peer: Option<SocketAddr>) -> UdpSocket {
    let own = SocketAddr::new(scenario.family.host(), 4500);
    scenario.lab.host.run(|| {
        let socket = UdpSocket::bind(own).expect("the port is free");
        if let Some(peer) = peer {
            socket.connect(peer).expect("the peer is on the network");
        }
        socket
    })
}

fn ssh() -> String {
    Gate::ssh().to_string()
}

fn over_tcp() -> String {
    let gate = Gate::ssh().knocks("7000/tcp 8443/tcp 9301/tcp");
    gate.to_string()
}

fn over_udp() -> String {
    let gate = Gate::ssh().knocks("7000/udp 8443/udp 9301/udp");
    gate.to_string()
}

fn of_two_knocks() -> String {
    Gate::ssh().knocks("7000/udp 8443/tcp").to_string()
}

fn of_twelve_knocks() -> String {
    let knocks = "7001/udp 7004/tcp 7002/udp 7009/tcp 7003/udp 7012/tcp 7005/udp 7011/tcp 7006/udp \
                  7010/tcp 7007/udp 7008/tcp";
    Gate::ssh().knocks(knocks).to_string()
}

fn swept() -> String {
    let gate = Gate::ssh().knocks("7000/udp 7002/udp");
    gate.user("bob", "7003/udp 7001/udp").to_string()
}

fn in_a_hurry() -> String {
    Gate::ssh().within("10s").to_string()
}

fn one_port_twice() -> String {
    let gate = Gate::ssh().knocks("7000/udp 7000/udp 9301/udp");
    gate.to_string()
}

fn two_users() -> String {
    Gate::ssh().user("bob", BOB).to_string()
}

fn with_open_ports() -> String {
    format!("open_ports = [\"80/tcp\", \"53/udp\"]\n{}", Gate::ssh())
}
