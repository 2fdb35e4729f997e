//! Network namespaces, frames and privileges: what the tests, the bench and the demo share.
//!
//! - [`netns`] makes namespaces, and runs code and commands inside them.
//! - [`packet`] builds frames, [`socket`] sends and receives them without the IP stack, [`pieces`] sends them in several
//!   pieces of memory, [`offload`] switches a device's offloads.
//! - [`pty`] makes terminals, for programs that need one.
//! - [`host`] reports what this process may do on this machine, and protects the machine's own namespaces.
//!
//! Functions that can fail return an [`io::Result`](std::io::Result) whose message says what was tried; a suite
//! turns it into a panic, a command into its exit status.

pub mod host;
pub mod netns;
pub mod offload;
pub mod packet;
pub mod pieces;
pub mod pty;
pub mod socket;

pub use netns::{Netns, ip};
