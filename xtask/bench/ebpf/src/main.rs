//! The bench's own kernel programs.
//!
//! knockgate's program is compared with [`bare_drop`], [`bare_pass`], [`tcx_drop`], [`tcx_pass`], [`parse_only`], [`wait`]
//! and [`minimal_gate`](minimal::minimal_gate), and called by [`root`]. [`remember_shared`] and [`remember_apart`] implement its table of sources
//! by two kinds of the kernel's LRU tables. [`vary`] and [`send`] make traffic: each writes the next source address and
//! ports into the frame that it is run on; then `vary` calls the program under test, and `send` sends the frame.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    clippy::inline_always,
    reason = "a call costs as much as the function it would call"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the casts take the low bits on purpose"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the macro calls the programs so"
)]

mod minimal;
mod terms;
mod traffic;

use core::hint::black_box;

use aya_ebpf::{
    bindings::{BPF_F_NO_COMMON_LRU, xdp_action},
    helpers::bpf_redirect,
    macros::{classifier, map, xdp},
    maps::{Array, LruHashMap, PerCpuArray, ProgramArray},
    programs::{TcContext, XdpContext},
};
use terms::PROTECTED;
use traffic::{MOST_MESSAGES, Traffic};

/// The traffic that [`vary`] and [`send`] make, on each CPU.
#[map]
static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(1, 0);
/// The payloads that take turns.
#[map]
static MESSAGES: Array<Message> = Array::with_max_entries(MOST_MESSAGES, 0);
/// The table of [`remember_shared`], with values as large as knockgate's. Its size is set at load.
#[map]
static SHARED: LruHashMap<[u64; 3], [u64; 16]> = LruHashMap::with_max_entries(1024, 0);
/// The table of [`remember_apart`], with LRU lists for each CPU.
#[map]
static APART: LruHashMap<[u64; 3], [u64; 16]> =
    LruHashMap::with_max_entries(1024, BPF_F_NO_COMMON_LRU);
/// The program that [`vary`] calls.
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The program that [`root`] calls.
#[map]
static CALLED: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// How many multiplications [`wait`] makes. Set at load.
#[unsafe(no_mangle)]
static TURNS: u32 = 0;
/// What they have come to. In memory, so that each run waits for the one before.
#[map]
static PRODUCT: Array<u64> = Array::with_max_entries(1, 0);

#[xdp]
pub fn bare_drop(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[xdp]
pub fn bare_pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The least that denies a packet at TCX.
#[classifier]
pub fn tcx_drop(_: TcContext) -> i32 {
    /// `TCX_DROP` of `linux/bpf.h`.
    const DROP: i32 = 2;
    DROP
}

/// The least that a program at TCX costs a packet that passes.
#[classifier]
pub fn tcx_pass(_: TcContext) -> i32 {
    /// `TCX_NEXT` of `linux/bpf.h`.
    const NEXT: i32 = -1;
    NEXT
}

/// Calls a program, and passes what there is none for: the least that one does which `up --into` is for.
#[xdp]
#[inline(always)]
pub fn root(ctx: XdpContext) -> u32 {
    // SAFETY: a tail call does not return, and no value here has to be dropped.
    unsafe { CALLED.tail_call(&ctx, 0) };
    xdp_action::XDP_PASS
}

/// Drops after a known time: a number of multiplications, each of what the one before has come to. A processor cannot do them
/// while it does something else of the run, nor several at once.
#[xdp]
#[inline(always)]
pub fn wait(_: XdpContext) -> u32 {
    let Some(product) = PRODUCT.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: set at load, and read as it is then: the compiler must not take the value of this source.
    let turns = unsafe { (&raw const TURNS).read_volatile() };
    // SAFETY: the entry stays mapped until the program has run. It is one CPU's at a time: the bench uses one.
    let mut value = unsafe { product.read_volatile() } | 1;
    let mut turn = 0;
    while turn < turns {
        value = black_box(value.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        turn += 1;
    }
    // SAFETY: as above.
    unsafe { product.write_volatile(value) };
    xdp_action::XDP_DROP
}

/// A minimal port filter: reads Ethernet, IPv4 and the ports, then drops packets to one port.
#[xdp]
#[inline(always)]
pub fn parse_only(ctx: XdpContext) -> u32 {
    match parsed(&ctx) {
        Some((_, PROTECTED)) => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_PASS,
    }
}

/// Stores the source in an LRU table, and does nothing else.
#[xdp]
#[inline(always)]
pub fn remember_shared(ctx: XdpContext) -> u32 {
    remember(&ctx, &SHARED)
}

/// The same, with lists for each CPU.
#[xdp]
#[inline(always)]
pub fn remember_apart(ctx: XdpContext) -> u32 {
    remember(&ctx, &APART)
}

#[inline(always)]
fn remember(ctx: &XdpContext, table: &LruHashMap<[u64; 3], [u64; 16]>) -> u32 {
    if let Some((source, _)) = parsed(ctx) {
        let key = [u64::from(source), 0, 4];
        match table.get_ptr_mut(key) {
            // SAFETY: the entry stays mapped until the program has run.
            Some(known) => unsafe { (*known)[0] += 1 },
            // An LRU table is never full.
            None => drop(table.insert(key, [1; 16], 0)),
        }
    }
    xdp_action::XDP_DROP
}

/// Writes the next frame and calls the program under test.
#[xdp]
#[inline(always)]
pub fn vary(ctx: XdpContext) -> u32 {
    if next_frame(&ctx).is_some() {
        // SAFETY: a tail call does not return, and no value here has to be dropped.
        unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Writes the next frame and sends it.
#[xdp]
#[inline(always)]
pub fn send(ctx: XdpContext) -> u32 {
    match next_frame(&ctx) {
        // SAFETY: the helper takes two numbers.
        Some(interface) => unsafe { bpf_redirect(interface, 0) }.cast_unsigned() as u32,
        None => xdp_action::XDP_ABORTED,
    }
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// A payload.
type Message = [u64; 8];

/// Returns source address, in the frame's byte order, and destination port of a TCP or UDP packet over IPv4.
#[inline(always)]
fn parsed(ctx: &XdpContext) -> Option<(u32, u16)> {
    const ETHER_IPV4: u16 = 0x0800;
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let head = header::<{ ETHERNET + IPV4 }>(ctx, 0)?;
    // SAFETY: `header` has checked that the frame has these bytes.
    let (kind, version, fragment, protocol, source) = unsafe {
        (
            *at::<u16>(head, 12),
            *at::<u8>(head, ETHERNET),
            *at::<u16>(head, ETHERNET + 6),
            *at::<u8>(head, ETHERNET + 9),
            *at::<u32>(head, ETHERNET + 12),
        )
    };
    let words = version & 0x0f;
    if u16::from_be(kind) != ETHER_IPV4
        || version >> 4 != 4
        || words < 5
        || u16::from_be(fragment) & 0x1fff != 0
        || (protocol != TCP && protocol != UDP)
    {
        return None;
    }
    let ports = header::<4>(ctx, ETHERNET + usize::from(words) * 4)?;
    // SAFETY: as above.
    let port = u16::from_be(unsafe { *at::<u16>(ports, 2) });
    Some((source, port))
}

/// Writes source address and ports of the next packet into an IPv4 frame without options. Returns the interface to send
/// it to. Adjusts IPv4's checksum but not the transport's: datagrams have none, and segments reach no host.
#[inline(always)]
fn next_frame(ctx: &XdpContext) -> Option<u32> {
    let traffic = TRAFFIC.get_ptr_mut(0)?;
    // SAFETY: array entries always exist, and this one is this CPU's.
    let traffic = unsafe { &mut *traffic };
    let frame = header::<{ ETHERNET + IPV4 + 4 }>(ctx, 0)?;

    let place = if traffic.sources == 0 {
        traffic.turn
    } else {
        // Multiples of the golden ratio (as a fraction of 2^32) are evenly distributed, and far from each other.
        let scattered = traffic.turn.wrapping_mul(2_654_435_769);
        ((u64::from(scattered) * u64::from(traffic.sources)) >> 32) as u32
    };
    let source = traffic.first.wrapping_add(place).to_be();
    let port = traffic.ports[(traffic.step & 3) as usize].to_be();
    if traffic.messages != 0 {
        write_message(ctx, traffic.packet % traffic.messages)?;
    }
    let source_port = (1024 + ((traffic.packet >> (traffic.hold & 31)) & 0x7fff) as u16).to_be();
    traffic.packet = traffic.packet.wrapping_add(1);
    traffic.step += 1;
    if traffic.step >= traffic.steps {
        traffic.step = 0;
        traffic.turn = traffic.turn.wrapping_add(1);
    }

    // SAFETY: `header` has checked that the frame has these bytes.
    unsafe {
        let checksum = at::<u16>(frame, ETHERNET + 10);
        let address = at::<u32>(frame, ETHERNET + 12);
        *checksum = adjusted(*checksum, *address, source);
        *address = source;
        *at::<u16>(frame, ETHERNET + IPV4) = source_port;
        *at::<u16>(frame, ETHERNET + IPV4 + 2) = port;
    }
    Some(traffic.interface)
}

/// Writes a message into a datagram that is long enough for it.
#[inline(always)]
fn write_message(ctx: &XdpContext, index: u32) -> Option<()> {
    let message = MESSAGES.get(index)?;
    let payload = header::<{ size_of::<Message>() }>(ctx, ETHERNET + IPV4 + UDP)?;
    for (place, word) in message.iter().enumerate() {
        // SAFETY: `header` has checked that the frame has these bytes.
        unsafe { *at::<u64>(payload, 8 * place) = *word };
    }
    Some(())
}

/// Returns a checksum adjusted to the change of one word (RFC 1624, equation 3). All three have the same byte order.
#[inline(always)]
fn adjusted(checksum: u16, before: u32, after: u32) -> u16 {
    let mut sum = u32::from(!checksum)
        + u32::from(!(before as u16))
        + u32::from(!((before >> 16) as u16))
        + u32::from(after as u16)
        + (after >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Returns the address of `N` bytes of the frame at `from`, or `None` if the frame ends before them.
#[inline(always)]
fn header<const N: usize>(ctx: &XdpContext, from: usize) -> Option<usize> {
    let start = ctx.data();
    if start + from + N > ctx.data_end() {
        return None;
    }
    Some(start + from)
}

/// Returns a pointer to a field of a header. It may be misaligned, which BPF allows where the machine does.
#[inline(always)]
fn at<T>(header: usize, offset: usize) -> *mut T {
    (header + offset) as *mut T
}

/// [`bpf_redirect`] is available only to programs with a licence that is compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A reachable panic would leave this loop in the program, and the verifier refuses to load it.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On the host this crate is only checked and linted: the programs run in the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(test)]
mod tests {
    use super::adjusted;

    #[test]
    fn an_adjusted_checksum_is_the_one_computed_anew() {
        let sum_of = |words: &[u16]| {
            let sum = words.iter().fold(0_u32, |sum, word| sum + u32::from(*word));
            let sum = (sum & 0xffff) + (sum >> 16);
            !(((sum & 0xffff) + (sum >> 16)) as u16)
        };
        let rest = [0x4500, 0x0034, 0x4000, 0x4011, 0xc000, 0x0201];
        for (before, after) in [
            (0x0a00_0001_u32, 0x0a00_0002_u32),
            (0x0aff_ffff, 0x0b00_0000),
            (0xffff_ffff, 0x0000_0001),
        ] {
            let with = |address: u32| {
                let mut words = rest.to_vec();
                words.extend([(address >> 16) as u16, address as u16]);
                sum_of(&words)
            };
            assert_eq!(adjusted(with(before), before, after), with(after));
        }
    }
}
