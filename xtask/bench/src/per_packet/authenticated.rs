//! Datagrams to the port for authenticated knocks: junk, knocks that are refused, and knocks that open.

use anyhow::{Result, ensure};
use aya::programs::Xdp;

use super::{
    Case, UNIT, Work, measure,
    rows::{NEWCOMERS, STRANGER},
};
use crate::{
    Plan,
    figures::{Part, over},
    frame,
    instance::{FOREIGN, Instance, KNOCK_PORT},
    instances::Instances,
    judge::Judge,
    keys::{Message, random},
    programs::{MOST_MESSAGES, Programs, Traffic, run},
};

const CLOSED: &str = "datagram to a closed port";
const CLOSED_CROWD: &str = "datagram to a closed port, 65,536 sources";
const CROWD: u32 = 65_536;
/// How long ago stale knocks were made, ns: an hour.
const LONG_AGO: u64 = 3_600_000_000_000;

/// Measures what becomes of datagrams to the port, compared with the same datagrams to a closed port.
pub fn authenticated(programs: &mut Programs, instances: &Instances, plan: &Plan) -> Result<Part> {
    let (instance, key) = (&instances.keyed_knocked, &instances.key);
    let outcomes = &Outcomes(instance);
    let count = |count: u32| count.min(MOST_MESSAGES);
    let replayed = move |packets| {
        // Accepted, so that what is earlier was, too, as far as the program knows.
        let knock = frame::datagram(STRANGER - 1, 40000, KNOCK_PORT, &key.knock());
        run(instance.program(), &knock, 1)?;
        Ok((1..=u64::from(count(packets)))
            .map(|by| key.earlier(by))
            .collect())
    };
    let cases = vec![
        Case::judged(
            CLOSED,
            instance,
            "unguarded",
            to(FOREIGN, one_source(), move |packets| random(count(packets))),
            Vec::new(),
        ),
        Case::judged(
            CLOSED_CROWD,
            instance,
            "unguarded",
            to(FOREIGN, crowd(), move |packets| random(count(packets))),
            Vec::new(),
        ),
        Case::judged(
            "random bytes",
            outcomes,
            "other",
            to(KNOCK_PORT, one_source(), move |packets| {
                random(count(packets))
            }),
            vec![over(CLOSED).at_most(150.0)],
        ),
        Case::judged(
            "random bytes, 65,536 sources",
            outcomes,
            "other",
            to(KNOCK_PORT, crowd(), move |packets| random(count(packets))),
            vec![over(CLOSED_CROWD).at_most(150.0)],
        ),
        Case::judged(
            "stale knock",
            outcomes,
            "stale",
            to(KNOCK_PORT, one_source(), move |packets| {
                let each = (0..u64::from(count(packets))).map(|by| key.ago(LONG_AGO + by));
                Ok(each.collect())
            }),
            vec![over(CLOSED).at_most(250.0)],
        ),
        Case::judged(
            "replayed knock",
            outcomes,
            "replay",
            to(KNOCK_PORT, one_source(), replayed),
            vec![over(CLOSED).at_most(250.0)],
        ),
        Case::judged(
            "forged knock: the host's secret, another key",
            outcomes,
            "forged",
            to(KNOCK_PORT, one_source(), move |packets| {
                let each = (1..=u64::from(count(packets))).map(|by| key.forged(by));
                Ok(each.collect())
            }),
            vec![over(CLOSED)],
        ),
        Case::judged(
            "whole knock, grant renewed",
            outcomes,
            "opened",
            to(KNOCK_PORT, one_source(), move |packets| {
                Ok((0..packets).map(|_| key.knock()).collect())
            }),
            vec![over(CLOSED).at_most(2_500.0)],
        ),
        Case::judged(
            "whole knock, grant to an ever new source",
            outcomes,
            "opened",
            to(KNOCK_PORT, new_sources(), move |packets| {
                Ok((0..packets).map(|_| key.knock()).collect())
            }),
            vec![over(CLOSED).at_most(2_500.0)],
        ),
    ];
    let rows = measure(programs, cases, plan)?;
    let refused = instance.authenticated(Some("table_full"))?;
    ensure!(
        refused == 0,
        "{refused} grants were refused for want of room"
    );
    Ok(Part {
        id: "authenticated",
        title: "Datagrams to a port for authenticated knocks",
        unit: UNIT,
        notes: vec![
            "64 bytes each, varied: the next source and message are written, then judged by tail call; so does the floor",
            "one source, unless the row says otherwise: a closed port looks at what is known of it, which a knock port does not",
            "one key; each knock is newer than all before, or what its name says",
        ],
        rows,
    })
}

/// Counts by the outcomes of authenticated knocks.
struct Outcomes<'i>(&'i Instance);

impl Judge for Outcomes<'_> {
    fn is_ours(&self) -> bool {
        true
    }

    fn program(&self) -> &Xdp {
        self.0.program()
    }

    fn packets(&self, outcome: Option<&str>) -> Result<u64> {
        self.0.authenticated(outcome)
    }
}

/// Returns datagrams to a port, with the messages that are made for each run.
fn to<'w>(
    port: u16,
    traffic: Traffic,
    make: impl Fn(u32) -> Result<Vec<Message>> + 'w,
) -> Work<'w> {
    Work::Messages {
        frame: frame::datagram(STRANGER, 40000, port, &[0; 64]),
        traffic: Traffic {
            ports: [port; 4],
            ..traffic
        },
        make: Box::new(make),
    }
}

fn crowd() -> Traffic {
    Traffic {
        first: STRANGER,
        sources: CROWD,
        ..new_sources()
    }
}

fn one_source() -> Traffic {
    Traffic {
        first: STRANGER,
        sources: 1,
        ..new_sources()
    }
}

fn new_sources() -> Traffic {
    Traffic {
        first: NEWCOMERS,
        steps: 1,
        hold: 31,
        ..Traffic::default()
    }
}
