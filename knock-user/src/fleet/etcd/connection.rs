//! A connection to one member.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, Identity, KeyValue,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    config::Fleet,
    fleet::{
        engine::{Condition, Entry, Outcome, Put, Write},
        files::Credentials,
        record::{grants, prefix, revocations},
    },
};

/// How long a member may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Records that are asked for at a time: a response takes at most 4 MB.
const PAGE: i64 = 4000;
/// Least time for which a record is kept after it is of no use, s.
const KEPT: u64 = 90;
/// Least time that a lease is used for, s.
const SHORTEST: u64 = 128;

/// A connection to one member. Clones share it.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    prefix: String,
    leases: Arc<Mutex<Leases>>,
}

/// A lease for each order of magnitude of how long records are of use: they only sweep up.
type Leases = HashMap<u64, (i64, Instant)>;

impl Connection {
    /// Connects to a member. The certificates are read anew, so new ones are used from the next connection on.
    pub async fn open(fleet: &Fleet, endpoint: &str) -> Result<Self> {
        let Credentials { ca, cert, key } = Credentials::load(fleet)?;
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(cert, &*key));
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_connect_timeout(PATIENCE)
            .with_require_leader(true);
        let client = answer(Client::connect([endpoint], Some(options))).await?;
        Ok(Self {
            client,
            prefix: prefix(&fleet.name),
            leases: Arc::default(),
        })
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the revision of the last change.
    pub async fn revision(&mut self) -> Result<i64> {
        let options = GetOptions::new().with_limit(1).with_keys_only();
        let response = answer(self.client.get(self.prefix.as_str(), Some(options))).await?;
        let header = response.header().context("it answers without a revision")?;
        Ok(header.revision())
    }

    /// Tries whether records may be written, without writing any: the member looks at what it may do before it looks at the
    /// condition.
    pub async fn try_writing(&mut self) -> Result<()> {
        let key = format!("{}host/", self.prefix);
        let never = Compare::create_revision(key.as_str(), CompareOp::Less, 0);
        let put = TxnOp::put(key, "", None);
        answer(self.client.txn(Txn::new().when([never]).and_then([put]))).await?;
        Ok(())
    }

    /// Returns every record but the grants, and the revision at which they were read.
    pub async fn others(&mut self) -> Result<(i64, Vec<Entry>)> {
        let revision = self.revision().await?;
        let grants = format!("{}{}", self.prefix, grants());
        let ranges = [
            (self.prefix.clone(), grants.clone()),
            (after(&grants), after(&self.prefix)),
        ];
        let mut all = Vec::new();
        for (from, to) in ranges {
            all.extend(self.pages(from, &to, revision).await?);
        }
        Ok((revision, all))
    }

    /// Returns the revocations, and the record that counts them.
    pub async fn revocations(&mut self) -> Result<Vec<Entry>> {
        let from = format!("{}{}", self.prefix, revocations());
        let to = format!("{from}0");
        let revision = self.revision().await?;
        self.pages(from, &to, revision).await
    }

    /// Returns a record.
    pub async fn get(&mut self, key: &str) -> Result<Option<Entry>> {
        let key = format!("{}{key}", self.prefix);
        let response = answer(self.client.get(key, None)).await?;
        let record = response.kvs().first();
        Ok(record.and_then(|record| entry(record, self.prefix.len())))
    }

    async fn pages(&mut self, from: String, to: &str, revision: i64) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let mut from = Some(from.into_bytes());
        while let Some(start) = from {
            let (page, next) = self.page(start, to, revision).await?;
            all.extend(page);
            from = next;
        }
        Ok(all)
    }

    /// Returns some of the grants at a revision, and where the next are; `from`: what it returned before.
    pub async fn grants(
        &mut self,
        revision: i64,
        from: Option<Vec<u8>>,
    ) -> Result<(Vec<Entry>, Option<Vec<u8>>)> {
        let grants = format!("{}{}", self.prefix, grants());
        let end = after(&grants);
        self.page(from.unwrap_or(grants.into_bytes()), &end, revision)
            .await
    }

    async fn page(
        &mut self,
        from: Vec<u8>,
        to: &str,
        revision: i64,
    ) -> Result<(Vec<Entry>, Option<Vec<u8>>)> {
        let options = GetOptions::new()
            .with_range(to)
            .with_limit(PAGE)
            .with_revision(revision);
        let response = answer(self.client.get(from, Some(options))).await?;
        let last = response.kvs().last().filter(|_| response.more());
        // The next key that there can be.
        let next = last.map(|last| [last.key(), b"\0"].concat());
        let page = response.kvs().iter();
        let page = page.filter_map(|record| entry(record, self.prefix.len()));
        Ok((page.collect(), next))
    }

    /// Does a write.
    pub async fn write(&self, write: &Write) -> Result<Outcome> {
        let mut client = self.client.clone();
        let mut puts = Vec::with_capacity(write.puts.len());
        for put in &write.puts {
            puts.push(self.put(&mut client, put).await?);
        }
        let transaction = match &write.condition {
            Condition::Always => Txn::new().and_then(puts),
            Condition::Unchanged { key, revision } => {
                let key = format!("{}{key}", self.prefix);
                let holds = Compare::mod_revision(key, CompareOp::Equal, *revision);
                Txn::new().when([holds]).and_then(puts)
            }
            Condition::Grows { to } => {
                let Put { key, .. } = write.puts.first().context("nothing to write")?;
                let key = format!("{}{key}", self.prefix);
                // What is not there has no value to compare with.
                let is_less = Compare::value(key.as_str(), CompareOp::Less, to.as_slice());
                let is_new = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
                let otherwise = Txn::new().when([is_new]).and_then(puts.clone());
                let otherwise = otherwise.or_else([TxnOp::get(key, None)]);
                Txn::new()
                    .when([is_less])
                    .and_then(puts)
                    .or_else([TxnOp::txn(otherwise)])
            }
        };
        let response = match answer(client.txn(transaction)).await {
            // One of its leases may have ended: this machine was suspended meanwhile, or the members' data is another's.
            Err(error) if format!("{error:#}").contains("lease not found") => {
                self.leases.lock().await.clear();
                return Err(error);
            }
            response => response?,
        };
        if response.succeeded() {
            return Ok(Outcome::Done);
        }
        let (Condition::Grows { to }, Some(TxnOpResponse::Txn(otherwise))) =
            (&write.condition, response.op_responses().into_iter().next())
        else {
            return Ok(Outcome::Refused);
        };
        if otherwise.succeeded() {
            return Ok(Outcome::Done);
        }
        let is_same = matches!(
            otherwise.op_responses().first(),
            Some(TxnOpResponse::Get(there))
                if there.kvs().iter().any(|there| there.value().starts_with(to))
        );
        Ok(if is_same {
            Outcome::Same
        } else {
            Outcome::Refused
        })
    }

    async fn put(&self, client: &mut Client, put: &Put) -> Result<TxnOp> {
        let needed = put.useful.as_secs() + 1 + KEPT;
        let used_for = needed.next_power_of_two().max(SHORTEST);
        let mut leases = self.leases.lock().await;
        let known = leases
            .get(&used_for)
            .filter(|(_, until)| *until > Instant::now());
        let lease = if let Some((lease, _)) = known {
            *lease
        } else {
            let until = Instant::now() + Duration::from_secs(used_for);
            let seconds = i64::try_from(2 * used_for)?;
            let lease = answer(client.lease_grant(seconds, None)).await?.id();
            leases.insert(used_for, (lease, until));
            lease
        };
        let options = PutOptions::new().with_lease(lease);
        let key = format!("{}{}", self.prefix, put.key);
        Ok(TxnOp::put(key, put.value.as_slice(), Some(options)))
    }
}

/// Waits for an answer, for a bounded time.
async fn answer<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T> {
    let answered = timeout(PATIENCE, call).await;
    let answered = answered.context("it does not answer")?;
    answered.map_err(|error| anyhow::anyhow!("{}", text(&error)))
}

/// Says what an error of the client is about, without what it repeats.
pub(super) fn text(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    }
}

/// Returns a record without the prefix of its key.
pub(super) fn entry(record: &KeyValue, prefix: usize) -> Option<Entry> {
    let key = std::str::from_utf8(record.key().get(prefix..)?).ok()?;
    Some(Entry {
        key: key.to_owned(),
        value: record.value().to_vec(),
        revision: record.mod_revision(),
    })
}

/// Returns the first key after those that begin with `prefix`, which ends with a slash.
fn after(prefix: &str) -> String {
    format!("{}0", prefix.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_what_begins_with_its_prefix() {
        let prefix = "/knockgate/edge/v1/";
        let end = after(prefix);
        assert!(*"/knockgate/edge/v1/zz\u{7f}" < *end && *"/knockgate/edge/v1" < *prefix);
        assert!(*"/knockgate/edge/v1x/" > *end);
    }
}
