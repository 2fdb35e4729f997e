//! The order of revocations: where this host's tables stand in it, and where the engine stands.
//!
//! Each revocation names the one before it, so that what the engine says can be told from another history with the same
//! numbers: after its records were lost, or an older copy of them was put back. Where the engine lacks what this host knows,
//! this host [writes it again](Order::restated). Where it has another history, what either has revoked is not known to the
//! other: this host adds a revocation of everything. The number that this host has come to never goes back, so what it has seen
//! revoked stays so.

use std::collections::BTreeMap;

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::{AT_ONCE, Act, Moment, REST};
use crate::fleet::{
    engine::Put,
    record::{Codec, Mark, Revocation, revocations_and_head},
};

/// Why everything is to be told anew.
const ANOTHER: &str = "the engine has another order of revocations";

/// What a host knows of the order of revocations.
#[derive(Debug, Default)]
pub struct Order {
    /// The last one that was handed out as an [`Act`]; `None`: this host has never been one of the fleet.
    applied: Option<Mark>,
    /// Those up to it that this host knows: the newest, without a gap.
    known: BTreeMap<u64, Revocation>,
    /// Where the engine stood when this host last added a revocation of everything to its own history: that covers what led there.
    replaced: Option<Mark>,
    /// When the engine is to be told what it lacks, ns of `CLOCK_MONOTONIC`; `None`: it lacks nothing.
    restate: Option<u64>,
    own: Own,
}

/// The host that this is.
#[derive(Debug, Default)]
pub struct Own {
    pub host: String,
    /// See [`Host::run`](crate::fleet::record::Host::run).
    pub run: u64,
}

/// The record that counts revocations, as it is at a beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// There is none, or none that a key of this host has signed.
    Missing,
    /// It is of another version of knockgate, which is not for this host to replace.
    Other,
    /// `by_own_key`: it is signed with the key that this host signs with. Hosts that will not have another one any more
    /// cannot read it otherwise.
    Read { last: Mark, by_own_key: bool },
}

impl Order {
    /// `known`: what an earlier service [knew](Self::newest).
    pub fn new(
        applied: Option<Mark>,
        known: Vec<Revocation>,
        replaced: Option<Mark>,
        own: Own,
    ) -> Self {
        let last = applied.unwrap_or_default();
        let numbers = (1..=last.number).rev();
        let known = numbers.zip(known.into_iter().rev()).collect();
        Self {
            applied,
            known: chain(known, last),
            replaced,
            restate: None,
            own,
        }
    }

    /// Returns the newest of those that this host knows, in their order: what the engine is told where it lacks them.
    pub fn newest(&self) -> impl Iterator<Item = (u64, &Revocation)> {
        let left_out = self.known.len().saturating_sub(AT_ONCE);
        let known = self.known.iter().skip(left_out);
        known.map(|(number, revocation)| (*number, revocation))
    }

    pub fn applied(&self) -> Option<Mark> {
        self.applied
    }

    pub fn replaced(&self) -> Option<Mark> {
        self.replaced
    }

    /// Returns the last one that is in this host's tables.
    pub fn last(&self) -> Mark {
        self.applied.unwrap_or_default()
    }

    /// Takes all that the engine has.
    pub fn begin(
        &mut self,
        records: BTreeMap<u64, Revocation>,
        head: Head,
        now: Moment,
        acts: &mut Vec<Act>,
    ) {
        let newest = records.last_key_value();
        let newest = newest.map(|(number, revocation)| mark(*number, revocation));
        // Where their numbers are the same, the record that counts them decides.
        let counted = match head {
            Head::Read { last, .. } => Some(last),
            Head::Missing | Head::Other => None,
        };
        let told = newest.into_iter().chain(counted);
        let told = told.max_by_key(|mark| mark.number).unwrap_or_default();
        match self.applied {
            // What was revoked before this host was one of the fleet and is not known any more cannot concern it.
            None => {
                self.known = chain(records, told);
                acts.extend(self.known.values().cloned().map(Act::Revoke));
                self.applied = Some(told);
            }
            // The engine has lost some, or all; or it could not be told that everything was revoked.
            Some(applied)
                if told.number < applied.number
                    && (self.has(told) || self.replaced == Some(told)) => {}
            Some(applied) => {
                let mut at = applied;
                let mut missed = Vec::new();
                while let Some(next) = records.get(&(at.number + 1))
                    && next.after == at.nonce
                {
                    at = mark(at.number + 1, next);
                    missed.push(Act::Revoke(next.clone()));
                }
                let history = chain(records, told);
                if at == told {
                    acts.extend(missed);
                    self.known.extend(history);
                    self.applied = Some(told);
                } else {
                    acts.push(Act::RevokeAll);
                    self.replace(applied, told, history);
                }
            }
        }
        let last = self.last();
        let lacks = match head {
            Head::Missing => last.number != 0,
            Head::Other => false,
            Head::Read {
                last: told,
                by_own_key,
            } => told != last || !by_own_key,
        };
        self.restate = lacks.then_some(now.monotonic);
    }

    /// Goes on where what the engine has does not lead from `applied` to `told`. `history`: what leads to `told`.
    fn replace(&mut self, applied: Mark, told: Mark, history: BTreeMap<u64, Revocation>) {
        let is_ahead = told.number > applied.number;
        let ends_all = history.get(&told.number).is_some_and(is_of_all);
        let next = history.get(&(applied.number + 1));
        // Some of it is not there any more, and nothing says that it is another one.
        let is_gap = is_ahead && next.is_none_or(|next| next.after == applied.nonce);
        if is_gap || (ends_all && told.number >= applied.number) {
            self.known = history;
            self.applied = Some(told);
            return;
        }
        let before = if is_ahead {
            self.known = history;
            told
        } else {
            applied
        };
        let all = Revocation {
            gate: None,
            network: None,
            host: self.own.host.clone(),
            nonce: nonce(self.own.run, [applied, told]),
            after: before.nonce,
        };
        let number = before.number + 1;
        self.applied = Some(mark(number, &all));
        self.known.insert(number, all);
        self.replaced = Some(told);
    }

    /// Takes a revocation that has just been written.
    pub fn hear(&mut self, number: u64, revocation: &Revocation, acts: &mut Vec<Act>) {
        let last = self.last();
        if number <= last.number {
            // It was heard before. If it is another one with that number, the record that counts them comes with it and says so.
            return;
        }
        if number != last.number + 1 || revocation.after != last.nonce {
            acts.push(Act::RevokeAll);
            acts.push(Act::BeginAnew { why: ANOTHER });
            return;
        }
        acts.push(Act::Revoke(revocation.clone()));
        self.known.insert(number, revocation.clone());
        self.applied = Some(mark(number, revocation));
    }

    /// Takes the record that counts them, which has just been written.
    pub fn hear_head(&mut self, head: Mark, now: Moment, acts: &mut Vec<Act>) {
        let last = self.last();
        if head == last {
            self.restate = None;
        } else if head.number > last.number {
            acts.push(Act::RevokeAll);
            acts.push(Act::BeginAnew { why: ANOTHER });
        } else if self.has(head) {
            self.restate.get_or_insert(now.monotonic);
        } else {
            acts.push(Act::BeginAnew { why: ANOTHER });
        }
    }

    /// Returns whether no revocation after `since` covers this. One that is not known counts as one that ended everything.
    pub fn spares(&self, since: Mark, gate: &str, source: &IpNet) -> bool {
        let later = self.known.range(since.number + 1..);
        let later: Vec<&Revocation> = later.map(|(_, revocation)| revocation).collect();
        self.has(since)
            && later.len() as u64 == self.last().number - since.number
            && !later.iter().any(|later| later.covers(gate, source))
    }

    /// Returns whether the last one that this host knows comes after this one, or is this one.
    fn has(&self, mark: Mark) -> bool {
        let nonce = match mark.number {
            0 => Some(0),
            number if number == self.last().number => Some(self.last().nonce),
            number => self
                .known
                .get(&number)
                .map(|known| known.nonce)
                .or_else(|| {
                    let next = self.known.get(&(number + 1))?;
                    Some(next.after)
                }),
        };
        nonce == Some(mark.nonce)
    }

    /// Returns when the engine is to be told what it lacks, ns of `CLOCK_MONOTONIC`.
    pub fn next_restated(&self) -> Option<u64> {
        self.restate
    }

    /// Returns the records that the engine lacks, if it is to be told now: the newest revocations, and how many there are. Who
    /// misses older ones ends everything.
    pub fn restated(&mut self, codec: &Codec, now: Moment) -> Option<Vec<Put>> {
        let due = self.restate.as_mut().filter(|due| **due <= now.monotonic)?;
        // It is done once this host hears of it.
        *due = now.monotonic + REST;
        Some(revocations_and_head(codec, self.newest(), self.last()))
    }
}

fn mark(number: u64, revocation: &Revocation) -> Mark {
    Mark {
        number,
        nonce: revocation.nonce,
    }
}

fn is_of_all(revocation: &Revocation) -> bool {
    revocation.gate.is_none() && revocation.network.is_none()
}

/// Returns the nonce of a revocation that a service adds between these two: `run` is a random number of its own.
fn nonce(run: u64, marks: [Mark; 2]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(run.to_be_bytes());
    for Mark { number, nonce } in marks {
        hash.update(number.to_be_bytes());
        hash.update(nonce.to_be_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.split_at(8);
    first
        .iter()
        .fold(0, |nonce, byte| nonce << 8 | u64::from(*byte))
}

/// Returns those that lead to `last` without a gap.
fn chain(mut records: BTreeMap<u64, Revocation>, last: Mark) -> BTreeMap<u64, Revocation> {
    let mut chain = BTreeMap::new();
    let mut at = last;
    while let Some(revocation) = records.remove(&at.number)
        && revocation.nonce == at.nonce
    {
        let number = at.number;
        at = Mark {
            number: number - 1,
            nonce: revocation.after,
        };
        chain.insert(number, revocation);
    }
    chain
}
