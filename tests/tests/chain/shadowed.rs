//! Programs that may keep packets from ours in its slot, or from the other in its own.

use knockgate_tests::{
    lab::{Source::A, WAN},
    neighbour::{Array, Kind, Neighbour},
    run::wait_until,
    scenario::Attach,
};

use crate::{
    OTHER, Udp, alone, configure, followed_by, gate, in_both_modes, in_mode,
    into::{balancer, into},
    logged,
};

/// A balancer that tries its slots in turn hands a packet to the first program that is there, and to the next one only what that
/// hands on.
#[test]
fn programs_in_the_slots_around_are_warned_of() {
    in_both_modes(|scenario, pins| {
        let array = pins.array(4);
        let balancer = balancer(scenario, &array);
        let other = Neighbour::new();
        let at = |slot: u32| {
            format!(
                "{}[{slot}] holds program `neighbour`",
                pins.at("array").display()
            )
        };
        let [before, behind] = ["before", "behind"].map(|way| format!(", {way} "));

        configure(scenario, alone(), gate());
        array.put(0, &other);
        into(scenario, pins, "[0]").exits(1).says(&["hands on"]);
        let up = into(scenario, pins, "");
        up.exits(0).says(&[&at(0), &before, "all else is open"]);
        assert!(array.slot(1).is_some());
        let status = scenario.knockgate("status");
        assert!(status.exits(0).stdout.contains(&at(0)), "{status:?}");
        scenario.open(A, "22/tcp");
        array.empty(0);
        let status = scenario.knockgate("status");
        assert!(!status.exits(0).stdout.contains("in turn"), "{status:?}");
        scenario.closed(A, "22/tcp");

        array.put(3, &other);
        let up = scenario.knockgate("up");
        up.exits(0).says(&[&at(3), &behind, "name it as `next`"]);
        let protected = Udp::bind(scenario, OTHER);
        protected.send(scenario, A, 3);
        protected.receives(3);
        assert_eq!((balancer.count(OTHER), other.count(OTHER)), (3, 0));
        other.pin(&pins.at("next"));
        configure(scenario, followed_by(&pins.at("next")), gate());
        let reload = scenario.knockgate("reload");
        assert!(!reload.exits(0).stderr.contains("in turn"), "{reload:?}");
        let status = scenario.knockgate("status");
        assert!(!status.exits(0).stdout.contains("in turn"), "{status:?}");
        protected.send(scenario, A, 2);
        protected.receives(2);
        assert_eq!(other.count(OTHER), 2);
    });
}

/// The balancer has begun anew with another array, and its pin is still that of the one before.
#[test]
fn a_program_that_does_not_use_the_array_is_warned_of() {
    in_both_modes(|scenario, pins| {
        let _old = pins.array(2);
        let array = Array::pinned(2, pins.at("new"));
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let says = format!(
            "does not itself use the array pinned at {}",
            pins.at("array").display()
        );
        into(scenario, pins, "").exits(0).says(&[WAN, &says]);
        let status = scenario.knockgate("status");
        assert!(status.exits(0).stdout.contains(&says), "{status:?}");
        let status = scenario.knockgate("status --json").json();
        let warnings = status["warnings"].as_array().expect("a list");
        assert_eq!(warnings.len(), 1, "{status}");
        scenario.open(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        // The one that it uses.
        scenario
            .knockgate(&format!("up --into {}", pins.at("new").display()))
            .exits(0);
        let status = scenario.knockgate("status --json").json();
        assert_eq!(
            status["warnings"].as_array().map(Vec::len),
            Some(0),
            "{status}"
        );
        scenario.closed(A, "22/tcp");
    });
}

/// The service says once what has come before ours since it began.
#[test]
fn the_service_says_what_comes_before_ours() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let place = format!("{}[1]", pins.at("array").display());
        let (mut service, said) = logged(scenario, &["run", "--into", &place]);
        wait_until("it is guarded", || {
            scenario.knockgate("status").code == Some(0)
        });
        scenario.closed(A, "22/tcp");
        let other = Neighbour::of(Kind::USUAL, None);
        let times = || said().matches("all else is open").count();
        array.put(0, &other);
        wait_until("it is said", || times() == 1);
        array.empty(0);
        // Two looks later: what it looks for in between is said as well.
        for look in 1..3 {
            array.empty(1);
            wait_until("it has looked", || {
                said().matches("is NOT GUARDED").count() == look && array.slot(1).is_some()
            });
        }
        assert_eq!(times(), 1, "{}", said());
        array.put(0, &other);
        wait_until("it is said again", || times() == 2);
        assert!(service.goes_on());
    });
}
