//! What a driver says that it can do for XDP programs: the `netdev` family of generic netlink, since
//! Linux 6.3.

use std::io;

use rtnetlink::{packet_core::NLM_F_REQUEST, sys::protocols::NETLINK_GENERIC};

use super::query::{self, Netlink};

/// `NETDEV_XDP_ACT_*` of `linux/netdev.h`.
pub mod feature {
    /// It runs programs: native mode.
    pub const BASIC: u64 = 1;
    /// It runs programs for frames that lie in several buffers.
    pub const RX_SG: u64 = 32;
}

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and two of its attributes (`linux/genetlink.h`).
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET` and two of its attributes (`linux/netdev.h`).
const GET_DEVICE: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;

/// Bits of [`feature`] for a device; `None` where this kernel can't say.
pub fn xdp_features(index: u32) -> io::Result<Option<u64>> {
    let netlink = Netlink::open(NETLINK_GENERIC)?;
    let request = message(CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0");
    let family = match netlink.ask(&request) {
        Ok(replies) => replies.iter().find_map(|reply| {
            let id = attribute(reply, FAMILY_ID)?;
            Some(u16::from_ne_bytes(*id.first_chunk()?))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(family) = family else {
        return Ok(None);
    };
    let request = message(family, GET_DEVICE, DEVICE_INDEX, &index.to_ne_bytes());
    let replies = netlink.ask(&request)?;
    Ok(replies.iter().find_map(|reply| {
        let features = attribute(reply, DEVICE_XDP_FEATURES)?;
        Some(u64::from_ne_bytes(*features.first_chunk()?))
    }))
}

/// A request with one attribute.
fn message(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    // `struct genlmsghdr`: command, version, reserved.
    let mut payload = vec![command, 1, 0, 0];
    payload.extend(query::attribute(attribute, value));
    query::message(family, NLM_F_REQUEST, &payload)
}

/// The value of an attribute behind the generic header.
fn attribute(payload: &[u8], wanted: u16) -> Option<Vec<u8>> {
    query::attributes(payload.get(4..)?)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_runs_no_program_of_its_own() {
        let features = xdp_features(1).expect("anyone may ask");
        // `None` before Linux 6.3.
        assert_eq!(features.unwrap_or(0) & feature::BASIC, 0);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        match xdp_features(0x7fff_fff0) {
            Ok(None) => {}
            Ok(Some(features)) => panic!("it has features: {features}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENODEV)),
        }
    }
}
