//! Calls to the kernel for which neither std nor a crate that is used here has a function.

pub mod bpf;
pub mod capability;
pub mod clock;
pub mod ethtool;
pub mod grace;
pub mod job_control;
pub mod kernel_version;
pub mod link_events;
pub mod links;
mod netlink;
pub mod nftables;
pub mod page;
pub mod process;
pub mod routes;
pub mod sock_diag;
pub mod state_directory;
pub mod tcp_authentication;
pub mod unix_socket;
pub mod xdp_features;
