//! TCX: the place among other programs, and what is not to be had there.

use std::{fs, path::Path};

use knockgate_tests::{
    foreign::{Action, ForeignProgram, PROGRAM_NAME, TcxProgram},
    gate_config::Gate,
    is_thorough,
    killed::{count, killed_before},
    lab::{
        CLIENT_INTERFACE, Family, Lab,
        Source::{A, B},
        WAN,
    },
    need,
    network::ip,
    run::{run, wait_until},
    scenario::{Attach, Scenario},
};

use crate::{expect_status, is_guarded, listed, serve, ssh};

fn at_tcx(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Tcx, Family::V4, &[], row);
}

/// A program in front might let packets by, so then the interface is not guarded.
#[test]
fn it_is_in_front_of_programs_that_let_packets_by() {
    at_tcx(|scenario| {
        let before = TcxProgram::on(&scenario.lab.host, WAN, Action::Pass, true);
        scenario.up(ssh());
        assert_eq!(listed(scenario)[1..], [before.id]);
        scenario.closed(A, "22/tcp");
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        // What passes goes on to the next.
        scenario.open(B, "22/tcp");

        let after = TcxProgram::on(&scenario.lab.host, WAN, Action::Pass, true);
        assert_eq!(listed(scenario)[0], after.id);
        scenario.open(A, "22/tcp");
        // What has come by it has no grant, and the gate would remember nothing of it.
        let flow = scenario.connected(A, 22);
        scenario
            .in_session(&flow, &["up"])
            .exits(1)
            .says(&["would cut off"]);
        drop(flow);
        expect_status(scenario, &[(WAN, None, false)]);
        let said = scenario.knockgate("status");
        said.exits(7);
        assert!(said.stdout.contains(PROGRAM_NAME), "{said:?}");
        scenario.knockgate("up").exits(0).says(&[WAN, "again"]);
        expect_status(scenario, &[(WAN, None, true)]);
        let [ours, others @ ..] = &listed(scenario)[..] else {
            panic!("nothing is at TCX");
        };
        assert_eq!(others, [after.id, before.id]);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");

        // Replaced where it is.
        scenario.configure(ssh().open_for("2m"));
        scenario.knockgate("reload").exits(0);
        let now = listed(scenario);
        assert_ne!(now[0], *ours);
        assert_eq!(now[1..], [after.id, before.id]);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");

        scenario.knockgate("down").exits(0);
        assert_eq!(listed(scenario), [after.id, before.id]);
        assert!(scenario.lab.pins().is_empty());
    });
}

/// The service puts it in front again, with no moment in which it is not attached.
#[test]
fn the_service_puts_it_in_front_again() {
    at_tcx(|scenario| {
        scenario.configure(ssh());
        let mut service = serve(scenario);
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let other = TcxProgram::on(&scenario.lab.host, WAN, Action::Pass, true);
        wait_until("it is in front", || {
            listed(scenario).last() == Some(&other.id)
        });
        is_guarded(scenario);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
        let lost = scenario
            .lab
            .events()
            .into_iter()
            .find(|event| event["event"] == "interface.lost");
        assert_eq!(lost.expect("it was said")["reason"], "behind");
        assert!(service.goes_on());
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

#[test]
fn it_is_behind_others_where_that_is_asked_for() {
    at_tcx(|scenario| {
        let other = TcxProgram::on(&scenario.lab.host, WAN, Action::Next, true);
        scenario.up(format!("order = \"last\"\n{}", ssh()));
        assert_eq!(listed(scenario)[0], other.id);
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.closed(A, "22/tcp");
        // Its place is another in the new configuration.
        scenario.configure(ssh());
        scenario.knockgate("up").exits(0);
        assert_eq!(listed(scenario)[1..], [other.id]);
        expect_status(scenario, &[(WAN, None, true)]);
        scenario.closed(A, "22/tcp");
    });
}

/// `auto` takes what there is, and says why it is not native.
#[test]
fn auto_goes_behind_another_xdp_program() {
    let Some(lab) = Lab::build(&[]).filter(|_| need::tcx()) else {
        return;
    };
    let scenario = Scenario::new(Attach::Tcx, Family::V4, lab);
    let other = ForeignProgram::linked(&scenario.lab);
    scenario
        .lab
        .configure(&format!("interfaces = [\"{WAN}\"]\n{}", ssh()));
    scenario.knockgate("up").exits(0).says(&[
        PROGRAM_NAME,
        &other.id.to_string(),
        "attached at TCX",
    ]);
    scenario.closed(A, "22/tcp");
    let status = scenario.knockgate("status --json").exits(0).json();
    assert_eq!(status["interfaces"][0]["attach"], "tcx");
    scenario.knockgate("down").exits(0);
    assert!(scenario.lab.interface().contains("xdp"), "it is theirs");
    drop(other);
}

#[test]
fn auto_takes_tcx_where_the_driver_refuses() {
    let Some(lab) = Lab::build(&[]).filter(|_| need::tcx()) else {
        return;
    };
    for (netns, interface) in [(&lab.host, WAN), (&lab.client, CLIENT_INTERFACE)] {
        ip(netns, &format!("link set {interface} mtu 9000"));
    }
    // Frames in several buffers go through the driver's native mode as well, except where they cannot come in several.
    ip(&lab.host, "link add top type bridge");
    lab.configure(&format!(
        "interfaces = [\"top\"]\nallow = [\"192.0.2.0/24\"]\n{}",
        Gate::ssh()
    ));
    let check = lab.knockgate(&["check"]);
    assert!(
        check.exits(0).stdout.contains("will attach to top at TCX"),
        "{check:?}"
    );
    lab.knockgate(&["up"])
        .exits(0)
        .says(&["no native XDP", "attached at TCX"]);
    let status = lab.knockgate(&["status", "--json"]).exits(0).json();
    assert_eq!(status["interfaces"][0]["attach"], "tcx");
}

/// A reload attaches nothing anew, so what was native stays so.
#[test]
fn a_reload_says_that_a_veth_may_lose_replies() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let configure = |gate: Gate| {
        let attach = "attach = \"auto\"\nallow = [\"192.0.2.0/24\"]";
        lab.configure(&format!("interfaces = [\"{WAN}\"]\n{attach}\n{gate}"));
    };
    configure(Gate::ssh());
    lab.knockgate(&["up"]).exits(0);
    let status = lab.knockgate(&["status", "--json"]).exits(0).json();
    assert_eq!(status["interfaces"][0]["attach"], "native");
    configure(Gate::ssh().key("deny = \"reject\""));
    lab.knockgate(&["reload"])
        .exits(0)
        .says(&["may lose the replies", "until `knockgate down`"]);
    configure(Gate::ssh());
    let reload = lab.knockgate(&["reload"]);
    assert!(!reload.exits(0).stderr.contains("replies"), "{reload:?}");
}

/// In native mode it may lose them.
#[test]
fn auto_takes_tcx_on_a_veth_that_is_to_reply() {
    let Some(lab) = Lab::build(&[]).filter(|_| need::tcx()) else {
        return;
    };
    let configure = |attach: &str| {
        lab.configure(&format!(
            "interfaces = [\"{WAN}\"]\nattach = \"{attach}\"\nallow = [\"192.0.2.0/24\"]\n{}",
            Gate::ssh().key("deny = \"reject\"")
        ));
    };
    for (attach, in_force, says) in [
        ("auto", "tcx", "at TCX: wan0 is a veth, which may lose"),
        (
            "native",
            "native",
            "the replies of `deny = \"reject\"` get lost",
        ),
    ] {
        configure(attach);
        let check = lab.knockgate(&["check"]);
        assert!(check.exits(0).stdout.contains(says), "{check:?}");
        let said = says.rsplit_once(": ").map_or(says, |(_, why)| why);
        lab.knockgate(&["up"]).exits(0).says(&[said]);
        let status = lab.knockgate(&["status", "--json"]).exits(0).json();
        assert_eq!(status["interfaces"][0]["attach"], in_force);
        lab.knockgate(&["down"]).exits(0);
    }
}

/// Two would go in front of each other without end.
#[test]
fn another_instance_is_refused() {
    at_tcx(|scenario| {
        scenario.up(ssh());
        let other = format!("{}-other", scenario.lab.pin_root().display());
        let mut up = scenario.lab.host.command(need::knockgate());
        up.arg("--config").arg(scenario.lab.config());
        run(up.args(["--pin-root", &other, "up"])).exits(1).says(&[
            WAN,
            "by another instance",
            "--pin-root",
        ]);
        assert!(!Path::new(&other).exists(), "nothing is left of it");
        assert_eq!(listed(scenario).len(), 1);
        scenario.closed(A, "22/tcp");
    });
}

/// Neither a way to change it without a gap, nor other XDP programs.
#[test]
fn what_is_not_to_be_had_is_refused() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let configure = |attach: &str, more: &str, gate: Gate| {
        lab.configure(&format!("attach = \"{attach}\"\n{more}\n{gate}"));
    };
    let alone = format!("interfaces = [\"{WAN}\"]");
    let followed = format!("[[interface]]\nname = \"{WAN}\"\nnext = \"/sys/fs/bpf/none\"");
    configure("tcx", &followed, ssh());
    lab.knockgate(&["up"])
        .exits(3)
        .says(&["`next`", "no XDP program calls it"]);
    lab.assert_untouched();

    configure("tcx", &alone, ssh());
    if !need::tcx() {
        lab.knockgate(&["up"])
            .exits(1)
            .says(&["has no TCX", "Linux 6.6"]);
        lab.assert_untouched();
        return;
    }
    lab.knockgate(&["up", "--into", "/sys/fs/bpf/none[0]"])
        .exits(1);
    lab.assert_untouched();
    configure("generic", &alone, ssh());
    lab.knockgate(&["up"]).exits(0);
    configure("tcx", &alone, ssh());
    lab.knockgate(&["up"])
        .exits(1)
        .says(&["generic mode", "tcx", "knockgate down"]);
    let status = lab.knockgate(&["status", "--json"]).exits(0).json();
    assert_eq!(status["interfaces"][0]["attach"], "generic");
}

/// Whatever is left of it half-way, the next one completes: one copy, in front.
#[test]
fn going_in_front_may_be_killed_at_any_point() {
    at_tcx(|scenario| {
        // What is next: `up`, or at once the replacement of what is in force, or of what is left of it. Each of these at each point before
        // a release.
        let nexts = ["up", "reload", "up of what is damaged"];
        let rounds = (0..400).flat_map(|nth| nexts.map(|next| (nth, next)));
        let step = if is_thorough() { 1 } else { nexts.len() + 1 };
        let mut whole = 0;
        for (nth, next) in rounds.step_by(step) {
            scenario.up(ssh());
            let other = TcxProgram::on(&scenario.lab.host, WAN, Action::Next, true);
            let ended = !killed_before(scenario.lab.knockgate_command(&["up"]), nth);
            // Either of the two judges until then.
            scenario.closed(A, "22/tcp");
            if next == "reload" {
                scenario.configure(ssh().open_for("3m"));
            }
            if next == nexts[2] {
                let pin = scenario.lab.pin_root().join(WAN).join("cursor");
                fs::remove_file(pin).expect("it is pinned");
            }
            let command = if next == "reload" { "reload" } else { "up" };
            let moments = count(scenario.lab.knockgate_command(&[command]), |call| {
                call.changes_pins() && listed(scenario) == [other.id]
            });
            assert_eq!(moments, 0, "nothing is attached, killed before call {nth}");
            let [ours, others @ ..] = &listed(scenario)[..] else {
                panic!("nothing is at TCX, killed before call {nth}");
            };
            assert_eq!(others, [other.id], "{ours}, killed before call {nth}");
            expect_status(scenario, &[(WAN, None, true)]);
            // What is in force can be replaced.
            scenario.configure(ssh().open_for("2m"));
            scenario.knockgate("reload").exits(0);
            assert_eq!(listed(scenario).len(), 2, "killed before call {nth}");
            scenario.knockgate("down").exits(0);
            assert_eq!(listed(scenario), [other.id]);
            assert!(scenario.lab.pins().is_empty());
            whole += usize::from(ended);
            if whole == nexts.len() {
                return;
            }
        }
        panic!("`up` makes more calls than expected");
    });
}
