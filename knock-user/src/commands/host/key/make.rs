//! `knockgate key new` and `knockgate key rotate`.

use std::{io::Write, time::Duration};

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};

use super::{
    Store, no_such_key,
    period::{parse_lifetime, parse_period},
    person::{self, Form},
};
use crate::{
    keys::{Host, HostKey, KeyName, KeySet, KeyState, Lock, PersonKey, Secret, derive},
    values::HumanDuration,
};

/// Make a key, and print what its owner needs, once
///
/// What is printed is a file for the owner: `knockgate knock HOST --key FILE`. This host keeps only what is derived from it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct NewArgs {
    /// Whose key it is, such as alice, or alice/laptop for one of several
    #[arg(value_name = "USER[/DEVICE]")]
    name: KeyName,

    /// Gate that it may open, beside those whose [[gate.knock]] names it; may be repeated
    #[arg(long = "gate", value_name = "NAME")]
    gates: Vec<String>,

    /// Refuse packets that do not name the address that they open for: the owner is never behind NAT
    #[arg(long)]
    bound: bool,

    /// How long it is valid, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "PERIOD", value_parser = parse_lifetime)]
    expires: Option<Duration>,

    #[command(flatten)]
    form: Form,
}

/// Make another key in the place of one, and print what its owner needs, once
///
/// The new key has the gates of the old one, and lasts as long from now on as the old one was to last.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RotateArgs {
    /// Name of the key
    #[arg(value_name = "USER[/DEVICE]")]
    name: KeyName,

    /// How long the old key goes on working; 0s ends it at once
    #[arg(long, value_name = "PERIOD", default_value = "7d", value_parser = parse_period)]
    overlap: Duration,

    /// How long the new key is valid, such as 90d [default: as long as the old one was to last]
    #[arg(long, value_name = "PERIOD", value_parser = parse_lifetime)]
    expires: Option<Duration>,

    #[command(flatten)]
    form: Form,
}

pub(super) fn new(args: &NewArgs, store: &Store<'_>, out: &mut impl Write) -> Result<()> {
    let mut gates = Vec::new();
    for gate in &args.gates {
        store.require_gate(gate)?;
        if !gates.contains(gate) {
            gates.push(gate.clone());
        }
    }
    let port = require_port(store)?;
    let (lock, set) = store.change()?;
    let now = now();
    let name = &args.name;
    if set.get(name).is_some_and(|key| key.ended(now).is_none()) {
        bail!(
            "there is a key {name}: `knockgate key rotate {name}` makes another one in its place, `knockgate key revoke \
             {name}` ends it"
        );
    }
    let plan = Plan {
        name: name.clone(),
        gates,
        bound: args.bound,
        expires: args.expires.map(|period| after(now, period)),
        before: before(&set, name, now, now),
    };
    let key = carry_out(plan, store, &lock, set, now, port, &args.form)?;
    if key.gates.is_empty() {
        tracing::warn!(
            "key {name} opens no gate yet: add a [[gate.knock]] with user = {:?} and key = \"{name}\" to one, or make it \
             with --gate",
            name.user
        );
    }
    person::print(&key, &args.form, out)
}

pub(super) fn rotate(args: &RotateArgs, store: &Store<'_>, out: &mut impl Write) -> Result<()> {
    let port = require_port(store)?;
    let (lock, set) = store.change()?;
    let now = now();
    let name = &args.name;
    let Some(old) = set.get(name) else {
        return Err(no_such_key(name, &set));
    };
    if let KeyState::Revoked { .. } = old.state {
        bail!("key {name} was revoked: `knockgate key new {name}` makes another one");
    }
    let lifetime = old.expires.map(|end| end.duration_since(old.created));
    let until = after(now, args.overlap);
    let plan = Plan {
        name: name.clone(),
        gates: old.gates.clone(),
        bound: old.bound,
        expires: match (args.expires, lifetime) {
            (Some(period), _) => Some(after(now, period)),
            (None, lifetime) => lifetime.map(|lifetime| later(now, lifetime)),
        },
        before: before(&set, name, until, now),
    };
    let works = old.ended(now).is_none() && until > now;
    let key = carry_out(plan, store, &lock, set, now, port, &args.form)?;
    if works {
        tracing::info!(
            "the old key of {name} goes on working for {}",
            HumanDuration(args.overlap)
        );
    } else {
        tracing::info!("the old key of {name} opens nothing any more");
    }
    person::print(&key, &args.form, out)
}

/// A key to be made.
struct Plan {
    name: KeyName,
    gates: Vec<String>,
    bound: bool,
    expires: Option<Timestamp>,
    /// The keys that had the name, as they are to be kept.
    before: Vec<HostKey>,
}

/// Makes the key, and keeps what the host needs of it.
fn carry_out(
    plan: Plan,
    store: &Store<'_>,
    lock: &Lock,
    mut set: KeySet,
    now: Timestamp,
    port: u16,
    form: &Form,
) -> Result<PersonKey> {
    let slots = store.config.limits.keys;
    let Some(slot) = set.free_slot(slots, now) else {
        bail!(
            "all {slots} slots for keys are taken: raise `keys` in [limits], which takes effect with `knockgate reload`, or \
             wait for a day after the end of a key"
        );
    };
    let host = if let Some(host) = set.host.take() {
        host
    } else {
        let host = Host {
            id: *Secret::random()?.bytes(),
            secret: Secret::random()?,
            previous: None,
        };
        lock.save_host(&host)?;
        host
    };
    let Plan {
        name,
        gates,
        bound,
        expires,
        mut before,
    } = plan;
    // Where the slot was another key's, that key goes first: no slot is ever in two files.
    before.retain(|key| key.slot != slot);
    if let Some(ended) = set.keys.iter().find(|key| key.slot == slot)
        && ended.name != name
    {
        let left: Vec<HostKey> = in_order(set.named(&ended.name))
            .filter(|key| key.slot != slot)
            .cloned()
            .collect();
        lock.save(&ended.name, &left)?;
    }
    let root = Secret::random()?;
    let key = HostKey {
        name: name.clone(),
        slot,
        state: KeyState::Valid,
        secret: derive(&root, &host.id),
        created: now,
        expires,
        bound,
        gates: gates.clone(),
        replaced: false,
    };
    before.insert(0, key);
    lock.save(&name, &before)?;
    store
        .put_into_force(lock)
        .context("the key is kept, but it is not in force yet")?;
    Ok(PersonKey {
        gates: store.gates_of(&name, &gates),
        name,
        host: form.host.clone(),
        root,
        host_id: host.id,
        host_secret: host.secret,
        slot,
        port,
    })
}

/// Returns the keys of a name as they are to be kept behind a new one, the newest first: those that work end at `until`.
fn before(set: &KeySet, name: &KeyName, until: Timestamp, now: Timestamp) -> Vec<HostKey> {
    in_order(set.named(name))
        .cloned()
        .map(|mut key| {
            if key.ended(now).is_none() {
                key.expires = Some(key.expires.map_or(until, |end| end.min(until)));
            }
            key.replaced = true;
            key
        })
        .collect()
}

/// Returns the keys of one name, the newest first.
fn in_order<'k>(keys: impl Iterator<Item = &'k HostKey>) -> impl Iterator<Item = &'k HostKey> {
    let mut keys: Vec<&HostKey> = keys.collect();
    keys.sort_by_key(|key| (key.replaced, std::cmp::Reverse(key.created)));
    keys.into_iter()
}

/// Returns the port that clients send to: the first one.
fn require_port(store: &Store<'_>) -> Result<u16> {
    let port = store.config.knock.ports.first();
    port.map(|port| port.number).context(
        "no port takes authenticated knocks: add `ports` in [knock] of the configuration, such as ports = [\"41641/udp\"]",
    )
}

/// Returns the present time in whole seconds.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Returns the time that is this long after another one.
pub(super) fn after(time: Timestamp, period: Duration) -> Timestamp {
    later(
        time,
        SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX),
    )
}

fn later(time: Timestamp, period: SignedDuration) -> Timestamp {
    time.saturating_add(period).unwrap_or(Timestamp::MAX)
}
