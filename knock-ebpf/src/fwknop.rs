//! Hands datagrams that look like packets of fwknop's to the service. What they are is decided there; here the packet only
//! goes on, unchanged.

use core::hint::black_box;

use aya_ebpf::maps::ring_buf::RingBufEntry;
use knock_common::{
    Address,
    address::V6,
    frame::Segment,
    knock::fwknop::{Datagram, Head, LONGEST, SHORT, looks_right},
};

use crate::{
    maps,
    packet::{self, Context},
    settings,
};

/// Bytes of a UDP header, and the first one behind it.
const BEGINNING: usize = 9;
const UDP_HEADER: u32 = 8;

/// Hands up one datagram, if it looks right.
#[inline(always)]
pub fn hand_up<A: Address>(context: *mut Context, datagram: &Segment<A>) {
    let (first, second) = datagram.source.padded().words();
    let ends = u64::from(datagram.ports.source()) << 16 | u64::from(datagram.ports.destination());
    let place = (datagram.transport as u64 & 0xffff) << 8 | u64::from(A::FAMILY);
    copy(context, ends << 32 | place, first, second);
}

/// Copies it to the ring. `what`: both ports, where its UDP header begins, and its family.
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers. The
/// helpers came with Linux 5.18; without keys of fwknop the verifier does not get to them, and removes them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy(context: *mut Context, what: u64, first: u64, second: u64) -> u32 {
    if settings::has_fwknop() == 0 {
        return 0;
    }
    let transport = (what >> 8) as u32 & 0xffff;
    let mut beginning = [0_u8; BEGINNING];
    // SAFETY: there is room for as much as is copied.
    let found = unsafe {
        packet::load_bytes(
            context,
            transport,
            beginning.as_mut_ptr().cast(),
            BEGINNING as u32,
        )
    };
    if !found {
        return 0;
    }
    let length = u32::from(u16::from_be_bytes([beginning[4], beginning[5]]));
    let Some(length) = length.checked_sub(UDP_HEADER) else {
        return 0;
    };
    let whole = packet::whole_length(context);
    let at = transport + UDP_HEADER;
    if !looks_right(length, beginning[8]) || u64::from(at) + u64::from(length) > whole {
        return 0;
    }
    let head = Head {
        source: V6::from_words(first, second),
        source_port: (what >> 48) as u16,
        destination_port: (what >> 32) as u16,
        length: length as u16,
        family: what as u8,
        zero: 0,
    };
    if length <= SHORT as u32 {
        copy_to::<SHORT>(context, at, length, head)
    } else {
        copy_to::<{ LONGEST as usize }>(context, at, length, head)
    }
}

/// Makes a record with this much room.
#[inline(always)]
fn copy_to<const ROOM: usize>(context: *mut Context, at: u32, length: u32, head: Head) -> u32 {
    let Some(mut entry) = maps::FWKNOP.reserve::<Datagram<ROOM>>(0) else {
        if let Some(overrun) = maps::FWKNOP_OVERRUN.get_ptr_mut(0) {
            // SAFETY: a per-CPU entry, see `count` in main.
            unsafe { *overrun += 1 };
        }
        return 0;
    };
    if fill(&mut entry, context, at, length, head) {
        entry.submit(0);
    } else {
        entry.discard(0);
    }
    0
}

/// Returns whether the payload could be copied.
#[inline(always)]
fn fill<const ROOM: usize>(
    entry: &mut RingBufEntry<Datagram<ROOM>>,
    context: *mut Context,
    at: u32,
    length: u32,
    head: Head,
) -> bool {
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved, so it is writable and this program's alone.
    unsafe { (&raw mut (*record).head).write(head) };
    // Or the compiler would leave out the comparison, which follows from earlier ones, but the verifier knows the bounds of
    // a number only if that number itself was compared. One less than the length, since the verifier of 6.1 does not
    // conclude from a comparison with 0 that there is a byte to copy.
    let last = black_box(length.wrapping_sub(1));
    if last >= ROOM as u32 {
        return false;
    }
    let length = last + 1;
    // SAFETY: the record has room for as much as is copied, as was just seen.
    unsafe { packet::load_bytes(context, at, (&raw mut (*record).payload).cast(), length) }
}
