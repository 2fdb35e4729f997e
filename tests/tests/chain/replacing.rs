//! Either side is replaced while packets come in: none is let through that is to be denied, none is lost that is to pass, and
//! each that passes reaches one neighbour once.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use knockgate_tests::{
    gate_config::Gate,
    lab::{
        Source::{A, B},
        WAN,
    },
    neighbour::{Kind, Neighbour},
    run::{comes_true, wait_until},
    scenario::{Attach, Scenario},
};

use crate::{OTHER, PROTECTED, alone, configure, followed_by, in_both_modes, status};

/// The fewest packets of a stream.
const FEWEST: u64 = 500;

/// Sends packets to both ports while `rounds` runs. Returns how many were sent to each.
fn under_a_stream(scenario: &Scenario, rounds: impl FnOnce()) -> u64 {
    let host = scenario.family.host();
    let bind = |port: u16| {
        scenario.lab.host.run(|| {
            let socket = UdpSocket::bind((host, port)).expect("a free port");
            let pause = Some(Duration::from_millis(100));
            socket.set_read_timeout(pause).expect("a socket");
            socket
        })
    };
    let (protected, other) = (bind(PROTECTED), bind(OTHER));
    let client = |who| {
        let address = scenario.address(who);
        let socket = scenario.lab.client.run(|| UdpSocket::bind((address, 0)));
        socket.expect("a free port")
    };
    let (denied, passing) = (client(A), client(B));
    let (stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (sent, received, leaked) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let _ = denied.send_to(b"denied", (host, PROTECTED));
                let number = sent.fetch_add(1, Ordering::SeqCst);
                passing.send_to(b"passing", (host, OTHER)).expect("sent");
                // Not faster than it is read, as in the suite `replace`.
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
        rounds();
        wait_until("the stream is long enough", || {
            sent.load(Ordering::SeqCst) > FEWEST
        });
        stop.store(true, Ordering::SeqCst);
        let sending = sender.join();
        // A packet that arrives late is not lost.
        comes_true(|| received.load(Ordering::SeqCst) >= sent.load(Ordering::SeqCst));
        is_over.store(true, Ordering::SeqCst);
        sending.expect("every packet could be sent");
    });
    let sent = sent.into_inner();
    assert_eq!(
        received.into_inner(),
        sent,
        "packets to another port were lost"
    );
    assert_eq!(
        leaked.into_inner(),
        0,
        "packets to the protected port were let through"
    );
    sent
}

/// Returns a gate that differs from round to round.
fn gate(round: u32) -> Gate {
    let ports = if round.is_multiple_of(2) {
        "2200/udp"
    } else {
        "2200/udp 2222/tcp"
    };
    Gate::new("stream", ports)
        .user("alice", "7000/udp 8443/tcp 9301/udp")
        .key(format!("session_idle = \"{}m\"", round + 1))
}

#[test]
fn what_passes_goes_on_without_a_gap() {
    in_both_modes(|scenario, pins| {
        let pin = pins.at("next");
        let neighbours: Vec<_> = (0..6).map(|_| Neighbour::new()).collect();
        neighbours[0].pin(&pin);
        configure(scenario, followed_by(&pin), gate(0));
        scenario.knockgate("up").exits(0);
        let sent = under_a_stream(scenario, || {
            for round in 1..6_u32 {
                // In turn: ours, the other, both.
                if round % 3 != 1 {
                    neighbours[round as usize].pin(&pin);
                }
                if round % 3 != 2 {
                    configure(scenario, followed_by(&pin), gate(round));
                }
                scenario.knockgate("reload").exits(0);
                let placed = status(scenario, 0)["next"]["program"].clone();
                let placed = neighbours.iter().find(|of| placed == of.id);
                let placed = placed.expect("one of them follows");
                let before = placed.count(OTHER);
                wait_until("packets reach it", || placed.count(OTHER) > before);
            }
        });
        let counts: Vec<u64> = neighbours.iter().map(|of| of.count(OTHER)).collect();
        assert_eq!(counts.iter().sum::<u64>(), sent, "{counts:?}");
        assert!(counts[2] > 0 && counts[5] > 0, "{counts:?}");
        let denied = neighbours.iter().map(|of| of.count(PROTECTED));
        assert_eq!(denied.sum::<u64>(), 0, "what is denied goes nowhere");
    });
}

#[test]
fn what_an_array_calls_is_replaced_without_a_gap() {
    in_both_modes(|scenario, pins| {
        let array = pins.array(4);
        let mut balancer = Neighbour::of(Kind::USUAL, Some(&array));
        balancer.attach(&scenario.lab.host, WAN, scenario.attach == Attach::Native);
        let next = Neighbour::new();
        next.pin(&pins.at("next"));
        configure(scenario, alone(), gate(0));
        let place = format!("up --into {}", pins.at("array").display());
        scenario.knockgate(&place).exits(0);
        let before = balancer.count(OTHER);
        let sent = under_a_stream(scenario, || {
            for round in 1..6_u32 {
                let interfaces = if round.is_multiple_of(2) {
                    alone()
                } else {
                    followed_by(&pins.at("next"))
                };
                configure(scenario, interfaces, gate(round));
                let held = array.slot(0);
                scenario.knockgate("reload").exits(0);
                assert!(array.slot(0).is_some() && array.slot(0) != held);
                let before = next.count(OTHER);
                if !round.is_multiple_of(2) {
                    wait_until("packets reach it", || next.count(OTHER) > before);
                }
            }
        });
        assert_eq!(balancer.count(OTHER) - before, sent);
        assert!(next.count(OTHER) > 0 && next.count(OTHER) < sent);
        assert_eq!(next.count(PROTECTED), 0);
        assert_eq!(array.slot(1), None);
    });
}
