//! Authenticated knocks: one datagram that proves who sent it, that it is new, and which address is to be granted.
//!
//! Whoever has a key and the host's secret can make one ([`message`]); to anyone else it is random bytes. What is asked of
//! it first costs least and ends what a flood consists of:
//!
//! 1. the host's secret unmasks 16 bytes: anything that was made without it ends here, as [`Outcome::Other`];
//! 2. the time in it, by the host's clock;
//! 3. the key's slot: whether the key is valid, and whether the time is newer than that of every knock of this key before;
//! 4. the tag, by the user's key;
//! 5. the time again, by compare-and-exchange: of several CPUs with the same datagram, one accepts it;
//! 6. gate and addresses; then [`grant::give`](crate::grant::give) gives what it asks for.
//!
//! In the kernel program several of these steps are functions that the verifier checks by themselves; what one leaves to the
//! next lies in a [`Work`] of the CPU.

pub mod key;
pub mod message;
mod open;
mod report;
pub mod sha256;
pub mod siphash;
#[cfg(test)]
mod tests;
mod verify;

use bytemuck::{Pod, Zeroable};

use crate::{
    Env, Family,
    address::Padded,
    event::Event,
    frame::{Frame, Segment},
};
use message::{Body, Datagram};

pub use open::{answer, give};
pub use report::report;
pub use verify::verify;

named! {
    /// What became of a datagram to a port for authenticated knocks. Index of a counter.
    pub enum Outcome: "The datagram" {
        Other = 0, "other", "is no knock that was made for this host";
        Stale = 1, "stale", "is older than `max_age`, or further ahead of this host's clock than `max_ahead`";
        Unknown = 2, "unknown", "names a key that there is not";
        Expired = 3, "expired", "was made with a key that has expired";
        Revoked = 4, "revoked", "was made with a key that has been revoked";
        Replay = 5, "replay", "is as old as a knock of this key that was accepted, or older, and comes from another address";
        Duplicate = 6, "duplicate", "is as old as a knock of this key that was accepted, or older, and comes from the same address";
        Forged = 7, "forged", "has a wrong tag";
        Gate = 8, "gate", "names a gate that its key does not open";
        Address = 9, "address", "does not come from an address that it lists, or lists none though its key is bound";
        Source = 10, "source", "asks for an address that is not among the gate's `sources`";
        TableFull = 11, "table_full", "is valid, but there is no room for another grant";
        Opened = 12, "opened", "is valid; a grant was given or renewed";
        Closed = 13, "closed", "is valid; the grant of this key was ended";
    }
}

/// What a CPU knows of the datagram that it looks at.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Work {
    pub datagram: Datagram,
    /// Once it has been unmasked.
    pub body: Body,
    pub hash: sha256::Work,
    pub event: Event,
    pub source: Padded,
    /// The address that [`give`] is for.
    pub to: Padded,
    /// How long it opens, ns.
    pub open_for: u64,
    /// When the grant ends, ns of `CLOCK_MONOTONIC`; 0: none was given.
    pub until: u64,
    /// [`Address::FAMILY`](crate::Address::FAMILY) of `source`.
    pub family: u32,
    /// Index of the user.
    pub user: u32,
    pub gate: u16,
    /// The port that grants are limited to; 0: none.
    pub port: u16,
    pub destination_port: u16,
    /// [`message::action`].
    pub action: u8,
    /// An [`Outcome`]. [`Outcome::Opened`] of [`verify`]: it is a knock, and asks for what its sender wants.
    pub outcome: u8,
    /// The slot of the key that it names.
    pub slot: u16,
    pub zero: [u8; 6],
}

/// Looks at a datagram to a port for authenticated knocks. [`answer`] does what it asks for.
#[inline(never)]
pub fn look_at<E: Env, F: Frame + ?Sized, A: Family>(env: &E, frame: &F, datagram: &Segment<A>) {
    if let Some(work) = env.knock_work() {
        work.source = datagram.source.padded();
        work.family = u32::from(A::FAMILY);
        work.destination_port = datagram.destination_port;
        work.outcome = Outcome::Other as u8;
        env.verify_knock(frame, datagram.transport);
    }
}
