//! System calls for which neither std nor a crate that is used here has a function.

pub mod bpf;
pub mod netlink;
