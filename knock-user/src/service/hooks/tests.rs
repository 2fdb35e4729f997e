//! Which programs are run for an event, in which order, and what becomes of those that cannot be.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{process::tests::PATIENT, *};

/// One gate whose hooks run lines of shell, each in `folder`.
fn hooks(folder: &TempDir, scripts: &[(Trigger, &str)]) -> Hooks {
    let hook = |(on, script): &(Trigger, &str)| {
        let script = format!("cd {}; {script}", folder.path().display());
        Hook {
            on: *on,
            run: ["/bin/sh", "-c", &script].map(ToOwned::to_owned).into(),
        }
    };
    let gate = Gate {
        name: "ssh".into(),
        hooks: scripts.iter().map(hook).collect(),
        ..Gate::default()
    };
    let mut hooks = Hooks::within(PATIENT);
    hooks.configure(&Config {
        gates: vec![gate],
        ..Config::default()
    });
    hooks
}

fn event(name: &str, source: &str) -> Record {
    Record {
        gate: Some("ssh".into()),
        source: Some(source.into()),
        ..Record::now(name)
    }
}

/// Waits for all runs, and returns the events of those that failed.
async fn all(hooks: &mut Hooks) -> Vec<Record> {
    let mut failed = Vec::new();
    while !hooks.started.is_empty() {
        failed.extend(hooks.ended().await);
    }
    failed
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap_or_default()
}

#[tokio::test]
async fn each_event_runs_its_own_hooks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let say = "echo $KNOCKGATE_EVENT $KNOCKGATE_SOURCE >>";
    let scripts = [
        (Trigger::Opened, format!("{say} opened")),
        (Trigger::Closed, format!("{say} closed")),
        (Trigger::Alert, format!("{say} alert")),
        (Trigger::Alert, format!("{say} alert-too")),
    ];
    let scripts: Vec<(Trigger, &str)> = scripts.iter().map(|(on, of)| (*on, of.as_str())).collect();
    let mut hooks = hooks(&folder, &scripts);
    for name in [
        "gate.opened",
        "gate.closed",
        "alert",
        "knock.failed",
        "gate.up",
    ] {
        hooks.notice(&event(name, "192.0.2.1"));
    }
    // Another gate, and none.
    let gates = [Some("mail".into()), None];
    for (gate, name) in gates.into_iter().zip(["alert", "gate.opened"]) {
        let elsewhere = Record {
            gate,
            ..event(name, "192.0.2.9")
        };
        hooks.notice(&elsewhere);
    }
    assert_eq!(all(&mut hooks).await, []);
    assert_eq!(read(&folder, "opened"), "gate.opened 192.0.2.1\n");
    assert_eq!(read(&folder, "closed"), "gate.closed 192.0.2.1\n");
    assert_eq!(read(&folder, "alert"), "alert 192.0.2.1\n");
    assert_eq!(read(&folder, "alert-too"), "alert 192.0.2.1\n");
}

/// As of a captured knock, which names no gate: it is the alert of every one.
#[tokio::test]
async fn an_alert_without_a_gate_runs_the_hooks_of_all_gates_once_each() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = |name: &str, on: Trigger, word: &str| {
        let script = format!(
            "echo {word} \"$KNOCKGATE_SOURCE$KNOCKGATE_GATE\" >>{}/log",
            folder.path().display()
        );
        Gate {
            name: name.into(),
            hooks: vec![Hook {
                on,
                run: ["/bin/sh", "-c", &script].map(ToOwned::to_owned).into(),
            }],
            ..Gate::default()
        }
    };
    let mut hooks = Hooks::within(PATIENT);
    hooks.configure(&Config {
        gates: vec![
            gate("ssh", Trigger::Alert, "both"),
            gate("mail", Trigger::Alert, "both"),
            gate("dns", Trigger::Alert, "another"),
            gate("vpn", Trigger::Opened, "none"),
        ],
        ..Config::default()
    });
    let captured = Record {
        source: Some("192.0.2.1".into()),
        ..Record::now("alert")
    };
    hooks.notice(&captured);
    assert_eq!(all(&mut hooks).await, []);
    assert_eq!(read(&folder, "log"), "both 192.0.2.1\nanother 192.0.2.1\n");
}

/// What one run adds to a set of nftables, the next removes.
#[tokio::test]
async fn runs_for_one_source_keep_the_order_of_events() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The first takes longer, as long as it takes the other source's to be seen.
    let slow = "while ! test -e other; do :; done; echo opened >>log";
    let fast =
        "if test $KNOCKGATE_SOURCE = 192.0.2.2; then touch other; else echo closed >>log; fi";
    let mut hooks = hooks(&folder, &[(Trigger::Opened, slow), (Trigger::Closed, fast)]);
    hooks.notice(&event("gate.opened", "192.0.2.1"));
    hooks.notice(&event("gate.closed", "192.0.2.1"));
    hooks.notice(&event("gate.closed", "192.0.2.2"));
    let waits: Vec<Option<String>> = hooks
        .unfinished_closings()
        .into_iter()
        .map(|record| record.source)
        .collect();
    assert_eq!(waits, [Some("192.0.2.2".into()), Some("192.0.2.1".into())]);
    assert_eq!(all(&mut hooks).await, []);
    assert_eq!(read(&folder, "log"), "opened\nclosed\n");
    assert_eq!(hooks.unfinished_closings(), []);
}

#[tokio::test]
async fn a_failure_is_an_event_and_keeps_nothing_from_running() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hooks = hooks(
        &folder,
        &[(Trigger::Opened, "exit 1"), (Trigger::Opened, "touch ran")],
    );
    hooks.notice(&event("gate.opened", "192.0.2.1"));
    let failed = all(&mut hooks).await;
    let [failed] = failed.as_slice() else {
        panic!("one failure, not {failed:?}");
    };
    assert_eq!(failed.event, "hook.failed");
    assert_eq!(failed.reason.as_deref(), Some("exit_status"));
    assert_eq!(failed.hook.as_deref(), Some("/bin/sh"));
    assert_eq!(failed.gate.as_deref(), Some("ssh"));
    assert_eq!(failed.source.as_deref(), Some("192.0.2.1"));
    assert!(folder.path().join("ran").exists());
    // A failure runs no hooks, or one that always fails would never end.
    hooks.notice(failed);
    assert!(hooks.started.is_empty() && hooks.waiting.is_empty());
}

#[tokio::test]
async fn a_bounded_number_runs_and_waits_and_the_rest_is_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "while ! test -e go; do sleep 0.01; done";
    let mut hooks = hooks(&folder, &[(Trigger::Opened, script)]);
    let more = 3;
    for number in 0..AT_ONCE + WAITING + more {
        hooks.notice(&event("gate.opened", &number.to_string()));
    }
    assert_eq!(hooks.started.len(), AT_ONCE);
    assert_eq!(hooks.waiting.len(), WAITING);
    let left_out = hooks.left_out();
    assert_eq!(left_out.len(), 1);
    assert_eq!(left_out[0].lost, Some(more as u64));
    assert_eq!(left_out[0].reason.as_deref(), Some("queue_full"));
    assert_eq!(hooks.left_out(), []);
    // Those that wait come to run; not all of them here.
    hooks.waiting.truncate(AT_ONCE);
    touch(&folder.path().join("go"));
    assert_eq!(all(&mut hooks).await, []);
    assert!(hooks.waiting.is_empty());
}

#[tokio::test]
async fn alerts_without_end_leave_room_for_what_gates_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "sleep 1000";
    let mut hooks = hooks(
        &folder,
        &[(Trigger::Alert, script), (Trigger::Closed, script)],
    );
    for number in 0..5000 {
        hooks.notice(&event("alert", &number.to_string()));
    }
    hooks.notice(&event("gate.closed", "192.0.2.1"));
    let last = hooks.waiting.back().expect("some wait");
    assert_eq!(last.record.event, "gate.closed");
    assert_eq!(hooks.left_out().len(), 1);
}

/// The clock goes on by itself whenever nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_service_waits_for_a_bounded_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hooks = hooks(&folder, &[(Trigger::Closed, "sleep 1000")]);
    hooks.notice(&event("gate.closed", "192.0.2.1"));
    hooks.notice(&event("gate.closed", "192.0.2.1"));
    let begun = tokio::time::Instant::now();
    let failed = hooks.finish().await;
    assert!(begun.elapsed() <= GRACE + Duration::from_secs(1));
    let reasons: Vec<_> = failed
        .iter()
        .filter_map(|record| record.reason.as_deref())
        .collect();
    assert_eq!(reasons, ["stopped", "stopped"]);
    // What has not run is known, to be run by the next service.
    assert_eq!(hooks.unfinished_closings().len(), 2);
}

fn touch(path: &Path) {
    fs::write(path, "").expect("the temporary folder is writable");
}

/// A run that panics is over, as any other: what comes for its subject does not wait for it.
#[tokio::test]
async fn a_run_that_panics_keeps_nothing_waiting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hooks = hooks(&folder, &[(Trigger::Opened, "echo ran >> log")]);
    let record = event("gate.opened", "192.0.2.1");
    let run = Run {
        hook: Arc::clone(&hooks.configured["ssh"][0]),
        record: record.clone(),
    };
    hooks.begin(run, async { panic!("as a fault of the service would") });
    hooks.notice(&record);
    let failed = all(&mut hooks).await;
    let reasons: Vec<_> = failed.iter().map(|event| event.reason.as_deref()).collect();
    assert_eq!(reasons, [Some(STOPPED)]);
    assert_eq!(read(&folder, "log"), "ran\n");
}
