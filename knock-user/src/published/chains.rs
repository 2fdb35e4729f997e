//! Which chains of the firewall's rules an arriving packet comes to, and for which destinations.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

/// Destinations of packets, as a rule or a jump to a chain demands them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Demand {
    /// The network that they must be in; `None`: any.
    pub address: Option<IpNet>,
    /// They must be this host's own, whatever they are.
    pub to_host: bool,
}

impl Demand {
    /// Returns what both demand; `None`: no packet meets both.
    pub fn and(self, other: Self) -> Option<Self> {
        let address = match (self.address, other.address) {
            (Some(one), Some(two)) if one.contains(&two) => Some(two),
            (Some(one), Some(two)) if two.contains(&one) => Some(one),
            (Some(_), Some(_)) => return None,
            (one, two) => one.or(two),
        };
        Some(Self {
            address,
            to_host: self.to_host || other.to_host,
        })
    }

    /// Returns whether every packet that meets `other` meets this one.
    fn is_met_by(self, other: Self) -> bool {
        let holds = |network: IpNet| other.address.is_some_and(|other| network.contains(&other));
        self.address.is_none_or(holds) && (!self.to_host || other.to_host)
    }
}

/// The most ways to a chain that are told apart. Where there are more, any packet may come there.
const MOST_WAYS: usize = 256;

/// Chains, by names of type `N`, and the jumps between them.
#[derive(Debug)]
pub struct Chains<N> {
    jumps: BTreeMap<N, Vec<(N, Demand)>>,
    targets: BTreeSet<N>,
}

impl<N> Default for Chains<N> {
    fn default() -> Self {
        Self {
            jumps: BTreeMap::new(),
            targets: BTreeSet::new(),
        }
    }
}

impl<N: Ord + Clone> Chains<N> {
    pub fn add_jump(&mut self, from: N, to: N, demand: Demand) {
        self.targets.insert(to.clone());
        self.jumps.entry(from).or_default().push((to, demand));
    }

    /// Returns whether some chain jumps to this one.
    pub fn leads_to(&self, chain: &N) -> bool {
        self.targets.contains(chain)
    }

    /// Returns the chains reached from `roots`, each with what is demanded of packets on each way there. A way that is narrower than
    /// another is left out.
    pub fn met(&self, roots: impl IntoIterator<Item = (N, Demand)>) -> Met<N> {
        let mut met = Met::new();
        let mut ahead: Vec<(N, Demand)> = roots.into_iter().collect();
        while let Some((chain, mut demand)) = ahead.pop() {
            let known = met.entry(chain.clone()).or_default();
            if known.iter().any(|other| other.is_met_by(demand)) {
                continue;
            }
            if known.len() == MOST_WAYS {
                demand = Demand::default();
            }
            known.retain(|other| !demand.is_met_by(*other));
            known.insert(demand);
            let jumps = self.jumps.get(&chain).into_iter().flatten();
            ahead.extend(jumps.filter_map(|(to, also)| Some((to.clone(), demand.and(*also)?))));
        }
        met
    }
}

/// Chains, with what is demanded of packets on each way to them.
pub type Met<N> = BTreeMap<N, BTreeSet<Demand>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_met_by_each_way_to_it_that_is_not_within_another() {
        let to_host = Demand {
            to_host: true,
            ..Demand::default()
        };
        let at = |network: &str| Demand {
            address: Some(network.parse().expect("a network")),
            ..Demand::default()
        };
        let mut chains = Chains::default();
        for (from, to, demand) in [
            ("in", "local", to_host),
            ("in", "some", at("192.0.2.0/24")),
            ("some", "one", at("192.0.2.7/32")),
            ("some", "none", at("198.51.100.7/32")),
            ("one", "some", Demand::default()),
            ("local", "both", Demand::default()),
            ("some", "both", Demand::default()),
            ("in", "all", to_host),
            ("in", "all", at("192.0.2.0/24")),
            ("in", "all", Demand::default()),
            ("out", "of-out", Demand::default()),
        ] {
            chains.add_jump(from, to, demand);
        }
        let met = chains.met([("in", Demand::default())]);
        let expected = [
            ("in", vec![Demand::default()]),
            ("local", vec![to_host]),
            ("some", vec![at("192.0.2.0/24")]),
            ("one", vec![at("192.0.2.7/32")]),
            ("both", vec![to_host, at("192.0.2.0/24")]),
            ("all", vec![Demand::default()]),
        ];
        let expected = expected.map(|(chain, demands)| (chain, BTreeSet::from_iter(demands)));
        assert_eq!(met, BTreeMap::from(expected));
        assert!(chains.leads_to(&"of-out") && !chains.leads_to(&"in"));
    }

    #[test]
    fn of_many_ways_to_a_chain_any_packet_may_come() {
        let mut chains = Chains::default();
        for number in 0..u16::try_from(MOST_WAYS).expect("it fits") + 2 {
            let [high, low] = number.to_be_bytes();
            let demand = Demand {
                address: Some(std::net::IpAddr::from([192, 0, high, low]).into()),
                ..Demand::default()
            };
            chains.add_jump("in", "services", demand);
        }
        let met = chains.met([("in", Demand::default())]);
        assert_eq!(met["services"], BTreeSet::from([Demand::default()]));
    }
}
