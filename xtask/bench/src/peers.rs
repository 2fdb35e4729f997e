//! Measures the same live traffic by another harness, which has contestants of its own, in a folder that the caller
//! names. The folder is copied, and knockgate added to its contestants.
//!
//! The harness is `bench_live.py`; `contestants.json` lists what it measures, and `contestants/` has a script for each.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use netlab::host::output;
use serde_json::{Value, json};

use crate::{
    Plan,
    figures::{Part, Row, over, times},
    host::Host,
};

/// The script by which the harness runs knockgate.
const ADAPTER: &str = include_str!("../peers/knockgate");
/// The contestants to measure, by the harness's labels; those of knockgate are added.
const CONTESTANTS: [&str; 11] = [
    NO_GATE,
    DROP,
    "ref pass, native",
    "ref parse, native",
    "ref gate hash, native, N=1000",
    "xdp-filter tcp+udp, native",
    "nft ingress, N=1000",
    "nft raw, N=1000",
    "nft input, N=1000",
    "iptables-nft recent, N=100",
    "iptables-legacy recent, N=100",
];
const OURS: [(&str, &str); 2] = [
    ("knockgate, native, N=1000", "native"),
    ("knockgate, skb, N=1000", "skb"),
];
/// Few rounds, since the harness builds a new network for every contestant and round.
const ROUNDS: usize = 5;
const NO_GATE: &str = "no gate";
const DROP: &str = "ref drop, native";
/// The harness's traffic: its name, our name for it, and the floor.
const CASES: [(&str, &str, &str); 3] = [
    ("drop_syn", "denied", DROP),
    ("pass_other", "unguarded", NO_GATE),
    ("pass_allow", "granted", NO_GATE),
];

/// Runs the harness, and converts its samples into a part. If it cannot be run, the part says why.
pub fn measure(host: &Host, binary: &Path, folder: &Path, plan: &Plan) -> Part {
    let rows = run(host, binary, folder, plan)
        .unwrap_or_else(|error| vec![Row::absent("the peers' harness", format!("{error:#}"))]);
    Part {
        id: "peers",
        title: "Live over veth, by another harness",
        unit: "ns of CPU a packet, sender, wire and host included, median (min–max)",
        notes: vec![
            "N: sources that are admitted; ref: the harness's own programs, in C",
            "without knocks: the harness expects them to be dropped, and knockgate passes them",
        ],
        rows,
    }
}

fn run(host: &Host, binary: &Path, folder: &Path, plan: &Plan) -> Result<Vec<Row>> {
    let copy = host.folder.join("peers");
    copied(folder, &copy)?;
    // The harness builds its own programs there.
    let build = copy.join("build");
    fs::create_dir_all(&build).with_context(|| format!("cannot make {}", build.display()))?;
    let adapter = copy.join("contestants/knockgate");
    fs::write(&adapter, ADAPTER)
        .and_then(|()| fs::set_permissions(&adapter, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", adapter.display()))?;
    let list = copy.join("contestants.json");
    let contestants = fs::read_to_string(&list)
        .with_context(|| format!("{} is not that harness", folder.display()))?;
    fs::write(&list, with_ours(&contestants)?)
        .with_context(|| format!("cannot write {}", list.display()))?;

    let samples = copy.join("samples.json");
    let labels: Vec<&str> = CONTESTANTS
        .into_iter()
        .chain(OURS.map(|(label, _)| label))
        .collect();
    // In a PID namespace, whose processes all end with the first one, since the harness starts others.
    let said = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork"])
        .args(["--kill-child=KILL", "python3"])
        .arg(copy.join("bench_live.py"))
        .args(["--rounds", &plan.rounds.min(ROUNDS).to_string()])
        .args(["--reps", &plan.samples.to_string()])
        .args(["--count", &plan.frames.to_string()])
        .args(["--only", &labels.join(";")])
        .arg("--json")
        .arg(&samples)
        .env("KNOCKGATE", binary)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .context("cannot start the peers' harness")?;
    let complaints = String::from_utf8_lossy(&said.stderr);
    ensure!(
        said.status.success(),
        "the peers' harness failed ({}): {}",
        said.status,
        complaints.trim()
    );
    let samples = fs::read_to_string(&samples).context("the peers' harness wrote no samples")?;
    let samples: Vec<Value> = serde_json::from_str(&samples).context("the peers' samples")?;
    Ok(rows(&samples, &complaints))
}

/// Copies the folder, and makes the copy writable.
fn copied(folder: &Path, copy: &Path) -> Result<()> {
    output(
        Command::new("cp")
            .args(["--recursive"])
            .arg(folder)
            .arg(copy),
    )?;
    output(Command::new("chmod").args(["--recursive", "u+w"]).arg(copy))?;
    Ok(())
}

/// Returns the harness's list of contestants, with knockgate added.
fn with_ours(list: &str) -> Result<String> {
    let mut list: Vec<Value> =
        serde_json::from_str(list).context("the peers' list of contestants")?;
    for (label, mode) in OURS {
        list.push(json!({
            "label": label, "adapter": "knockgate", "variant": "", "mode": mode, "n": 1000,
            "cases": CASES.map(|(case, ..)| case),
        }));
    }
    Ok(json!(list).to_string())
}

/// Converts samples into rows. A contestant that failed, or treated a packet wrongly, has no figures.
fn rows(samples: &[Value], complaints: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (case, what, floor) in CASES {
        let name = |label: &str| format!("{label}: {what}");
        for label in CONTESTANTS.into_iter().chain(OURS.map(|(label, _)| label)) {
            let mut own: Vec<&Value> = samples
                .iter()
                .filter(|sample| sample["label"] == label && sample["case"] == case)
                .collect();
            own.sort_by_key(|sample| sample["round"].as_u64());
            if let Some(failure) = failure(label, complaints).filter(|_| own.is_empty()) {
                rows.push(Row::absent(name(label), failure));
                continue;
            }
            if own.iter().any(|sample| sample["ok"] != true) {
                rows.push(Row::absent(
                    name(label),
                    "packets did not fare as they should have",
                ));
                continue;
            }
            let rounds: Vec<f64> = own
                .iter()
                .filter_map(|sample| sample["ns"].as_f64())
                .collect();
            if rounds.is_empty() {
                continue;
            }
            let against = if label == floor {
                Vec::new()
            } else {
                vec![over(name(floor)), times(name(floor))]
            };
            rows.push(Row::new(name(label), rounds, against));
        }
    }
    rows
}

/// Returns the harness's message about a contestant that failed.
fn failure(label: &str, complaints: &str) -> Option<String> {
    complaints
        .lines()
        .find_map(|line| line.strip_prefix("FAILED ")?.strip_prefix(label))
        .map(|why| why.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Samples;

    fn sample(label: &str, case: &str, round: u64, ns: f64, ok: bool) -> Value {
        json!({"label": label, "case": case, "round": round, "ns": ns, "ok": ok})
    }

    #[test]
    fn samples_become_rows_in_the_order_of_rounds() {
        let ours = OURS[0].0;
        let samples = [
            sample(DROP, "drop_syn", 1, 70.0, true),
            sample(ours, "drop_syn", 1, 99.0, true),
            sample(DROP, "drop_syn", 0, 60.0, true),
            sample(ours, "drop_syn", 0, 90.0, true),
            sample("somebody else", "drop_syn", 0, 1.0, true),
        ];
        let rows = rows(&samples, "");
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "ref drop, native: denied",
                "knockgate, native, N=1000: denied"
            ]
        );
        assert_eq!(rows[1].samples, Samples::Rounds(vec![90.0, 99.0]));
        assert_eq!(rows[1].against[0].floor, rows[0].name);
        assert!(rows[0].against.is_empty());
    }

    #[test]
    fn who_leaks_or_fails_has_no_figures() {
        let samples = [
            sample("nft raw, N=1000", "drop_syn", 0, 1.0, true),
            sample("nft raw, N=1000", "drop_syn", 1, 1.0, false),
        ];
        let complaints = "round 0: load 1\nFAILED nft input, N=1000 nft: not found\n";
        let rows = rows(&samples, complaints);
        let why = |name: &str| {
            let row = rows.iter().find(|row| row.name == name);
            row.and_then(|row| row.missing.clone())
        };
        assert!(why("nft raw, N=1000: denied").is_some());
        assert_eq!(
            why("nft input, N=1000: denied").as_deref(),
            Some("nft: not found")
        );
        assert!(rows.iter().all(|row| row.samples.count() == 0));
    }

    #[test]
    fn ours_stand_behind_those_that_are_there() {
        let list = with_ours("[{\"label\": \"no gate\"}]").unwrap();
        let list: Vec<Value> = serde_json::from_str(&list).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list[1]["adapter"], "knockgate");
        assert!(with_ours("{").is_err());
    }
}
