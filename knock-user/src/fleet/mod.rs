//! Hosts that open their gates together, over etcd.

pub mod files;
pub mod keys;
