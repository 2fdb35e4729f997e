//! Which destinations are guarded.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Which destinations are guarded. Serialises as it is written in the file: a list, empty for every destination, or a word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum Addresses {
    #[default]
    Every,
    /// This host's own, whatever they are at the time.
    Host,
    /// At least one.
    Listed(Vec<IpAddr>),
}

impl Addresses {
    /// The word for this host's own addresses.
    pub const HOST: &'static str = "host";

    /// Returns those that are listed; empty where none is.
    pub fn listed(&self) -> &[IpAddr] {
        match self {
            Self::Every | Self::Host => &[],
            Self::Listed(addresses) => addresses,
        }
    }

    /// Returns whether an address of this host is guarded.
    pub fn guard_own(&self, own: IpAddr) -> bool {
        match self {
            Self::Every | Self::Host => true,
            Self::Listed(addresses) => addresses.contains(&own),
        }
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(listed: Vec<IpAddr>) -> Self {
        if listed.is_empty() {
            Self::Every
        } else {
            Self::Listed(listed)
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(Word),
    List(Vec<IpAddr>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Host,
}

impl From<Written> for Addresses {
    fn from(written: Written) -> Self {
        match written {
            Written::Word(Word::Host) => Self::Host,
            Written::List(listed) => listed.into(),
        }
    }
}

impl From<Addresses> for Written {
    fn from(addresses: Addresses) -> Self {
        match addresses {
            Addresses::Every => Self::List(Vec::new()),
            Addresses::Host => Self::Word(Word::Host),
            Addresses::Listed(listed) => Self::List(listed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_pinned_as_they_are_written() {
        let listed = Addresses::Listed(vec!["192.0.2.1".parse().expect("an address")]);
        for (addresses, text) in [
            (Addresses::Every, "[]"),
            (Addresses::Host, r#""host""#),
            (listed, r#"["192.0.2.1"]"#),
        ] {
            assert_eq!(serde_json::to_string(&addresses).expect("JSON"), text);
            let read: Addresses = serde_json::from_str(text).expect("as it was written");
            assert_eq!(read, addresses);
        }
    }
}
