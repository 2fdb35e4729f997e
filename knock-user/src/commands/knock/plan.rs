//! What a command line of `knockgate knock` and a profile ask for together.

use super::{KeyArgs, KnockArgs};
use crate::{
    client::{
        ByKey, DEFAULT_DELAY, DEFAULT_RETRIES, DEFAULT_TIMEOUT, Family, Pace,
        profile::{Invalid, Profile},
    },
    keys::PersonKey,
    values::Port,
};

/// What to do, from the command line, the profile and the defaults, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The name of the profile, where there is one.
    pub(super) profile: Option<String>,
    pub(super) host: String,
    pub(super) family: Family,
    pub(super) by: By,
    pub(super) pace: Pace,
    pub(super) goal: Goal,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum By {
    Sequence(Vec<Port>),
    Key(Box<ByKey>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Send,
    Check(u16),
    Connect(u16),
}

impl Plan {
    /// One plan for each profile, in this order, or the one that needs none.
    pub(super) fn all(
        args: KnockArgs,
        mut profiles: Vec<(String, Profile)>,
    ) -> Result<Vec<Self>, Invalid> {
        let last = profiles.pop();
        let before = KnockArgs {
            host: None,
            steps: Vec::new(),
            by_key: KeyArgs::default(),
            then: None,
            connect: None,
            ..args.clone()
        };
        let mut plans = Vec::new();
        for (name, profile) in profiles {
            // Standard input and output belong to the last one.
            let profile = Profile {
                then: profile.then.or(profile.connect),
                connect: None,
                ..profile
            };
            plans.push(Self::new(before.clone(), Some((name, profile)))?);
        }
        plans.push(Self::new(args, last)?);
        Ok(plans)
    }

    pub(super) fn new(
        args: KnockArgs,
        profile: Option<(String, Profile)>,
    ) -> Result<Self, Invalid> {
        let KnockArgs {
            host,
            steps,
            by_key,
            profile: _,
            then,
            connect,
            delay,
            retries,
            timeout,
            ipv4,
            ipv6,
            verbose: _,
        } = args;
        let asks = KeyArgs {
            key: None,
            ..by_key.clone()
        };
        let KeyArgs {
            key,
            gate,
            seconds,
            address,
            both,
            close,
            exact,
        } = by_key;
        let (name, profile) = profile.unzip();
        let profile = profile.unwrap_or_default();
        let incomplete = |key: &str, example: &str, instead: &str| {
            let name = name.as_deref().unwrap_or_default();
            Invalid::new(format!(
                "[profile.{name}] has no `{key}`, and the command line gives none; add {key} = {example} to \
                 it, or give {instead}"
            ))
        };
        // What is on the command line replaces the profile's sequence or key, whichever that is.
        let (sequence, key) = match (steps.is_empty(), key) {
            (false, _) => (Some(steps), None),
            (true, Some(key)) => (None, Some(key)),
            (true, None) => (profile.sequence, profile.key),
        };
        // A goal on the command line replaces the profile's, whichever that is.
        let goal = match (then, connect) {
            _ if close => Goal::Send,
            (None, None) => goal(profile.then, profile.connect),
            (then, connect) => goal(then, connect),
        };
        if exact && goal == Goal::Send {
            return Err(Invalid::new(
                "--exact opens for the connection that follows: give --then or --connect too",
            ));
        }
        let by = match (key, sequence) {
            (Some(path), _) => {
                let key =
                    PersonKey::load(&path).map_err(|error| Invalid::new(format!("{error:#}")))?;
                By::Key(Box::new(ByKey {
                    key,
                    gate: gate.or(profile.gate),
                    seconds: seconds.or(profile.seconds).unwrap_or(0),
                    address: address.or(profile.address).unwrap_or_default(),
                    both,
                    close,
                    exact,
                }))
            }
            (None, Some(sequence)) => {
                if asks != KeyArgs::default() {
                    return Err(Invalid::new(
                        "--gate, --for, --address, --both, --close and --exact need a key: a sequence cannot say them",
                    ));
                }
                By::Sequence(sequence)
            }
            (None, None) => {
                return Err(incomplete(
                    "sequence",
                    "[\"7000/udp\", \"8443/tcp\"]",
                    "the steps after the host, or --key",
                ));
            }
        };
        let of_key = match &by {
            By::Key(by) => by.key.host.clone(),
            By::Sequence(_) => None,
        };
        let host = host.or(profile.host).or(of_key).ok_or_else(|| {
            if name.is_none() {
                return Invalid::new("the file of the key names no host: give it as an argument");
            }
            incomplete("host", "\"host.example\"", "the host as an argument")
        })?;
        Ok(Self {
            host,
            family: match (ipv4, ipv6) {
                (true, _) => Family::V4,
                (false, true) => Family::V6,
                (false, false) => Family::Any,
            },
            by,
            pace: Pace {
                delay: delay.or(profile.delay).unwrap_or(DEFAULT_DELAY),
                retries: retries.or(profile.retries).unwrap_or(DEFAULT_RETRIES),
                timeout: timeout.or(profile.timeout).unwrap_or(DEFAULT_TIMEOUT),
            },
            goal,
            profile: name,
        })
    }
}

fn goal(then: Option<u16>, connect: Option<u16>) -> Goal {
    match (then, connect) {
        (_, Some(port)) => Goal::Connect(port),
        (Some(port), None) => Goal::Check(port),
        (None, None) => Goal::Send,
    }
}
