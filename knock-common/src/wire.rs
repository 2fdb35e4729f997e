//! Headers as they lie in a packet: fields by name, in network byte order.
//!
//! A header is read in place, so it is made of bytes: it has alignment 1, no padding and no invalid values.

use bytemuck::{AnyBitPattern, Pod, Zeroable};

/// Returns an integer, in the byte order of the machine, from the bytes at `at`, which is always a constant within
/// them.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub fn load<T: AnyBitPattern, const N: usize>(bytes: &[u8; N], at: usize) -> T {
    bytemuck::pod_read_unaligned(&bytes[at..at + size_of::<T>()])
}

/// As above, in one instruction. The compiler would fetch what may be misaligned byte by byte, though the kernel's
/// BPF takes misaligned packet loads where the machine does, and refuses the program at load where it does not.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn load<T: AnyBitPattern, const N: usize>(bytes: &[u8; N], at: usize) -> T {
    assert!(at + size_of::<T>() <= N);
    // SAFETY: within the bytes by the assertion, which folds away; any bits are valid.
    unsafe { *bytes.as_ptr().add(at).cast::<T>() }
}

/// Sixteen bits in network byte order.
///
/// Read by reference, from where it lies: a copy would be made byte by byte.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Be16([u8; 2]);

/// Thirty-two bits in network byte order. Read as [`Be16`] is.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Be32([u8; 4]);

impl Be16 {
    #[inline(always)]
    pub fn get(&self) -> u16 {
        u16::from_be(self.raw())
    }

    /// As it lies in the packet.
    #[inline(always)]
    pub fn raw(&self) -> u16 {
        load(&self.0, 0)
    }
}

impl Be32 {
    #[inline(always)]
    pub fn get(&self) -> u32 {
        u32::from_be(self.raw())
    }

    /// As it lies in the packet.
    #[inline(always)]
    pub fn raw(&self) -> u32 {
        load(&self.0, 0)
    }
}

/// Ethernet II.
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct EthernetHeader {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub kind: Be16,
}

/// A VLAN tag (IEEE 802.1Q), behind its own type.
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct VlanTag {
    /// Priority, and the VLAN in the bits of [`VlanTag::VLAN`].
    pub control: Be16,
    /// Type of what follows.
    pub kind: Be16,
}

impl VlanTag {
    /// The identifier of the VLAN; 0 in a priority tag.
    pub const VLAN: u16 = 0x0fff;
}

/// Types of what an Ethernet header or a VLAN tag stands before (IANA).
pub mod ether {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    pub const VLAN: u16 = 0x8100;
    pub const QINQ: u16 = 0x88a8;
}

/// IPv4 without options (RFC 791).
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct Ipv4Header {
    /// Version in the high half; in the low one, the length of the header in units of four bytes.
    pub version_and_length: u8,
    pub traffic: u8,
    /// Bytes of the packet.
    pub length: Be16,
    pub identification: Be16,
    /// Flags, and the offset in units of eight bytes.
    pub fragment: Be16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: Be16,
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Returns all of it, as it lies, in words.
    #[inline(always)]
    pub fn words(&self) -> [u32; 5] {
        let bytes: &[u8; 20] = bytemuck::must_cast_ref(self);
        [
            load(bytes, 0),
            load(bytes, 4),
            load(bytes, 8),
            load(bytes, 12),
            load(bytes, 16),
        ]
    }
}

/// IPv6 (RFC 8200).
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct Ipv6Header {
    /// Version in the highest 4 bits, then 8 of traffic class and 20 of flow label.
    pub version_and_label: Be32,
    /// Bytes behind this header.
    pub length: Be16,
    /// Kind of the next header.
    pub next: u8,
    pub hop_limit: u8,
    pub source: [u8; 16],
    pub destination: [u8; 16],
}

impl Ipv6Header {
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_and_label.0[0] >> 4
    }
}

/// The first eight bytes of an IPv6 extension header: each has as many.
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct ExtensionHeader {
    /// Kind of the next header.
    pub next: u8,
    /// In units that depend on the kind.
    pub length: u8,
    /// Of a fragment header: the offset in the highest 13 bits, and whether more fragments follow in the lowest.
    pub fragment: Be16,
    pub rest: [u8; 4],
}

/// The header of TCP up to its flags (RFC 9293).
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct TcpStart {
    /// [`PortPair`](crate::frame::PortPair).
    pub ports: Be32,
    pub sequence: Be32,
    pub acknowledgement: Be32,
    /// Length of the header in units of four bytes, in the high half.
    pub offset: u8,
    /// See [`flag`](crate::frame::flag).
    pub flags: u8,
}

/// TCP without options (RFC 9293).
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct TcpHeader {
    pub start: TcpStart,
    pub window: Be16,
    pub checksum: Be16,
    pub urgent: Be16,
}

/// UDP (RFC 768).
#[repr(C)]
#[derive(Debug, Clone, Copy, Zeroable, Pod)]
pub struct UdpHeader {
    /// [`PortPair`](crate::frame::PortPair).
    pub ports: Be32,
    /// Bytes of header and payload.
    pub length: Be16,
    pub checksum: Be16,
}

const _: () = {
    assert!(size_of::<EthernetHeader>() == 14);
    assert!(size_of::<VlanTag>() == 4);
    assert!(size_of::<Ipv4Header>() == 20);
    assert!(size_of::<Ipv6Header>() == 40);
    assert!(size_of::<ExtensionHeader>() == 8);
    assert!(size_of::<TcpStart>() == 14);
    assert!(size_of::<TcpHeader>() == 20);
    assert!(size_of::<UdpHeader>() == 8);
};
