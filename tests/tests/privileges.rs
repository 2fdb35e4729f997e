//! What the service may do once it serves, and who may read its configuration.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use knockgate_tests::{
    foreign,
    gate_config::{ALICE, Gate},
    lab::{
        Family,
        Source::{A, B},
        WAN,
    },
    need,
    run::{Running, run, wait_until},
    scenario::{Attach, Scenario},
};

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF` of `linux/capability.h`.
const NEEDED: u64 = 1 << 12 | 1 << 38 | 1 << 39;

fn in_generic_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], row);
}

/// Capability sets and the flag against new privileges, from the text of `/proc/PID/status`.
fn privileges(status: &str) -> BTreeMap<&str, u64> {
    let fields = status.lines().filter_map(|line| line.split_once(":\t"));
    let known = fields.filter(|(name, _)| name.starts_with("Cap") || *name == "NoNewPrivs");
    known
        .map(|(name, value)| (name, u64::from_str_radix(value, 16).expect("a number")))
        .collect()
}

#[track_caller]
fn assert_least(status: &str) {
    let privileges = privileges(status);
    assert_eq!(privileges["CapEff"], NEEDED, "{privileges:x?}");
    assert_eq!(privileges["CapPrm"], NEEDED, "{privileges:x?}");
    assert_eq!(privileges["CapBnd"], NEEDED, "{privileges:x?}");
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(privileges[set] & !NEEDED, 0, "{privileges:x?}");
    }
    assert_eq!(privileges["NoNewPrivs"], 1);
}

#[test]
fn the_service_keeps_three_capabilities_and_does_all_its_work_with_them() {
    in_generic_mode(|scenario| {
        let folder = scenario.lab.folder();
        let seen = folder.join("seen");
        let script = format!(
            "cat /proc/self/status >{0}.new && mv {0}.new {0}",
            seen.display()
        );
        let run = ["/bin/sh", "-c", &script];
        let hook = format!("[[gate.hook]]\non = \"opened\"\nrun = {run:?}\n");
        scenario.configure(format!("{}{hook}", Gate::ssh().open_for("1h").within("1m")));
        let script = "echo $$ >$1; shift; exec \"$@\"";
        let pid = folder.join("pid");
        let wrapper = ["sh", "-c", script, "sh", pid.to_str().expect("UTF-8")];
        let mut command = scenario
            .lab
            .knockgate_command_under(&wrapper, &["run", "--down-on-exit"]);
        let mut service = Running::start(&mut command, folder);
        let status = || {
            let pid = fs::read_to_string(&pid).unwrap_or_default();
            fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default()
        };
        wait_until("it serves", || {
            assert!(service.goes_on(), "the service has ended by itself");
            status().contains("NoNewPrivs:\t1")
        });
        assert_least(&status());
        // Hooks have no more.
        scenario.knock(A, ALICE);
        wait_until("the hook has run", || seen.exists());
        assert_least(&fs::read_to_string(&seen).expect("it is there"));
        scenario.open(A, "22/tcp");
        // It attaches again what was detached, and again where the interface is a new one.
        foreign::detach(&scenario.lab.pin_root().join(WAN).join("link"));
        wait_until("it is guarded again", || {
            scenario.knockgate("status").code == Some(0)
        });
        scenario.lab.make_again();
        wait_until("it is guarded again", || {
            scenario.knockgate("status").code == Some(0)
        });
        scenario.closed(B, "22/tcp");
        scenario.open(A, "22/tcp");
        assert!(service.goes_on());
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        scenario.lab.assert_untouched();
    });
}

#[test]
fn a_configuration_that_others_can_read_is_refused() {
    in_generic_mode(|scenario| {
        scenario.configure(Gate::ssh());
        let config = scenario.lab.config();
        let remedy = format!("`chmod 600 {}`", config.display());
        let set =
            |mode| fs::set_permissions(&config, fs::Permissions::from_mode(mode)).expect("ours");
        for mode in [0o640, 0o604, 0o622] {
            set(mode);
            for command in ["up", "run"] {
                scenario.knockgate(command).exits(3).says(&[&remedy]);
            }
            let check = scenario.knockgate("check --json");
            let finding = &check.exits(3).json()["findings"][0];
            assert_eq!(finding["code"], "open-to-others");
            assert_eq!(finding["level"], "error");
        }
        set(0o600);
        chown(&config, Some(65_534), None).expect("root may");
        scenario
            .knockgate("up")
            .exits(3)
            .says(&["another user (uid 65534)"]);
        chown(&config, Some(0), None).expect("root may");
        scenario.lab.assert_untouched();
        scenario.knockgate("up").exits(0);
        // What only guards has no secrets.
        scenario.knockgate("down").exits(0);
        scenario.configure(Gate::new("ssh", "22/tcp"));
        set(0o644);
        scenario
            .knockgate("up")
            .exits(0)
            .says(&["others than the owner can read"]);
    });
}

/// As docs/reference.md says: a group that has been given the pins.
#[test]
fn members_of_a_group_may_look_once_the_pins_are_given_to_it() {
    in_generic_mode(|scenario| {
        let group = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=4242"];
        let others = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        scenario.up(Gate::ssh());
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        let root = scenario.lab.pin_root();
        for arguments in [["-R", "4242"], ["-R", "g+rwX"]] {
            let program = if arguments[1] == "4242" {
                "chgrp"
            } else {
                "chmod"
            };
            run(Command::new(program).args(arguments).arg(root)).exits(0);
        }
        for command in ["status", "grants", "sources", "sessions", "stats"] {
            let as_root = scenario
                .knockgate(&format!("{command} --json"))
                .exits(0)
                .json();
            let seen = scenario.lab.knockgate_under(&group, &[command, "--json"]);
            let keys = |document: &serde_json::Value| {
                let object = document.as_object().expect("an object");
                object.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(keys(&seen.exits(0).json()), keys(&as_root), "{command}");
            scenario.lab.knockgate_under(&others, &[command]).exits(4);
        }
        let seen = scenario
            .lab
            .knockgate_under(&group, &["grants", "--json"])
            .json();
        assert_eq!(seen["grants"][0]["gate"], "ssh");
        // The service's socket is not theirs, and the ring is the service's to read.
        let mut service = scenario.lab.knockgate_command(&["run"]);
        let _service = Running::start(&mut service, scenario.lab.folder());
        wait_until("the service has made the directory of its socket", || {
            Path::new("/run/knockgate").exists()
        });
        scenario.lab.knockgate_under(&group, &["events"]).exits(4);
    });
}

/// Below 2.0, which systemd calls OK; its answer has one decimal.
#[test]
fn systemd_rates_the_unit() {
    if !need::met(&["systemd-analyze"]) {
        return;
    }
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/knockgate.service"
    );
    let mut analyze = Command::new("systemd-analyze");
    analyze.args([
        "security",
        "--no-pager",
        "--offline=yes",
        "--threshold=19",
        unit,
    ]);
    let rating = run(&mut analyze);
    assert!(
        rating.stdout.contains("Overall exposure level"),
        "{rating:?}"
    );
    rating.exits(0);
}
