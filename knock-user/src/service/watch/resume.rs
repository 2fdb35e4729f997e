//! What a new service makes of the state that the last one has left.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use knock_common::{event::Kind, report::class};

use super::{Begun, Grants, ROUNDED, Seen, Used};
use crate::{
    datapath::compile::applied::Applied,
    service::{
        memory::{Granted, Known, State, boot},
        names::{EXPIRED, REVOKED},
        record::{Record, network_text},
    },
    sys::clock::monotonic_now,
};

/// A time by both clocks.
pub struct Moment {
    pub boot: String,
    /// ns of `CLOCK_MONOTONIC`.
    pub monotonic: u64,
    pub wall: Timestamp,
}

impl Moment {
    pub fn now() -> Self {
        Self {
            boot: boot(),
            monotonic: monotonic_now(),
            wall: Timestamp::now(),
        }
    }
}

/// Returns the grants to begin with, and what is to be said of those that the tables no longer tell of, with the [`class`] of each
/// event: of another boot, or at a gate that is gone. `ended`: grants that have ended since the state was written and are still in
/// the tables.
pub fn resume(
    state: &State,
    now: &Moment,
    applied: &Applied,
    ended: Grants,
) -> (Grants, Vec<(u32, Record)>) {
    let mut known = HashMap::new();
    let mut said = Vec::new();
    let is_this_boot = state.boot == now.boot;
    let granted = state.granted.iter();
    let granted =
        granted.map(|Granted { gate, who }| (applied.ids.gate(gate), Arc::new(who.clone())));
    let granted: Vec<_> = granted.collect();
    for grant in &state.grants {
        let Known {
            holder,
            source,
            until,
            connections,
            is_closed,
            is_unsaid,
        } = grant;
        let (id, who) = &granted[*holder];
        if let Some(id) = id.filter(|_| is_this_boot) {
            let seen = Seen {
                until: *until,
                connections: *connections,
                used: if *is_closed { Used::Said } else { Used::No },
                begun: if *is_unsaid {
                    Begun::Found(now.monotonic)
                } else {
                    Begun::Said
                },
                is_cut_short: false,
                who: Arc::clone(who),
                look: 0,
            };
            known.insert((id, *source), seen);
            continue;
        }
        if *is_closed {
            continue;
        }
        let ends = state.ends(*until);
        let has_expired = if is_this_boot {
            *until <= now.monotonic
        } else {
            ends <= now.wall
        };
        let (reason, time) = if has_expired {
            (EXPIRED, ends)
        } else {
            (REVOKED, now.wall)
        };
        let about = |event: Kind| Record {
            gate: Some(state.granted[*holder].gate.clone()),
            user: who.user.clone(),
            key: who.key.clone(),
            origin: who.origin.clone(),
            source: Some(network_text(*source)),
            ..Record::now(event.name())
        };
        if *is_unsaid {
            let opened = Record {
                until: Some(ends),
                ..about(Kind::Opened)
            };
            said.push((time, (class::OPENINGS, opened)));
        }
        let closed = Record {
            time,
            reason: Some(reason.into()),
            ..about(Kind::Closed)
        };
        said.push((time, (class::CLOSINGS, closed)));
    }
    if is_this_boot {
        // Also those that were given and ended while no service ran, and newer counts of the others.
        for (place, mut seen) in ended {
            // As of a live one, its beginning may be reported yet, and is said before its end otherwise.
            seen.begun = Begun::Found(now.monotonic);
            let before: Option<&Seen> = known.get(&place);
            if let Some(before) = before {
                let is_it = before.until.abs_diff(seen.until) <= ROUNDED;
                if is_it {
                    seen.used = before.used;
                }
                // Where it was renewed, they end as one.
                if is_it || before.used != Used::Said {
                    seen.begun = before.begun;
                }
            }
            known.insert(place, seen);
        }
    }
    // A beginning stays before its end.
    said.sort_by_key(|(ended, _)| *ended);
    (known, said.into_iter().map(|(_, said)| said).collect())
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::{
        config::{Config, Gate, Knock},
        datapath::{
            Who,
            compile::{applied::Circumstances, ids::Ids},
        },
        service::memory::Lost,
    };

    const SECOND: u64 = 1_000_000_000;

    fn applied() -> Applied {
        let config = Config {
            gates: vec![Gate {
                name: "ssh".into(),
                knocks: vec![Knock {
                    user: "alice".into(),
                    ..Knock::default()
                }],
                ..Gate::default()
            }],
            ..Config::default()
        };
        let ids = Ids::assign(&config, None);
        Applied::new(config, ids, Circumstances::default())
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("in range")
    }

    /// A grant, and who has it.
    type Noted<'t> = (Granted, &'t str, u64);

    fn known<'t>(gate: &str, user: Option<&str>, source: &'t str, ends: u64) -> Noted<'t> {
        let granted = Granted {
            gate: gate.into(),
            who: Who {
                user: user.map(ToOwned::to_owned),
                key: user.map(|user| format!("{user}/laptop")),
                origin: None,
            },
        };
        (granted, source, ends)
    }

    /// A grant of the first gate that was given by hand.
    fn by_hand(source: &str, ends: u64) -> ((u16, IpNet), Seen) {
        let seen = Seen {
            until: ends * SECOND,
            connections: 0,
            used: Used::No,
            begun: Begun::Said,
            is_cut_short: false,
            who: Arc::default(),
            look: 0,
        };
        ((0, source.parse().expect("a network")), seen)
    }

    /// The state at second 10 of a boot.
    fn state<'t>(noted: impl IntoIterator<Item = Noted<'t>>) -> State {
        let (granted, grants) = noted
            .into_iter()
            .enumerate()
            .map(|(holder, (granted, source, ends))| {
                let grant = Known {
                    holder,
                    source: source.parse().expect("a network"),
                    until: ends * SECOND,
                    connections: 0,
                    is_closed: false,
                    is_unsaid: false,
                };
                (granted, grant)
            })
            .unzip();
        State {
            boot: "one".into(),
            looked: 10 * SECOND,
            wall: wall(10),
            granted,
            grants,
            closings: Vec::new(),
            lost: Lost::default(),
        }
    }

    fn moment(boot: &str, monotonic: u64, of_wall: i64) -> Moment {
        Moment {
            boot: boot.into(),
            monotonic: monotonic * SECOND,
            wall: wall(of_wall),
        }
    }

    fn closings(closed: &[(u32, Record)]) -> Vec<(&str, &str, Timestamp)> {
        closed
            .iter()
            .map(|(_, record)| {
                let source = record.source.as_deref().expect("a grant has a source");
                (
                    source,
                    record.reason.as_deref().expect("a reason"),
                    record.time,
                )
            })
            .collect()
    }

    #[test]
    fn in_the_same_boot_the_tables_are_compared_with_what_was_known() {
        let before = state([
            known("ssh", Some("alice"), "192.0.2.1/32", 15),
            known("ssh", None, "192.0.2.0/24", 99),
        ]);
        let (place, ended) = by_hand("192.0.2.7/32", 12);
        // The wall clock was set back meanwhile, which changes nothing.
        let now = moment("one", 20, -1_000);
        let (grants, closed) = resume(&before, &now, &applied(), [(place, ended.clone())].into());
        assert_eq!(closings(&closed), []);
        assert_eq!(grants.len(), 3);
        let begun = Begun::Found(now.monotonic);
        assert_eq!(grants[&place], Seen { begun, ..ended });
        let alice = &grants[&(0, "192.0.2.1/32".parse().expect("a network"))];
        assert_eq!(alice.until, 15 * SECOND);
        assert_eq!(alice.who.user.as_deref(), Some("alice"));
        assert_eq!(alice.who.key.as_deref(), Some("alice/laptop"));
    }

    /// Its beginning may have been said or not.
    #[test]
    fn a_grant_that_was_renewed_ends_once_at_its_later_end() {
        let now = moment("one", 20, 20);
        for (is_unsaid, begun) in [(false, Begun::Said), (true, Begun::Found(now.monotonic))] {
            let mut before = state([known("ssh", None, "192.0.2.7/32", 11)]);
            before.grants[0].is_unsaid = is_unsaid;
            let ended = by_hand("192.0.2.7/32", 14);
            let (grants, closed) = resume(&before, &now, &applied(), [ended].into());
            assert_eq!(closings(&closed), []);
            let known: Vec<_> = grants.values().map(|row| (row.until, row.begun)).collect();
            assert_eq!(known, [(14 * SECOND, begun)]);
        }
    }

    #[test]
    fn a_boot_ends_every_grant() {
        let before = state([
            known("ssh", None, "192.0.2.1/32", 99),
            known("ssh", Some("alice"), "192.0.2.2/32", 15),
            known("gone", None, "2001:db8::/64", 16),
        ]);
        // The clock of the new boot says less than that of the old one, and means something else.
        let now = moment("two", 3, 50);
        let (grants, closed) = resume(&before, &now, &applied(), Grants::new());
        assert!(grants.is_empty());
        assert_eq!(
            closings(&closed),
            [
                ("192.0.2.2", "expired", wall(15)),
                ("2001:db8::/64", "expired", wall(16)),
                ("192.0.2.1", "revoked", wall(50)),
            ]
        );
        assert_eq!(closed[0].1.user.as_deref(), Some("alice"));
        assert_eq!(closed[0].1.key.as_deref(), Some("alice/laptop"));
        assert_eq!(closed[0].1.gate.as_deref(), Some("ssh"));
    }

    #[test]
    fn a_gate_that_is_gone_has_no_grants() {
        let before = state([
            known("gone", None, "192.0.2.1/32", 99),
            known("gone", None, "192.0.2.2/32", 15),
        ]);
        let (grants, closed) = resume(&before, &moment("one", 20, 20), &applied(), Grants::new());
        assert!(grants.is_empty());
        assert_eq!(
            closings(&closed),
            [
                ("192.0.2.2", "expired", wall(15)),
                ("192.0.2.1", "revoked", wall(20))
            ]
        );
    }

    #[test]
    fn a_gate_that_was_said_to_be_closed_is_not_said_to_be_again() {
        let mut before = state([
            known("ssh", None, "192.0.2.1/32", 15),
            known("ssh", None, "192.0.2.2/32", 15),
            known("gone", None, "192.0.2.3/32", 99),
        ]);
        for grant in &mut before.grants {
            grant.is_closed = true;
        }
        // One is in the tables as it was; the other was given again, and that one has ended too.
        let mut ended = [by_hand("192.0.2.1/32", 15), by_hand("192.0.2.2/32", 16)];
        // By a report, an end is known to the microsecond.
        ended[0].1.until += 1;
        let now = moment("one", 20, 20);
        let (grants, closed) = resume(&before, &now, &applied(), ended.clone().into());
        assert_eq!(closings(&closed), []);
        let known = ended.map(|(place, _)| (grants[&place].used, grants[&place].begun));
        let begun = Begun::Found(now.monotonic);
        assert_eq!(known, [(Used::Said, Begun::Said), (Used::No, begun)]);
        let (_, closed) = resume(&before, &moment("two", 3, 50), &applied(), Grants::new());
        assert_eq!(closings(&closed), []);
    }

    /// As in the same boot: an end without a beginning would take back what was never done.
    #[test]
    fn what_was_not_said_to_begin_is_said_to_before_its_end() {
        let mut before = state([
            known("gone", Some("alice"), "192.0.2.1/32", 15),
            known("ssh", Some("alice"), "192.0.2.2/32", 14),
        ]);
        before.grants[0].is_unsaid = true;
        before.grants[1].is_unsaid = true;
        let (_, said) = resume(&before, &moment("two", 3, 50), &applied(), Grants::new());
        let said: Vec<(u32, &str, &str)> = said
            .iter()
            .map(|(class, record)| {
                let source = record.source.as_deref().expect("a grant has a source");
                (*class, &*record.event, source)
            })
            .collect();
        assert_eq!(
            said,
            [
                (class::OPENINGS, "gate.opened", "192.0.2.2"),
                (class::CLOSINGS, "gate.closed", "192.0.2.2"),
                (class::OPENINGS, "gate.opened", "192.0.2.1"),
                (class::CLOSINGS, "gate.closed", "192.0.2.1"),
            ]
        );
    }
}
