//! What a command asks of the engine, by a connection of its own: it works whether or not the service runs.
//!
//! Whatever is asked may be asked again, also where a member has done it and its answer was lost.

use std::{slice, time::Duration};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{
    engine::{Entry, Outcome, Put},
    etcd::Connection,
    keys::Keyring,
    record::{self, Codec, Grant, Host, Mark, Record, Revocation, head_key, unless_revoked},
    state::time_after,
};
use crate::config::Fleet;

/// How often a write is tried before which another host was faster.
const TRIES: usize = 20;

/// The members, one of which is to answer.
struct Members<'f> {
    fleet: &'f Fleet,
    keyring: Keyring,
    name: String,
    /// Those that have not been asked yet.
    left: slice::Iter<'f, String>,
    /// What the others have failed with.
    failed: Vec<String>,
    /// The one that is asked.
    asked: &'f str,
}

impl<'f> Members<'f> {
    fn of(fleet: &'f Fleet) -> Result<Self> {
        Ok(Self {
            fleet,
            keyring: Keyring::load(&fleet.keys)?,
            name: fleet.host_name()?,
            left: fleet.endpoints.iter(),
            failed: Vec::new(),
            asked: "",
        })
    }

    /// Returns the next one that can be connected to.
    async fn next(&mut self) -> Option<Once> {
        loop {
            self.asked = self.left.next()?;
            match Box::pin(Connection::open(self.fleet, self.asked)).await {
                Ok(connection) => {
                    return Some(Once {
                        connection,
                        codec: Codec::new(&self.fleet.name, self.keyring.clone()),
                        name: self.name.clone(),
                    });
                }
                Err(error) => self.note(&error),
            }
        }
    }

    /// Notes what the one that was asked has failed with.
    fn note(&mut self, error: &Error) {
        self.failed.push(format!("{}: {error:#}", self.asked));
    }

    /// Returns the error where none has answered.
    fn error(&self) -> Error {
        anyhow!("no etcd member answers: {}", self.failed.join("; "))
    }
}

/// Revokes at every host of a fleet: the grants of the sources in `network`, or of all, at one gate or at all. `nonce`: see
/// [`Revocation`].
pub async fn revoke(
    fleet: &Fleet,
    nonce: u64,
    gate: Option<&str>,
    network: Option<IpNet>,
) -> Result<()> {
    let mut members = Members::of(fleet)?;
    while let Some(mut once) = members.next().await {
        match once.revoke(nonce, gate, network).await {
            Err(error) => members.note(&error),
            done => return done,
        }
    }
    Err(members.error())
}

/// Tells every host of a fleet of a grant by hand. Returns the last revocation before it.
pub async fn allow(fleet: &Fleet, gate: &str, source: IpNet, lasts: Duration) -> Result<Mark> {
    let mut members = Members::of(fleet)?;
    while let Some(mut once) = members.next().await {
        match once.allow(gate, source, lasts).await {
            Err(error) => members.note(&error),
            done => return done,
        }
    }
    Err(members.error())
}

/// Returns the hosts of a fleet, by name. A record that no key of the fleet has signed is left out.
pub async fn hosts(fleet: &Fleet) -> Result<Vec<(String, Host)>> {
    let mut members = Members::of(fleet)?;
    while let Some(mut once) = members.next().await {
        match once.hosts().await {
            Err(error) => members.note(&error),
            hosts => return hosts,
        }
    }
    Err(members.error())
}

/// A connection to a member, for one question.
struct Once {
    connection: Connection,
    codec: Codec,
    name: String,
}

/// Where the engine's order of revocations stands.
struct Head {
    last: Mark,
    /// Of the record that counts them; 0: there is none.
    revision: i64,
}

impl Once {
    async fn revoke(
        &mut self,
        nonce: u64,
        gate: Option<&str>,
        network: Option<IpNet>,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let head = self.head().await?;
            let revocation = Revocation {
                gate: gate.map(ToOwned::to_owned),
                network,
                host: self.name.clone(),
                nonce,
                after: head.last.nonce,
            };
            let number = head.last.number + 1;
            let write = record::revoke(&self.codec, number, head.revision, &revocation);
            if self.connection.write(&write).await? == Outcome::Done {
                return Ok(());
            }
        }
        bail!("other hosts revoke all the time: try again")
    }

    async fn allow(&mut self, gate: &str, source: IpNet, lasts: Duration) -> Result<Mark> {
        let (name, codec) = (self.name.clone(), &self.codec);
        let own = self.connection.get(&codec.host_key(&name)).await?;
        let own = own.and_then(|own| match codec.read(&own.key, &own.value) {
            Ok(Record::Host(_, host)) => Some(host),
            _ => None,
        });
        let now = u64::try_from(Timestamp::now().as_microsecond())?;
        let serial = own.map_or(now, |own| next_time(&own, now));
        let left = u64::try_from(lasts.as_millis())?;
        for _ in 0..TRIES {
            let head = self.head().await?;
            let grant = Grant {
                user: None,
                key: None,
                print: None,
                origin: name.clone(),
                serial,
                given: serial,
                end: serial / 1000 + left,
                left,
                head: head.last,
            };
            let (key, value) = self.codec.grant(gate, source, &grant);
            let put = Put {
                key,
                value,
                useful: lasts,
            };
            let write = unless_revoked(0, head.revision, vec![put]);
            if self.connection.write(&write).await? == Outcome::Done {
                return Ok(head.last);
            }
        }
        bail!("other hosts revoke all the time: try again")
    }

    async fn hosts(&mut self) -> Result<Vec<(String, Host)>> {
        let (_, entries) = self.connection.others().await?;
        let hosts = entries.iter().filter_map(|entry| match self.read(entry) {
            Some(Record::Host(name, host)) => Some((name, host)),
            _ => None,
        });
        Ok(hosts.collect())
    }

    async fn head(&mut self) -> Result<Head> {
        let entries = self
            .connection
            .revocations()
            .await
            .context("cannot read what was revoked")?;
        let mut head = Head {
            last: Mark::default(),
            revision: 0,
        };
        for entry in &entries {
            if entry.key == head_key() {
                head.revision = entry.revision;
            }
            let told = match self.read(entry) {
                Some(Record::Revocation(number, Revocation { nonce, .. })) => {
                    Mark { number, nonce }
                }
                Some(Record::Head(last)) => last,
                _ => continue,
            };
            if told.number > head.last.number {
                head.last = told;
            }
        }
        Ok(head)
    }

    fn read(&self, entry: &Entry) -> Option<Record> {
        self.codec.read(&entry.key, &entry.value).ok()
    }
}

/// Returns the time of a host by its clock `now`, µs since 1970. It only grows, whatever becomes of that clock: `last` says what
/// both were, and what has gone by since is known by the clock.
fn next_time(last: &Host, now: u64) -> u64 {
    let clock = last.clock.saturating_add(1).saturating_mul(1000);
    time_after(last.serial, clock, now).max(last.serial.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_host_goes_on_between_what_it_says_of_itself() {
        let last = |serial, clock| Host {
            version: String::new(),
            configuration: String::new(),
            serial,
            clock,
            run: 0,
            lag: None,
        };
        assert_eq!(next_time(&last(1_000_500, 1000), 3_000_500), 3_000_500);
        // The clock was set back before that by ten seconds, or is after it.
        assert_eq!(next_time(&last(11_000_500, 1000), 3_000_500), 13_000_000);
        assert_eq!(next_time(&last(11_000_500, 11_000), 3_000_500), 11_000_501);
        // It was years back then.
        let day = 24 * 3_600_000_000;
        assert_eq!(next_time(&last(900 * day, 0), 900 * day), 901 * day);
    }
}
