//! What the sender's frames look like, packet by packet. Shared with user space, which includes this
//! file.

/// How each frame differs from the one before, and where that has got to.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Index of the interface that frames are sent out of.
    pub interface: u32,
    /// The first source address, as a number.
    pub first: u32,
    /// How many sources there are, visited in a scattered order, each as often as the others; 0: every
    /// source is new, one address behind the other.
    pub sources: u32,
    /// How many of `ports` a source goes through before it is the next one's turn: 1 to 4.
    pub steps: u32,
    /// Destination ports.
    pub ports: [u16; 4],
    /// The source port changes every `2^hold` packets; 31: it stays.
    pub hold: u32,
    /// Packets so far.
    pub packet: u32,
    /// Turns of sources so far.
    pub turn: u32,
    /// Index of the next packet's destination port.
    pub step: u32,
}
