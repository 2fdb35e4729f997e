//! The keys of all gates, and what becomes of a packet.

use std::net::IpAddr;

use ipnet::IpNet;
use knock_common::knock::fwknop::{LONGEST, Outcome, SHORTEST, SHORTEST_GPG};

use super::{
    message::{self, Request},
    packet::{self, Bare, Code, Content, GPG_PREFIX, PREFIX},
    seen::{Seen, TOLERANCE},
};
use crate::config::{
    Config, Gate,
    fwknop::{HmacDigest, Key, Secrets},
};

/// A packet that is further ahead of this host's clock than so many seconds is not worth to be remembered.
const FARTHEST: u64 = 24 * 60 * 60;

/// Every key once, with the gates that it opens.
#[derive(Default)]
pub struct Keyring {
    keys: Vec<Keyed>,
}

/// One key.
struct Keyed {
    code: Code,
    digest: HmacDigest,
    secrets: Secrets,
    uses: Vec<Use>,
}

/// A key at a gate.
#[derive(Debug, Clone)]
struct Use {
    gate: String,
    user: String,
    source: Vec<IpNet>,
    require_source_address: bool,
}

/// A packet that is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub outcome: Outcome,
    /// Whose key has made it, if it was made with one.
    pub user: Option<String>,
}

/// A packet that is right.
#[derive(Debug)]
pub struct Accepted {
    key: usize,
    pub user: String,
    pub request: Request,
}

/// A grant that a packet asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Opening {
    pub gate: String,
    pub user: String,
    /// Who is to pass.
    pub address: IpAddr,
}

impl Refused {
    pub fn of(outcome: Outcome, user: Option<String>) -> Self {
        Self { outcome, user }
    }

    fn unknown(outcome: Outcome) -> Self {
        Self::of(outcome, None)
    }
}

impl Keyring {
    /// Makes it of the keys of `config`; `secrets` finds what belongs to each. Returns those without, too: gate and
    /// user.
    pub fn new(
        config: &Config,
        secrets: impl Fn(&Gate, &Key) -> Option<Secrets>,
    ) -> (Self, Vec<(String, String)>) {
        let mut ring = Self::default();
        let mut missing = Vec::new();
        for gate in &config.gates {
            for key in &gate.fwknop {
                match secrets(gate, key) {
                    Some(secrets) => ring.add(gate, key, secrets),
                    None => missing.push((gate.name.clone(), key.user.clone())),
                }
            }
        }
        (ring, missing)
    }

    fn add(&mut self, gate: &Gate, key: &Key, secrets: Secrets) {
        let digest = key.hmac_digest_type;
        let one = Use {
            gate: gate.name.clone(),
            user: key.user.clone(),
            source: key.source.clone(),
            require_source_address: key.require_source_address,
        };
        let is_same = |known: &&mut Keyed| known.digest == digest && known.secrets.are(&secrets);
        match self.keys.iter_mut().find(is_same) {
            Some(known) => known.uses.push(one),
            None => self.keys.push(Keyed {
                code: Code::new(digest, &secrets.hmac_key),
                digest,
                secrets,
                uses: vec![one],
            }),
        }
    }

    /// Refuses what no key can have made, without a look at any: by its form, and by where it comes from.
    pub fn filter(&self, payload: &[u8], source: IpAddr) -> Result<(), Refused> {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let is_of_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        let is_whole = payload.starts_with(PREFIX)
            || (length >= SHORTEST_GPG && payload.starts_with(GPG_PREFIX));
        if !(SHORTEST..=LONGEST).contains(&length) || is_whole || !payload.iter().all(is_of_base64)
        {
            return Err(Refused::unknown(Outcome::Malformed));
        }
        if self.admitting(source).next().is_none() {
            return Err(Refused::unknown(Outcome::Source));
        }
        Ok(())
    }

    /// Judges a packet that has passed the filter, and remembers it if it is right so far. `now`: Unix time.
    pub fn judge(
        &self,
        payload: &[u8],
        source: IpAddr,
        now: u64,
        seen: &mut Seen,
    ) -> Result<Accepted, Refused> {
        if seen.has(payload) {
            return Err(Refused::unknown(Outcome::Replay));
        }
        let mut refused = None;
        for (index, key) in self.admitting(source) {
            let Some(text) = key.code.verified(payload) else {
                continue;
            };
            let user = key.user(source);
            let by_user = |outcome| Refused::of(outcome, Some(user.to_owned()));
            let message = match packet::content(&key.secrets.key, text) {
                Content::Message(message) => message,
                Content::WrongDigest => {
                    refused.get_or_insert(by_user(Outcome::Digest));
                    continue;
                }
                Content::Unreadable => {
                    refused.get_or_insert(by_user(Outcome::Unreadable));
                    continue;
                }
            };
            let request = fresh(&message, payload, now, seen).map_err(by_user)?;
            return Ok(Accepted {
                key: index,
                user: user.to_owned(),
                request,
            });
        }
        let refused =
            refused.unwrap_or_else(|| Refused::unknown(self.without_hmac(payload, source)));
        Err(refused)
    }

    /// Returns what a packet is that has no right HMAC.
    fn without_hmac(&self, payload: &[u8], source: IpAddr) -> Outcome {
        for (_, key) in self.admitting(source) {
            match packet::bare(&key.secrets.key, payload) {
                Some(Bare::Usual) => return Outcome::NoHmac,
                Some(Bare::Legacy) => return Outcome::Legacy,
                None => {}
            }
        }
        let is_long = payload.len() >= SHORTEST_GPG as usize;
        if is_long && matches!(payload.first(), Some(b'E' | b'I')) {
            Outcome::Gpg
        } else {
            Outcome::Forged
        }
    }

    /// Returns the grants that an accepted packet asks for, by the gates of `config`: for all its ports, or none.
    pub fn openings(
        &self,
        accepted: &Accepted,
        source: IpAddr,
        config: &Config,
    ) -> Result<Vec<Opening>, Outcome> {
        let key = self.keys.get(accepted.key).ok_or(Outcome::Failed)?;
        let address = accepted.request.address.map_or(source, IpAddr::V4);
        let mut openings: Vec<Opening> = Vec::new();
        for port in &accepted.request.ports {
            let port = port.ok_or(Outcome::Gate)?;
            let guards = |gate: &&Gate| gate.protect.contains(&port);
            let gate = config.gates.iter().find(guards).ok_or(Outcome::Gate)?;
            let mut uses = key.uses.iter();
            let uses = uses.find(|one| one.gate == gate.name && one.admits(source));
            let Use {
                user,
                require_source_address,
                ..
            } = uses.ok_or(Outcome::Gate)?;
            if *require_source_address && accepted.request.address.is_none() {
                return Err(Outcome::Address);
            }
            let may_knock = |who: IpAddr| within(&gate.sources, who);
            if !may_knock(source) || !may_knock(address) {
                return Err(Outcome::Source);
            }
            if !openings.iter().any(|known| known.gate == gate.name) {
                openings.push(Opening {
                    gate: gate.name.clone(),
                    user: user.clone(),
                    address,
                });
            }
        }
        Ok(openings)
    }

    /// Returns what was accepted by the keys of `before` as something that these accept; `None` where its key is not among
    /// them.
    pub fn again(&self, before: &Self, accepted: Accepted) -> Option<Accepted> {
        let Keyed {
            digest, secrets, ..
        } = before.keys.get(accepted.key)?;
        let is_same = |key: &Keyed| key.digest == *digest && key.secrets.are(secrets);
        let key = self.keys.iter().position(is_same)?;
        Some(Accepted { key, ..accepted })
    }

    fn admitting(&self, source: IpAddr) -> impl Iterator<Item = (usize, &Keyed)> {
        let keys = self.keys.iter().enumerate();
        keys.filter(move |(_, key)| key.uses.iter().any(|one| one.admits(source)))
    }
}

impl Keyed {
    /// Returns whose it is, as far as a source can tell.
    fn user(&self, source: IpAddr) -> &str {
        let mut uses = self.uses.iter();
        uses.find(|one| one.admits(source))
            .map_or("", |one| one.user.as_str())
    }
}

impl Use {
    fn admits(&self, source: IpAddr) -> bool {
        within(&self.source, source)
    }
}

/// Whether one of the networks contains the address; none of them stands for all.
fn within(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address))
}

/// Reads a message whose sender is known, if it is new, and remembers it.
fn fresh(message: &str, payload: &[u8], now: u64, seen: &mut Seen) -> Result<Request, Outcome> {
    let time = message::time(message).ok_or(Outcome::Message)?;
    if time + TOLERANCE < now || seen.may_have_forgotten(time) {
        return Err(Outcome::Stale);
    }
    // One that comes too early is remembered, since a copy of it would be in time.
    if time <= now + FARTHEST && !seen.add(payload, time, now) {
        tracing::warn!("more packets of fwknop's clients than can be remembered");
        return Err(Outcome::Failed);
    }
    if time > now + TOLERANCE {
        return Err(Outcome::Stale);
    }
    message::read(message)
}
