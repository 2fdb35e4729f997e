//! docs/reference.md describes what the program counts by.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use knock_common::{
    Reason,
    event::{Cause, Kind},
    knock::{Outcome, authenticated, fwknop},
};
use knock_user::{
    cli::Cli,
    config::Config,
    datapath::Lack,
    service::{Record, names},
};
use serde_json::Value;

use super::{rows, section};

const PAGE: &str = include_str!("../../../docs/reference.md");

/// Returns the names in the first column of the table under a heading.
fn listed(heading: &str) -> BTreeSet<&'static str> {
    let rows = rows(section(PAGE, heading)).into_iter();
    rows.map(|cells| cells[0].trim_matches('`')).collect()
}

#[test]
fn every_reason_is_described_with_its_verdict() {
    let names = Reason::ALL.map(Reason::name);
    assert_eq!(listed("## Reasons"), BTreeSet::from(names));
    for reason in Reason::ALL {
        let verdict = if reason.passes() { "pass" } else { "deny" };
        let (name, text) = (reason.name(), reason.text());
        has_row(&format!("| `{name}` | {verdict} | {text} |"));
    }
}

#[test]
fn every_result_of_a_knock_is_described() {
    let names = Outcome::ALL.map(Outcome::name);
    assert_eq!(listed("## Results of a knock"), BTreeSet::from(names));
    for outcome in Outcome::ALL {
        has_row(&format!("| `{}` | {} |", outcome.name(), outcome.text()));
    }
}

#[test]
fn every_outcome_of_an_authenticated_knock_is_described() {
    let heading = "## Outcomes of an authenticated knock";
    let names = authenticated::outcome::Outcome::ALL.map(authenticated::outcome::Outcome::name);
    assert_eq!(listed(heading), names.into());
    for outcome in authenticated::outcome::Outcome::ALL {
        has_row(&format!("| `{}` | {} |", outcome.name(), outcome.text()));
    }
}

#[test]
fn every_outcome_of_a_packet_of_fwknops_is_described() {
    let names = fwknop::Outcome::ALL.map(fwknop::Outcome::name);
    assert_eq!(listed("## Packets of fwknop's"), BTreeSet::from(names));
    for outcome in fwknop::Outcome::ALL {
        has_row(&format!("| `{}` | {} |", outcome.name(), outcome.text()));
    }
}

#[test]
fn every_event_is_described() {
    for kind in Kind::ALL {
        has_row(&format!("| `{}` | {} |", kind.name(), kind.text()));
    }
    let (_, table) = section(PAGE, "## Events")
        .split_once("| event |")
        .expect("there is a table of events");
    let described: BTreeSet<&str> = rows(table)
        .into_iter()
        .flat_map(|cells| cells[0].split(", ").map(|name| name.trim_matches('`')))
        .collect();
    let kernel = Kind::ALL.map(Kind::name);
    let all = kernel.into_iter().chain(names::EVENTS);
    assert_eq!(described, all.collect());
}

#[test]
fn every_reason_of_an_event_is_described() {
    let reasons = rows(section(PAGE, "## Events"))
        .into_iter()
        .filter_map(|cells| cells.get(2).copied())
        .flat_map(|cell| cell.split('`'))
        .collect::<BTreeSet<_>>();
    let lacks = [
        Lack::Down,
        Lack::Absent,
        Lack::Moved,
        Lack::Detached,
        Lack::Unlinked,
        Lack::Renamed(String::new()),
    ];
    let lacks = lacks.iter().map(Lack::word);
    let causes = Cause::ALL.into_iter().map(Cause::name);
    let ends = [names::EXPIRED, names::REVOKED];
    let all = causes.chain(lacks).chain(ends).chain(names::HOOK_REASONS);
    for reason in all.filter(|name| !name.is_empty()) {
        assert!(reasons.contains(reason), "no reason `{reason}` of an event");
    }
}

/// The row of a table may have more cells.
fn has_row(row: &str) {
    let mut lines = PAGE.lines();
    assert!(
        lines.any(|line| line.starts_with(row)),
        "no row begins with {row:?}"
    );
}

#[test]
fn every_command_and_option_is_described() {
    let commands = section(PAGE, "## Commands");
    let cli = Cli::command();
    let described = |option: &str| commands.contains(option);
    for (name, command) in commands_of("", &cli) {
        let is_there = rows(commands).iter().any(|cells| {
            let mut usages = cells[0].split('`');
            usages.any(|usage| usage == name || usage.starts_with(&format!("{name} ")))
        });
        assert!(is_there, "no row for {name}");
        for argument in command.get_arguments() {
            if let Some(long) = argument.get_long() {
                // Of the command itself where it is not one of every command.
                let options = options_of(commands, &name);
                let option = format!("--{long}");
                let is_there = options.iter().any(|cell| has_option(cell, &option));
                assert!(is_there, "no {option} of {name} in {options:?}");
            }
        }
    }
    for argument in cli.get_arguments() {
        let long = argument.get_long().expect("all of them have names");
        assert!(described(&format!("`--{long}")), "no --{long}");
    }
}

/// Returns every command and command of a command, with the words that name it.
fn commands_of<'c>(before: &str, command: &'c clap::Command) -> Vec<(String, &'c clap::Command)> {
    let mut all = Vec::new();
    for command in command.get_subcommands() {
        let name = format!("{before}{}", command.get_name());
        all.extend(commands_of(&format!("{name} "), command));
        all.push((name, command));
    }
    all
}

/// Returns the cells with options of a command. A row whose first cell is empty goes on with the command of
/// the row before.
fn options_of<'p>(commands: &'p str, name: &str) -> Vec<&'p str> {
    let (_, table) = commands
        .split_once("| command | option |")
        .expect("there is a table of options");
    let mut is_meant = false;
    let mut options = Vec::new();
    for line in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let command = cells.next().unwrap_or_default();
        if !command.is_empty() {
            is_meant = command.split('`').any(|word| word == name);
        }
        if is_meant {
            options.extend(cells.next());
        }
    }
    options
}

fn has_option(cell: &str, option: &str) -> bool {
    cell.split(['`', ' ', ',', ';']).any(|word| word == option)
}

#[test]
fn every_key_of_an_event_is_described() {
    let text = "x".to_owned();
    let now = Record::now("knock.step");
    let event = Record {
        time: now.time,
        event: text.clone(),
        interface: Some(text.clone()),
        gate: Some(text.clone()),
        user: Some(text.clone()),
        key: Some(text.clone()),
        source: Some(text.clone()),
        port: Some("22/tcp".parse().expect("a port")),
        step: Some(1),
        of: Some(2),
        reason: Some(text.clone()),
        until: Some(now.time),
        lost: Some(3),
        failures: Some(10),
        hook: Some("/bin/true".to_owned()),
        origin: Some(text.clone()),
    };
    let keys: Vec<&str> = event.fields().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, Record::KEYS);
    assert_described("## Events", "", &serde_json::to_value(event));
}

#[test]
fn every_key_of_a_finding_is_described() {
    let invalid = Config::parse("interfaces = 1", "x").expect_err("a number for a list");
    for finding in invalid.findings() {
        assert_described("### `check`", "findings[].", &serde_json::to_value(finding));
    }
}

#[track_caller]
fn assert_described(heading: &str, prefix: &str, object: &serde_json::Result<Value>) {
    let object = object.as_ref().expect("serialisable");
    let listed = listed(heading);
    for key in object.as_object().expect("an object").keys() {
        let key = format!("{prefix}{key}");
        assert!(
            listed.contains(key.as_str()),
            "no `{key}` under {heading:?}"
        );
    }
}
