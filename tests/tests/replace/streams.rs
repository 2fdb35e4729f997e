//! A constant stream of packets while configurations are replaced: none is let through that is to be denied, none is lost that
//! is to pass.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use knockgate_tests::{
    gate_config::Gate,
    lab::Source::{A, B},
    run::comes_true,
};

use crate::{in_all_modes, with_limits};

const PROTECTED: u16 = 2200;
const OTHER: u16 = 3300;

#[test]
fn no_packet_is_let_through_or_lost() {
    in_all_modes(|scenario| {
        let gate =
            |ports: &str| Gate::new("stream", ports).user("alice", "7000/udp 8443/tcp 9301/udp");
        let host = scenario.family.host();
        let bind = |port: u16| {
            scenario.lab.host.run(|| {
                let socket = UdpSocket::bind((host, port)).expect("a free port");
                socket
                    .set_read_timeout(Some(Duration::from_millis(100)))
                    .expect("a socket");
                socket
            })
        };
        let (protected, other) = (bind(PROTECTED), bind(OTHER));
        scenario.up(gate("2200/udp"));
        let denied = scenario
            .lab
            .client
            .run(|| UdpSocket::bind((scenario.address(A), 0)));
        let passing = scenario
            .lab
            .client
            .run(|| UdpSocket::bind((scenario.address(B), 0)));
        let (denied, passing) = (denied.expect("a free port"), passing.expect("a free port"));
        let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let (sent, received, leaked) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let _ = denied.send_to(b"denied", (host, PROTECTED));
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    passing.send_to(b"passing", (host, OTHER)).expect("sent");
                    // Not faster than it is read: a veth has room for 256 packets, and the host's socket for not many
                    // more.
                    while number.saturating_sub(received.load(Ordering::SeqCst)) > 50
                        && !stop.load(Ordering::SeqCst)
                    {
                        thread::yield_now();
                    }
                }
            });
            for (socket, count) in [(&other, &received), (&protected, &leaked)] {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut packet = [0; 64];
                    loop {
                        match socket.recv(&mut packet) {
                            Ok(_) => _ = count.fetch_add(1, Ordering::SeqCst),
                            Err(_) if is_over.load(Ordering::SeqCst) => return,
                            Err(_) => {}
                        }
                    }
                });
            }
            for round in 0..6 {
                let ports = if round % 2 == 0 {
                    "2200/udp 2222/tcp"
                } else {
                    "2200/udp"
                };
                scenario.configure(gate(ports).key(format!("session_idle = \"{}m\"", round + 1)));
                if round >= 3 {
                    let limits = format!(
                        "sources = 65536, grants = {}, sessions = 2000",
                        2000 + round
                    );
                    with_limits(scenario, &limits);
                }
                scenario.knockgate("reload").exits(0);
            }
            stop.store(true, Ordering::SeqCst);
            let sending = sender.join();
            // A packet that arrives late is not lost.
            comes_true(|| received.load(Ordering::SeqCst) >= sent.load(Ordering::SeqCst));
            is_over.store(true, Ordering::SeqCst);
            sending.expect("every packet could be sent");
        });
        let (sent, received) = (sent.into_inner(), received.into_inner());
        assert!(sent > 1000, "only {sent} packets were sent");
        assert_eq!(received, sent, "packets to another port were lost");
        assert_eq!(
            leaked.into_inner(),
            0,
            "packets to the protected port were let through"
        );
        assert!(scenario.lab.stats().denied("no_grant") >= sent);
    });
}
