//! Three hosts and an engine in memory.

mod cases;
mod clocks;
mod interleavings;
mod packets;
mod revocations;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;

use super::*;
use crate::fleet::{
    engine::Engine as _,
    fake::{Link, Store},
    keys::{FleetKey, Keyring},
    record::{Record, grants, head_key, revocations},
};

/// ns.
const MAX_AHEAD: u64 = 60 * SECOND;
const OPEN_FOR: u64 = 30 * SECOND;
const GATES: [&str; 2] = ["ssh", "mail"];

/// Both gates are there, alice may open them from 10.0.0.0/8, and bob may not.
struct Rules {
    open_for: u64,
    allows_nobody: bool,
}

impl Policy for Rules {
    fn gate(&self, name: &str) -> Option<u16> {
        let place = GATES.iter().position(|gate| *gate == name)?;
        u16::try_from(place).ok()
    }

    fn gate_name(&self, gate: u16) -> Option<&str> {
        GATES.get(usize::from(gate)).copied()
    }

    fn open_for(&self, _gate: u16) -> u64 {
        self.open_for
    }

    fn latest(&self, now: Moment) -> u64 {
        now.wall * 1000 + MAX_AHEAD
    }

    fn admits(&self, _gate: u16, source: &IpNet, by: By<'_>, _now: Moment) -> Result<u32, Refusal> {
        let allowed: IpNet = "10.0.0.0/8".parse().expect("a network");
        match by.user {
            Some(_) if self.allows_nobody => Err(Refusal::User),
            Some("alice") if allowed.contains(source) => Ok(7),
            Some("alice") => Err(Refusal::Source),
            Some(_) => Err(Refusal::User),
            None => Ok(u32::MAX),
        }
    }

    fn who(&self, _user: u32) -> Who {
        Who {
            user: Some("alice".into()),
            ..Who::default()
        }
    }

    fn print(&self, _user: u32) -> Option<u64> {
        None
    }
}

/// A grant in a host's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    until: u64,
    origin: Option<String>,
}

/// A host: what it knows, and its tables.
struct Node {
    state: State,
    link: Link,
    tables: BTreeMap<Place, Kept>,
    rules: Rules,
    /// How far its clock is ahead of the others', µs.
    skew: i64,
    /// For how long it was suspended, ns.
    suspended: u64,
    /// For how long none of its clocks but that on the wall went on, ns.
    paused: u64,
    refused: Vec<Refusal>,
    newest: BTreeMap<String, u64>,
    /// Packets of fwknop's of which copies are refused, once for each time that it was told so.
    packets: Vec<Fingerprint>,
    answers: BTreeMap<u64, Answer>,
    joined: u32,
    /// How long records took, ns.
    lags: Vec<u64>,
    /// How often it has said that the engine takes no writes.
    cannot_write: u32,
}

struct Fleet {
    store: Store,
    nodes: Vec<Node>,
    /// ns.
    now: u64,
    /// The boot of what is started now.
    boot: String,
    keyring: Keyring,
}

impl Fleet {
    fn new(nodes: usize) -> Self {
        let key = FleetKey::random().expect("a random key");
        let keyring = Keyring::new(vec![key]).expect("there is one");
        let mut fleet = Self {
            store: Store::default(),
            nodes: Vec::new(),
            now: 1000 * SECOND,
            boot: "first".to_owned(),
            keyring,
        };
        for nth in 0..nodes {
            fleet.add(nth, Memory::default());
        }
        fleet
    }

    fn add(&mut self, nth: usize, memory: Memory) {
        self.add_skewed(nth, memory, 0);
    }

    /// `skew`: see [`Node`].
    fn add_skewed(&mut self, nth: usize, memory: Memory, skew: i64) {
        let about = About {
            version: "1".into(),
            configuration: "c".into(),
            run: self.now + nth as u64,
            boot: self.boot.clone(),
        };
        let now = Moment {
            monotonic: self.now,
            steady: self.now,
            wall: self.wall().saturating_add_signed(skew),
        };
        let name = format!("host-{nth}");
        let state = State::new(self.codec(), name, about, memory, now);
        self.nodes.push(Node {
            state,
            link: Link::default(),
            tables: BTreeMap::new(),
            rules: Rules {
                open_for: OPEN_FOR,
                allows_nobody: false,
            },
            skew,
            suspended: 0,
            paused: 0,
            refused: Vec::new(),
            newest: BTreeMap::new(),
            packets: Vec::new(),
            answers: BTreeMap::new(),
            joined: 0,
            lags: Vec::new(),
            cannot_write: 0,
        });
    }

    fn codec(&self) -> Codec {
        Codec::new("test", self.keyring.clone())
    }

    /// µs.
    fn wall(&self) -> u64 {
        1_700_000_000_000_000 + self.now / 1000
    }

    fn moment(&self, nth: usize) -> Moment {
        Moment {
            monotonic: self.now - self.nodes[nth].suspended - self.nodes[nth].paused,
            steady: self.now - self.nodes[nth].paused,
            wall: self.wall().saturating_add_signed(self.nodes[nth].skew),
        }
    }

    /// A knock opens: at once, in the tables of this host.
    fn knock(&mut self, nth: usize, place: Place) {
        let until = self.moment(nth).monotonic + OPEN_FOR;
        let node = &mut self.nodes[nth];
        let kept = Kept {
            until,
            origin: None,
        };
        node.tables.insert(place, kept);
        self.learn(nth);
    }

    /// The service looks at the tables.
    fn learn(&mut self, nth: usize) {
        let now = self.moment(nth);
        let node = &mut self.nodes[nth];
        for (place, kept) in &node.tables {
            if kept.origin.is_none() && kept.until > now.monotonic {
                let (place, until) = (*place, kept.until);
                let local = Local {
                    place,
                    until,
                    user: 7,
                };
                node.state.learn(local, now);
            }
        }
        node.state.forget_ended(now);
    }

    /// `revoke` at a host, as the command does it: in its own tables at once, and then in the engine.
    fn revoke(&mut self, nth: usize, gate: Option<&str>, network: Option<IpNet>) -> u64 {
        let codec = self.codec();
        let head = self.store.get(head_key()).cloned();
        let (last, revision) = head.map_or_else(Default::default, |head| {
            match codec.read(&head.key, &head.value) {
                Ok(Record::Head(last)) => (last, head.revision),
                other => panic!("{other:?}"),
            }
        });
        let revocation = Revocation {
            gate: gate.map(ToOwned::to_owned),
            network,
            host: format!("host-{nth}"),
            nonce: getrandom::u64().expect("a random number"),
            after: last.nonce,
        };
        self.nodes[nth].end(&revocation);
        let number = last.number + 1;
        let write = crate::fleet::record::revoke(&codec, number, revision, &revocation);
        assert_eq!(self.store.write(&write), Outcome::Done);
        number
    }

    /// The service of a host writes what is due, and takes one message.
    fn step(&mut self, nth: usize, carried: usize, answer: bool) -> bool {
        let now = self.moment(nth);
        let Self { nodes, store, .. } = self;
        let node = &mut nodes[nth];
        let tables = &node.tables;
        let present = |place: Place| {
            let kept = tables.get(&place).filter(|kept| kept.origin.is_none())?;
            Some(Local {
                place,
                until: kept.until,
                user: 7,
            })
        };
        for write in node.state.writes(now, 4, &node.rules, present) {
            let id = write.id;
            if !node.link.write(write) {
                node.state.not_written(id, now);
            }
        }
        node.link.carry(store, carried);
        let Some(message) = node.link.take(store, answer) else {
            return false;
        };
        for act in node.state.hear(message, now, &node.rules) {
            node.act(act, now);
        }
        true
    }

    /// Goes on until nothing happens any more. `beats`: with time for the hosts to say that they are there.
    fn settle(&mut self) {
        for _ in 0..400 {
            let mut is_busy = false;
            for nth in 0..self.nodes.len() {
                is_busy |= self.step(nth, 0, true);
            }
            if !is_busy {
                self.now += SECOND / 20;
                let waits = |nth: usize| {
                    let (node, now) = (&self.nodes[nth], self.moment(nth).monotonic);
                    let due = node.state.next_due();
                    !node.link.is_cut && due.is_none_or(|due| due <= now + SECOND)
                };
                if !(0..self.nodes.len()).any(waits) {
                    return;
                }
            }
        }
        panic!("the fleet does not come to rest");
    }

    fn open(&self, nth: usize) -> BTreeSet<Place> {
        let tables = self.nodes[nth].tables.iter();
        let live = tables.filter(|(_, kept)| kept.until > self.now);
        live.map(|(place, _)| *place).collect()
    }

    /// Returns the host whose grant the engine has.
    fn origin_of(&self, (gate, source): Place) -> String {
        let gate = GATES[usize::from(gate)];
        let (key, _) = self.codec().grant(gate, source, &self.grant("alice", 0));
        let there = self.store.get(&key).expect("it is there");
        match self.codec().read(&there.key, &there.value) {
            Ok(Record::Grant { grant, .. }) => grant.origin,
            other => panic!("{other:?}"),
        }
    }

    fn write_grant(&mut self, gate: &str, source: IpNet, grant: &Grant) {
        let (key, value) = self.codec().grant(gate, source, grant);
        self.write(key, value);
    }

    fn write(&mut self, key: String, value: Vec<u8>) {
        let write = Write {
            id: 0,
            condition: Condition::Always,
            puts: vec![Put {
                key,
                value,
                useful: Duration::ZERO,
            }],
        };
        assert_eq!(self.store.write(&write), Outcome::Done);
    }

    fn grant(&self, user: &str, left: u64) -> Grant {
        let serial = self.wall();
        Grant {
            user: Some(user.into()),
            key: None,
            print: None,
            origin: "elsewhere".into(),
            serial,
            given: serial,
            end: serial / 1000 + left,
            left,
            head: Mark::default(),
        }
    }
}

impl Node {
    fn end(&mut self, revocation: &Revocation) {
        let is_covered =
            |(gate, source): &Place| revocation.covers(GATES[usize::from(*gate)], source);
        self.tables.retain(|place, _| !is_covered(place));
    }

    fn act(&mut self, act: Act, now: Moment) {
        match act {
            Act::Revoke(revocation) => self.end(&revocation),
            Act::RevokeAll => self.tables.clear(),
            Act::Give(give) => {
                assert!(
                    give.until > now.monotonic && give.until <= now.monotonic + self.rules.open_for
                );
                let gate = self.rules.gate(&give.gate).expect("it was admitted");
                let place = (gate, give.source);
                let there = self.tables.get(&place).map_or(0, |kept| kept.until);
                if give.renews_only && there <= now.monotonic {
                    return;
                }
                if there <= now.monotonic || there + give.doubt < give.until {
                    let kept = Kept {
                        until: give.until,
                        origin: Some(give.grant.origin),
                    };
                    self.tables.insert(place, kept);
                } else if there < give.until {
                    self.state.doubt(give);
                }
            }
            Act::Newest { key, time } => {
                let newest = self.newest.entry(key.to_string()).or_default();
                *newest = time.max(*newest);
            }
            Act::Packet(packet) => self.packets.push(packet),
            Act::Answered { ask, answer } => {
                let before = self.answers.insert(ask, answer);
                assert_eq!(before, None, "{ask} is answered once");
            }
            Act::Refused(refused) => self.refused.push(refused.reason),
            Act::Joined => self.joined += 1,
            Act::BeginAnew { why } => self.link.begin_anew(why),
            Act::Heard { after } => self.lags.push(after),
            Act::CannotWrite { .. } => self.cannot_write += 1,
            Act::Isolated { .. } => {}
        }
    }
}

fn place(gate: u16, last: u8) -> Place {
    let source = format!("10.0.0.{last}/32");
    (gate, source.parse().expect("a network"))
}

fn joined(hosts: usize) -> Fleet {
    let mut fleet = Fleet::new(hosts);
    fleet.settle();
    fleet
}

fn reconnect(fleet: &mut Fleet, nth: usize) {
    fleet.nodes[nth].link.cut();
    fleet.nodes[nth].link.is_cut = false;
}

/// Nobody is cut off, but the engine begins anew with what is in `store`.
fn put_back(fleet: &mut Fleet, store: Store) {
    fleet.store = store;
    for nth in 0..fleet.nodes.len() {
        if !fleet.nodes[nth].link.is_cut {
            reconnect(fleet, nth);
        }
    }
}

fn lose_everything(fleet: &mut Fleet) {
    put_back(fleet, Store::default());
}
