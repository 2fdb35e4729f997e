//! A packet as the program sees it: its bytes, and `struct xdp_md`, which contains their addresses.

use super::super::program::LOOPBACK;
use crate::interpreter::Memory;

/// The room before a packet (`XDP_PACKET_HEADROOM`), and the shortest length that the kernel allows (`ETH_HLEN`).
const ROOM: usize = 256;
const SHORTEST: usize = 14;

/// `struct xdp_md` of a packet: data, `data_end`, `data_meta`, the interface; then what this program does not ask for.
pub fn context(memory: &mut Memory, frame: &[u8]) -> u64 {
    let mut context = vec![0; 24];
    context[12..16].copy_from_slice(&LOOPBACK.to_le_bytes());
    let context = memory.add(context);
    put(memory, context, frame.to_vec());
    context
}

/// Sets the packet of a context.
fn put(memory: &mut Memory, context: u64, packet: Vec<u8>) {
    let length = packet.len() as u64;
    let begin = memory.add(packet);
    for (place, address) in (0..).step_by(4).zip([begin, begin + length, begin]) {
        let address = u32::try_from(address).expect("addresses of packets fit 32 bits");
        memory
            .at(context + place, 4)
            .copy_from_slice(&address.to_le_bytes());
    }
}

/// Removes the packet from its context and returns it.
pub fn taken(memory: &mut Memory, context: u64) -> Vec<u8> {
    let begin = memory.at(context, 4).try_into().expect("four bytes");
    memory.take(u32::from_le_bytes(begin).into())
}

/// Copies a part of a packet into memory. Returns whether the packet has it.
pub fn copy(memory: &mut Memory, context: u64, offset: u64, to: u64, length: u64) -> bool {
    let mut edge = |place| {
        let bytes = memory.at(context + place, 4).try_into();
        u64::from(u32::from_le_bytes(bytes.expect("four bytes")))
    };
    let (begin, end) = (edge(0), edge(4));
    if begin + offset + length > end {
        return false;
    }
    let length = usize::try_from(length).expect("64 bits");
    let part = memory.at(begin + offset, length).to_vec();
    memory.at(to, length).copy_from_slice(&part);
    true
}

/// Moves the beginning of a packet `earlier` and its end `later`, bytes. As in the kernel, existing pointers into the
/// packet become invalid.
pub fn resize(memory: &mut Memory, context: u64, earlier: i32, later: i32) -> u64 {
    let mut packet = taken(memory, context);
    let size = |by: i32| usize::try_from(by.unsigned_abs()).expect("64 bits");
    if earlier > 0 {
        assert!(size(earlier) <= ROOM, "the kernel has no room there");
        packet.splice(0..0, vec![0; size(earlier)]);
    } else {
        packet.drain(..size(earlier));
    }
    assert!(later <= 0, "no answer is longer than its packet behind it");
    packet.truncate(packet.len() - size(later));
    assert!(
        packet.len() >= SHORTEST,
        "the kernel leaves at least {SHORTEST} bytes"
    );
    put(memory, context, packet);
    0
}

/// Returns the kind of a reply, by its protocol. `network`: the offset of the network header without tags.
pub fn kind(answer: &[u8], mut network: usize) -> &'static str {
    while network >= 14 && matches!(answer[network - 2..network], [0x81, 0] | [0x88, 0xa8]) {
        network += 4;
    }
    let version = answer[network] >> 4;
    let protocol = answer[network + if version == 4 { 9 } else { 6 }];
    match (version, protocol) {
        (4 | 6, 6) => "reset",
        (4, 1) | (6, 58) => "unreachable",
        other => panic!("an answer of version and protocol {other:?} is not known here"),
    }
}
