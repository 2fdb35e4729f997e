//! `knockgate events` where no service reads the kernel's ring of events.

use std::{net::IpAddr, thread, time::Duration};

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    lab::{CLIENT_MAC, Family, HOST_MAC, Source::A},
    observe::events_of,
    run::wait_until,
    scenario::{Attach, Scenario},
    wire::Wire,
};
use netlab::packet::Packet;

/// More events than the ring has room for.
const MANY: usize = 5000;

/// Others read on while it is stopped, and the kernel fills the ring again: what it knew of the ring means nothing any more.
#[test]
fn a_reader_that_was_stopped_for_long_goes_on_with_what_comes_next() {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        scenario.up(Gate::ssh().open_for("1h").within("1m"));
        let reader = scenario.lab.follow_events();
        scenario.knock(A, ALICE);
        let has_opened = |number| {
            let events = events_of(&reader);
            let opened = events
                .iter()
                .filter(|event| event["event"] == "gate.opened");
            opened.count() == number
        };
        wait_until("it reads", || has_opened(1));
        // It holds the lock while it reads: others say so.
        let stop = || {
            reader.signal(libc::SIGSTOP);
            thread::sleep(Duration::from_millis(100));
            let mut taken = scenario.lab.host.command("flock");
            let taken = taken.arg("-n").arg(scenario.lab.pin_root()).arg("true");
            taken.status().is_ok_and(|status| status.success())
        };
        wait_until("it is stopped between two looks", || {
            stop() || {
                reader.signal(libc::SIGCONT);
                false
            }
        });
        let wire = Wire::open(&scenario.lab);
        let host = scenario.family.host();
        let mut read = 0;
        // The kernel reports a bounded number a second.
        for round in 0..200_u8 {
            let knocks: Vec<_> = (0..600_u16)
                .map(|number| {
                    let [high, low] = number.to_be_bytes();
                    let from = (IpAddr::from([100 + high, 99, round, low]), 40_000);
                    Packet::udp(from, (host, 7000), b"").frame(CLIENT_MAC, HOST_MAC)
                })
                .collect();
            wire.send(&scenario.lab, &knocks);
            read += scenario.lab.events().len();
            if read >= MANY {
                break;
            }
            thread::sleep(Duration::from_millis(500));
        }
        assert!(read >= MANY, "only {read} events");
        reader.signal(libc::SIGCONT);
        scenario.knock(A, ALICE);
        wait_until("it reads on", || has_opened(2));
    });
}
