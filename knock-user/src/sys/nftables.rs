//! What the kernel's nftables has, as far as it takes no program of nftables to ask (`linux/netfilter/nf_tables.h`).

use std::{io, path::Path};

use super::netlink::{self, attributes, text};

/// Of `linux/netlink.h`.
const NETLINK_NETFILTER: isize = 12;
/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = 10 << 8 | 4;
/// Bytes of `struct nfgenmsg`, which begins with the family.
const HEADER: usize = 4;

/// Attributes of chains.
mod chain {
    pub const TABLE: u16 = 1;
    pub const HOOK: u16 = 4;
    pub const HOOK_NUMBER: u16 = 1;
    pub const USE: u16 = 6;
    pub const TYPE: u16 = 7;
    /// Bits beside an attribute's number: nested, and in network byte order.
    pub const FLAGS: u16 = 0xc000;
}

/// `NF_INET_PRE_ROUTING` of `linux/netfilter.h`.
const PREROUTING: u32 = 0;

/// A chain whose rules may change the destinations of packets that arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatChain {
    /// `NFPROTO_…` of `linux/netfilter.h`.
    pub family: u8,
    pub table: String,
}

impl NatChain {
    pub const IPV4: u8 = 2;
    pub const IPV6: u8 = 10;
}

/// Returns the chains that may change destinations and have rules. Fails where the caller may not ask.
pub fn nat_chains() -> io::Result<Vec<NatChain>> {
    // The question alone would load the module.
    let is_loaded = Path::new("/sys/module/nf_tables").exists();
    let may_be_built_in = !Path::new("/proc/modules").exists();
    if !is_loaded && !may_be_built_in {
        return Ok(Vec::new());
    }
    let mut chains = Vec::new();
    let asked = netlink::list(NETLINK_NETFILTER, GET_CHAIN, &[0; HEADER], |reply| {
        chains.extend(read(reply));
    });
    match asked {
        // Neither loaded nor built in.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EPROTONOSUPPORT | libc::EINVAL)
            ) => {}
        asked => asked?,
    }
    Ok(chains)
}

/// Returns `None` for a chain of another kind, or without rules.
fn read(payload: &[u8]) -> Option<NatChain> {
    let family = *payload.first()?;
    let (mut table, mut kind) = (String::new(), String::new());
    let (mut hook, mut rules) = (None, 0);
    for (attribute, value) in attributes(payload.get(HEADER..)?) {
        match attribute & !chain::FLAGS {
            chain::TABLE => table = text(value),
            chain::TYPE => kind = text(value),
            chain::USE => rules = number(value)?,
            chain::HOOK => {
                let mut parts = attributes(value);
                let number_of = parts.find(|(part, _)| *part == chain::HOOK_NUMBER);
                hook = number_of.and_then(|(_, value)| number(value));
            }
            _ => {}
        }
    }
    (kind == "nat" && hook == Some(PREROUTING) && rules > 0).then_some(NatChain { family, table })
}

/// Reads a number of 32 bits in network byte order.
fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*value.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of `inet`, in the table `containers`.
    fn message(kind: &[u8], hook: u32, rules: u32) -> Vec<u8> {
        let attribute = netlink::attribute;
        let hook = attribute(chain::HOOK_NUMBER, &hook.to_be_bytes());
        [
            vec![1, 0, 0, 0],
            attribute(chain::TABLE, b"containers\0"),
            attribute(chain::HOOK | 0x8000, &hook),
            attribute(chain::USE, &rules.to_be_bytes()),
            attribute(chain::TYPE, kind),
        ]
        .into_iter()
        .map(|mut part: Vec<u8>| {
            part.resize(part.len().next_multiple_of(4), 0);
            part
        })
        .collect::<Vec<_>>()
        .concat()
    }

    #[test]
    fn chains_that_change_destinations_are_found() {
        let found = NatChain {
            family: 1,
            table: "containers".to_owned(),
        };
        assert_eq!(read(&message(b"nat\0", PREROUTING, 2)), Some(found));
        assert_eq!(read(&message(b"nat\0", PREROUTING, 0)), None, "it is empty");
        assert_eq!(read(&message(b"nat\0", 4, 2)), None, "of another hook");
        assert_eq!(read(&message(b"filter\0", PREROUTING, 2)), None);
        assert_eq!(read(&[1, 0]), None);
    }
}
