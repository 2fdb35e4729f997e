//! Which destinations are guarded.

use std::{collections::BTreeSet, io, net::IpAddr};

use anyhow::Result;
use knock_common::reject::address_kind;
use serde::Serialize;

use crate::{
    config::{Addresses, Config},
    datapath::{host::HostState, open::Datapath},
    sys::links,
};

/// Which destinations are guarded, as far as addresses of the host tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Destinations {
    /// `every`, `listed` or `host`.
    pub destinations: &'static str,
    /// Empty where every destination is guarded.
    pub addresses: Vec<GuardedAddress>,
}

/// A destination that is guarded, where not every one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GuardedAddress {
    pub address: IpAddr,
    /// `listed`; or, of this host, `own` or `broadcast`.
    pub kind: &'static str,
}

impl Destinations {
    /// Returns those of a configuration that is not in force: with `host`, this host's present addresses.
    pub fn of(config: &Config) -> io::Result<Self> {
        let known = || {
            let named = config.interfaces.iter();
            let guarded: Vec<_> = named
                .filter_map(|name| Some((links::index_of(name)?, name.clone())))
                .collect();
            Ok(HostState::read(config, &guarded, 0)?.addresses)
        };
        Self::among(&config.addresses, known)
    }

    fn among<E, K>(guarded: &Addresses, known: impl FnOnce() -> Result<K, E>) -> Result<Self, E>
    where
        K: IntoIterator<Item = (IpAddr, u32)>,
    {
        let (destinations, addresses): (_, BTreeSet<_>) = match guarded {
            Addresses::Every => ("every", BTreeSet::new()),
            Addresses::Listed(listed) => {
                let kind = "listed";
                let rows = listed.iter().copied();
                let rows = rows.map(|address| GuardedAddress { address, kind });
                (kind, rows.collect())
            }
            Addresses::Host => {
                let rows = known()?.into_iter().map(|(address, kind)| GuardedAddress {
                    address,
                    kind: match kind {
                        address_kind::BROADCAST => "broadcast",
                        _ => "own",
                    },
                });
                (Addresses::HOST, rows.collect())
            }
        };
        Ok(Self {
            destinations,
            addresses: addresses.into_iter().collect(),
        })
    }
}

impl Datapath {
    /// Reads which destinations are guarded.
    pub fn destinations(&self) -> Result<Destinations> {
        Destinations::among(&self.config().addresses, || self.host.known_addresses())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_addresses_are_those_that_are_known() {
        let [own, broadcast]: [IpAddr; 2] =
            ["192.0.2.1", "192.0.2.255"].map(|text| text.parse().expect("an address"));
        let known = || {
            Ok::<_, io::Error>([
                (broadcast, address_kind::BROADCAST),
                (own, address_kind::OWN),
            ])
        };
        let shown = |addresses: Addresses| {
            let shown = Destinations::among(&addresses, known).expect("they are known");
            serde_json::to_value(shown).expect("serialisable")
        };
        assert_eq!(
            shown(Addresses::Host),
            serde_json::json!({ "destinations": "host", "addresses": [
                { "address": "192.0.2.1", "kind": "own" },
                { "address": "192.0.2.255", "kind": "broadcast" },
            ]})
        );
        assert_eq!(
            shown(Addresses::Listed(vec![broadcast])),
            serde_json::json!({ "destinations": "listed", "addresses": [
                { "address": "192.0.2.255", "kind": "listed" },
            ]})
        );
        assert_eq!(
            shown(Addresses::Every),
            serde_json::json!({ "destinations": "every", "addresses": [] })
        );
    }
}
