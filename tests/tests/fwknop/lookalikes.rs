//! What others send to the port.

use std::time::Duration;

use knockgate_tests::{
    fwknop::{DRAWN, PORT, count, counted, fwknop, send, ssh},
    gate_config::ALICE,
    lab::{
        CLIENT_INTERFACE, CLIENT_MAC, Family, HOST_MAC,
        Source::{A, B},
    },
    run::{comes_true_within, wait_until},
    scenario::{Attach, Scenario},
};
use netlab::{packet::Packet, socket::PacketSocket};
use serde_json::Value;

use super::{serve, with_client};

/// What is no packet of fwknop's, but as long as one and of the same characters.
fn lookalike(length: usize) -> Vec<u8> {
    let mut text = b"9".to_vec();
    text.resize(length, b'a');
    text
}

#[test]
fn only_what_looks_right_gets_to_the_service() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        let _service = serve(scenario, &ssh(&DRAWN.section("alice", "")));
        let mut gpg = lookalike(400);
        gpg[..3].copy_from_slice(b"EMA");
        for payload in [
            &lookalike(139)[..],
            b"8",
            b"",
            &[b'a'; 204],
            &[0; 204],
            &gpg[..399],
        ] {
            send(scenario, A, payload);
        }
        // The ring is in order, so whatever came before these would be counted.
        for payload in [
            lookalike(140),
            lookalike(488),
            lookalike(489),
            // The longest that comes in one piece.
            lookalike(1472),
        ] {
            send(scenario, A, &payload);
        }
        counted(scenario, "forged", 4);
        send(scenario, A, &gpg);
        counted(scenario, "gpg", 1);
        let mut blank = lookalike(204);
        blank[100] = b' ';
        send(scenario, A, &blank);
        counted(scenario, "malformed", 1);
        let document = scenario.knockgate("stats --json").exits(0).json();
        let rows = document["fwknop"].as_array().expect("a list");
        let all: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
        assert_eq!(all, 6, "{document}");
        // They pass as packets to a port of no gate.
        assert!(scenario.lab.stats().packets("unguarded") >= 12);
        assert_eq!(scenario.lab.list("grants"), [] as [Value; 0]);
    });
}

/// A datagram to the port is no probe.
#[test]
fn they_break_no_run() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        let knock = "[[gate.knock]]\nuser = 'alice'\nsequence = ['7000/udp', '8443/tcp', '9301/udp']\nwithin = '1m'\n";
        scenario.up(ssh(&format!("{knock}{}", DRAWN.section("alice", ""))));
        let steps: Vec<&str> = ALICE.split(' ').collect();
        scenario.knock(A, &format!("{} {PORT}/udp {}", steps[0], steps[1]));
        send(scenario, A, &lookalike(204));
        scenario.knock(A, steps[2]);
        scenario.open(A, "22/tcp");
    });
}

/// Of a flood, no more than the configured number is looked at in a second, and the knock of another source gets in.
#[test]
fn a_flood_is_dropped_unread_and_a_knock_gets_in() {
    const SENT: usize = 20_000;
    with_client(|scenario| {
        let config = format!(
            "[fwknop]\nrefusals = 800\n{}",
            ssh(&DRAWN.section("alice", ""))
        );
        let _service = serve(scenario, &config);
        let lab = &scenario.lab;
        let source = (scenario.address(B), 40_000);
        let to = (scenario.family.host(), PORT);
        let frame = Packet::udp(source, to, &lookalike(204)).frame(CLIENT_MAC, HOST_MAC);
        let frames = vec![frame; 100];
        lab.client.run(|| {
            let interface = lab.client.index_of(CLIENT_INTERFACE).expect("it is there");
            let socket = PacketSocket::sending(interface).expect("a raw socket");
            let mut sent = 0;
            while sent < SENT {
                sent += socket.send_many(&frames).expect("frames can be sent");
            }
        });
        // A packet that comes before the thread has read some of the flood finds no room.
        wait_until("a knock gets in", || {
            fwknop(scenario, DRAWN, "", &["-s"]);
            comes_true_within(Duration::from_secs(2), || count(scenario, "opened") > 0)
        });
        scenario.open(A, "22/tcp");
        let sum = || {
            let all = ["forged", "limit", "overrun"];
            all.map(|outcome| count(scenario, outcome))
        };
        wait_until("all of them are counted", || {
            sum().iter().sum::<u64>() >= SENT as u64
        });
        let [forged, limit, _] = sum();
        // One source takes an eighth: ten in a tenth of a second.
        assert!(forged > 0 && limit > forged, "{forged} {limit}");
        let events = lab.events();
        let reported = events.iter().filter(|event| event["reason"] == "forged");
        assert!(reported.count() < SENT / 100);
        assert!(!events.iter().any(|event| event["reason"] == "limit"));
    });
}
