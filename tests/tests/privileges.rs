//! What the service may do once it serves, and who may read its configuration.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
    sync::Mutex,
};

use knockgate_tests::{
    foreign,
    gate_config::{ALICE, Gate},
    lab::{
        Family,
        Source::{A, B},
        WAN,
    },
    run::{Running, run, wait_until},
    scenario::{Attach, Scenario},
};
use netlab::host::BPFFS;

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
        let metrics = "metrics = { listen = \"127.0.0.1:9722\" }\n";
        let gate = Gate::ssh().open_for("1h").within("1m");
        scenario.configure(format!("{metrics}{gate}{hook}"));
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
        let threads = || {
            let pid = fs::read_to_string(&pid).unwrap_or_default();
            let threads = fs::read_dir(format!("/proc/{}/task", pid.trim())).expect("it runs");
            let statuses = threads.flatten().map(|thread| {
                let status = thread.path().join("status");
                fs::read_to_string(status).expect("it does not end")
            });
            statuses.collect::<Vec<_>>()
        };
        wait_until("it hands out metrics", || {
            let mut threads = threads().into_iter();
            threads.any(|status| status.contains("Name:\tmetrics"))
        });
        // Each thread has its own.
        for status in threads() {
            assert_least(&status);
        }
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

/// Users that are not root: of a group that may look, and of none.
const GROUP: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=4242"];
const OTHERS: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// The commands that read, of those that print JSON.
const READ: [&str; 5] = ["status", "grants", "sources", "sessions", "stats"];

/// Lets others reach the directories in the BPF file system while it lives: systemd mounts that for root alone. Tests run side by
/// side, so the last one puts the mode back.
struct Reachable;

/// How many live, and the mode that the file system had before.
static REACHABLE: Mutex<(usize, u32)> = Mutex::new((0, 0));

impl Reachable {
    fn make() -> Self {
        let mut reachable = REACHABLE.lock().expect("nobody panics with it");
        if reachable.0 == 0 {
            let of = fs::metadata(BPFFS).expect("it is mounted");
            reachable.1 = of.permissions().mode();
        }
        reachable.0 += 1;
        run(Command::new("chmod").args(["o+x", BPFFS])).exits(0);
        Self
    }
}

impl Drop for Reachable {
    fn drop(&mut self) {
        let mut reachable = REACHABLE.lock().expect("nobody panics with it");
        reachable.0 -= 1;
        if reachable.0 == 0 {
            let mode = fs::Permissions::from_mode(reachable.1);
            fs::set_permissions(BPFFS, mode).expect("root may change it");
        }
    }
}

/// Lets the group look, as docs/reference.md says.
#[must_use]
fn give_to_group(scenario: &Scenario) -> Reachable {
    let root = scenario.lab.pin_root();
    run(Command::new("chgrp").args(["-R", "4242"]).arg(root)).exits(0);
    run(Command::new("chmod").args(["-R", "g+rX"]).arg(root)).exits(0);
    run(Command::new("chmod").arg("g+s").arg(root)).exits(0);
    Reachable::make()
}

/// Asserts that members of the group may look, and do no more, and that others may not even look.
#[track_caller]
fn assert_group_looks(scenario: &Scenario) {
    let lab = &scenario.lab;
    for command in READ {
        let as_root = scenario.knockgate(&format!("{command} --json"));
        let as_root = as_root.exits(0).json();
        let seen = lab.knockgate_under(&GROUP, &[command, "--json"]);
        let seen = seen.exits(0).json();
        let keys = |document: &serde_json::Value| {
            let object = document.as_object().expect("an object");
            object.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&seen), keys(&as_root), "{command}");
        if command == "status" {
            assert_eq!(seen["interfaces"], as_root["interfaces"]);
        }
        lab.knockgate_under(&OTHERS, &[command]).exits(4);
    }
    let metrics = lab.knockgate_under(&GROUP, &["metrics"]);
    assert!(
        metrics.exits(0).stdout.contains("knockgate_up{"),
        "{metrics:?}"
    );
    let seen = lab.knockgate_under(&GROUP, &["grants", "--json"]).json();
    assert_eq!(seen["grants"][0]["gate"], "ssh");
    for change in [
        ["revoke", "--all"].as_slice(),
        &["allow", "192.0.2.7", "--gate", "ssh"],
        &["confirm"],
        &["reload"],
        &["down"],
        &["events"],
    ] {
        let refused = lab.knockgate_under(&GROUP, change);
        assert!(matches!(refused.code, Some(1 | 3 | 4)), "{refused:?}");
    }
    let link = lab.pin_root().join(WAN).join("link");
    let looks = run(Command::new(GROUP[0])
        .args(&GROUP[1..])
        .arg("rm")
        .arg(&link));
    assert_ne!(looks.code, Some(0), "{looks:?}");
    scenario.open(A, "22/tcp");
    scenario.closed(B, "22/tcp");
}

/// As docs/reference.md says: a group that has been given the pins to read.
#[test]
fn members_of_a_group_may_look_once_the_pins_are_given_to_it() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh());
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        scenario.lab.knockgate_under(&GROUP, &["status"]).exits(4);
        let _reachable = give_to_group(scenario);
        assert_group_looks(scenario);
        // They cannot tell whether a service runs.
        let service = scenario.lab.serve(&[]);
        let metrics = scenario.lab.knockgate_under(&GROUP, &["metrics"]);
        assert!(
            !metrics
                .exits(0)
                .stdout
                .contains("knockgate_service_running "),
            "{metrics:?}"
        );
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        // An interface that was renamed is found by what it carries.
        scenario.lab.rename(WAN, "other0");
        let seen = scenario.lab.knockgate_under(&GROUP, &["status", "--json"]);
        let row = &seen.exits(0).json()["interfaces"][0];
        assert_eq!(
            (&row["name"], &row["renamed_from"]),
            (&"other0".into(), &WAN.into())
        );
        scenario.lab.rename("other0", WAN);
        // One that lost its program is not guarded for them either.
        foreign::detach(&scenario.lab.pin_root().join(WAN).join("link"));
        scenario.lab.knockgate_under(&GROUP, &["status"]).exits(7);
    });
}

/// By root, and by a process that may not change owners, as the service is.
#[test]
fn what_is_replaced_in_place_belongs_to_whom_it_did() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh());
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        let _reachable = give_to_group(scenario);
        scenario.configure(Gate::ssh().open_for("20m"));
        scenario.knockgate("reload").exits(0);
        assert_group_looks(scenario);
        let service = [
            "setpriv",
            "--bounding-set=-all,+bpf,+net_admin,+perfmon",
            "--inh-caps=-all",
        ];
        scenario.configure(Gate::ssh().open_for("30m"));
        let reload = scenario.lab.knockgate_under(&service, &["reload"]);
        reload.exits(0);
        assert!(!reload.stderr.contains("could not be given"), "{reload:?}");
        assert_group_looks(scenario);
        // What is pinned again belongs to them too.
        scenario.lab.make_again();
        scenario.knockgate("up").exits(0);
        assert_group_looks(scenario);
    });
}

#[test]
fn metrics_need_no_file_system_that_can_be_written() {
    in_generic_mode(|scenario| {
        scenario.up(Gate::ssh());
        let script = "mount -o remount,bind,ro /sys/fs/bpf && exec \"$0\" \"$@\"";
        let wrapper = ["unshare", "-m", "sh", "-c", script];
        let metrics = scenario.lab.knockgate_under(&wrapper, &["metrics"]);
        let metrics = &metrics.exits(0).stdout;
        assert!(
            metrics.contains("knockgate_up{") && metrics.contains("} 1"),
            "{metrics}"
        );
    });
}

/// Of the BPF file system nothing but the directory of the pins can be written, as in the unit's mount namespace.
#[test]
fn the_service_needs_only_the_directory_that_its_unit_gives_it() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/knockgate.service");
    let unit = fs::read_to_string(unit).expect("the unit is there");
    for line in [
        "ProtectKernelTunables=yes",
        // `ReadWritePaths=/sys/fs/bpf` has no effect beside it.
        "ReadWritePaths=-/sys/fs/bpf/knockgate",
        "ExecStartPre=-+/bin/mkdir -p -m 0700 /sys/fs/bpf/knockgate",
    ] {
        assert!(unit.lines().any(|of| of == line), "the unit has no {line}");
    }
    in_generic_mode(|scenario| {
        let root = scenario.lab.pin_root();
        let sandbox = scenario.lab.unit_sandbox();
        let guarded = || {
            wait_until("it is guarded", || {
                scenario.knockgate("status").code == Some(0)
            });
        };
        for _ in 0..2 {
            let _ = fs::create_dir(root);
            scenario.configure(Gate::ssh().open_for("1h").within("1m"));
            let mut command = scenario.lab.knockgate_command_under(&sandbox, &["run"]);
            let service = Running::start(&mut command, scenario.lab.folder());
            guarded();
            scenario.knock(A, ALICE);
            scenario.open(A, "22/tcp");
            scenario.configure(Gate::ssh().open_for("2h").within("1m"));
            let reload = scenario.lab.knockgate_under(&sandbox, &["reload"]);
            reload.exits(0);
            scenario.open(A, "22/tcp");
            scenario.lab.make_again();
            guarded();
            scenario.closed(B, "22/tcp");
            service.signal(libc::SIGTERM);
            assert_eq!(service.ends(), Some(0));
            scenario.knockgate("status").exits(0);
            scenario.knockgate("down").exits(0);
            scenario.lab.assert_untouched();
        }
    });
}
