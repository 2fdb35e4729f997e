//! docs/reference.md describes what the program counts by.

use std::collections::BTreeSet;

use knock_common::{Reason, knock::Outcome};

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
        let row = format!("| `{}` | {verdict} |", reason.name());
        assert!(PAGE.contains(&row), "no row begins with {row:?}");
    }
}

#[test]
fn every_result_of_a_knock_is_described() {
    let names = Outcome::ALL.map(Outcome::name);
    assert_eq!(listed("## Results of a knock"), BTreeSet::from(names));
}
