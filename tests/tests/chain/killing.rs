//! Commands that are killed half-way: whatever comes next finishes or undoes what they did.

use knockgate_tests::{
    killed::{Call, count, killed_at_call},
    lab::{
        Source::{A, B},
        WAN,
    },
    neighbour::{Kind, Neighbour},
    run::{Running, wait_until},
    scenario::Attach,
};

use crate::{OTHER, Udp, alone, configure, followed_by, gate, in_mode, status};

/// Changes pins, attachments or a slot.
fn changes(call: &Call) -> bool {
    call.changes_pins() || call.changes_an_entry()
}

/// Returns which calls to kill at, of so many: few of the first, which fill and pin tables, and all of the last.
fn points(all: usize, last: usize) -> impl Iterator<Item = usize> {
    let first = all.saturating_sub(last);
    (0..first)
        .step_by(first.div_ceil(6).max(1))
        .chain(first..all)
}

#[test]
fn an_up_into_a_slot_that_is_killed_is_settled() {
    in_mode(Attach::Native, |scenario, pins| {
        let array = pins.array(2);
        let mut balancer = Neighbour::of(Kind::USUAL, Some(&array));
        balancer.attach(&scenario.lab.host, WAN, true);
        let place = pins.at("array").display().to_string();
        configure(scenario, alone(), gate());
        let command = || scenario.lab.knockgate_command(&["up", "--into", &place]);
        let all = count(command(), changes);
        scenario.knockgate("down").exits(0);
        for (number, point) in points(all, 12).enumerate() {
            let killed = killed_at_call(command(), point, changes);
            assert!(
                killed || point + 3 > all,
                "it makes {all} such calls, and not {point}"
            );
            if number.is_multiple_of(2) {
                scenario.lab.knockgate(&["up", "--into", &place]).exits(0);
                assert_eq!(array.slot(1), None, "killed at {point}: in one slot");
                status(scenario, 0);
                scenario.closed(A, "22/tcp");
            }
            scenario.knockgate("down").exits(0);
            assert_eq!(
                [array.slot(0), array.slot(1)],
                [None, None],
                "killed at {point}"
            );
            assert!(!scenario.lab.pin_root().exists(), "killed at {point}");
        }
    });
}

/// In a slot, no interface can be taken down by itself: the one without pins had not come up yet.
#[test]
fn a_service_brings_up_all_interfaces_of_a_slot() {
    in_mode(Attach::Native, |scenario, pins| {
        let array = pins.array(1);
        scenario.lab.add_interface("wan1");
        let balancers = [WAN, "wan1"].map(|name| {
            let mut balancer = Neighbour::of(Kind::USUAL, Some(&array));
            balancer.attach(&scenario.lab.host, name, true);
            balancer
        });
        let place = pins.at("array").display().to_string();
        configure(
            scenario,
            format!("interfaces = [{WAN:?}, \"wan1\"]\n"),
            gate(),
        );
        let up = scenario.lab.knockgate_command(&["up", "--into", &place]);
        assert!(killed_at_call(up, 1, Call::renames));
        let _service = Running::start(
            &mut scenario.lab.knockgate_command(&["run", "--into", &place]),
            scenario.lab.folder(),
        );
        wait_until("both are guarded", || {
            scenario.knockgate("status").code == Some(0)
        });
        scenario.closed(A, "22/tcp");
        drop(balancers);
    });
}

#[test]
fn a_reload_that_is_killed_keeps_slot_and_next() {
    in_mode(Attach::Native, |scenario, pins| {
        let array = pins.array(2);
        let mut balancer = Neighbour::of(Kind::USUAL, Some(&array));
        balancer.attach(&scenario.lab.host, WAN, true);
        let next = Neighbour::new();
        next.pin(&pins.at("next"));
        let place = pins.at("array").display().to_string();
        let gates = [gate(), gate().protect("22/tcp 25/tcp 2200/udp")];
        let other = Udp::bind(scenario, OTHER);
        configure(scenario, followed_by(&pins.at("next")), &gates[0]);
        scenario.lab.knockgate(&["up", "--into", &place]).exits(0);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        configure(scenario, followed_by(&pins.at("next")), &gates[1]);
        let all = count(scenario.lab.knockgate_command(&["reload"]), changes);
        for (point, gate) in points(all, 40).step_by(2).zip(gates.iter().cycle()) {
            configure(scenario, followed_by(&pins.at("next")), gate);
            killed_at_call(scenario.lab.knockgate_command(&["reload"]), point, changes);
            // At once, before anything can finish it.
            let before = next.count(OTHER);
            scenario.closed(A, "22/tcp");
            scenario.open(B, "22/tcp");
            other.send(scenario, A, 2);
            other.receives(2);
            assert_eq!(next.count(OTHER) - before, 2, "killed at {point}");
            scenario.knockgate("reload").exits(0);
            status(scenario, 0);
            scenario.closed(A, "22/tcp");
            scenario.open(B, "22/tcp");
            other.send(scenario, A, 2);
            other.receives(2);
            assert_eq!(
                next.count(OTHER) - before,
                4,
                "killed at {point}, and finished"
            );
        }
        scenario.knockgate("down").exits(0);
        assert_eq!([array.slot(0), array.slot(1)], [None, None]);
    });
}

#[test]
fn a_down_that_is_killed_is_finished() {
    in_mode(Attach::Native, |scenario, pins| {
        let array = pins.array(2);
        let mut balancer = Neighbour::of(Kind::USUAL, Some(&array));
        balancer.attach(&scenario.lab.host, WAN, true);
        let place = pins.at("array").display().to_string();
        configure(scenario, alone(), gate());
        for point in [0, 1, 2, 3, 20] {
            scenario.lab.knockgate(&["up", "--into", &place]).exits(0);
            let down = scenario.lab.knockgate_command(&["down"]);
            assert!(killed_at_call(down, point, changes));
            if point == 2 {
                scenario.lab.knockgate(&["up", "--into", &place]).exits(0);
                status(scenario, 0);
                scenario.closed(A, "22/tcp");
            }
            scenario.knockgate("down").exits(0);
            assert_eq!(
                [array.slot(0), array.slot(1)],
                [None, None],
                "killed at {point}"
            );
            assert!(!scenario.lab.pin_root().exists(), "killed at {point}");
        }
    });
}
