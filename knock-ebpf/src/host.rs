//! Look-ups in the host's routes and sockets.

use aya_ebpf::{
    bindings::bpf_fib_lookup as FibLookup,
    helpers::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use knock_common::{
    Address,
    address::Padded,
    frame::Segment,
    guarded::route,
    session::{Flow, socket},
};

use crate::packet::{self, Context};

/// Returns what the kernel would do with a packet of the flow that arrives by the context's interface: one of [`route`](mod@route).
#[inline(never)]
pub fn route<A: Address>(context: *mut Context, flow: &Flow<A>) -> u32 {
    look_up_route(
        context,
        (flow.source, flow.ports.source()),
        (flow.destination, flow.ports.destination()),
        flow.protocol as u8,
    )
}

/// As [`route()`], in the caller's frame.
#[inline(always)]
pub fn look_up_route<A: Address>(
    context: *mut Context,
    source: (A, u16),
    destination: (A, u16),
    protocol: u8,
) -> u32 {
    // SAFETY: integers and unions of these, for which all zeros is a value.
    let mut route: FibLookup = unsafe { core::mem::zeroed() };
    route.family = if A::FAMILY == 4 { AF_INET } else { AF_INET6 };
    route.l4_protocol = protocol;
    route.sport = source.1.to_be();
    route.dport = destination.1.to_be();
    // An IPv4 address is the first of the four words, in a padded address too.
    let (source, destination) = (source.0.padded(), destination.0.padded());
    route.__bindgen_anon_3.ipv6_src = words(source);
    route.__bindgen_anon_4.ipv6_dst = words(destination);
    route.ifindex = packet::interface(context);
    // SAFETY: the context is this packet's, and the route is on the stack and has the length that is passed.
    let found = unsafe { bpf_fib_lookup(context.cast(), &raw mut route, FIB_LOOKUP, 0) };
    match found {
        FIB_SUCCESS | FIB_UNSUPPORTED_TUNNEL | FIB_NO_NEIGHBOUR | FIB_TOO_LONG => route::FORWARDED,
        FIB_FORWARDING_OFF => route::OFF,
        _ => route::HERE,
    }
}

/// Returns the state of the TCP socket of a flow, in the network namespace of the interface that the packet arrived by.
#[inline(never)]
pub fn socket<A: Address>(context: *mut Context, flow: &Flow<A>) -> u32 {
    let tuple = Tuple {
        source: flow.source,
        destination: flow.destination,
        source_port: flow.ports.source().to_be(),
        destination_port: flow.ports.destination().to_be(),
    };
    // SAFETY: the context is this packet's, and the tuple is on the stack and has the length that is passed. The
    // socket is read before it is released, and released once.
    unsafe {
        let socket = bpf_skc_lookup_tcp(
            context.cast(),
            (&raw const tuple).cast_mut().cast(),
            Tuple::<A>::LENGTH,
            CURRENT_NETNS,
            0,
        );
        if socket.is_null() {
            return socket::NONE;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state
    }
}

/// Returns whether a UDP socket is connected to the sender of a datagram, in the network namespace of the interface that
/// the packet arrived by.
#[inline(always)]
pub fn is_connected<A: Address>(context: *mut Context, datagram: &Segment<A>) -> bool {
    let tuple = Tuple {
        source: datagram.source,
        destination: datagram.destination,
        source_port: datagram.ports.source().to_be(),
        destination_port: datagram.ports.destination().to_be(),
    };
    // SAFETY: as in `socket`.
    unsafe {
        let socket = bpf_sk_lookup_udp(
            context.cast(),
            (&raw const tuple).cast_mut().cast(),
            Tuple::<A>::LENGTH,
            CURRENT_NETNS,
            0,
        );
        if socket.is_null() {
            return false;
        }
        // The kernel prefers a connected socket, and finds it only for datagrams of its peer.
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state == CONNECTED
    }
}

/// Of `linux/socket.h`.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Bytes of what `bpf_fib_lookup` is given.
const FIB_LOOKUP: i32 = 64;
const _: () = assert!(size_of::<FibLookup>() == FIB_LOOKUP.unsigned_abs() as usize);

/// Results of `bpf_fib_lookup` for a packet that is forwarded (`BPF_FIB_LKUP_RET_…` of `linux/bpf.h`), though
/// perhaps not by an XDP program: into a tunnel, after neighbour discovery, or in fragments.
const FIB_SUCCESS: i64 = 0;
const FIB_UNSUPPORTED_TUNNEL: i64 = 6;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_TOO_LONG: i64 = 8;
/// Forwarding is switched off on the interface.
const FIB_FORWARDING_OFF: i64 = 5;

#[inline(always)]
fn words(address: Padded) -> [u32; 4] {
    let (first, second) = address.words();
    [
        first as u32,
        (first >> 32) as u32,
        second as u32,
        (second >> 32) as u32,
    ]
}

/// `bpf_sock_tuple` of `linux/bpf.h`: a union of the families', told apart by their length. All in network
/// byte order.
#[repr(C)]
struct Tuple<A> {
    source: A,
    destination: A,
    source_port: u16,
    destination_port: u16,
}

impl<A> Tuple<A> {
    /// Without padding.
    const LENGTH: u32 = 2 * size_of::<A>() as u32 + 4;
}

/// State of a connected UDP socket: `TCP_ESTABLISHED` of `linux/tcp_states.h`.
const CONNECTED: u32 = 1;

/// `BPF_F_CURRENT_NETNS` of `linux/bpf.h`: that of the interface.
const CURRENT_NETNS: u64 = u64::MAX;
