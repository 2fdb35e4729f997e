//! System calls for which neither std nor a crate that is used here has a function.

pub mod bpf;
pub mod ethtool;
pub mod link;
pub mod netdev;
pub mod netlink;
mod query;
