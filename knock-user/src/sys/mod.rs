//! System calls for which neither std nor a crate that is used here has a function, and what the kernel says over
//! netlink of the network namespace that the calling thread is in. Each question is asked and answered in one
//! call, without an event loop.

pub mod bpf;
pub mod devices;
mod dump;
pub mod ethtool;
pub mod link;
pub mod netdev;
pub mod netlink;
mod query;
pub mod sock_diag;
