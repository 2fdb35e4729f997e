//! A bond, whose program is run by the drivers of its interfaces where it is attached in native mode.

use knockgate_tests::{
    lab::{BELOW, Source::A, WAN},
    links::{self, SECOND},
    neighbour::Neighbour,
    run::{Running, wait_until},
};

use crate::{OTHER, Udp, configure, gate, in_both_modes, section};

#[test]
fn its_interfaces_have_the_next_of_their_bond() {
    in_both_modes(|scenario, pins| {
        let lab = &scenario.lab;
        if !links::bond(lab) {
            return;
        }
        lab.add_interface("wan1");
        let neighbours = [Neighbour::new(), Neighbour::new()];
        for (neighbour, name) in neighbours.iter().zip(["first", "second"]) {
            neighbour.pin(&pins.at(name));
        }
        // Different ones, so that it depends on the interface which of them follows.
        let sections = section("wan1", &pins.at("first")) + &section(WAN, &pins.at("second"));
        configure(scenario, sections, gate());
        let _service = Running::start(&mut lab.knockgate_command(&["run"]), lab.folder());
        wait_until("the interfaces are guarded", || {
            scenario.knockgate("status").code == Some(0)
        });
        let other = Udp::bind(scenario, OTHER);
        other.send(scenario, A, 4);
        other.receives(4);
        links::fail_over(lab, BELOW, SECOND);
        other.send(scenario, A, 3);
        other.receives(3);
        assert_eq!(
            (neighbours[0].count(OTHER), neighbours[1].count(OTHER)),
            (0, 7)
        );

        lab.add_interface("third");
        links::join_bond(lab, "third");
        links::fail_over(lab, SECOND, "third");
        wait_until("the service knows the new interface", || {
            let before = neighbours[1].count(OTHER);
            other.send(scenario, A, 6);
            other.receives(6);
            neighbours[1].count(OTHER) == before + 6
        });
    });
}
