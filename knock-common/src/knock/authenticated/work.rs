//! What one step of looking at a datagram leaves to the next.

use bytemuck::{Pod, Zeroable};

use super::{
    held::Held,
    message::{Body, Datagram},
    sha256,
};
use crate::{
    address::{Padded, V4, V6},
    event::Event,
};

/// What a CPU knows of the datagram that it looks at.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Work {
    pub datagram: Datagram,
    /// Once it has been unmasked.
    pub body: Body,
    pub hash: sha256::Work,
    pub event: Event,
    /// Of a knock whose grants wait.
    pub held: Held,
    pub source: Padded,
    /// The addresses to grant, as far as `families` says so.
    pub v6: V6,
    pub v4: V4,
    /// [`IPV4`](super::message::flag::IPV4) and [`IPV6`](super::message::flag::IPV6).
    pub families: u8,
    pub zero: [u8; 3],
    /// The one that [`give`](super::give) is for.
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
    /// [`action`](super::message::action).
    pub action: u8,
    /// An [`Outcome`](super::outcome::Outcome). [`Opened`](super::outcome::Outcome::Opened) of [`verify`](super::verify): it is a knock, and asks for what its sender wants.
    pub outcome: u8,
    /// The slot of the key that it names.
    pub slot: u16,
    /// A knock that closes has ended the grant of its source.
    pub has_ended: u8,
    pub rest: [u8; 5],
}
