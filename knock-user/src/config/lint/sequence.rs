//! Warnings about sequences that are easy to guess, or that a port scan may complete.

use std::time::Duration;

use super::ephemeral;
use crate::config::{
    draft::DraftKnock,
    host::HostFacts,
    source::{Findings, Located},
};
use crate::values::HumanDuration;

const LONG_WITHIN: Duration = Duration::from_mins(1);

/// Sequences of tutorials and default configurations, which are tried first.
const WELL_KNOWN: [[u16; 3]; 5] = [
    [7000, 8000, 9000],
    [1000, 2000, 3000],
    [1111, 2222, 3333],
    [2222, 3333, 4444],
    [1234, 2345, 3456],
];

/// Warns of weaknesses of one sequence and its `within`.
pub(super) fn lint(findings: &mut Findings<'_>, host: &HostFacts, knock: &DraftKnock) {
    sequence(findings, host, knock);
    within(findings, knock);
}

fn sequence(findings: &mut Findings<'_>, host: &HostFacts, knock: &DraftKnock) {
    let items = &knock.sequence.items;
    let span = knock.sequence.span;
    let numbers = items
        .iter()
        .map(|step| step.value.number)
        .collect::<Vec<_>>();
    if numbers.len() < 3 {
        let message = "two knocks are soon guessed: use three or more".to_owned();
        findings.warning("short-sequence", span, message);
    } else if let Some(order) = order(&numbers) {
        let message = format!(
            "the ports of this sequence only {order}, as a port scan's do: go up and down between them"
        );
        findings.warning("monotonic-sequence", span, message);
    }
    if let Some(pair) = items
        .windows(2)
        .find(|w| w[0].value.number.abs_diff(w[1].value.number) == 1)
    {
        let message = format!(
            "{} and {} are neighbours, which a port scan hits one after the other: choose ports far apart",
            pair[0].value, pair[1].value
        );
        findings.warning("neighbouring-ports", pair[1].span, message);
    }
    let known = |three: &&[u16]| {
        WELL_KNOWN
            .iter()
            .any(|known| *three == known || three.iter().eq(known.iter().rev()))
    };
    if let Some([first, second, third, ..]) = numbers.windows(3).find(known) {
        let message = format!(
            "{first}, {second}, {third} is a sequence that everyone tries first: \
             `knockgate init` makes random ones"
        );
        findings.warning("well-known-sequence", span, message);
    }
    ephemeral(
        findings,
        host,
        items,
        "this host's own traffic uses such ports at random, which can break a sequence",
    );
}

fn within(findings: &mut Findings<'_>, knock: &DraftKnock) {
    let Located { value, span } = knock.within;
    if value > LONG_WITHIN {
        let message = format!(
            "{} from first to last knock gives a scanner time to hit the sequence by chance: \
             {} at most is enough",
            HumanDuration(value),
            HumanDuration(LONG_WITHIN)
        );
        findings.warning("long-window", span, message);
    }
}

/// Returns "rise" or "fall" if the numbers do only that; equal neighbours count as either.
fn order(numbers: &[u16]) -> Option<&'static str> {
    if numbers.is_sorted() {
        Some("rise")
    } else if numbers.is_sorted_by(|a, b| a >= b) {
        Some("fall")
    } else {
        None
    }
}
