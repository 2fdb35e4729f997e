//! Limits of ICMP errors, clients with real sockets, and links that lose answers.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use knockgate_tests::{
    attempt::Outcome,
    foreign::ForeignProgram,
    gate_config::{ALICE, Gate},
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, HOST_MAC, Lab, Source, WAN},
    network::ip,
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
};
use netlab::packet::{Packet, mac};

use crate::testbed::{CLOSED, GUARDED, Testbed};

fn rejecting() -> String {
    let gate = Gate::ssh().protect("22/tcp 22/udp");
    let gate = gate.key("deny = \"reject\"\nconnections = 1");
    format!("open_ports = []\n{gate}")
}

/// A source gets as many answers from a protected port as another one from a closed port.
#[test]
fn a_source_gets_as_many_errors_as_from_the_host() {
    for attach in Attach::ALL.into_iter().filter(|attach| attach.is_there()) {
        let Some(lab) = Lab::build(&[]) else {
            return;
        };
        let testbed = Testbed::new(lab, attach);
        // The kernel's initial allowance is a minute's worth, which is six errors at this interval.
        let interval = Duration::from_secs(9);
        for setting in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
            testbed.set(setting, &interval.as_millis().to_string());
        }
        testbed.up();
        for family in [Family::V4, Family::V6] {
            for (who, port) in [(Source::B, CLOSED), (Source::C, GUARDED)] {
                let frames: Vec<_> = (0..40)
                    .map(|from| datagram(family.address(who), family.host(), from, port))
                    .collect();
                let begun = Instant::now();
                let answered = testbed.send(family, &frames).len() as u64;
                // One more for each interval that passes meanwhile.
                let most = 6 + begun.elapsed().as_secs() / interval.as_secs();
                assert!(
                    (6..=most).contains(&answered),
                    "{attach:?} {family:?}: {answered} answers from port {port}"
                );
            }
        }
    }
}

/// Many sources get about as many: the host's own limit varies by up to two.
#[test]
fn all_sources_get_about_as_many_errors_as_from_the_host() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let testbed = Testbed::new(lab, Attach::Generic);
    testbed.set("ipv4/icmp_ratelimit", "1000");
    ip(&testbed.lab.host, "route add 10.99.0.0/16 via 10.77.1.2");
    testbed.up();
    let burst = |port| {
        let frames: Vec<_> = (0..200)
            .map(|host| {
                let from = Ipv4Addr::new(10, 99, u8::from(port == GUARDED), host);
                datagram(from.into(), Family::V4.host(), 1, port)
            })
            .collect();
        let begun = Instant::now();
        let answered = testbed.send(Family::V4, &frames).len() as u128;
        (answered, begun.elapsed())
    };
    for (who, port) in [("the host", CLOSED), ("the gate", GUARDED)] {
        let (answered, took) = burst(port);
        // By default, one more for each millisecond.
        let most = 100 + took.as_millis();
        assert!(
            (25..=most).contains(&answered),
            "{who} answered {answered} of 200 in {took:?}"
        );
    }
}

fn datagram(from: IpAddr, to: IpAddr, source_port: u16, port: u16) -> Vec<u8> {
    Packet::udp((from, 5000 + source_port), (to, port), b"?").frame(CLIENT_MAC, HOST_MAC)
}

/// A socket behind a veth offloads its checksums (`CHECKSUM_PARTIAL`), and nothing completes them.
#[test]
fn honest_clients_are_refused_at_once() {
    for attach in Attach::ALL {
        for family in [Family::V4, Family::V6] {
            Scenario::run(attach, family, &[], |scenario| {
                let _peer = ForeignProgram::on(&scenario.lab.client, CLIENT_INTERFACE);
                scenario.up(rejecting());
                scenario.refused(Source::A, "22/tcp");
                scenario.refused(Source::A, "22/udp");
                scenario.knock(Source::A, ALICE);
                drop(scenario.connected(Source::A, 22));
                // The grant's only connection is used up.
                scenario.refused(Source::A, "22/tcp");
                scenario.refused(Source::B, "22/tcp");
            });
        }
    }
}

/// knockgate answers for the addresses in its tables, which the service keeps up to date.
#[test]
fn the_service_follows_the_hosts_addresses() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        let another: IpAddr = [10, 77, 0, 77].into();
        let attempt = || {
            let connection =
                scenario.connect(Source::A, another, GUARDED, Duration::from_millis(300));
            connection.map_or_else(|outcome| outcome, |_| Outcome::Open)
        };
        scenario.up(rejecting());
        let address = format!("10.77.0.77/16 dev {WAN}");
        ip(&scenario.lab.host, &format!("address add {address}"));
        assert_eq!(attempt(), Outcome::Silent);
        let mut service = scenario.lab.knockgate_command(&["run"]);
        let _service = Running::start(&mut service, scenario.lab.folder());
        wait_until("the new address answers", || attempt() == Outcome::Refused);
        ip(&scenario.lab.host, &format!("address del {address}"));
        let mac = mac(HOST_MAC);
        ip(
            &scenario.lab.client,
            &format!("neighbour replace 10.77.0.77 lladdr {mac} dev {CLIENT_INTERFACE}"),
        );
        wait_until("it is silent again", || attempt() == Outcome::Silent);
    });
}

#[test]
fn monitor_mode_answers_nothing() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        scenario.up(format!("mode = \"monitor\"\n{}", rejecting()));
        scenario.open(Source::A, "22/tcp");
    });
}

/// In native mode, an answer leaves a veth only if the peer accepts XDP frames.
#[test]
fn lost_on_a_veth() {
    Scenario::run(Attach::Native, Family::V4, &[], |scenario| {
        scenario.configure(rejecting());
        scenario
            .lab
            .knockgate(&["up"])
            .exits(0)
            .says(&["is a veth", "XDP program"]);
        assert_eq!(
            scenario.attempt(Source::A, "22/tcp", Outcome::Silent),
            Outcome::Silent
        );
        let peer = ForeignProgram::on(&scenario.lab.client, CLIENT_INTERFACE);
        scenario.refused(Source::A, "22/tcp");
        drop(peer);
        scenario.knockgate("down --all").exits(0);

        // Therefore `attach = "auto"` does not choose native mode there.
        let config = format!("interfaces = [\"{WAN}\"]\n{}", rejecting());
        scenario.lab.configure(&config);
        scenario
            .lab
            .knockgate(&["up"])
            .exits(0)
            .says(&["native mode"]);
        let instead = if Attach::Tcx.is_there() {
            "tcx"
        } else {
            "generic"
        };
        let status = scenario.knockgate("status --json").exits(0).json();
        assert_eq!(status["interfaces"][0]["attach"], instead);
        scenario.refused(Source::A, "22/tcp");
    });
}
