//! Whatever is killed at any moment: commands before any of their system calls, the service while it notices that a grant
//! has ended. Moments come from a seed, which is printed.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    ops::RangeInclusive,
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use aya::maps::MapData;
use knock_user::datapath::{Datapath, PinRoot};
use knockgate_tests::{
    killed::{count, killed_at},
    lab::{
        Source::{A, B, C},
        WAN,
    },
    oracle::random::Random,
    scenario::Scenario,
    service::echoes,
};

use crate::{in_native_mode, serve, ssh};

/// Times that each kind of work is killed: about a minute for all.
const ROUNDS: usize = 12;
/// Calls of the process before `main`, and those that it ends with, are not worth a round.
const SKIPPED: usize = 60;

fn seeded() -> Random<'static> {
    let seed = std::env::var("KNOCKGATE_SEED").map_or_else(
        |_| Random::fresh_seed(),
        |seed| seed.parse().expect("a seed is a number"),
    );
    println!("seed {seed}: KNOCKGATE_SEED={seed} repeats it");
    Random::seeded(seed)
}

/// Returns a call before which a command is killed that makes this many.
fn moment(random: &mut Random<'_>, calls: usize) -> usize {
    let range = calls.saturating_sub(SKIPPED).max(1) as u64;
    SKIPPED + usize::try_from(random.number() % range).expect("below a usize")
}

fn command(scenario: &Scenario, arguments: &str) -> Command {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    scenario.lab.knockgate_command(&arguments)
}

fn pins(scenario: &Scenario) -> BTreeSet<PathBuf> {
    scenario.lab.pins().into_iter().collect()
}

/// Asserts that a command that is given afterwards ends like any other.
#[track_caller]
fn exits(scenario: &Scenario, arguments: &str, codes: RangeInclusive<i32>, what: &str) {
    let run = scenario.knockgate(arguments);
    assert!(
        run.code.is_some_and(|code| codes.contains(&code)),
        "{what}: {run:?}"
    );
}

/// Returns whether nothing comes back over a connection for a while.
fn is_silent(flow: &mut TcpStream) -> bool {
    flow.set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a live socket takes a timeout");
    flow.write_all(b"revoked")
        .expect("the connection takes bytes");
    flow.read(&mut [0; 8]).is_err()
}

#[test]
fn up_that_is_killed_at_any_moment_guards_or_does_not() {
    in_native_mode(|scenario| {
        let mut random = seeded();
        scenario.configure(ssh());
        let calls = count(command(scenario, "up"), |_| true);
        let whole = pins(scenario);
        for _ in 0..ROUNDS {
            scenario.knockgate("down").exits(0);
            let nth = moment(&mut random, calls);
            killed_at(command(scenario, "up"), nth);
            let what = format!("killed before call {nth} of {calls}");
            let status = scenario.knockgate("status").code;
            match status {
                // It says so, and nothing is blocked.
                Some(5 | 7) => scenario.open(A, "22/tcp"),
                Some(0) => scenario.closed(A, "22/tcp"),
                code => panic!("{what}: status exits {code:?}"),
            }
            scenario.open(A, "80/tcp");
            exits(scenario, "up", 0..=0, &what);
            scenario.closed(A, "22/tcp");
            scenario.open(A, "80/tcp");
            assert_eq!(pins(scenario), whole, "{what}");
        }
        scenario.knockgate("down").exits(0);
        scenario.lab.assert_untouched();
    });
}

#[test]
fn reload_that_is_killed_at_any_moment_keeps_the_guard() {
    in_native_mode(|scenario| {
        let mut random = seeded();
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let mut flow = scenario.connected(B, 22);
        let configs = [ssh().protect("22/tcp 25/tcp"), ssh()];
        scenario.configure(&configs[0]);
        let calls = count(command(scenario, "reload"), |_| true);
        let whole = pins(scenario);
        for (round, config) in (0..ROUNDS).zip(configs.iter().rev().cycle()) {
            scenario.configure(config);
            let nth = moment(&mut random, calls);
            killed_at(command(scenario, "reload"), nth);
            let what = format!("round {round}, killed before call {nth} of {calls}");
            scenario.closed(A, "22/tcp");
            scenario.open(B, "22/tcp");
            scenario.open(A, "80/tcp");
            assert!(echoes(&mut flow, b"still here"), "{what}");
            exits(scenario, "reload", 0..=0, &what);
            scenario.closed(A, "22/tcp");
            println!("{what}");
            if round % 2 == 0 {
                scenario.open(A, "25/tcp");
            } else {
                scenario.closed(A, "25/tcp");
            }
            assert_eq!(pins(scenario), whole, "{what}");
        }
    });
}

/// What was reported as revoked is gone, with its sessions; what was not can be revoked again.
#[test]
fn revoke_that_is_killed_at_any_moment_takes_from_nobody_else() {
    in_native_mode(|scenario| {
        let mut random = seeded();
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let mut others = scenario.connected(B, 22);
        let revoke = format!("revoke {}", scenario.address(A));
        scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
        let calls = count(command(scenario, &revoke), |_| true);
        for _ in 0..ROUNDS {
            scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
            let mut flow = scenario.connected(A, 22);
            let nth = moment(&mut random, calls);
            let what = format!("killed before call {nth} of {calls}");
            if killed_at(command(scenario, &revoke), nth) {
                exits(scenario, &revoke, 0..=0, &what);
            }
            scenario.closed(A, "22/tcp");
            assert!(is_silent(&mut flow), "{what}");
            let own = scenario.address(A).to_string();
            for list in ["grants", "sessions"] {
                let left = scenario.lab.list(list);
                let is_own = |row: &serde_json::Value| {
                    row["source"]
                        .as_str()
                        .is_some_and(|source| source.starts_with(&own))
                };
                assert!(!left.iter().any(is_own), "{what}: {left:?}");
            }
            scenario.open(B, "22/tcp");
            assert!(echoes(&mut others, b"still here"), "{what}");
            scenario.closed(C, "22/tcp");
        }
    });
}

/// The kernel ends the grant, whatever becomes of the service that is to notice it.
#[test]
fn a_service_that_is_killed_while_a_grant_ends_leaves_nobody_in() {
    in_native_mode(|scenario| {
        let mut random = seeded();
        scenario.up(ssh());
        scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
        let whole = pins(scenario);
        for _ in 0..ROUNDS {
            let service = serve(scenario);
            scenario
                .knockgate("allow {A} --gate ssh --for 200ms")
                .exits(0);
            let wait = Duration::from_millis(random.number() % 400);
            thread::sleep(wait);
            service.signal(libc::SIGKILL);
            assert_eq!(service.ends(), None);
            scenario.closes(A, "22/tcp");
            scenario.open(B, "22/tcp");
            scenario.closed(C, "22/tcp");
            assert_eq!(pins(scenario), whole, "killed after {wait:?}");
        }
        // The next one takes over.
        let service = serve(scenario);
        scenario.open(B, "22/tcp");
        service.signal(libc::SIGTERM);
        assert_eq!(service.ends(), Some(0));
    });
}

/// As often as it takes to meet each moment between two looks at one pin.
const LOOKS: usize = 20_000;

/// A service looks without the lock whether it has been replaced, while the command that has replaced it removes pins. Somebody may
/// also remove them by hand.
#[test]
fn pins_that_are_removed_are_no_error_to_whoever_looks_at_them() {
    in_native_mode(|scenario| {
        scenario.up(ssh());
        let root = PinRoot::new(scenario.lab.pin_root());
        let service = Datapath::open_unlocked(&root).expect("it is up");
        let meta = MapData::from_pin(root.of(WAN).join("meta")).expect("it is pinned");
        let before = root.unnamed(WAN);
        let link = root.of(WAN).join("link");
        let elsewhere = link.with_file_name("link%9");
        thread::scope(|scope| {
            let command = scope.spawn(|| {
                for _ in 0..LOOKS {
                    fs::rename(&link, &elsewhere).expect("it is pinned");
                    fs::rename(&elsewhere, &link).expect("it is pinned");
                    fs::create_dir(&before).expect("the root is there");
                    let pin = before.join("meta");
                    meta.pin(&pin).expect("there is room");
                    fs::remove_file(pin).expect("it was pinned");
                    fs::remove_dir(&before).expect("it is empty");
                }
            });
            while !command.is_finished() {
                assert!(service.is_pinned().expect("a look"));
                assert!(service.reopened().expect("a look").is_none());
                service.attachments().expect("a look");
            }
        });
    });
}
