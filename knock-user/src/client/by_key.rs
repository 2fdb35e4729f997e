//! Knocking with a key: what each packet asks for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::net::TcpSocket;

use super::{
    Address, Target, local,
    packet::Request,
    source::{AddressRule, Opens, Way, choose, choose_both, own_address},
};
use crate::{keys::PersonKey, values::parse_duration};

/// A key, and what to ask for with it.
#[derive(Debug, PartialEq, Eq)]
pub struct ByKey {
    pub key: PersonKey,
    /// `None`: the first gate of the key.
    pub gate: Option<String>,
    /// How long the grant is to last, s; 0: as long as the gate says.
    pub seconds: u16,
    pub address: AddressRule,
    /// Open for this machine's addresses of both families.
    pub both: bool,
    /// End an own grant.
    pub close: bool,
    /// Open for the source port of the connection alone.
    pub exact: bool,
}

/// A packet, where it goes, and for whom it opens.
pub(super) struct Packet<'t> {
    pub(super) bytes: Vec<u8>,
    pub(super) to: Address<'t>,
    pub(super) opens: Opens,
}

impl ByKey {
    /// Returns a packet for one address of the target, made now. It may go to another one: see [`choose_both`].
    pub(super) fn packet<'t>(
        &self,
        target: &'t Target,
        address: &Address<'t>,
        source_port: Option<u16>,
    ) -> Result<Packet<'t>> {
        let way = self.way(address)?;
        let (opens, to) = if self.both {
            let is_other = |other: &Address<'_>| other.ip().is_ipv4() != address.ip().is_ipv4();
            let other = target.addresses().find(is_other).ok_or_else(|| {
                anyhow!(
                    "--both cannot find this machine's address of the other family: {target} has addresses of one family \
                     alone"
                )
            })?;
            let (opens, is_other) =
                choose_both(self.address, way, self.way(&other)?).map_err(anyhow::Error::msg)?;
            (opens, if is_other { other } else { *address })
        } else {
            (choose(self.address, way), *address)
        };
        let request = Request {
            time: unix_time()?,
            slot: self.key.slot,
            gate: self.gate.as_deref(),
            close: self.close,
            seconds: self.seconds,
            v4: opens.v4,
            v6: opens.v6,
            observed: opens.observed,
            source_port,
        };
        let bytes = request.datagram(&self.key.key(), &self.key.host_secret)?;
        Ok(Packet { bytes, to, opens })
    }

    fn way(&self, address: &Address<'_>) -> Result<Way> {
        let own = own_address(address.socket(self.key.port))
            .map_err(|error| local(error, &format!("cannot send to {address}")))?;
        Ok(Way {
            own,
            host: address.ip(),
        })
    }
}

/// Returns a socket for the connection, whose source port a packet can name.
pub(super) fn bound_socket(to: SocketAddr) -> io::Result<(TcpSocket, u16)> {
    let (socket, any): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
    };
    socket.bind((any, 0).into())?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

/// Reads how long a grant is to last: a packet says it in two bytes.
///
/// # Errors
/// A message for the user.
pub fn parse_seconds(text: &str) -> Result<u16, String> {
    let duration = parse_duration(text)?;
    match u16::try_from(duration.as_secs()) {
        Ok(seconds @ 1..) if Duration::from_secs(seconds.into()) == duration => Ok(seconds),
        Ok(_) => Err(format!(
            "{text:?} is not a number of whole seconds, at least 1s"
        )),
        Err(_) => Err(format!(
            "{text:?} is too long for a packet: at most {}s",
            u16::MAX
        )),
    }
}

fn unix_time() -> Result<u64> {
    let since = SystemTime::UNIX_EPOCH
        .elapsed()
        .context("this machine's clock is before 1970: set it")?;
    u64::try_from(since.as_nanos()).context("this machine's clock is far in the future: set it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_lasts_whole_seconds() {
        for (text, seconds) in [("1s", 1), ("5m", 300), ("65535s", 65_535)] {
            assert_eq!(parse_seconds(text), Ok(seconds));
        }
        for text in ["0s", "1500ms", "18h12m16s", "5"] {
            parse_seconds(text).expect_err(text);
        }
    }
}
