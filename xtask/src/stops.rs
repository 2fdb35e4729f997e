//! `cargo xtask stops`: runs suites while their processes stand still at random.
//!
//! So they do on a machine that stalls, or has too much to do: a test that relies on time fails then, and a service that takes a
//! delay for an error ends. What stands still are the suite's own process and each `knockgate` below it: one of them, or all.

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher as _, RandomState},
    process::{self, Command},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use netlab::host::is_root;

use crate::test;

#[derive(Args, Default)]
pub(crate) struct Options {
    /// The suites; by default those with a service, a stream, or a client that waits
    suites: Vec<String>,
}

/// What runs by default.
const SUITES: [&str; 16] = [
    "attachment",
    "authenticated",
    "chain",
    "client",
    "evasions",
    "flood",
    "fwknop",
    "gate",
    "hooks",
    "json",
    "logs",
    "metrics",
    "reject",
    "replace",
    "scans",
    "service",
];

/// How long processes stand still: the longest outlasts the second after which a SYN is sent again.
const STANDS: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(2200),
];

/// How long they go on in between.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// The kernel cuts the names of processes.
const NAME: usize = 15;

/// Sets up, builds and runs the suites.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        is_root(),
        "root is needed to stop the processes of a suite: run this again as root"
    );
    let suites = if options.suites.is_empty() {
        SUITES.map(ToOwned::to_owned).to_vec()
    } else {
        options.suites.clone()
    };
    for suite in &suites {
        let arguments = ["-p", "knockgate-tests", "--test", suite];
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| stop_at_random(suite, &is_over));
            let tested = test::run_with(&arguments.map(Into::into), &[]);
            is_over.store(true, Ordering::Relaxed);
            tested.with_context(|| format!("{suite}, whose processes stood still at random"))
        })?;
    }
    Ok(())
}

/// Stops processes and has them go on, again and again.
fn stop_at_random(suite: &str, is_over: &AtomicBool) {
    // Cargo adds a hash to the name.
    let own: String = format!("{suite}-").chars().take(NAME).collect();
    let random = RandomState::new();
    for turn in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let drawn = |what: &str, of: usize| {
            let drawn = random.hash_one((turn, what)) % of as u64;
            usize::try_from(drawn).expect("less than a size")
        };
        let mut those = below(process::id(), |name| {
            name == "knockgate" || name.starts_with(&own)
        });
        if drawn("how many", 2) == 0 && !those.is_empty() {
            those = vec![those[drawn("which", those.len())]];
        }
        signal("STOP", &those);
        thread::sleep(STANDS[drawn("how long", STANDS.len())]);
        signal("CONT", &those);
        thread::sleep(PAUSES[drawn("the pause", PAUSES.len())]);
    }
}

/// Returns the processes below this one whose names are wanted.
fn below(ancestor: u32, is_wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let processes: HashMap<u32, (String, u32)> = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // It may have ended since.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, parent) = name_and_parent(&stat)?;
            Some((pid, (name.to_owned(), parent)))
        })
        .collect();
    let is_below = |mut pid: u32| {
        while let Some((_, parent)) = processes.get(&pid) {
            pid = *parent;
            if pid == ancestor {
                return true;
            }
        }
        false
    };
    let wanted = processes
        .iter()
        .filter(|(pid, (name, _))| is_wanted(name) && is_below(**pid));
    wanted.map(|(pid, _)| *pid).collect()
}

/// Reads `/proc/PID/stat`: the name is in brackets, and the parent is the second field behind it.
fn name_and_parent(stat: &str) -> Option<(&str, u32)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
    Some((name, parent))
}

/// Sends a signal to each; those that have ended since are left out.
fn signal(name: &str, those: &[u32]) {
    for pid in those {
        let mut kill = Command::new("sh");
        let sent = kill
            .args(["-c", "kill -s \"$1\" \"$2\" 2>/dev/null", "sh", name])
            .arg(pid.to_string())
            .status();
        sent.expect("there is a shell");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_have_brackets() {
        let stat = "7101 (a) (b) S 7000 7101 7101 0 -1";
        assert_eq!(name_and_parent(stat), Some(("a) (b", 7000)));
    }

    #[test]
    fn what_stands_still_goes_on_again() {
        let mut shell = Command::new("sh");
        let mut shell = shell
            .args(["-c", "sleep 1000; true"])
            .spawn()
            .expect("there is a shell");
        let sleep = soon(|| below(shell.id(), |name| name == "sleep").pop());
        let is = |state: &str| {
            let stat = fs::read_to_string(format!("/proc/{sleep}/stat")).ok()?;
            stat.contains(&format!(") {state} ")).then_some(())
        };
        signal("STOP", &[sleep]);
        soon(|| is("T"));
        signal("CONT", &[sleep]);
        soon(|| is("S"));
        signal("KILL", &[sleep]);
        assert!(shell.wait().is_ok());
    }

    /// Returns what comes about within two minutes.
    fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..12_000 {
            if let Some(seen) = look() {
                return seen;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("waited in vain");
    }
}
