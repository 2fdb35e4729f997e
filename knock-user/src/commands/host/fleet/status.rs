//! `knockgate fleet status`.

use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    commands::host::output,
    config::Config,
    fleet::{configuration_hash, once, record::Host},
    runtime::runtime,
};

/// A host that has said nothing for this long is shown as silent, ms: three times as long as hosts take.
const SILENT: u64 = 15_000;

/// Show the hosts of the fleet, and whether they go by the same rules
///
/// Reads the etcd members, and needs no service. That a host is silent is told by the clocks of both hosts.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A fleet.
#[derive(Debug, Clone, Serialize)]
struct Fleet {
    fleet: String,
    /// This host.
    host: String,
    hosts: Vec<Row>,
}

/// A host of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    version: String,
    /// What it goes by; see [`configuration_hash`].
    configuration: String,
    /// Whether that is what this host goes by.
    same_configuration: bool,
    /// How long ago it has said that it is there, by the clocks of both hosts.
    seen_ms: u64,
    silent: bool,
    /// What its grants take to the engine and back; `None`: it has published none.
    lag_ms: Option<u64>,
}

impl Row {
    fn of((name, host): (String, Host), own: &str, now: u64) -> Self {
        let seen_ms = now.saturating_sub(host.clock);
        Self {
            name,
            version: host.version,
            same_configuration: host.configuration == own,
            configuration: host.configuration,
            seen_ms,
            silent: seen_ms > SILENT,
            lag_ms: host.lag,
        }
    }
}

pub(super) fn run(args: &Args, file: &Path) -> Result<()> {
    let config = Config::load_quietly(file)?;
    let fleet = config
        .fleet
        .as_ref()
        .with_context(|| format!("{} has no [fleet]: this host is alone", file.display()))?;
    let hosts = runtime()?.block_on(once::hosts(fleet))?;
    let own = configuration_hash(&config);
    let now = u64::try_from(Timestamp::now().as_millisecond())?;
    let rows = hosts.into_iter().map(|host| Row::of(host, &own, now));
    let status = Fleet {
        fleet: fleet.name.clone(),
        host: fleet.host_name()?,
        hosts: rows.collect(),
    };
    if args.json {
        return output::json(&status);
    }
    let rows: Vec<_> = status.hosts.iter().map(line).collect();
    output::table(
        ["HOST", "VERSION", "CONFIGURATION", "SEEN>", "LAG>"],
        &rows,
        "no host has joined this fleet yet",
    )
}

fn line(row: &Row) -> [String; 5] {
    let configuration = if row.same_configuration {
        "the same".to_owned()
    } else {
        format!("OTHER ({})", row.configuration)
    };
    let seen = output::duration(row.seen_ms.saturating_mul(1_000_000));
    [
        row.name.clone(),
        row.version.clone(),
        configuration,
        if row.silent {
            format!("SILENT for {seen}")
        } else {
            format!("{seen} ago")
        },
        row.lag_ms
            .map_or_else(String::new, |lag| format!("{lag}ms")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_says_nothing_or_goes_by_other_rules_is_told_apart() {
        let host = Host {
            version: "0.1.0".into(),
            configuration: "aa".into(),
            serial: 1,
            clock: 1_000_000,
            run: 1,
            lag: Some(4),
        };
        let row = |own, now| Row::of(("edge-1".into(), host.clone()), own, now);
        let [_, _, configuration, seen, lag] = line(&row("aa", 1_004_000));
        assert_eq!([configuration, seen, lag], ["the same", "4.0s ago", "4ms"]);
        let [_, _, configuration, seen, _] = line(&row("bb", 1_020_000));
        assert_eq!([configuration, seen], ["OTHER (aa)", "SILENT for 20.0s"]);
        // Its clock may be ahead.
        assert_eq!(row("aa", 1).seen_ms, 0);
    }
}
