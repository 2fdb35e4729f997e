//! The events of grants that the service finds by itself.

use std::sync::Arc;

use jiff::Timestamp;
use knock_common::{
    event::{Cause, Kind},
    report::class,
};

use super::{Begun, Place, Seen, Used};
use crate::{
    datapath::{Datapath, Who},
    service::{
        log::Log,
        names::{EXPIRED, REVOKED},
        record::{Record, network_text, wall_clock},
    },
    sys::clock::monotonic_now,
};

/// A grant that was given: until when, at which gate and to which source, and who has it.
pub type Given = (u64, Place, Arc<Who>);

/// Reports grants that were given.
pub fn opened(mut given: Vec<Given>, datapath: &Datapath, log: &mut Log) {
    given.sort_unstable_by_key(|(until, place, _)| (*until, *place));
    for (until, place, who) in given {
        let opened = Record {
            until: Some(wall_clock(until)),
            ..about(place, &who, Kind::Opened, datapath)
        };
        log.say_within(class::OPENINGS, opened);
    }
}

/// Reports the ends of grants that are no longer live, but for those whose gates were said to be closed before.
pub fn end_each(mut ended: Vec<(Place, Seen)>, datapath: &Datapath, log: &mut Log) {
    ended.retain(|(_, grant)| grant.used != Used::Said);
    let unsaid = ended
        .iter()
        .filter(|(_, grant)| matches!(grant.begun, Begun::Found(_)))
        .map(|(place, grant)| grant.given(*place));
    opened(unsaid.collect(), datapath, log);
    ended.sort_by_key(|(_, grant)| grant.until);
    let now = monotonic_now();
    for (place, grant) in ended {
        let (reason, time) = if grant.used == Used::Found {
            (Cause::Used.name(), wall_clock(now))
        } else if grant.is_cut_short {
            (Cause::Asked.name(), wall_clock(grant.until))
        } else if grant.until <= now {
            (EXPIRED, wall_clock(grant.until))
        } else {
            (REVOKED, wall_clock(now))
        };
        close(place, &grant.who, reason, time, datapath, log);
    }
}

/// Reports that a grant does not open its gate any more.
pub fn close(
    place: Place,
    who: &Who,
    reason: &str,
    time: Timestamp,
    datapath: &Datapath,
    log: &mut Log,
) {
    let closed = Record {
        time,
        reason: Some(reason.to_owned()),
        ..about(place, who, Kind::Closed, datapath)
    };
    log.say_within(class::CLOSINGS, closed);
}

fn about((gate, source): Place, who: &Who, event: Kind, datapath: &Datapath) -> Record {
    let Who { user, key, origin } = who.clone();
    Record {
        gate: datapath.applied.gate_name(gate).map(ToOwned::to_owned),
        user,
        key,
        origin,
        source: Some(network_text(source)),
        ..Record::now(event.name())
    }
}
