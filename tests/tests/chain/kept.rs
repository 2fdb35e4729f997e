//! Guarded ports stay closed, whatever becomes of the interfaces, the arrays and the neighbours in the configuration.

use std::{fs, path::Path};

use knockgate_tests::{
    foreign,
    killed::{Call, count, killed_at_call},
    lab::{Source::A, WAN},
    neighbour::{Array, Kind, Neighbour},
    network::ip,
    run::wait_until,
    scenario::{Attach, Scenario},
};

use crate::{
    OTHER, Pins, Udp, alone, configure, followed_by, gate, in_mode,
    into::{balancer, into},
    logged, status,
};

/// Interfaces that are not there: before and behind [`WAN`] in the order of names.
const ABSENT: [&str; 2] = ["absent0", "zabsent0"];

fn interfaces(names: &[&str]) -> String {
    format!("interfaces = {names:?}\n")
}

/// Runs `row` with the program in the first of two slots of an array, which a program on the interface calls.
fn in_a_slot(row: impl FnOnce(&Scenario, &Pins, Array)) {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        into(scenario, pins, "").exits(0);
        row(scenario, pins, array);
    });
}

/// One program in one slot guards all interfaces, so what is undone for one of them must not be undone by emptying the slot.
#[test]
fn an_up_that_fails_leaves_the_slot_as_it_was() {
    for absent in ABSENT {
        in_a_slot(|scenario, _, array| {
            let before = array.slot(0);
            configure(scenario, interfaces(&[WAN, absent]), gate());
            scenario
                .knockgate("up")
                .exits(1)
                .says(&["there is no interface", absent]);
            assert_eq!(array.slot(0), before, "{absent}");
            status(scenario, 0);
            scenario.closed(A, "22/tcp");
        });
    }
}

#[test]
fn a_reload_to_more_interfaces_that_is_killed_keeps_the_slot() {
    in_a_slot(|scenario, pins, array| {
        let texts = [alone(), interfaces(&[ABSENT[0], WAN])];
        configure(scenario, &texts[1], gate());
        let reload = || scenario.lab.knockgate_command(&["reload"]);
        // The slot is an entry of a table, and is changed before directories are renamed.
        let wanted = |call: &Call| call.changes_an_entry() || call.renames();
        let all = count(reload(), wanted);
        configure(scenario, &texts[0], gate());
        scenario.knockgate("reload").exits(0);
        for point in (0..all).rev().take(16) {
            configure(scenario, &texts[1], gate());
            killed_at_call(reload(), point, wanted);
            scenario.closed(A, "22/tcp");
            // It is refused, after it has settled what was begun.
            configure(scenario, followed_by(&pins.at("nothing")), gate());
            scenario
                .knockgate("up")
                .exits(1)
                .says(&["nothing is pinned"]);
            scenario.closed(A, "22/tcp");
            configure(scenario, &texts[0], gate());
            scenario.knockgate("reload").exits(0);
            scenario.closed(A, "22/tcp");
        }
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
    });
}

/// The slot goes from the one program to the other, whatever interfaces the configuration names.
#[test]
fn a_reload_to_another_interface_exchanges_the_program() {
    in_a_slot(|scenario, _, array| {
        scenario.lab.add_interface("lan0");
        let before = array.slot(0);
        configure(scenario, interfaces(&["lan0"]), gate());
        scenario.knockgate("reload").exits(0);
        let after = array.slot(0);
        assert!(
            after.is_some() && after != before,
            "{before:?} and {after:?}"
        );
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
    });
}

/// A balancer that starts again makes a new array, and still calls the one before it for a while.
#[test]
fn an_array_that_is_still_in_use_is_followed() {
    in_a_slot(|scenario, pins, in_use| {
        // Pinned in the place of the other.
        fs::rename(pins.at("array"), pins.at("before")).expect("a pin can be moved");
        let new = Array::pinned(2, pins.at("array"));
        scenario.knockgate("up").exits(0);
        let first = new.slot(0);
        assert!(first.is_some() && in_use.slot(0) == first);
        configure(scenario, alone(), gate().protect("22/tcp 25/tcp 2200/udp"));
        scenario.knockgate("reload").exits(0);
        assert_ne!(new.slot(0), first);
        assert_eq!(in_use.slot(0), new.slot(0));
        scenario.closed(A, "25/tcp");
        scenario.knockgate("down").exits(0);
        assert_eq!((in_use.slot(0), new.slot(0)), (None, None));
    });
}

/// A program that is undone must not stay in a slot: nothing would lead to its tables.
#[test]
fn an_up_that_fails_leaves_nothing_in_a_new_array() {
    in_a_slot(|scenario, pins, array| {
        // One for programs of another kind, which the one before cannot be put into.
        drop(array);
        let new = pins.array(2);
        new.put(1, &Neighbour::of(Kind::FRAGS, None));
        configure(scenario, interfaces(&[WAN, ABSENT[1]]), gate());
        scenario
            .knockgate("up")
            .exits(1)
            .says(&["there is no interface", ABSENT[1]]);
        assert_eq!(new.slot(0), None);
        configure(scenario, alone(), gate());
        scenario.knockgate("up").exits(0);
        assert!(new.slot(0).is_some());
        scenario.knockgate("down").exits(0);
        assert_eq!(new.slot(0), None);
    });
}

/// What another version has put into a slot is found by what it has pinned.
#[test]
fn down_takes_another_layout_out_of_its_slot() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(4);
        let _balancer = balancer(scenario, &array);
        configure(scenario, alone(), gate());
        into(scenario, pins, "[2]").exits(0);
        foreign::change_layout(&scenario.lab.pin_root().join(WAN).join("meta"));
        scenario.knockgate("up").exits(1).says(&["knockgate down"]);
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(2), None);
        assert!(!scenario.lab.pin_root().exists());
    });
}

/// The entry for one kind of interface reads nothing of the other kind.
#[test]
fn an_interface_of_another_kind_is_not_guarded_by_the_slot() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let _balancer = balancer(scenario, &array);
        configure(scenario, interfaces(&[WAN, "tun7"]), gate());
        let place = pins.at("array").display().to_string();
        let _service = scenario
            .lab
            .serve_until(&["--into", &place], "it is up", || array.slot(0).is_some());
        let guards = array.slot(0);
        ip(
            &scenario.lab.host,
            "tuntap add tun7 mode tun\nlink set tun7 up",
        );
        let state = || scenario.knockgate("status").exits(7).stdout.clone();
        wait_until("it is seen", || state().contains("does not read packets"));
        assert_eq!(array.slot(0), guards, "the other interface keeps its entry");
        scenario.closed(A, "22/tcp");
    });
}

/// From whose directory somebody has removed a pin.
#[test]
fn what_is_damaged_keeps_its_slot() {
    in_a_slot(|scenario, _, array| {
        let before = array.slot(0);
        fs::remove_file(scenario.lab.pin_root().join(WAN).join("cursor")).expect("it is pinned");
        let moments = count(scenario.lab.knockgate_command(&["up"]), |call| {
            (call.changes_pins() || call.changes_an_entry()) && array.slot(0).is_none()
        });
        assert_eq!(moments, 0);
        assert!(array.slot(0).is_some() && array.slot(0) != before);
        assert_eq!(array.slot(1), None);
        status(scenario, 0);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
    });
}

/// Another interface's directory has all pins: they are pinned again, and the program in the slot is the same before and after.
#[test]
fn pinning_again_that_is_killed_keeps_the_slot() {
    in_a_slot(|scenario, _, array| {
        scenario.lab.add_interface("wan1");
        configure(scenario, interfaces(&[WAN, "wan1"]), gate());
        scenario.knockgate("up");
        let before = array.slot(0);
        assert!(before.is_some());
        let damage = || {
            let pin = scenario.lab.pin_root().join("wan1").join("cursor");
            fs::remove_file(pin).expect("it is pinned");
        };
        let up = || scenario.lab.knockgate_command(&["up"]);
        damage();
        let all = count(up(), Call::changes_pins);
        let tables = all / 2;
        // While some are pinned and some are not, among them the configuration; when the directory has its name; while the one
        // before is removed.
        for point in [4, 20, tables - 4, tables, tables + 2, tables + 8, all - 4] {
            damage();
            assert!(killed_at_call(up(), point, Call::changes_pins), "{point}");
            scenario.knockgate("status");
            assert_eq!(array.slot(0), before, "killed at {point} of {all}");
            scenario.closed(A, "22/tcp");
            scenario.knockgate("up");
            assert_eq!(array.slot(0), before, "killed at {point} of {all}");
            let pins = scenario.lab.pin_root().join("wan1");
            assert!(pins.join("cursor").exists(), "killed at {point} of {all}");
        }
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
    });
}

/// A directory in a slot has no link, and the balancer that starts again has an empty array.
#[test]
fn what_is_damaged_is_no_remains_when_the_slot_is_empty() {
    in_a_slot(|scenario, _, array| {
        fs::remove_file(scenario.lab.pin_root().join(WAN).join("cursor")).expect("it is pinned");
        array.empty(0);
        scenario.knockgate("status").exits(7);
        scenario.knockgate("up").exits(0);
        assert!(array.slot(0).is_some());
        status(scenario, 0);
        scenario.closed(A, "22/tcp");
    });
}

/// An entry that one interface alone has needed is pinned in its directory alone.
#[test]
fn what_is_damaged_keeps_the_entry_that_is_in_the_slot() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        configure(scenario, interfaces(&["tun8", "tun9"]), gate());
        let place = pins.at("array").display().to_string();
        let service = scenario
            .lab
            .serve_until(&["--into", &place], "it serves", || {
                scenario.knockgate("events").code == Some(0)
            });
        ip(&scenario.lab.host, "tuntap add tun8 mode tun");
        wait_until("it has its entry", || array.slot(0).is_some());
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        let guards = array.slot(0);
        ip(&scenario.lab.host, "tuntap add tun9 mode tun");
        fs::remove_file(scenario.lab.pin_root().join("tun8").join("cursor")).expect("it is pinned");
        scenario.knockgate("up");
        assert_eq!(array.slot(0), guards);
        let said = scenario.knockgate("status").exits(7).stdout.clone();
        assert!(said.contains("it carries no XDP program"), "{said}");
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
    });
}

/// What is to follow never keeps an interface from being guarded.
#[test]
fn an_interface_is_guarded_before_what_follows_is_complained_of() {
    let missing: Spoil = |pin| fs::remove_file(pin).expect("it is pinned");
    let unfit: Spoil = |pin| {
        fs::remove_file(pin).expect("it is pinned");
        foreign::pin_map(pin);
    };
    let frags: Spoil = |pin| Neighbour::of(Kind::FRAGS, None).pin(pin);
    for (spoil, words) in [
        (missing, "nothing is pinned at"),
        (unfit, "it is no program"),
        // Refused for `deny = "reject"`.
        (frags, "frames in several buffers"),
    ] {
        in_mode(Attach::Generic, |scenario, pins| {
            let pin = pins.at("next");
            Neighbour::new().pin(&pin);
            configure(scenario, followed_by(&pin), gate().key("deny = \"reject\""));
            scenario.knockgate("up").exits(0);
            spoil(&pin);
            foreign::detach(&scenario.lab.pin_root().join(WAN).join("link"));
            scenario.knockgate("status").exits(7);
            scenario.knockgate("up").exits(1).says(&[words]);
            scenario.refused(A, "22/tcp");
            let row = scenario.knockgate("status --json").json();
            assert_eq!(row["interfaces"][0]["guarded"], true, "{row}");
        });
    }
}

/// Makes what is pinned there unfit.
type Spoil = fn(&Path);

/// The service says what keeps packets from going on once, and guards nevertheless.
#[test]
fn a_neighbour_of_another_kind_is_said_once() {
    in_mode(Attach::Generic, |scenario, pins| {
        let pin = pins.at("next");
        configure(scenario, followed_by(&pin), gate());
        let (_service, said) = logged(scenario, &["run"]);
        wait_until("the interface is guarded", || {
            let run = scenario.knockgate("status --json");
            run.code == Some(7) && run.json()["interfaces"][0]["guarded"] == true
        });
        let before = said();
        assert!(before.contains("nothing is pinned at"), "{before}");
        Neighbour::of(Kind::FRAGS, None).pin(&pin);
        wait_until("it is said", || said().contains("it is of another kind"));
        // Several looks later. It is said once more when the program is attached.
        foreign::detach(&scenario.lab.pin_root().join(WAN).join("link"));
        wait_until("it has been attached again", || {
            said().matches("is NOT GUARDED").count() == 1
                && scenario.knockgate("status --json").json()["interfaces"][0]["guarded"] == true
        });
        let after = said();
        assert_eq!(after.matches("it is of another kind").count(), 2, "{after}");
        assert!(!after.contains("goes on to the program"), "{after}");
        scenario.closed(A, "22/tcp");
        scenario.knockgate("up").exits(0);
        status(scenario, 0);
    });
}

/// Returning from a trial must not need what the configuration before it had beside it.
#[test]
fn a_trial_ends_though_a_neighbour_is_gone() {
    let returns = |scenario: &Scenario| {
        scenario.closed(A, "22/tcp");
        configure(scenario, alone(), gate().protect("2200/udp"));
        scenario.knockgate("up --try 1s").exits(0);
    };
    in_mode(Attach::Generic, |scenario, pins| {
        let pin = pins.at("next");
        Neighbour::new().pin(&pin);
        configure(scenario, followed_by(&pin), gate());
        scenario.knockgate("up").exits(0);
        returns(scenario);
        fs::remove_file(&pin).expect("it is pinned");
        wait_until("it returns", || {
            scenario
                .knockgate("status")
                .stderr
                .contains("is in force again")
        });
        scenario.closed(A, "22/tcp");
    });
    in_a_slot(|scenario, pins, _array| {
        returns(scenario);
        fs::remove_file(pins.at("array")).expect("it is pinned");
        wait_until("it returns", || {
            scenario
                .knockgate("status")
                .stderr
                .contains("is in force again")
        });
        scenario.closed(A, "22/tcp");
    });
}

/// The kernel has the error of a missing permission for a path that cannot be a pin.
#[test]
fn paths_that_are_no_pins_are_told_from_what_is_not_permitted() {
    in_mode(Attach::Generic, |scenario, pins| {
        let folder = pins.at("folder");
        fs::create_dir(&folder).expect("a BPF file system");
        let file = scenario.lab.folder().join("file");
        fs::write(&file, "").expect("the test's own");
        let link = pins.at("link");
        let mut neighbour = Neighbour::new();
        scenario.lab.add_interface("lan0");
        neighbour.attach(&scenario.lab.host, "lan0", false);
        neighbour.pin_link(&link);
        for (path, words) in [
            (folder.clone(), "is a directory"),
            (file, "not on a BPF file system"),
            (pins.at("with.dot"), "no names with a dot"),
            (link, "it is no program"),
        ] {
            configure(scenario, followed_by(&path), gate());
            scenario.knockgate("up").exits(1).says(&[words]);
            let check = scenario.knockgate("check");
            assert!(check.exits(0).stdout.contains(words), "{check:?}");
            scenario.lab.assert_untouched();
        }
        configure(scenario, alone(), gate());
        let place = pins.at("array");
        let array = Array::pinned(2, place.clone());
        let _balancer = balancer(scenario, &array);
        into(scenario, pins, "").exits(0);
        fs::rename(&place, pins.at("before")).expect("a pin can be moved");
        fs::create_dir(&place).expect("a BPF file system");
        scenario
            .knockgate("status")
            .exits(7)
            .says(&["no array is pinned at"]);
        scenario.knockgate("down").exits(0);
        assert_eq!(array.slot(0), None);
        assert!(!scenario.lab.pin_root().exists());
    });
}

/// An interface that is made again has another index, by which what follows is told apart.
#[test]
fn what_follows_in_a_slot_follows_after_an_interface_is_made_again() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let mut root = balancer(scenario, &array);
        let next = Neighbour::new();
        next.pin(&pins.at("next"));
        scenario.lab.add_interface("lan0");
        let text = format!(
            "{}[[interface]]\nname = \"lan0\"\n",
            followed_by(&pins.at("next"))
        );
        configure(scenario, text, gate());
        into(scenario, pins, "").exits(0);
        let other = Udp::bind(scenario, OTHER);
        other.send(scenario, A, 2);
        other.receives(2);
        assert_eq!(next.count(OTHER), 2);
        scenario.lab.make_again();
        root.attach(&scenario.lab.host, WAN, false);
        scenario.knockgate("up").exits(0);
        other.send(scenario, A, 2);
        other.receives(2);
        assert_eq!(next.count(OTHER), 4);
    });
}
