//! How the frames of the sender vary, packet by packet. User space includes this file.

/// The rule by which each frame differs from the one before, and its current state.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Index of the interface through which frames are sent.
    pub interface: u32,
    /// The first source address, as a number.
    pub first: u32,
    /// Number of sources, which take turns in a scattered order; 0: every source is new, in the order of addresses.
    pub sources: u32,
    /// How many of `ports` a source sends to before the next source's turn: 1 to 4.
    pub steps: u32,
    /// Destination ports.
    pub ports: [u16; 4],
    /// The source port changes every `2^hold` packets; 31: it stays.
    pub hold: u32,
    /// Packets so far. The message of a packet has the same number, as long as there are so many.
    pub packet: u32,
    /// Turns of sources so far.
    pub turn: u32,
    /// Index of the next packet's destination port.
    pub step: u32,
    /// How many messages take turns as the payload; 0: it stays as it is.
    pub messages: u32,
}

/// How many messages there can be.
pub const MOST_MESSAGES: u32 = 32_768;
