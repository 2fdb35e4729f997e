//! `cargo xtask mutants`: puts deliberate faults into the program, one by one, and checks that the tests catch each.
//!
//! A test that has never failed may be unable to fail. So each fault ([`faults`]) is put into a copy of the sources
//! ([`copy`]) and built, and suites of the decisions run on it ([`suites`]). A fault that none of them notices shows
//! that a test is missing.

mod copy;
mod faults;
mod suites;

use std::{fmt::Write as _, fs, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use self::{
    copy::Copy,
    faults::Fault,
    suites::{Stage, Suites},
};
use crate::{
    setup::{self, Purpose},
    workspace,
};

const PAGE: &str = "docs/development/mutants.md";

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only faults whose description contains one of these texts
    only: Vec<String>,
    /// Rewrite the table in docs/development/mutants.md
    #[arg(long, conflicts_with = "only")]
    update: bool,
}

/// A fault and the suites that noticed it.
struct Row<'f> {
    fault: &'f Fault,
    caught: Vec<&'static str>,
}

/// `cargo xtask mutants`. Fails if a fault goes unnoticed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { only, update } = options;
    let wanted = |fault: &&Fault| {
        only.is_empty() || only.iter().any(|text| fault.what.contains(text.as_str()))
    };
    let faults: Vec<&Fault> = faults::all().filter(wanted).collect();
    ensure!(!faults.is_empty(), "no fault has this description");
    let toolchain = setup::ready(Purpose::Test)?;
    let copy = Copy::make()?;
    let suites = Suites::new(&copy, &toolchain);
    let begun = Instant::now();

    println!("Without a fault, in {}", copy.root().display());
    for stage in Stage::ALL {
        let caught = suites.run(stage)?.context("the sources do not build")?;
        ensure!(
            caught.is_empty(),
            "these suites fail even without a fault: {}",
            caught.join(", ")
        );
    }

    let mut rows = Vec::new();
    for (nth, fault) in faults.iter().enumerate() {
        let caught = try_one(&copy, &suites, fault)?;
        let (nth, of, what) = (nth + 1, faults.len(), fault.what);
        println!("{nth:>3}/{of} {what}: {}", shown(&caught));
        rows.push(Row { fault, caught });
    }
    let minutes = begun.elapsed().as_secs().div_ceil(60);
    let unnoticed = rows.iter().filter(|row| row.caught.is_empty()).count();
    println!(
        "{} of {} faults caught, in {minutes} minutes",
        rows.len() - unnoticed,
        rows.len()
    );
    if *update {
        write(&rows)?;
    }
    if unnoticed > 0 {
        bail!("{unnoticed} faults went unnoticed: a test is missing for each");
    }
    Ok(())
}

/// Returns the suites that notice the fault, in the first stage in which any does.
fn try_one(copy: &Copy, suites: &Suites<'_>, fault: &Fault) -> Result<Vec<&'static str>> {
    let _put = copy.put(fault)?;
    for stage in Stage::ALL {
        let caught = suites.run(stage)?;
        let caught = caught
            .with_context(|| format!("with the fault `{}` the sources do not build", fault.what))?;
        if !caught.is_empty() {
            return Ok(caught);
        }
    }
    Ok(Vec::new())
}

fn shown(caught: &[&str]) -> String {
    match caught {
        [] => "NOT CAUGHT".to_owned(),
        caught => caught.join(", "),
    }
}

/// Rewrites the table of the page.
fn write(rows: &[Row<'_>]) -> Result<()> {
    let path = workspace::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let (before, _) = page
        .split_once("| fault |")
        .with_context(|| format!("no table in {PAGE}"))?;
    fs::write(&path, before.to_owned() + &table(rows))
        .with_context(|| format!("cannot write {PAGE}"))?;
    println!("Written to {PAGE}.");
    Ok(())
}

/// Returns a table in Markdown, which ends the page.
fn table(rows: &[Row<'_>]) -> String {
    let mut table = String::from("| fault | where | caught by |\n|---|---|---|\n");
    for Row { fault, caught } in rows {
        let file = fault.file;
        // Writing to a string does not fail.
        let _ = writeln!(table, "| {} | {file} | {} |", fault.what, shown(caught));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fault must be on the page, with the suite that catches it.
    #[test]
    fn the_page_has_every_fault_and_what_catches_it() {
        let page = fs::read_to_string(workspace::root().join(PAGE)).unwrap();
        for fault in faults::all() {
            let row = format!("| {} | {} | ", fault.what, fault.file);
            let caught = page.split_once(&row).map(|(_, rest)| rest);
            assert!(
                caught.is_some_and(|caught| !caught.starts_with("NOT")),
                "no row for `{}` in {PAGE}; `cargo xtask mutants --update` writes it",
                fault.what
            );
        }
    }
}
