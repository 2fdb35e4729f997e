//! Our program in a slot of another's array.

use std::fs;

use knockgate_tests::{
    lab::{
        Source::{A, B},
        WAN,
    },
    manager::Manager,
    need,
    neighbour::{Array, Kind, Neighbour},
    run::{Run, Running, run, wait_until},
    scenario::{Attach, Scenario},
};

use crate::{
    OTHER, PROTECTED, Pins, Udp, alone, configure, followed_by, gate, in_both_modes, in_its_unit,
    in_mode, status,
};

/// Attaches a balancer to the interface: it counts, and calls the programs of an array in turn.
pub fn balancer(scenario: &Scenario, array: &Array) -> Neighbour {
    let mut balancer = Neighbour::of(Kind::USUAL, Some(array));
    balancer.attach(&scenario.lab.host, WAN, scenario.attach == Attach::Native);
    balancer
}

pub fn into(scenario: &Scenario, pins: &Pins, slot: &str) -> Run {
    scenario.knockgate(&format!("up --into {}{slot}", pins.at("array").display()))
}

#[test]
fn what_the_array_calls_is_guarded() {
    in_both_modes(|scenario, pins| {
        let array = pins.array(4);
        let balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let protected = Udp::bind(scenario, PROTECTED);
        into(scenario, pins, "").exits(0);
        assert!(array.slot(0).is_some() && array.slot(1).is_none());
        scenario.closed(A, "22/tcp");
        protected.send(scenario, A, 8);
        scenario.knockgate("allow {B} --gate ssh").exits(0);
        protected.send(scenario, B, 5);
        protected.receives(5);
        assert_eq!(balancer.count(PROTECTED), 13, "it sees all");
        scenario.open(B, "22/tcp");
        scenario.knock(A, "7000/udp 8443/tcp 9301/udp");
        scenario.open(A, "22/tcp");

        let row = status(scenario, 0);
        assert_eq!(
            (&row["guarded"], &row["attach"]),
            (&true.into(), &scenario.attach.name().into())
        );
        assert_eq!(row["into"]["pin"], pins.at("array").display().to_string());
        assert_eq!(row["into"]["slot"], 0);
        assert_eq!(row["into"]["program"], array.slot(0).expect("ours"));
        let text = scenario.knockgate("status");
        let place = format!("{}[0]", pins.at("array").display());
        assert!(text.exits(0).stdout.contains(&place), "{text:?}");

        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
        assert!(
            scenario
                .lab
                .interface()
                .contains(&format!("id {}", balancer.id)),
            "it stays attached"
        );
        assert!(!scenario.lab.pin_root().exists());
        scenario.open(A, "22/tcp");
    });
}

#[test]
fn a_slot_may_be_named_and_programs_follow_there_too() {
    in_both_modes(|scenario, pins| {
        let array = pins.array(4);
        let balancer = balancer(scenario, &array);
        let after = Neighbour::new();
        after.pin(&pins.at("next"));
        configure(scenario, followed_by(&pins.at("next")), gate());
        let (other, protected) = (Udp::bind(scenario, OTHER), Udp::bind(scenario, PROTECTED));
        into(scenario, pins, "[2]").exits(0);
        assert!(array.slot(0).is_none() && array.slot(2).is_some());
        protected.send(scenario, A, 4);
        other.send(scenario, A, 6);
        other.receives(6);
        assert_eq!((balancer.count(OTHER), after.count(OTHER)), (6, 6));
        assert_eq!((balancer.count(PROTECTED), after.count(PROTECTED)), (4, 0));
        // Without a slot, and without the option, it stays where it is.
        let held = array.slot(2);
        into(scenario, pins, "").exits(0);
        scenario.knockgate("up").exits(0);
        scenario.knockgate("reload").exits(0);
        assert_eq!((array.slot(2), array.slot(0)), (held, None));
        into(scenario, pins, "[3]")
            .exits(1)
            .says(&["it is up in", "knockgate down"]);
        assert_eq!((array.slot(2), array.slot(3)), (held, None));
    });
}

/// Guarded is what the array holds now.
#[test]
fn what_is_taken_out_of_the_slot_is_not_guarded() {
    in_both_modes(|scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        let stranger = Neighbour::new();
        configure(scenario, alone(), gate());
        into(scenario, pins, "").exits(0);
        scenario.knockgate("allow {B} --gate ssh").exits(0);

        array.empty(0);
        let row = status(scenario, 7);
        assert_eq!(
            (&row["guarded"], &row["into"]["program"]),
            (&false.into(), &().into())
        );
        scenario
            .knockgate("status")
            .exits(7)
            .says(&["NOT GUARDED", "is empty"]);
        scenario.knockgate("up").exits(0);
        status(scenario, 0);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");

        array.put(0, &stranger);
        assert_eq!(status(scenario, 7)["into"]["program"], stranger.id);
        scenario
            .knockgate("status")
            .exits(7)
            .says(&["NOT GUARDED", "program `neighbour`"]);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["holds program `neighbour`"]);
        assert_eq!(
            array.slot(0),
            Some(stranger.id),
            "another's program is never replaced"
        );
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), Some(stranger.id), "nor taken out");
    });
}

/// As after a start of the machine, or of the balancer alone.
#[test]
fn an_array_that_is_gone_is_said_and_a_new_one_is_entered() {
    in_both_modes(|scenario, pins| {
        let array = pins.array(2);
        let old = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        into(scenario, pins, "").exits(0);
        fs::remove_file(pins.at("array")).expect("it is pinned");
        status(scenario, 7);
        scenario
            .knockgate("status")
            .exits(7)
            .says(&["no array is pinned at"]);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["no array is pinned at"]);
        assert!(array.slot(0).is_some(), "the balancer still calls it");
        drop(old);

        let new = pins.array(2);
        let _balancer = balancer(scenario, &new);
        status(scenario, 7);
        scenario.knockgate("up").exits(0);
        assert!(new.slot(0).is_some());
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        assert_eq!(new.slot(0), None);
    });
}

/// The one that has it no more by its pin is found by what it holds.
#[test]
fn down_leaves_an_array_whose_pin_is_gone() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        into(scenario, pins, "").exits(0);
        fs::remove_file(pins.at("array")).expect("it is pinned");
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
        scenario.open(A, "22/tcp");
    });
}

#[test]
fn the_service_enters_a_new_array() {
    in_mode(Attach::Native, |scenario, pins| {
        let array = pins.array(2);
        let old = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let place = pins.at("array").display().to_string();
        let _service = scenario.lab.serve(&["--into", &place]);
        drop((old, array));
        wait_until("it is missing", || {
            scenario.knockgate("status").code == Some(7)
        });
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        wait_until("it is guarded", || {
            scenario.knockgate("status").code == Some(0)
        });
        scenario.closed(A, "22/tcp");
    });
}

/// What attaches the program that calls may start after the service.
#[test]
fn the_service_is_ready_before_its_slot_is_called() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        configure(scenario, alone(), gate());
        let place = pins.at("array").display().to_string();
        let manager = Manager::listen(scenario.lab.folder());
        let mut command = scenario.lab.knockgate_command(&["run", "--into", &place]);
        manager.hears(&mut command);
        let _service = Running::start(&mut command, scenario.lab.folder());
        manager.is_told_of_readiness();
        assert!(array.slot(0).is_some(), "the program is in its slot");
        scenario.knockgate("status").exits(7);
        let _balancer = balancer(scenario, &array);
        wait_until("it is guarded", || {
            scenario.knockgate("status").code == Some(0)
        });
        scenario.closed(A, "22/tcp");
    });
}

/// The unit gives the service no pins but its own to write.
#[test]
fn the_service_in_its_unit_enters_the_array_of_another() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let place = pins.at("array").display().to_string();
        let service = in_its_unit(scenario, &["run", "--into", &place, "--down-on-exit"]);
        wait_until("it is guarded", || {
            scenario.knockgate("status").code == Some(0)
        });
        scenario.closed(A, "22/tcp");
        array.empty(0);
        wait_until("it is in the slot again", || array.slot(0).is_some());
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        assert_eq!(array.slot(0), None);
    });
}

/// Two instances, each with a lock of its own, choose slots of one array.
#[test]
fn two_at_once_take_two_slots() {
    in_mode(Attach::Generic, |scenario, pins| {
        configure(scenario, alone(), gate());
        let roots = ["one", "two"].map(|name| pins.at(name));
        let command = |arguments: &[&str], root: &std::path::Path| {
            let mut command = scenario.lab.host.command(need::knockgate());
            command
                .arg("--config")
                .arg(scenario.lab.config())
                .arg("--pin-root")
                .arg(root);
            run(command
                .args(arguments)
                .env("STATE_DIRECTORY", scenario.lab.state())
                .env_remove("SSH_CONNECTION"))
        };
        let folder = pins.at("arrays");
        fs::create_dir(&folder).expect("a BPF file system");
        let place = folder.join("array");
        for _ in 0..4 {
            let array = Array::pinned(2, place.clone());
            let _balancer = balancer(scenario, &array);
            let argument = place.display().to_string();
            let up = |root| command(&["up", "--into", &argument], root);
            let (first, second) = std::thread::scope(|scope| {
                let first = scope.spawn(|| up(&roots[0]));
                let second = up(&roots[1]);
                (first.join().expect("it ran"), second)
            });
            first.exits(0);
            second.exits(0);
            let held = [array.slot(0), array.slot(1)];
            assert!(
                held[0].is_some() && held[1].is_some() && held[0] != held[1],
                "{held:?}"
            );
            for root in &roots {
                command(&["status"], root).exits(0);
            }
            command(&["down"], &roots[0]).exits(0);
            assert_eq!([array.slot(0), array.slot(1)].iter().flatten().count(), 1);
            command(&["status"], &roots[1]).exits(0);
            command(&["down"], &roots[1]).exits(0);
            assert_eq!([array.slot(0), array.slot(1)], [None, None]);
        }
    });
}
