//! Addresses of both families.

use std::net::IpAddr;

use knock_common::{
    Address as _,
    address::{Padded, V4, V6},
};

/// Returns an address from the form in which tables and events hold either family.
pub fn padded_address(padded: Padded, is_v4: bool) -> IpAddr {
    if is_v4 {
        V4::unpadded(padded).into()
    } else {
        V6::unpadded(padded).into()
    }
}
