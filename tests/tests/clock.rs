//! Authenticated knocks where the clock is set, and over a crash of the machine. These rows set the clock, so that they run
//! in a virtual machine alone, and are skipped elsewhere: `cargo xtask kernels --all`.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use knockgate_tests::{
    gate_config::Gate,
    keys::{configure, knock, new_key, outcome, owners_file, sealed, send},
    lab::{Family, Source::A},
    need,
    run::wait_until,
    scenario::{Attach, Scenario},
};
use serde_json::{Map, Value, json};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;

/// What the machine before the crash has left, where the one after it finds it.
const LEFT: &str = "/left.json";
/// Follows on the console before what is left.
const MARK: &str = "left: ";

/// Runs `row` with an SSH gate. `knock`: further keys of `[knock]`.
fn with_gate(knock: &str, row: impl FnOnce(&Scenario)) {
    if !need::machine_of_its_own() {
        return;
    }
    Scenario::run(Attach::Native, Family::V4, &[], |scenario| {
        configure(scenario, knock, &Gate::new("ssh", "22/tcp"));
        row(scenario);
    });
}

/// Returns the time, Unix ns.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_nanos()).expect("before 2554")
}

/// Sets the clock of the machine, Unix ns.
fn set_clock(time: u64) {
    let time = libc::timespec {
        tv_sec: (time / SECOND).try_into().expect("a time"),
        tv_nsec: (time % SECOND).try_into().expect("below a second"),
    };
    // SAFETY: the call reads the structure.
    let result = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Says how many seconds TAI is ahead of UTC, as whoever keeps the clock does when it has learnt that.
fn set_tai_offset(seconds: i64) {
    // SAFETY: all zeros is a valid `timex`; the call reads and writes it.
    let result = unsafe {
        let mut times: libc::timex = std::mem::zeroed();
        times.modes = libc::ADJ_TAI;
        times.constant = seconds;
        libc::adjtimex(&raw mut times)
    };
    assert!(result >= 0, "{}", io::Error::last_os_error());
}

/// Sends a knock, and returns what became of it.
fn sent(scenario: &Scenario, packet: &[u8]) -> &'static str {
    const OUTCOMES: [&str; 4] = ["opened", "duplicate", "replay", "stale"];
    let before = OUTCOMES.map(|name| outcome(scenario, name));
    send(scenario, A, packet);
    let mut became = None;
    wait_until("it has arrived", || {
        let now = OUTCOMES.map(|name| outcome(scenario, name));
        became = (0..OUTCOMES.len()).find(|&index| now[index] > before[index]);
        became.is_some()
    });
    became.map_or("", |index| OUTCOMES[index])
}

#[test]
fn knocks_follow_a_clock_that_is_set() {
    with_gate("max_ahead = \"2s\"", |scenario| {
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let begun = now();
        let captured = sealed(&key, begun);
        assert_eq!(sent(scenario, &captured), "opened");
        scenario.knockgate("revoke --all").exits(0);

        set_clock(begun - HOUR);
        assert_eq!(sent(scenario, &sealed(&key, now())), "duplicate");
        assert_eq!(sent(scenario, &captured), "stale");
        scenario.closed(A, "22/tcp");
        scenario.knockgate("key reset alice").exits(0);
        knock(scenario, &key, "--then 22/tcp").exits(0);
        scenario.knockgate("revoke --all").exits(0);

        set_clock(begun + SECOND);
        assert_eq!(
            sent(scenario, &captured),
            "opened",
            "as `key reset` has said"
        );
        assert_eq!(sent(scenario, &captured), "duplicate");
        set_clock(begun + HOUR);
        assert_eq!(sent(scenario, &captured), "stale");
        assert_eq!(sent(scenario, &sealed(&key, now())), "opened");
    });
}

/// A kernel takes TAI for UTC until it is told how far they are apart. The program goes by TAI.
#[test]
fn knocks_follow_an_offset_that_changes() {
    const OFFSET: i64 = 37;
    with_gate("", |scenario| {
        set_tai_offset(OFFSET);
        scenario.knockgate("up").exits(0);
        let key = new_key(scenario, "alice --gate ssh");
        let fresh = || sent(scenario, &sealed(&key, now()));
        assert_eq!(fresh(), "opened");
        set_tai_offset(0);
        assert_eq!(fresh(), "stale", "37 s ahead, by the old offset");
        let _service = scenario.lab.serve(&[]);
        wait_until("the service has seen it", || fresh() == "opened");
    });
}

#[test]
fn before_a_crash() {
    with_gate("", |scenario| {
        let service = scenario.lab.serve(&[]);
        let key = new_key(scenario, "alice --gate ssh");
        let noted = now();
        let (first, second) = (sealed(&key, noted), sealed(&key, noted + 1));
        assert_eq!(sent(scenario, &first), "opened");
        let file = notes_of(scenario);
        let written = || fs::read_to_string(&file).unwrap_or_default();
        wait_until("the service has noted it", || {
            written().contains(&noted.to_string())
        });
        // The service does not learn of this one.
        service.signal(libc::SIGKILL);
        service.ends();
        scenario.knockgate("revoke --all").exits(0);
        assert_eq!(sent(scenario, &second), "opened");

        let mut left = Map::new();
        let keys = scenario.lab.folder().join("keys");
        for file in ["host", "alice.toml"] {
            left.insert(file.into(), text(&keys.join(file)).into());
        }
        left.insert("owner".into(), text(&key).into());
        left.insert("notes".into(), written().into());
        left.insert("captured".into(), json!([first.to_vec(), second.to_vec()]));
        println!("{MARK}{}", Value::Object(left));
    });
}

/// Returns the file with the newest times of keys.
fn notes_of(scenario: &Scenario) -> PathBuf {
    let root = scenario.lab.pin_root().to_string_lossy();
    let root = root.trim_matches('/').replace('/', "-");
    scenario.lab.state().join(format!("newest-{root}.json"))
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).expect("it is there")
}

/// The machine has started again, with the disk that the other one has left.
#[test]
fn after_a_crash() {
    with_gate("max_ahead = \"5s\"\nmax_age = \"1h\"", |scenario| {
        let left: Value = serde_json::from_str(&text(Path::new(LEFT))).expect("JSON");
        let part = |name: &str| left[name].as_str().expect("text").to_owned();
        let captured: Vec<Vec<u8>> =
            serde_json::from_value(left["captured"].clone()).expect("two knocks");
        let keys = scenario.lab.folder().join("keys");
        fs::create_dir(&keys).expect("writable");
        fs::set_permissions(&keys, Permissions::from_mode(0o700)).expect("ours");
        for name in ["host", "alice.toml"] {
            owners_file(scenario, &format!("keys/{name}"), &part(name));
        }
        let key = owners_file(scenario, "owner.toml", &part("owner"));
        let file = notes_of(scenario);
        fs::create_dir_all(scenario.lab.state()).expect("writable");
        fs::write(&file, part("notes")).expect("writable");

        scenario.knockgate("up").exits(0).says(&["is not known"]);
        // Nothing is known to have been accepted, so nothing to have been captured.
        for captured in &captured {
            assert_eq!(sent(scenario, captured), "duplicate");
        }
        scenario.closed(A, "22/tcp");
        knock(scenario, &key, "--then 22/tcp").exits(0);
        scenario.knockgate("down").exits(0);

        // Where nothing has set the clock yet, what was noted before the crash keeps out what it knows of.
        fs::write(&file, part("notes")).expect("writable");
        let right = now();
        set_clock(1000 * SECOND);
        scenario.knockgate("up").exits(0).says(&["is not known"]);
        assert_eq!(sent(scenario, &captured[0]), "stale");
        set_clock(right);
        // By its time it may be the very knock that was noted, and that does not say where it came from.
        assert_eq!(sent(scenario, &captured[0]), "duplicate");
        assert_eq!(sent(scenario, &sealed(&key, now())), "opened");
    });
}
