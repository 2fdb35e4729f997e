//! docs/reference.md describes what the program counts by.

use std::collections::BTreeSet;

use knock_common::{Reason, event::Kind, knock::Outcome};

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

/// The service has events of its own besides.
#[test]
fn every_event_of_the_kernel_program_is_described() {
    for kind in Kind::ALL {
        has_row(&format!("| `{}` | {} |", kind.name(), kind.text()));
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
