//! What is learned of grants from what was reported of them.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use knock_common::event::{Cause, Kind};

use super::{Begun, Place, ROUNDED, Seen, Used, Watch};
use crate::{
    datapath::{Applied, Who},
    service::{
        log::Log,
        record::{Record, monotonic},
    },
};

impl Watch {
    /// Learns of all of it before the next look does.
    pub fn note_all(&mut self, log: &mut Log, applied: &Applied) {
        self.note(log, applied, |_| true);
    }

    /// Learns of grants that were given, and of ends that were reported: what is given and taken away between two looks is in
    /// no table. `is_wanted`: of which gates, but for ends of grants that are known. Returns which grants of the others were said to be given.
    pub(super) fn note(
        &mut self,
        log: &mut Log,
        applied: &Applied,
        is_wanted: impl Fn(u16) -> bool,
    ) -> Vec<Place> {
        let mut others = Vec::new();
        for change in log.changes() {
            let gate = change.gate.as_deref();
            // A gate that is gone by now has no grants.
            let Some(gate) = gate.and_then(|name| applied.ids.gate(name)) else {
                continue;
            };
            if is_wanted(gate) || self.knows_used(&change, applied) {
                self.note_one(&change, gate);
            } else if change.event == Kind::Opened.name()
                && let Some((_, network)) = change.source.as_deref().and_then(network)
            {
                others.push((gate, network));
            }
        }
        others
    }

    /// Returns whether this is the end of a grant for the very address that it names. One that another configuration has given is
    /// not for the network for which knocks open the gate now.
    pub fn knows_used(&self, record: &Record, applied: &Applied) -> bool {
        let gate = record
            .gate
            .as_deref()
            .and_then(|name| applied.ids.gate(name));
        let source = record.source.as_deref().and_then(network);
        let is_used = record.event == Kind::Closed.name()
            && record.reason.as_deref() == Some(Cause::Used.name());
        is_used
            && gate.zip(source).is_some_and(|(gate, (_, whole))| {
                let grant = self.known.get(&(gate, whole));
                grant.is_some_and(|grant| grant.who.user == record.user && grant.used != Used::Said)
            })
    }

    fn note_one(&mut self, change: &Record, gate: u16) {
        let Some((_, source)) = change.source.as_deref().and_then(network) else {
            return;
        };
        // As it is named: what a knock here opens a gate for was named by its whole network, and nothing else is for more than it says.
        let place = (gate, source);
        let seen = |until, used| Seen {
            until,
            connections: 0,
            used,
            begun: Begun::Noted,
            is_cut_short: false,
            who: Arc::new(Who {
                user: change.user.clone(),
                key: change.key.clone(),
                origin: change.origin.clone(),
            }),
            look: self.looks,
        };
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
            if let Some(grant) = self.known.get_mut(&place)
                && grant.who.user == change.user
            {
                grant.used = Used::Said;
                return;
            }
            // One that no look has found yet, by a knock here: its beginning is not reported after its end. Any other may be for a
            // network, of which the event names the address that was the last to connect.
            if change.user.is_some() && change.origin.is_none() {
                let seen = seen(self.looked, Used::Said);
                self.known.entry(place).or_insert(seen);
            }
        } else if let Some(until) = change.until {
            let until = monotonic(until);
            let known = self.known.get_mut(&place);
            if let Some(grant) = known.filter(|grant| grant.until.abs_diff(until) <= ROUNDED) {
                // It lasts longer than what was asked for, and stays its holder's. It admits connections again.
                grant.used = Used::No;
                grant.begun = Begun::Noted;
            } else {
                self.known.insert(place, seen(until, Used::No));
            }
        }
    }
}

/// Reads the source of an event: the address, if it is one, and the network.
fn network(source: &str) -> Option<(Option<IpAddr>, IpNet)> {
    let address: Option<IpAddr> = source.parse().ok();
    let network = address.map(IpNet::from).or_else(|| source.parse().ok())?;
    Some((address, network))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use knock_common::report::class;

    use super::{super::Grants, *};
    use crate::{
        config::{Config, Gate},
        datapath::{
            PinRoot,
            compile::{applied::Circumstances, ids::Ids},
        },
        service::{fleet::Member, memory::Memory, packets::Packets},
        sys::clock::monotonic_now,
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

    fn watch() -> Watch {
        Watch {
            known: Grants::new(),
            looks: 0,
            looked: 0,
            memory: Memory::of(&PinRoot::new("/nonexistent")),
            saved: None,
            is_gone: false,
        }
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
            let mut watch = watch();
            watch.note_one(&change(Kind::Opened, holder, None), 0);
            assert_eq!(watch.known.len(), 1);
            let asked = change(Kind::Closed, laptop, Some(Cause::Asked));
            watch.note_one(&asked, 0);
            assert_eq!(!watch.known.is_empty(), is_left, "{holder:?}");
        }
    }

    /// Where it was given and used up between two looks, and the kernel has left out that it was given.
    #[test]
    fn what_is_used_up_before_it_is_found_is_said_to_be() {
        let laptop = Some("alice/laptop");
        let mut watch = watch();
        let used = change(Kind::Closed, laptop, Some(Cause::Used));
        watch.note_one(&used, 0);
        let known: Vec<_> = watch.known.values().map(|grant| grant.used).collect();
        assert_eq!(known, [Used::Said]);
        // Given again, it is another one.
        watch.note_one(&change(Kind::Opened, laptop, None), 0);
        let known: Vec<_> = watch.known.values().map(|grant| grant.used).collect();
        assert_eq!(known, [Used::No]);
    }

    /// Its end is no surprise then.
    #[test]
    fn a_shorter_knock_changes_when_a_grant_ends() {
        let laptop = Some("alice/laptop");
        let mut watch = watch();
        let long = change(Kind::Opened, laptop, None);
        watch.note_one(&long, 0);
        let short = Record {
            until: Some(Timestamp::now()),
            ..long
        };
        watch.note_one(&short, 0);
        let grant = watch.known.values().next().expect("it is known");
        assert!(grant.until <= monotonic_now());
    }

    /// The program reports who has the grant, which a longer knock takes over and a shorter one does not.
    #[test]
    fn a_renewed_grant_is_used_up_by_whom_the_program_names() {
        for (longer, holder) in [(60, "bob"), (0, "alice")] {
            let mut watch = watch();
            let of = |user: &str, event, reason| Record {
                user: Some(user.into()),
                ..change(event, Some("laptop"), reason)
            };
            let until = Timestamp::now() + Duration::from_mins(1);
            for (user, until) in [
                ("alice", until),
                ("bob", until + Duration::from_secs(longer)),
            ] {
                let given = Record {
                    until: Some(until),
                    ..of(user, Kind::Opened, None)
                };
                watch.note_one(&given, 0);
            }
            let used = of(holder, Kind::Closed, Some(Cause::Used));
            assert!(watch.knows_used(&used, &applied()), "{holder}");
            watch.note_one(&used, 0);
            let known: Vec<_> = watch.known.values().map(|grant| grant.used).collect();
            assert_eq!(known, [Used::Said], "{holder}");
        }
    }

    /// The event names the address that was the last to connect, and the network is yet to be said to be closed.
    #[test]
    fn a_network_is_not_said_to_be_used_up_with_an_address_in_it() {
        for (key, origin) in [
            (None, None),
            (None, Some("h1")),
            (Some("alice/laptop"), Some("h1")),
        ] {
            let mut watch = watch();
            let origin = origin.map(ToOwned::to_owned);
            let given = Record {
                source: Some("192.0.2.0/24".into()),
                origin: origin.clone(),
                ..change(Kind::Opened, key, None)
            };
            watch.note_one(&given, 0);
            let used = Record {
                origin,
                ..change(Kind::Closed, key, Some(Cause::Used))
            };
            watch.note_one(&used, 0);
            let known: Vec<_> = watch.known.iter().collect();
            let [((_, network), grant)] = known[..] else {
                panic!("{known:?}")
            };
            assert_eq!(
                (network.to_string().as_str(), grant.used),
                ("192.0.2.0/24", Used::No)
            );
        }
    }

    #[test]
    fn a_grant_that_ended_long_ago_is_known_to_have_ended_then() {
        let mut watch = watch();
        let given = Record {
            until: Some(Timestamp::now() - Duration::from_secs(3)),
            ..change(Kind::Opened, Some("alice/laptop"), None)
        };
        watch.note_one(&given, 0);
        let grant = watch.known.values().next().expect("it is known");
        assert!(grant.until <= monotonic_now() - 2_900_000_000);
    }

    /// As where a host joins a fleet that has opened for many. What is not noted would be said once more.
    #[test]
    fn any_number_of_openings_is_noted() {
        let root = PinRoot::new("/nonexistent");
        let member = Member::new(&root, &Packets::default());
        let mut log = Log::new(&Config::default(), &member);
        let mut watch = watch();
        for number in 0..10_000 {
            let given = Record {
                source: Some(IpAddr::V4(number.into()).to_string()),
                origin: Some("h1".into()),
                ..change(Kind::Opened, Some("alice/laptop"), None)
            };
            log.hear((Some(class::OPENINGS), given), &applied());
        }
        watch.note_all(&mut log, &applied());
        assert_eq!(watch.known.len(), 10_000);
    }
}
