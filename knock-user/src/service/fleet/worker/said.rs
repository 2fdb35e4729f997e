//! What is counted and reported: whether this host is one of its fleet, and records that are not used.

use super::{Link, PATIENCE, Worker};
use crate::{
    fleet::{engine::Engine, state::Refused},
    service::{
        fleet::because,
        names::{FLEET_ISOLATED, FLEET_JOINED, FLEET_REFUSED},
        record::{Record, network_text},
    },
    sys::clock::monotonic_now,
};

/// Refusals that are reported a second; all are counted.
const REPORTED: u32 = 8;

impl<E: Engine> Worker<E> {
    pub(super) fn joined(&mut self) {
        self.counts.join();
        if self.link != Link::Joined {
            self.link = Link::Joined;
            self.say(None, Record::now(FLEET_JOINED));
        }
    }

    pub(super) fn isolated(&mut self, why: &str) {
        self.counts.isolate(why);
        // The first member may be the one that is away.
        let is_early = matches!(self.link, Link::Beginning(since) if since.elapsed() < PATIENCE);
        if !is_early {
            self.link = Link::Isolated;
            if self.counts.report(why) {
                self.say(None, because(FLEET_ISOLATED, why));
                return;
            }
        }
        tracing::debug!("not one of the fleet {}: {why}", self.fleet);
        why.clone_into(&mut self.why);
    }

    /// Counts a record that is not used, and reports it unless there were too many in this second.
    pub(super) fn refuse(&mut self, refused: Refused) {
        let Refused {
            reason,
            origin,
            gate,
            user,
            source,
            key,
        } = refused;
        self.counts.refuse(reason.name());
        tracing::debug!("a record of the fleet is not used: {reason} ({key})");
        let second = monotonic_now() / 1_000_000_000;
        if self.reported.0 != second {
            self.reported = (second, 0);
        }
        if self.reported.1 >= REPORTED {
            return;
        }
        self.reported.1 += 1;
        let record = Record {
            gate,
            user,
            source: source.map(network_text),
            origin,
            ..because(FLEET_REFUSED, reason.name())
        };
        self.say(None, record);
    }

    pub(super) fn say(&self, class: Option<u32>, record: Record) {
        // The service may be far behind, or about to end.
        let _ = self.sender.try_send((class, record));
    }
}
