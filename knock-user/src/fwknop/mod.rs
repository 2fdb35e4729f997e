//! Packets of fwknop's clients (protocol 3.0.0): one datagram that asks for ports to be opened, encrypted and
//! authenticated by keys that client and host share.
//!
//! [`packet`] is its cryptography, [`message`] what it says; [`keyring`] has the keys, and decides. [`seen`] remembers what
//! was accepted, so that nothing is accepted twice, and [`ceiling`] bounds what wrong packets cost. All of it is plain
//! code over bytes; `service::fwknop` reads the packets from the kernel and gives the grants.

pub mod ceiling;
pub mod keyring;
pub mod message;
pub mod packet;
pub mod seen;
#[cfg(test)]
mod tests;
