//! The units of systemd, alone and with the drop-ins that the documentation shows.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use knockgate_tests::{need, run::run};

/// Other units of a host, the lines of their `[Unit]`, and what wants them.
const NEIGHBOURS: [(&str, &str, &str); 6] = [
    // As those of chrony, firewalld, ifupdown, NetworkManager and OpenSSH are.
    (
        "chrony.service",
        "After=network.target\nBefore=time-sync.target\nWants=time-sync.target",
        "multi-user.target",
    ),
    (
        "firewalld.service",
        "After=dbus.service\nBefore=network-pre.target\nWants=network-pre.target",
        "multi-user.target",
    ),
    (
        "networking.service",
        "DefaultDependencies=no\nAfter=local-fs.target network-pre.target\nBefore=network.target",
        "multi-user.target",
    ),
    (
        "NetworkManager.service",
        "After=network-pre.target dbus.service\nBefore=network.target\nWants=network.target",
        "multi-user.target",
    ),
    ("ssh.service", "After=network.target", "multi-user.target"),
    ("ssh.socket", "Before=sockets.target", "sockets.target"),
];

/// Below 2.0, which systemd calls OK; its answer has one decimal.
#[test]
fn systemd_rates_the_units() {
    if !need::met(&["systemd-analyze"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for unit in ["knockgate.service", "knockgate-metrics.service"] {
        let text =
            fs::read_to_string(checkout().join("packaging").join(unit)).expect("it is there");
        // With it, three of the unit's restrictions are left out of the rating.
        let text = text.replace("DefaultDependencies=no\n", "");
        let rated = folder.path().join(unit);
        fs::write(&rated, text).expect("the temporary folder is writable");
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--no-pager", "--offline=yes", "--threshold=19"]);
        let rating = run(analyze.arg(rated));
        assert!(
            rating.stdout.contains("Overall exposure level"),
            "{rating:?}"
        );
        rating.exits(0);
    }
}

/// systemd breaks a cycle by not starting one of its units.
#[test]
fn a_host_boots_without_a_cycle() {
    if !need::met(&["systemd-analyze"]) {
        return;
    }
    assert_eq!(cycle(&[]), "");
    let drop_ins = drop_ins();
    assert!(drop_ins.len() >= 3, "{drop_ins:?}");
    for (page, drop_in) in drop_ins {
        let with = cycle(&[("knockgate.service", &drop_in)]);
        assert_eq!(with, "", "{page}: {drop_in}");
    }
    // Time that comes over the network comes after the service.
    let late = "[Unit]\nAfter=time-sync.target\nWants=time-sync.target\n";
    assert_ne!(cycle(&[("knockgate.service", late)]), "");
}

/// Whatever is to start before the service would then close a cycle.
#[test]
fn what_listens_starts_after_the_service() {
    if !need::met(&["systemd-analyze"]) {
        return;
    }
    for unit in ["chrony.service", "ssh.service", "ssh.socket"] {
        let before = cycle(&[(unit, "[Unit]\nBefore=knockgate.service\n")]);
        assert_ne!(before, "", "{unit} may start before the service");
        let after = cycle(&[(unit, "[Unit]\nAfter=knockgate.service\n")]);
        assert_eq!(after, "", "{unit}");
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns what systemd says of cycles among the units of a host that boots, with these drop-ins.
fn cycle(drop_ins: &[(&str, &str)]) -> String {
    const SYSTEM: &str = "/usr/lib/systemd/system";
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let enable = |unit: &str, wanted_by: &str| {
        let wants = folder.path().join(format!("{wanted_by}.wants"));
        fs::create_dir_all(&wants).expect("the temporary folder is writable");
        symlink(folder.path().join(unit), wants.join(unit)).expect("it is writable");
    };
    for (unit, lines, wanted_by) in NEIGHBOURS {
        let what = match unit.rsplit_once('.') {
            Some((_, "socket")) => "[Socket]\nListenStream=22",
            _ => "[Service]\nExecStart=/bin/true",
        };
        let text = format!("[Unit]\n{lines}\n\n{what}\n");
        fs::write(folder.path().join(unit), text).expect("it is writable");
        enable(unit, wanted_by);
    }
    let packaged = checkout().join("packaging/knockgate.service");
    let text = fs::read_to_string(&packaged).expect("the unit is there");
    let wanted_by = text.lines().find_map(|line| line.strip_prefix("WantedBy="));
    fs::write(folder.path().join("knockgate.service"), &text).expect("it is writable");
    enable("knockgate.service", wanted_by.expect("it can be enabled"));
    for (unit, text) in drop_ins {
        let of_unit = folder.path().join(format!("{unit}.d"));
        fs::create_dir(&of_unit).expect("it is writable");
        fs::write(of_unit.join("test.conf"), text).expect("it is writable");
    }
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["verify", "--man=no", "multi-user.target"])
        .env(
            "SYSTEMD_UNIT_PATH",
            format!("{}:{SYSTEM}", folder.path().display()),
        );
    // That a command of a unit is not installed here is said too.
    let said = run(&mut analyze).stderr;
    assert!(!said.contains("Failed to"), "{said}");
    let of_cycles = said.lines().filter(|line| line.contains("cycle"));
    of_cycles.collect::<Vec<_>>().join("\n")
}

/// Returns the drop-ins for the service that the pages show, each with its page; also single lines of order in a sentence.
fn drop_ins() -> Vec<(String, String)> {
    let docs = fs::read_dir(checkout().join("docs")).expect("the pages are there");
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.expect("readable").path()).collect();
    pages.push(checkout().join("README.md"));
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    let mut found = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).expect("readable");
        let name = page.display().to_string();
        for block in text.split("```ini\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            if block.contains("[Unit]") || block.contains("[Service]") {
                found.push((name.clone(), block.to_owned()));
            }
        }
        let words = ["After=", "Before=", "Wants=", "Requires="];
        let is_order = |span: &&str| words.iter().any(|word| span.starts_with(word));
        let lines: Vec<_> = text.split('`').filter(is_order).collect();
        if !lines.is_empty() {
            found.push((name, format!("[Unit]\n{}\n", lines.join("\n"))));
        }
    }
    found
}
