//! The log of `knockgate run`: JSON lines, systemd's journal, and a log that cannot be written.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    lab::{Family, Source::A},
    need,
    run::{Running, run, wait_until},
    scenario::{Attach, Scenario},
};
use serde_json::Value;

fn in_generic_mode(row: impl FnOnce(&Scenario)) {
    Scenario::run(Attach::Generic, Family::V4, &[], |scenario| {
        scenario.configure(Gate::ssh().within("1m"));
        row(scenario);
    });
}

/// Starts a command that serves, and waits until it does.
fn start(scenario: &Scenario, command: &mut Command) -> Running {
    let mut service = Running::start(command, scenario.lab.folder());
    wait_until("the service serves", || {
        assert!(service.goes_on(), "the service has ended by itself");
        let metrics = scenario.knockgate("metrics").stdout.clone();
        metrics.contains("knockgate_service_running 1")
    });
    service
}

#[test]
fn json_lines_are_those_that_readers_of_events_get() {
    in_generic_mode(|scenario| {
        let log = scenario.lab.folder().join("log");
        let mut command = scenario.lab.knockgate_command(&["run", "--log", "json"]);
        command.stderr(File::create(&log).expect("the temporary folder is writable"));
        let service = start(scenario, &mut command);
        wait_until("a grant is reported", || {
            scenario.knock(A, ALICE);
            read(&log).iter().any(|line| line["event"] == "gate.opened")
        });
        let printed = scenario.knockgate("events --json").exits(0).stdout.clone();
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
        let lines = read(&log);
        for event in printed.lines() {
            let event: Value = serde_json::from_str(event).expect("an event");
            assert!(lines.contains(&event), "no {event} in {lines:?}");
        }
        let others: Vec<&Value> = lines
            .iter()
            .filter(|line| line.get("event").is_none())
            .collect();
        assert!(!others.is_empty());
        for line in others {
            for key in ["time", "level", "message"] {
                assert!(line[key].is_string(), "no {key} in {line}");
            }
        }
    });
}

/// The lines of a log, each a JSON object; the last one may still be in the writing.
fn read(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).expect("it was created");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"));
    lines.collect()
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_service() {
    in_generic_mode(|scenario| {
        for form in ["text", "json"] {
            let mut command = scenario.lab.knockgate_command(&["run", "--log", form]);
            // Every write fails as on a full disk.
            command.stderr(
                File::options()
                    .write(true)
                    .open("/dev/full")
                    .expect("Linux has it"),
            );
            let mut service = start(scenario, &mut command);
            wait_until("a grant is reported", || {
                scenario.knock(A, ALICE);
                let said = scenario.knockgate("events").exits(0).stdout.clone();
                said.contains("gate.opened")
            });
            assert!(service.goes_on());
            service.signal(libc::SIGTERM);
            assert_eq!(service.ends(), Some(0), "{form}");
        }
    });
}

/// In a mount namespace with a journal of its own, below the folder that is the first argument. It ends with what is run.
const WITH_JOURNAL: &str = "
    set -e
    mount --bind $1/run /run
    mount -t tmpfs none /var/log
    setpriv --pdeathsig KILL /lib/systemd/systemd-journald >$1/journald 2>&1 &
    shift
    while ! test -S /run/systemd/journal/socket; do sleep 0.1; done
    exec \"$@\"
";

#[test]
fn the_journal_has_the_keys_of_events_as_fields() {
    if !need::met(&["journalctl", "unshare"]) {
        return;
    }
    in_generic_mode(|scenario| {
        let folder = scenario.lab.folder();
        let files = folder.join("run/log/journal");
        fs::create_dir_all(&files).expect("the temporary folder is writable");
        let below = folder.to_str().expect("UTF-8");
        let wrapper = ["unshare", "--mount", "sh", "-c", WITH_JOURNAL, "sh", below];
        let mut command = scenario
            .lab
            .knockgate_command_under(&wrapper, &["run", "--log", "journal"]);
        let _service = start(scenario, &mut command);
        scenario.knock(A, ALICE);
        let mut entries = Vec::new();
        wait_until("the journal has the grant", || {
            let mut journalctl = Command::new("journalctl");
            journalctl
                .args(["--output", "json", "--directory"])
                .arg(&files)
                .args(["KNOCKGATE_GATE=ssh", "KNOCKGATE_EVENT=gate.opened"]);
            let found = run(&mut journalctl).stdout;
            entries = found
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .collect();
            !entries.is_empty()
        });
        let entry = &entries[0];
        assert_eq!(entry["KNOCKGATE_USER"], "alice", "{entry}");
        assert_eq!(entry["KNOCKGATE_SOURCE"], scenario.address(A).to_string());
        assert_eq!(entry["KNOCKGATE_STEP"], "3");
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "knockgate");
        let message = entry["MESSAGE"].as_str().expect("text");
        assert!(
            message.starts_with("gate.opened gate=ssh user=alice"),
            "{message}"
        );
    });
}
