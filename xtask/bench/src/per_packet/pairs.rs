//! The same verdicts by two instances, of which one has more in its configuration.

use anyhow::Result;

use super::{
    Case, Work, measure,
    rows::{FORGED, STRANGER, denied_frame, granted_frame, new_sources, one_knocker, scattered},
};
use crate::{
    Plan,
    figures::{Against, Part, over, times},
    frame::{self, Transport},
    instance::{FOREIGN, Instance, OPEN, knock_frame},
    instances::Instances,
    programs::Programs,
};

/// Measures the verdicts with one sequence and with ten thousand.
pub fn sequences(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    let pair = Pair {
        one: ("1 sequence", &instances.lone),
        other: ("10,000", &instances.crowd),
        against: |one| times(one).at_most(1.1),
    };
    Ok(Part {
        id: "sequences",
        title: "The same with 10,000 sequences of 1,000 users at 10 gates",
        ..pair.measure(programs, plan)?
    })
}

/// Measures the verdicts of packets that are no authenticated knocks, without a port for these and with one.
pub fn knock_ports(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    let pair = Pair {
        one: ("without [knock]", &instances.lone),
        other: ("with it", &instances.keyed),
        against: |one| over(one).at_most(2.0),
    };
    Ok(Part {
        id: "knock_ports",
        title: "The same with a port for authenticated knocks",
        ..pair.measure(programs, plan)?
    })
}

/// Two instances, and how the second one is compared with the first.
struct Pair<'p> {
    one: (&'static str, &'p Instance),
    other: (&'static str, &'p Instance),
    against: fn(&str) -> Against,
}

impl Pair<'_> {
    fn measure(&self, programs: &mut Programs, plan: &Plan) -> Result<Part> {
        let mut cases = Vec::new();
        for ((what, reason, work), (_, _, same_work)) in works().into_iter().zip(works()) {
            let (label, instance) = self.one;
            let name = format!("{what}, {label}");
            let against = vec![(self.against)(&name)];
            cases.push(Case::judged(name, instance, reason, work, Vec::new()));
            let (label, instance) = self.other;
            let name = format!("{what}, {label}");
            cases.push(Case::judged(name, instance, reason, same_work, against));
        }
        Ok(Part {
            id: "",
            title: "",
            unit: "ns of CPU, median (min–max)",
            notes: vec![
                "denied and knocks are varied, see above: their ns hold the writing of the frame",
            ],
            rows: measure(programs, cases, plan)?,
        })
    }
}

/// Returns packets with a name and the reason under which they are counted.
fn works<'w>() -> [(&'static str, &'static str, Work<'w>); 6] {
    let datagram = |port| Work::Hot(frame::ipv4(Transport::Udp, STRANGER, 40000, port));
    [
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
