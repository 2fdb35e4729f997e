//! The same verdicts by two instances, of which one has more in its configuration.

use anyhow::Result;

use super::{
    Case, UNIT, Work, finer, measure,
    rows::{FORGED, STRANGER, denied_frame, granted_frame, new_sources, one_knocker, scattered},
};
use crate::{
    Plan,
    figures::{Against, Part, Row, over, times},
    frame::{self, Transport},
    instance::{FOREIGN, Instance, OPEN, knock_frame},
    instances::Instances,
    programs::{Floor, Programs},
};

/// Measures the verdicts with one sequence and with ten thousand.
pub fn sequences(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    let one = ("1 sequence", &instances.lone);
    let crowd = Other {
        label: "10,000",
        instance: &instances.crowd,
        against: |one| times(one).at_most(1.1),
    };
    Ok(Part {
        id: "sequences",
        title: "The same with 10,000 sequences of 1,000 users at 10 gates",
        unit: UNIT,
        notes: vec![VARIED],
        rows: compare(programs, one, &[crowd], plan)?,
    })
}

/// Measures the verdicts of packets that are no authenticated knocks, without a port for these and with one.
pub fn knock_ports(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    let without = ("without [knock]", &instances.lone);
    let others = [
        Other {
            label: "another without it",
            instance: &instances.one,
            against: |one| over(one),
        },
        Other {
            label: "with it",
            instance: &instances.keyed,
            against: |one| over(one).at_most(2.0),
        },
    ];
    Ok(Part {
        id: "knock_ports",
        title: "The same with a port for authenticated knocks",
        unit: UNIT,
        notes: vec![
            VARIED,
            "another without it: how much two instances differ with the same configuration",
        ],
        rows: compare(programs, without, &others, &finer(plan))?,
    })
}

/// Measures what passes, without a program beside ours, with one that follows, and with one that calls ours.
pub fn neighbours(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    /// ns that a chain may cost.
    const CHAIN: f64 = 5.0;
    let alone = programs.floor(Floor::Pass)?;
    let root = programs.root()?;
    let mut cases = vec![Case::new(
        "the program that follows, alone",
        &alone,
        Work::Hot(granted_frame()),
        Vec::new(),
    )];
    for (what, reason, work) in works() {
        let Work::Hot(frame) = work else { continue };
        let without = format!("{what}, ours alone");
        let by = |label: &str, instance, against| {
            let work = Work::Hot(frame.clone());
            Case::judged(format!("{what}, {label}"), instance, reason, work, against)
        };
        let goal = || vec![over(&without).at_most(CHAIN)];
        cases.push(by("ours alone", &instances.lone, Vec::new()));
        cases.push(by("another alone", &instances.one, vec![over(&without)]));
        cases.push(by("with next", &instances.followed, goal()));
        cases.push(Case {
            program: &root,
            ..by("by a root (--into)", &instances.called, goal())
        });
    }
    Ok(Part {
        id: "neighbours",
        title: "Chains: a program that follows (`next`), and one that calls ours (`up --into`)",
        unit: UNIT,
        notes: vec![
            "the other program is the least there can be: what it adds to ours is the call, its own two instructions, and \
             two of ours with next",
            "each row holds what a run by BPF_PROG_TEST_RUN costs, once; a sum of two rows would hold that twice",
            "another alone: how much two instances differ with the same configuration",
        ],
        rows: measure(programs, cases, &finer(plan))?,
    })
}

const VARIED: &str =
    "denied and knocks are varied, see above: their ns hold the writing of the frame";

/// An instance, and how it is compared with the first one.
struct Other<'o> {
    label: &'static str,
    instance: &'o Instance,
    against: fn(&str) -> Against,
}

/// Measures every verdict by the first instance and by the others, one right after the other.
fn compare(
    programs: &mut Programs,
    (label, first): (&str, &Instance),
    others: &[Other<'_>],
    plan: &Plan,
) -> Result<Vec<Row>> {
    let mut cases = Vec::new();
    for place in 0..works().len() {
        // Traffic goes on where it was, so each instance has its own.
        let work = || works().swap_remove(place);
        let (what, reason, traffic) = work();
        let floor = format!("{what}, {label}");
        let others = others.iter().map(|other| {
            let (_, _, traffic) = work();
            let name = format!("{what}, {}", other.label);
            let against = vec![(other.against)(&floor)];
            Case::judged(name, other.instance, reason, traffic, against)
        });
        let others: Vec<Case<'_>> = others.collect();
        cases.push(Case::judged(floor, first, reason, traffic, Vec::new()));
        cases.extend(others);
    }
    measure(programs, cases, plan)
}

/// Returns packets with a name and the reason under which they are counted.
fn works<'w>() -> Vec<(&'static str, &'static str, Work<'w>)> {
    let datagram = |port| Work::Hot(frame::ipv4(Transport::Udp, STRANGER, 40000, port));
    vec![
        ("open port", "unguarded", datagram(OPEN)),
        ("foreign port", "unguarded", datagram(FOREIGN)),
        (
            "denied",
            "no_grant",
            scattered(denied_frame(), STRANGER, FORGED),
        ),
        ("granted", "grant", Work::Hot(granted_frame())),
        (
            "first knock",
            "knock",
            Work::Varied(knock_frame(), new_sources(1)),
        ),
        (
            "whole knock",
            "knock",
            Work::Varied(knock_frame(), one_knocker()),
        ),
    ]
}
