//! What knocks open and close.

use std::net::IpAddr;

use ipnet::IpNet;
use knock_common::knock::{Outcome, authenticated::outcome::Outcome as Authenticated};
use knock_user::config::GrantTo;

use super::{Grant, Model, authenticated::Request, frame::Segment, probes::Sequence};
use crate::nanoseconds;

/// Set in the index of a user for what a key has earned; the other bits are its slot.
const KEY: u32 = 1 << 31;

/// For whom a grant is, and how far it goes.
struct Terms {
    user: u32,
    /// ns; the gate's own time, if that is shorter.
    open_for: u64,
    port: u16,
}

impl Model<'_> {
    /// Returns the outcome of the last knock of a sequence, `took` ns after the first.
    pub(super) fn completed(
        &mut self,
        from: IpAddr,
        sequence: &Sequence<'_>,
        took: u64,
        now: u64,
    ) -> Outcome {
        let rules = sequence.rules;
        if took > nanoseconds(sequence.knock.within) {
            return Outcome::Late;
        }
        let may_knock = |network: &IpNet| network.contains(&from);
        if !rules.sources.is_empty() && !rules.sources.iter().any(may_knock) {
            return Outcome::Source;
        }
        let terms = Terms {
            user: sequence.user,
            open_for: u64::MAX,
            port: 0,
        };
        if self.open(from, sequence.gate, &terms, now) {
            Outcome::Opened
        } else {
            Outcome::TableFull
        }
    }

    /// Does what a datagram asks for that may be an authenticated knock. Returns whether it was accepted.
    pub(super) fn authenticated(&mut self, segment: &Segment, now: u64) -> bool {
        let times = (self.start, self.start.unix(now));
        let heard = self
            .accepted
            .hear(self.config, segment.message, segment.source, times);
        let (outcome, gate) = match heard {
            Ok(request) => (self.fulfil(&request, now), Some(request.gate)),
            Err(refused) => (refused.outcome, refused.gate),
        };
        self.tally.authenticated(outcome);
        let at_gate = match outcome {
            Authenticated::Opened => Some(Outcome::Opened),
            Authenticated::TableFull => Some(Outcome::TableFull),
            Authenticated::Source => Some(Outcome::Source),
            _ => None,
        };
        if let (Some(at_gate), Some(gate)) = (at_gate, gate) {
            self.tally.knock(gate, at_gate);
        }
        matches!(outcome, Authenticated::Opened | Authenticated::Closed)
    }

    fn fulfil(&mut self, request: &Request, now: u64) -> Authenticated {
        let addresses = request.v4.into_iter().chain(request.v6);
        let user = KEY | u32::from(request.slot);
        if request.closes {
            for address in addresses {
                let to = self.network(address, request.gate);
                self.grants.retain(|grant| {
                    grant.source != to || grant.gate != request.gate || grant.user != Some(user)
                });
            }
            return Authenticated::Closed;
        }
        let terms = Terms {
            user,
            open_for: request.seconds.map_or(u64::MAX, |seconds| {
                u64::from(seconds) * 1_000_000_000 / u64::from(self.start.slowed)
            }),
            port: request.port,
        };
        let mut given = 0;
        for address in addresses {
            if !self.open(address, request.gate, &terms, now) {
                break;
            }
            given += 1;
        }
        if given == 0 {
            Authenticated::TableFull
        } else {
            Authenticated::Opened
        }
    }

    /// Returns to whom a knock of `from` opens a gate.
    fn network(&self, from: IpAddr, gate: u16) -> IpNet {
        let rules = &self.config.gates[usize::from(gate)];
        let length = match (rules.grant_to, from) {
            (GrantTo::Address, IpAddr::V4(_)) => 32,
            (GrantTo::Address, IpAddr::V6(_)) => 128,
            (GrantTo::Prefix, IpAddr::V4(_)) => 24,
            (GrantTo::Prefix, IpAddr::V6(_)) => 64,
        };
        IpNet::new(from, length).expect("a valid length").trunc()
    }

    /// Gives or renews the grant of a knock. Returns false if there is no room.
    fn open(&mut self, from: IpAddr, gate: u16, terms: &Terms, now: u64) -> bool {
        let source = self.network(from, gate);
        let open_for = nanoseconds(self.config.gates[usize::from(gate)].open_for);
        let new = Grant {
            source,
            gate,
            until: now + open_for.min(terms.open_for),
            connections: 0,
            user: Some(terms.user),
            port: terms.port,
        };
        let is_live = |old: &Grant| old.until > now && old.source == source && old.gate == gate;
        // One of the two is in force, and never what both would admit together. Only time, `revoke` and `connections` end a
        // grant: one that still admits something stays where it covers the knock's.
        let stays = |(index, old): (usize, &Grant)| {
            let is_longer = old.port == new.port && old.until > new.until;
            let is_wider = old.port == 0 && new.port != 0;
            is_live(old) && self.has_room(index) && (is_longer || is_wider)
        };
        self.grants.iter().enumerate().any(stays) || self.put_grant(new, now)
    }

    pub(super) fn put_grant(&mut self, new: Grant, now: u64) -> bool {
        self.grants.retain(|grant| {
            grant.until > now && (grant.source != new.source || grant.gate != new.gate)
        });
        let room = self.grants.len() < self.config.limits.grants as usize;
        if room {
            self.grants.push(new);
        }
        room
    }
}
