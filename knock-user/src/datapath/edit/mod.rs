//! Changes tables beside the running program: grants by hand, revocation, open ports, the state of the host.

pub mod connections;
pub mod grant_table;
pub mod grants;
mod host;
pub mod remote;
pub mod revoke;
pub mod session_table;
pub mod sessions;
mod shared;
