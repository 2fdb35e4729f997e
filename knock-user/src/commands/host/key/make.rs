//! `knockgate key new` and `knockgate key rotate`.

use std::{io::Write, time::Duration};

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};

use super::{
    Change, IN_FORCE_LATER, Store, gates_of, in_force, no_such_key,
    period::{parse_lifetime, parse_period},
    person::{self, Form},
    revoke::warn_of_outlived,
};
use crate::{
    keys::{Host, HostKey, KeyName, KeySet, KeyState, PersonKey, Secret},
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
    let mut change = store.change()?;
    let now = now();
    let name = &args.name;
    if let Some(datapath) = change.held.datapath() {
        in_force::require_gates(store.config, datapath.config(), name, &gates)?;
    }
    if change
        .set
        .get(name)
        .is_some_and(|key| key.ended(now).is_none())
    {
        bail!(
            "there is a key {name}: `knockgate key rotate {name}` makes another one in its place, `knockgate key revoke \
             {name}` ends it"
        );
    }
    // One that was replaced may have been to last longer than the key that has ended.
    supersede(&mut change.set, name, |key| {
        if key.ended(now).is_none() {
            key.revoke(now);
        }
    });
    let plan = Plan {
        name: name.clone(),
        gates,
        bound: args.bound,
        expires: args.expires.map(|period| after(now, period)),
    };
    let opens = gates_of(store.config, name, &plan.gates);
    carry_out(plan, change, now, &args.form, out)?;
    if opens.is_empty() {
        tracing::warn!(
            "key {name} opens no gate yet: add a [[gate.knock]] with user = {:?} and key = \"{name}\" to one, or make it \
             with --gate",
            name.user
        );
    }
    Ok(())
}

pub(super) fn rotate(args: &RotateArgs, store: &Store<'_>, out: &mut impl Write) -> Result<()> {
    let mut change = store.change()?;
    let now = now();
    let name = &args.name;
    let Some(old) = change.set.get(name) else {
        return Err(no_such_key(name, &change.set));
    };
    if let KeyState::Revoked { .. } = old.state {
        bail!("key {name} was revoked: `knockgate key new {name}` makes another one");
    }
    let lifetime = old.expires.map(|end| end.duration_since(old.created));
    let until = after(now, args.overlap);
    let own = old.gates.clone();
    let plan = Plan {
        name: name.clone(),
        gates: own.clone(),
        bound: old.bound,
        expires: match (args.expires, lifetime) {
            (Some(period), _) => Some(after(now, period)),
            (None, lifetime) => lifetime.map(|lifetime| later(now, lifetime)),
        },
    };
    let works = old.ended(now).is_none() && !args.overlap.is_zero();
    supersede(&mut change.set, name, |key| {
        if args.overlap.is_zero() {
            key.revoke(now);
        } else if key.ended(now).is_none() {
            key.expires = Some(key.expires.map_or(until, |end| end.min(until)));
        }
    });
    carry_out(plan, change, now, &args.form, out)?;
    if works {
        tracing::info!(
            "the old key of {name} goes on working for {}",
            HumanDuration(args.overlap)
        );
    } else {
        tracing::info!("the old key of {name} opens nothing any more");
    }
    if args.overlap.is_zero() {
        warn_of_outlived(store, name, &own);
    }
    Ok(())
}

/// A key to be made.
struct Plan {
    name: KeyName,
    gates: Vec<String>,
    bound: bool,
    expires: Option<Timestamp>,
}

/// Makes the key, prints what its owner needs, and keeps what the host needs.
///
/// In this order: nobody could use a key that was not printed, and those of before may have ended.
fn carry_out(
    plan: Plan,
    mut change: Change<'_>,
    now: Timestamp,
    form: &Form,
    out: &mut impl Write,
) -> Result<()> {
    let (slot, port) = place(&change, now)?;
    let Plan {
        name,
        gates,
        bound,
        expires,
    } = plan;
    let has_host = change.set.host.is_some();
    let host = match &mut change.set.host {
        Some(host) => host,
        none => none.insert(Host {
            id: *Secret::random()?.bytes(),
            secret: Secret::random()?,
            previous: None,
        }),
    };
    let owners = PersonKey {
        name: name.clone(),
        host: form.host.clone(),
        root: Secret::random()?,
        host_id: host.id,
        host_secret: host.secret.clone(),
        slot,
        port,
        gates: gates_of(change.store.config, &name, &gates),
    };
    let forgotten = change.set.put(HostKey {
        name: name.clone(),
        slot,
        state: KeyState::Valid,
        secret: owners.key(),
        created: now,
        expires,
        bound,
        gates,
        replaced: false,
    });
    change.held.require_fit(&change.set)?;
    person::print(&owners, form, out)?;
    let keep = || {
        if let Some(host) = change.set.host.as_ref().filter(|_| !has_host) {
            change.lock.save_host(host)?;
        }
        // Where the slot was another key's, that key goes first: no slot is ever in two files.
        let forgotten = forgotten.map(|key| key.name).filter(|other| *other != name);
        let mut changed = forgotten.iter().chain([&name]);
        changed.try_for_each(|name| change.lock.save(name, &change.set.newest_first(name)))
    };
    keep().context("the key was not kept: what was printed opens nothing")?;
    change.put_into_force(&[slot]).context(IN_FORCE_LATER)
}

/// Returns the slot of a new key, and the port that its owner sends to.
fn place(change: &Change<'_>, now: Timestamp) -> Result<(u16, u16)> {
    let config = change.store.config;
    let port = *config.knock.ports.first().context(
        "no port takes authenticated knocks: add `ports` in [knock] of the configuration, such as ports = [\"41641/udp\"]",
    )?;
    let mut slots = config.limits.keys;
    if let Some(datapath) = change.held.datapath() {
        let in_force = datapath.config();
        in_force::require_port(port, in_force)?;
        // A key beyond these would keep all keys from coming into force.
        slots = slots.min(in_force.limits.keys);
    }
    let slot = change.set.free_slot(slots, now).with_context(|| {
        format!(
            "all {slots} slots for keys are taken: raise `keys` in [limits], which takes effect with `knockgate reload`, or \
             wait for a day after the end of a key"
        )
    })?;
    Ok((slot, port.number))
}

/// Puts the keys that have or had a name behind one that is to be made, changed by `end`.
fn supersede(set: &mut KeySet, name: &KeyName, end: impl Fn(&mut HostKey)) {
    for key in set.keys.iter_mut().filter(|key| key.name == *name) {
        end(key);
        key.replaced = true;
    }
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
