//! Changes tables beside the running program: grants by hand, revocation, open ports, the state of the host.

pub mod grant_filter;
mod grants;
mod host;
mod revoke;
mod sessions;
