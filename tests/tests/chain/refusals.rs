//! Neighbours that do not go with our program are refused before anything is changed, and the message says what to do.

use std::fs;

use knockgate_tests::{
    foreign,
    lab::{CLIENT_INTERFACE, Source::A, WAN},
    need,
    neighbour::{ATTACH_DEVMAP, Kind, Neighbour, PROG_TYPE_SCHED_CLS},
    network::ip,
    scenario::{Attach, Scenario},
};

use crate::{Pins, alone, configure, followed_by, gate, in_both_modes, in_mode, status};

/// Asserts that `up` fails with these words and leaves nothing, and that `check` warns of the same.
#[track_caller]
fn is_refused(scenario: &Scenario, words: &[&str]) {
    scenario.knockgate("up").exits(1).says(words);
    scenario.lab.assert_untouched();
    is_warned_of(scenario, words);
}

/// Asserts that `check` warns of what follows, with these words.
#[track_caller]
fn is_warned_of(scenario: &Scenario, words: &[&str]) {
    let check = scenario.knockgate("check --json").exits(0).json();
    let findings = check["findings"].as_array().expect("a list");
    let finding = findings
        .iter()
        .find(|finding| finding["code"] == "unfit-next");
    let message =
        finding.unwrap_or_else(|| panic!("no such finding: {check}"))["message"].to_string();
    let message = message.replace("\\\"", "\"");
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in {message}");
    }
}

#[test]
fn what_is_no_xdp_program_cannot_follow() {
    in_both_modes(|scenario, pins| {
        let pin = pins.at("next");
        configure(scenario, followed_by(&pin), gate());
        is_refused(
            scenario,
            &["nothing is pinned at", "load that program and pin it"],
        );
        foreign::pin_map(&pin);
        is_refused(scenario, &["it is no program", "not its link or a table"]);
        let classifier = Kind {
            program_type: PROG_TYPE_SCHED_CLS,
            attach_type: 0,
            ..Kind::USUAL
        };
        Neighbour::of(classifier, None).pin(&pin);
        is_refused(scenario, &["program of type 3", "no XDP program"]);
    });
}

/// Since Linux 6.18, and in stable kernels that have the change, programs that call each other have one attach type; before that
/// it makes no difference.
#[test]
fn the_attach_type_must_be_ours() {
    in_mode(Attach::Generic, |scenario, pins| {
        let pin = pins.at("next");
        configure(scenario, followed_by(&pin), gate());
        let for_maps = Kind {
            attach_type: ATTACH_DEVMAP,
            ..Kind::USUAL
        };
        Neighbour::of(for_maps, None).pin(&pin);
        if kernel() < (6, 18) && scenario.knockgate("up").code == Some(0) {
            status(scenario, 0);
        } else {
            is_refused(
                scenario,
                &["another attach type (BPF_XDP_DEVMAP)", "SEC(\"xdp\")"],
            );
        }
    });
}

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release
        .split('.')
        .map(|number| number.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Ours is loaded as the other is, where that is possible.
#[test]
fn frags_are_as_the_other_has_them() {
    in_mode(Attach::Native, |scenario, pins| {
        let pin = pins.at("next");
        let with = Neighbour::of(Kind::FRAGS, None);
        with.pin(&pin);
        configure(scenario, followed_by(&pin), gate());
        scenario.knockgate("up").exits(0);
        scenario.refused(A, "4000/tcp");
        assert_eq!(with.count(4000), 1);
        // The other one changes: `reload` loads the entry of ours that goes with it.
        let without = Neighbour::new();
        without.pin(&pin);
        scenario.knockgate("reload").exits(0);
        scenario.refused(A, "4000/tcp");
        assert_eq!((with.count(4000), without.count(4000)), (1, 1));
        scenario.closed(A, "22/tcp");
        scenario.knockgate("down").exits(0);

        with.pin(&pin);
        configure(scenario, followed_by(&pin), gate().key("deny = \"reject\""));
        is_refused(
            scenario,
            &[
                "xdp.frags",
                "deny = \"reject\"",
                "load the other without frags",
            ],
        );

        without.pin(&pin);
        configure(scenario, followed_by(&pin), gate());
        ip(&scenario.lab.host, &format!("link set {WAN} mtu 9000"));
        ip(
            &scenario.lab.client,
            &format!("link set {CLIENT_INTERFACE} mtu 9000"),
        );
        is_refused(
            scenario,
            &[
                "at an MTU of",
                "SEC(\"xdp.frags\")",
                if need::large_pages() {
                    "mtu 1500"
                } else {
                    "mtu 3506"
                },
                "attach = \"generic\"",
            ],
        );
        with.pin(&pin);
        scenario.knockgate("up").exits(0);
        scenario.refused(A, "4001/tcp");
        assert_eq!(with.count(4001), 1);
    });
}

#[test]
fn frags_of_two_neighbours_must_be_alike() {
    in_mode(Attach::Native, |scenario, pins| {
        scenario.lab.add_interface("wan1");
        Neighbour::new().pin(&pins.at("plain"));
        Neighbour::of(Kind::FRAGS, None).pin(&pins.at("frags"));
        let sections = format!(
            "{}{}",
            followed_by(&pins.at("plain")),
            crate::section("wan1", &pins.at("frags"))
        );
        configure(scenario, sections, gate());
        is_refused(scenario, &["cannot go with both", "load both with frags"]);
    });
}

fn into(scenario: &Scenario, pins: &Pins, slot: &str, words: &[&str]) {
    let place = format!("up --into {}{slot}", pins.at("array").display());
    scenario.knockgate(&place).exits(1).says(words);
    scenario.lab.assert_untouched();
}

#[test]
fn arrays_without_room_are_refused() {
    in_both_modes(|scenario, pins| {
        configure(scenario, alone(), gate());
        into(
            scenario,
            pins,
            "",
            &["no array is pinned at", "start what pins it"],
        );
        foreign::pin_map(&pins.at("array"));
        into(scenario, pins, "", &["is no array of programs"]);
        let array = pins.array(2);
        into(scenario, pins, "[2]", &["has 2 slots, 0 to 1"]);
        let others = [Neighbour::new(), Neighbour::new()];
        array.put(0, &others[0]);
        into(
            scenario,
            pins,
            "[0]",
            &["[0] holds program `neighbour`", "name a free slot"],
        );
        array.put(1, &others[1]);
        into(scenario, pins, "", &["each of the 2 slots", "empty one"]);
        assert_eq!(
            [array.slot(0), array.slot(1)],
            [Some(others[0].id), Some(others[1].id)]
        );
        let place = format!("up --into {}[x]", pins.at("array").display());
        scenario.knockgate(&place).exits(2).says(&["is no slot"]);
        scenario
            .knockgate("up --into array")
            .exits(2)
            .says(&["absolute path"]);
    });
}

#[test]
fn frags_are_as_the_array_has_them() {
    in_mode(Attach::Native, |scenario, pins| {
        let array = pins.array(2);
        let mut balancer = Neighbour::of(Kind::FRAGS, Some(&array));
        balancer.attach(&scenario.lab.host, WAN, true);
        let place = format!("up --into {}", pins.at("array").display());
        configure(scenario, alone(), gate().key("deny = \"reject\""));
        scenario
            .knockgate(&place)
            .exits(1)
            .says(&["xdp.frags", "deny = \"reject\""]);
        assert_eq!(array.slot(0), None);
        configure(scenario, alone(), gate());
        scenario.knockgate(&place).exits(0);
        scenario.closed(A, "22/tcp");
        status(scenario, 0);
        // What is up in an array stays there, so what follows must go with that too.
        Neighbour::new().pin(&pins.at("next"));
        configure(scenario, followed_by(&pins.at("next")), gate());
        let words = ["cannot go with both", "load both with frags"];
        scenario.knockgate("up").exits(1).says(&words);
        is_warned_of(scenario, &words);
    });
}

#[test]
fn an_array_of_other_programs_is_refused() {
    in_mode(Attach::Generic, |scenario, pins| {
        let array = pins.array(2);
        let classifier = Kind {
            program_type: PROG_TYPE_SCHED_CLS,
            attach_type: 0,
            ..Kind::USUAL
        };
        let _owner = Neighbour::of(classifier, Some(&array));
        configure(scenario, alone(), gate());
        into(scenario, pins, "", &["programs of type 3", "XDP programs"]);
    });
}

/// Both at once.
#[test]
fn an_interface_is_named_once() {
    in_mode(Attach::Generic, |scenario, pins| {
        let twice = format!("{}{}", alone(), followed_by(&pins.at("next")));
        configure(scenario, twice, gate());
        scenario
            .knockgate("up")
            .exits(3)
            .says(&["wan0 is named already, on line"]);
    });
}

/// At TCX no XDP program can be called, and a program there cannot be moved to XDP without a gap.
#[test]
fn nothing_follows_where_auto_has_gone_to_tcx() {
    in_mode(Attach::Tcx, |scenario, pins| {
        let configure = |interfaces: String| {
            scenario.lab.configure(&format!("{interfaces}\n{}", gate()));
        };
        let taken = foreign::ForeignProgram::linked(&scenario.lab);
        configure(alone());
        scenario.knockgate("up").exits(0);
        drop(taken);
        let pin = pins.at("next");
        Neighbour::new().pin(&pin);
        configure(followed_by(&pin));
        scenario
            .knockgate("reload")
            .exits(1)
            .says(&["guarded at TCX", "`next`", "knockgate down"]);
        scenario.closed(A, "22/tcp");
        assert!(status(scenario, 0)["next"].is_null());
    });
}
