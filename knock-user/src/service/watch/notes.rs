//! What is learned of grants from what was reported of them.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use knock_common::event::{Cause, Kind};

use super::{Begun, Seen, Used, Watch};
use crate::{
    datapath::{Applied, Who},
    service::{log::Log, record::Record},
    sys::clock::monotonic_now,
};

impl Watch {
    /// Learns of grants that were given, and of ends that were reported: what is given and taken away between two looks is in
    /// no table. `is_wanted`: of which gates.
    pub(super) fn note(
        &mut self,
        log: &mut Log,
        applied: &Applied,
        is_wanted: impl Fn(u16) -> bool,
    ) {
        for change in log.changes() {
            let gate = change.gate.as_deref();
            // A gate that is gone by now has no grants.
            if let Some(gate) = gate.and_then(|name| applied.ids.gate(name))
                && is_wanted(gate)
            {
                self.note_one(&change, gate, applied);
            }
        }
    }

    fn note_one(&mut self, change: &Record, gate: u16, applied: &Applied) {
        let grant_to = applied.gate(gate).map(|gate| gate.grant_to);
        let (Some(grant_to), Some(source)) = (grant_to, change.source.as_deref()) else {
            return;
        };
        let address: Option<IpAddr> = source.parse().ok();
        let network = address.map(|address| grant_to.network(address));
        let Some(network) = network.or_else(|| source.parse().ok()) else {
            return;
        };
        let place = (gate, network);
        if change.event == Kind::Closed.name() {
            if change.reason.as_deref() != Some(Cause::Used.name()) {
                // A key closes what it has opened itself.
                let is_its =
                    |grant: &Seen| (&grant.who.user, &grant.who.key) == (&change.user, &change.key);
                if self.known.get(&place).is_some_and(is_its) {
                    self.known.remove(&place);
                }
                return;
            }
            // As the kernel looks them up. One for another network is not what is said to be closed.
            let whole = address.map_or(network, IpNet::from);
            for place in [(gate, whole), place] {
                if let Some(grant) = self.known.get_mut(&place)
                    && grant.used != Used::Said
                    && grant.who.user == change.user
                {
                    grant.used = Used::Said;
                    return;
                }
            }
        } else if let Some(until) = change.until {
            let grant = self.known.entry(place).or_insert_with(|| Seen {
                until: monotonic(until),
                connections: 0,
                used: Used::No,
                begun: Begun::Noted,
                is_cut_short: false,
                who: Arc::new(Who {
                    user: change.user.clone(),
                    key: change.key.clone(),
                    origin: change.origin.clone(),
                }),
                look: self.looks,
            });
            // One that is renewed admits connections again.
            grant.used = Used::No;
            grant.begun = Begun::Noted;
        }
    }
}

/// Returns a time to come by `CLOCK_MONOTONIC`, ns.
fn monotonic(time: Timestamp) -> u64 {
    let from_now = time.duration_since(Timestamp::now()).as_nanos();
    monotonic_now().saturating_add(u64::try_from(from_now).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{super::Grants, *};
    use crate::{
        config::{Config, Gate},
        datapath::{
            PinRoot,
            compile::{applied::Circumstances, ids::Ids},
        },
        service::memory::Memory,
    };

    fn applied() -> Applied {
        let config = Config {
            gates: vec![Gate {
                name: "ssh".into(),
                ..Gate::default()
            }],
            ..Config::default()
        };
        let ids = Ids::assign(&config, None);
        Applied::new(config, ids, Circumstances::default())
    }

    /// What a key or somebody by hand has opened or closed.
    fn change(event: Kind, key: Option<&str>, reason: Option<Cause>) -> Record {
        Record {
            gate: Some("ssh".into()),
            user: key.map(|_| "alice".into()),
            key: key.map(ToOwned::to_owned),
            source: Some("192.0.2.1".into()),
            reason: reason.map(|reason| reason.name().to_owned()),
            until: (event == Kind::Opened).then_some(Timestamp::MAX),
            ..Record::now(event.name())
        }
    }

    /// The program leaves what others have at the same place.
    #[test]
    fn a_key_that_closes_ends_what_it_has_opened_and_nothing_else() {
        let laptop = Some("alice/laptop");
        for (holder, is_left) in [(laptop, false), (Some("alice/phone"), true), (None, true)] {
            let mut watch = Watch {
                known: Grants::new(),
                looks: 0,
                looked: 0,
                memory: Memory::of(&PinRoot::new("/nonexistent")),
                saved: None,
                is_gone: false,
            };
            watch.note_one(&change(Kind::Opened, holder, None), 0, &applied());
            assert_eq!(watch.known.len(), 1);
            let asked = change(Kind::Closed, laptop, Some(Cause::Asked));
            watch.note_one(&asked, 0, &applied());
            assert_eq!(!watch.known.is_empty(), is_left, "{holder:?}");
        }
    }
}
