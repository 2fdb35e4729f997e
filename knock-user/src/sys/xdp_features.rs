//! What drivers say that they can do for XDP programs: the `netdev` family of generic netlink, since Linux 6.3.

use std::io;

use rtnetlink::sys::protocols::NETLINK_GENERIC;

use super::netlink;

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

/// Returns the [`feature`] bits of a device; `None` where this kernel cannot say.
pub fn xdp_features(index: u32) -> io::Result<Option<u64>> {
    let family = match ask(CONTROL, GET_FAMILY, (FAMILY_NAME, b"netdev\0"), FAMILY_ID) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        family => family?,
    };
    let family = family.and_then(|id| Some(u16::from_ne_bytes(*id.first_chunk()?)));
    let Some(family) = family else {
        return Ok(None);
    };
    let device = (DEVICE_INDEX, &index.to_ne_bytes()[..]);
    let features = ask(family, GET_DEVICE, device, DEVICE_XDP_FEATURES)?;
    Ok(features.and_then(|bits| Some(u64::from_ne_bytes(*bits.first_chunk()?))))
}

/// Sends a request with one attribute, and returns the attribute `wanted` of the answer.
fn ask(
    family: u16,
    command: u8,
    (kind, value): (u16, &[u8]),
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    // `struct genlmsghdr`: command, version, reserved.
    let mut payload = vec![command, 1, 0, 0];
    let header = payload.len();
    payload.extend(netlink::attribute(kind, value));
    let mut found = None;
    netlink::ask(NETLINK_GENERIC, family, 0, &payload, |reply| {
        let mut attributes = netlink::attributes(reply.get(header..).unwrap_or_default());
        let attribute = attributes.find(|(kind, _)| *kind == wanted);
        found = attribute.map(|(_, value)| value.to_vec());
    })?;
    Ok(found)
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
