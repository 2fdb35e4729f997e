//! Our program in a slot of another's array, where somebody has removed its pin or another one that leads to it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use knockgate_tests::{
    killed::{Call, killed_at_call},
    lab::{Source::A, WAN},
    network::ip,
    run::{Running, wait_until},
    scenario::Attach,
    tun::Tun,
};

use crate::{
    alone, configure, gate, in_mode,
    into::{balancer, into},
    status,
};

/// It is known by the tables that it uses.
#[test]
fn a_program_in_the_slot_that_is_not_pinned_is_replaced_and_taken_out() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let unpin = || {
            let pin = scenario.lab.pin_root().join(WAN).join("program");
            fs::remove_file(pin).expect("it is pinned");
        };
        for command in ["up", "reload"] {
            into(scenario, pins, "").exits(0);
            let before = array.slot(0);
            unpin();
            scenario.closed(A, "22/tcp");
            scenario.knockgate(command).exits(0);
            assert!(array.slot(0).is_some_and(|now| Some(now) != before));
            status(scenario, 0);
            scenario.closed(A, "22/tcp");
            unpin();
            scenario.knockgate("down").exits(0);
            assert_eq!(array.slot(0), None, "{command}");
            scenario.open(A, "22/tcp");
        }
    });
}

/// What undoes a replacement puts back what is pinned.
#[test]
fn a_program_in_the_slot_that_is_not_pinned_stays_where_its_replacement_ends() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        let up = || {
            configure(scenario, alone(), gate());
            into(scenario, pins, "").exits(0);
        };
        let unpin = |pin| {
            let pin = scenario.lab.pin_root().join(WAN).join(pin);
            fs::remove_file(pin).expect("it is pinned");
        };
        let other = || gate().protect("25/tcp");
        let stays = || {
            assert!(array.slot(0).is_some());
            scenario.closed(A, "22/tcp");
            scenario.open(A, "25/tcp");
            scenario.knockgate("down").exits(0);
            assert_eq!(array.slot(0), None);
        };

        up();
        unpin("program");
        let absent = format!("interfaces = [{WAN:?}, \"wan9\"]\n");
        configure(scenario, absent, other());
        let up_with_absent = scenario.knockgate("up");
        up_with_absent
            .exits(1)
            .says(&["there is no interface", "wan9"]);
        stays();

        for more in [None, Some("cursor")] {
            up();
            unpin("program");
            more.into_iter().for_each(unpin);
            configure(scenario, alone(), other());
            let up = scenario.lab.knockgate_command(&["up"]);
            assert!(killed_at_call(up, 0, Call::renames));
            scenario.knockgate("status");
            stays();
        }
    });
}

/// Without the privilege, nobody can tell whose the program in the slot is: `down` by root can.
#[test]
fn a_service_that_cannot_tell_whose_program_is_in_the_slot_leaves_its_pins() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let place = pins.at("array").display().to_string();
        let service = scenario.lab.serve(&["--into", &place, "--down-on-exit"]);
        let pin = scenario.lab.pin_root().join(WAN).join("program");
        fs::remove_file(&pin).expect("it is pinned");
        wait_until("another one is pinned", || pin.exists());
        scenario.closed(A, "22/tcp");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(1));
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
        scenario.open(A, "22/tcp");
    });
}

/// Nothing would lead to it when what is pinned were another's tables.
#[test]
fn a_service_that_cannot_tell_whose_program_is_in_the_slot_replaces_nothing() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        let place = pins.at("array").display().to_string();
        let service = scenario.lab.serve(&["--into", &place]);
        let pin = scenario.lab.pin_root().join(WAN).join("program");
        fs::remove_file(&pin).expect("it is pinned");
        wait_until("another one is pinned", || pin.exists());
        configure(scenario, alone(), gate().protect("25/tcp"));
        service.signal(libc::SIGHUP);
        wait_until("it has tried", || {
            let mut events = scenario.lab.events().into_iter();
            events.any(|event| event["event"] == "config.rejected")
        });
        scenario.closed(A, "22/tcp");
        scenario.knockgate("up").exits(0);
        scenario.closed(A, "25/tcp");
        scenario.open(A, "22/tcp");
    });
}

/// What reads the packets of one kind is not put in place of what reads those of the other. With the privilege to ask the kernel, as in a
/// container, the service sees that it is ours.
#[test]
fn a_slot_keeps_its_program_where_an_interface_becomes_another_kind() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        scenario.lab.add_interface("wan1");
        let both = format!("interfaces = [{WAN:?}, \"wan1\"]\n");
        configure(scenario, both, gate());
        let place = pins.at("array").display().to_string();
        let wrapper = ["setpriv", "--bounding-set=-bpf"];
        let run = ["run", "--into", &place];
        let mut command = scenario.lab.knockgate_command_under(&wrapper, &run);
        let _service = Running::start(&mut command, scenario.lab.folder());
        wait_until("it is in the slot", || array.slot(0).is_some());
        scenario.closed(A, "22/tcp");
        let held = array.slot(0);
        ip(&scenario.lab.host, "link del wan1");
        let _tun = Tun::create(&scenario.lab.host, "wan1", &[]);
        let begun = Instant::now();
        // The service looks every two seconds.
        while begun.elapsed() < Duration::from_secs(5) {
            assert_eq!(array.slot(0), held);
            thread::sleep(Duration::from_millis(50));
        }
        let status = scenario.knockgate("status");
        status.exits(7).says(&["this kind of interface"]);
        scenario.closed(A, "22/tcp");
    });
}

/// Without it, nothing says in which slot the program is: it is not what a killed `down` has left.
#[test]
fn what_is_in_the_slot_is_found_without_the_pin_of_the_configuration() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        into(scenario, pins, "").exits(0);
        let directory = scenario.lab.pin_root().join(WAN);
        fs::remove_file(directory.join("config")).expect("it is pinned");
        scenario.knockgate("status");
        assert!(directory.exists());
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
        scenario.open(A, "22/tcp");
    });
}
