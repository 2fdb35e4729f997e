//! docs/reference.md describes what the program counts by, and nothing else.

use std::collections::BTreeSet;

use knock_common::{Reason, event::Kind, knock::Outcome};

const PAGE: &str = include_str!("../../docs/reference.md");

/// The first column of the table in the section with this title.
fn listed(title: &str) -> BTreeSet<&'static str> {
    let heading = format!("\n## {title}\n");
    let (_, section) = PAGE.split_once(&heading).expect("the section is there");
    let section = section.split("\n## ").next().unwrap_or(section);
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}

#[test]
fn every_reason_is_described_with_its_verdict() {
    let names = Reason::ALL.map(Reason::name);
    assert_eq!(listed("Reasons"), BTreeSet::from(names));
    for reason in Reason::ALL {
        let verdict = if reason.passes() { "pass" } else { "deny" };
        has_row(&format!(
            "| `{}` | {verdict} | {} |",
            reason.name(),
            reason.text()
        ));
    }
}

#[test]
fn every_result_of_a_knock_is_described() {
    let names = Outcome::ALL.map(Outcome::name);
    assert_eq!(listed("Results of a knock"), BTreeSet::from(names));
    for outcome in Outcome::ALL {
        has_row(&format!("| `{}` | {} |", outcome.name(), outcome.text()));
    }
}

/// The service has events of its own besides.
#[test]
fn every_event_of_the_kernel_program_is_described() {
    for kind in Kind::ALL {
        let row = format!("| `{}` | {} |", kind.name(), kind.text());
        assert!(PAGE.contains(&row), "no row begins with {row:?}");
    }
}

fn has_row(row: &str) {
    assert!(
        PAGE.lines().any(|line| line == row),
        "there is no row {row:?}"
    );
}
