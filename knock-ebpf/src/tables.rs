//! The decisions' surroundings as the kernel has them: maps, clock, atomic instructions.

use aya_ebpf::{
    bindings::{bpf_fib_lookup as FibLookup, xdp_md},
    helpers::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    maps::{Array, HashMap, lpm_trie::Key},
};
use knock_common::{
    Address, Kernel, Table,
    address::{Padded, V4, V6},
    event::Event,
    frame::Segment,
    knock::Outcome,
    presence::Seed,
    progress,
    session::{self, socket},
    table::{
        Flow, GateRules, Grant, GrantKey, GrantSlot, Network, Progress, ProgressSet, Role,
        Sequence, Session, SessionSlot, State, Transition, cursor,
    },
};

use crate::{maps, report};

/// All tables of the program, and the packet's context, in which the host's sockets are looked up.
pub struct Tables {
    context: *mut xdp_md,
}

impl Tables {
    #[inline(always)]
    pub fn of(context: *mut xdp_md) -> Self {
        Self { context }
    }
}

impl Kernel for Tables {
    #[inline(always)]
    fn now(&self) -> u64 {
        report::now()
    }

    #[inline(always)]
    fn monitor(&self) -> bool {
        maps::monitor() != 0
    }

    #[inline(always)]
    fn guards<A: Address>(&self, destination: A) -> bool {
        // SAFETY: only whether the entry is there is asked, not what it holds.
        maps::has_address() == 0
            || unsafe { maps::ADDRESS.get(Network::new(destination)) }.is_some()
    }

    #[inline(always)]
    fn allows<A: Address>(&self, source: A) -> bool {
        maps::has_allow() != 0
            && maps::ALLOW
                .get(Key::new(
                    Network::HEAD_BITS + u32::from(A::BITS),
                    Network::new(source),
                ))
                .is_some()
    }

    #[inline(always)]
    fn may_knock<A: Address>(&self, source: A, gate: u16) -> bool {
        maps::KNOCKER
            .get(Key::new(
                Network::HEAD_BITS + u32::from(A::BITS),
                Network::of_gate(source, gate),
            ))
            .is_some()
    }

    #[inline(always)]
    fn role(&self, index: u32) -> Role {
        Role::unpack(maps::ROLE.get(index).copied().unwrap_or(0))
    }

    #[inline(always)]
    fn gate(&self, gate: u16) -> Option<&GateRules> {
        maps::GATE.get(u32::from(gate))
    }

    #[inline(always)]
    fn sequence(&self, index: u32) -> Option<&Sequence> {
        maps::SEQUENCE.get(index)
    }

    #[inline(always)]
    fn state(&self, index: u32) -> Option<&State> {
        maps::STATE.get(index)
    }

    #[inline(always)]
    fn transition(&self, state: u32, symbol: u16) -> Option<u32> {
        let key = Transition {
            state,
            symbol: u32::from(symbol),
        };
        // SAFETY: nobody writes to this table once the program is attached.
        unsafe { maps::TRANSITION.get(key) }.copied()
    }

    #[inline(always)]
    fn grant_lengths<A: Address>(&self) -> u64 {
        let index = u32::from(A::FAMILY != 4);
        maps::LENGTHS.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn seed(&self) -> Seed {
        maps::seed()
    }

    #[inline(always)]
    fn presence(&self, index: u32) -> Option<&mut u64> {
        let word = maps::PRESENCE.get_ptr_mut(index & maps::presence_mask())?;
        // SAFETY: an aligned word of an array entry, which is there for good. Others change it by atomic
        // instructions only.
        Some(unsafe { &mut *word })
    }

    #[inline(always)]
    fn progress_set(&self, index: u32) -> Option<&mut ProgressSet> {
        let mask = progress::sets(maps::progress_places() as usize) as u32 - 1;
        let set = maps::PROGRESS_SET.get_ptr_mut(index & mask)?;
        // SAFETY: an array entry is there for good, and made of whole words. Other CPUs change them by atomic
        // instructions.
        Some(unsafe { &mut *set })
    }

    #[inline(always)]
    fn progress(&self, ticket: u32) -> Option<&mut Progress> {
        let progress = maps::PROGRESS.get_ptr_mut(ticket & (maps::progress_places() - 1))?;
        // SAFETY: an array entry is there for good; see `Table::find` for how values guard against other
        // CPUs.
        Some(unsafe { &mut *progress })
    }

    #[inline(always)]
    fn progress_places(&self) -> u32 {
        maps::progress_places()
    }

    #[inline(always)]
    fn progress_cursor(&self) -> Option<&mut u32> {
        let cursor = maps::CURSOR.get_ptr_mut(cursor::SOURCES)?;
        // SAFETY: an aligned word of an array entry, which is there for good; other CPUs change it by the
        // same atomic instruction.
        Some(unsafe { &mut (*cursor).next })
    }

    #[inline(always)]
    fn grants_v4(&self) -> &impl Table<GrantKey<V4>, Grant> {
        &maps::GRANT4
    }

    #[inline(always)]
    fn grants_v6(&self) -> &impl Table<GrantKey<V6>, Grant> {
        &maps::GRANT6
    }

    #[inline(always)]
    fn sessions_v4(&self) -> &impl Table<Flow<V4>, Session> {
        &maps::SESSION4
    }

    #[inline(always)]
    fn sessions_v6(&self) -> &impl Table<Flow<V6>, Session> {
        &maps::SESSION6
    }

    #[inline(always)]
    fn next_grant_slot(&self) -> Option<(u32, &mut GrantSlot)> {
        next_slot(&maps::GRANT_SLOT, cursor::GRANTS, maps::grant_slots())
    }

    #[inline(always)]
    fn next_session_slot(&self) -> Option<(u32, &mut SessionSlot)> {
        next_slot(&maps::SESSION_SLOT, cursor::SESSIONS, maps::session_slots())
    }

    #[inline(always)]
    fn session_slot(&self, index: u32) -> Option<&mut SessionSlot> {
        let slot = maps::SESSION_SLOT.get_ptr_mut(index)?;
        // SAFETY: see `next_slot`.
        Some(unsafe { &mut *slot })
    }

    #[inline(always)]
    fn claim_session(&self, holder: u16, now: u64) -> u32 {
        claim_session(self.context, u32::from(holder), now)
    }

    #[inline(always)]
    fn vacate_session(&self, index: u32, now: u64, bars: u64) -> bool {
        vacate_session(self.context, index, now, bars) != 0
    }

    #[inline(always)]
    fn session_slots(&self) -> u32 {
        maps::session_slots()
    }

    #[inline(always)]
    fn held(&self, holder: u16) -> Option<&mut u32> {
        let held = maps::HELD.get_ptr_mut(u32::from(holder))?;
        // SAFETY: an aligned word of an array entry, which is there for good; other CPUs change it by atomic
        // instructions only.
        Some(unsafe { &mut *held })
    }

    #[inline(always)]
    fn knows_addresses(&self) -> bool {
        // SAFETY: only whether the entry is there is asked, not what it holds.
        unsafe { maps::LOCAL.get(Network::COMPLETE) }.is_some()
    }

    #[inline(always)]
    fn has_address<A: Address>(&self, address: A) -> bool {
        // SAFETY: as above.
        unsafe { maps::LOCAL.get(Network::new(address)) }.is_some()
    }

    /// As the kernel would, if the packet were to go on from the interface that it came by.
    #[inline(never)]
    fn forwards<A: Address>(&self, flow: &Flow<A>) -> bool {
        // SAFETY: integers and unions of these, for which all zeroes is a value.
        let mut route: FibLookup = unsafe { core::mem::zeroed() };
        route.family = if A::FAMILY == 4 { AF_INET } else { AF_INET6 };
        route.l4_protocol = flow.protocol as u8;
        route.sport = flow.source_port.to_be();
        route.dport = flow.destination_port.to_be();
        // IPv4's are a single word: the first of four, and in a padded address too.
        let (source, destination) = (flow.source.padded(), flow.destination.padded());
        route.__bindgen_anon_3.ipv6_src = words(source);
        route.__bindgen_anon_4.ipv6_dst = words(destination);
        // SAFETY: the context is this packet's, and the route is on the stack and as long as is said.
        let found = unsafe {
            route.ifindex = (*self.context).ingress_ifindex;
            bpf_fib_lookup(self.context.cast(), &raw mut route, FIB_LOOKUP, 0)
        };
        matches!(
            found,
            FIB_SUCCESS | FIB_UNSUPPORTED_TUNNEL | FIB_NO_NEIGHBOUR | FIB_TOO_LONG
        )
    }

    /// In the network namespace of the interface that the packet came by.
    #[inline(never)]
    fn socket<A: Address>(&self, flow: &Flow<A>) -> u32 {
        let tuple = Tuple {
            source: flow.source,
            destination: flow.destination,
            source_port: flow.source_port.to_be(),
            destination_port: flow.destination_port.to_be(),
        };
        // SAFETY: the context is this packet's, and the tuple is on the stack and as long as is said. The
        // socket is read while it is held, and let go of once.
        unsafe {
            let socket = bpf_skc_lookup_tcp(
                self.context.cast(),
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

    /// In the network namespace of the interface that the packet came by.
    #[inline(never)]
    fn is_connected<A: Address>(&self, datagram: &Segment<A>) -> bool {
        let tuple = Tuple {
            source: datagram.source,
            destination: datagram.destination,
            source_port: datagram.source_port.to_be(),
            destination_port: datagram.destination_port.to_be(),
        };
        // SAFETY: as in `socket`.
        unsafe {
            let socket = bpf_sk_lookup_udp(
                self.context.cast(),
                (&raw const tuple).cast_mut().cast(),
                Tuple::<A>::LENGTH,
                CURRENT_NETNS,
                0,
            );
            if socket.is_null() {
                return false;
            }
            // The kernel finds a socket that is connected for its peer's datagrams only, and before any other.
            let state = (*socket).state;
            bpf_sk_release(socket.cast());
            state == CONNECTED
        }
    }

    #[inline(always)]
    fn compare_exchange(&self, cell: &mut u64, current: u64, new: u64) -> bool {
        atomic::compare_exchange(cell, current, new)
    }

    #[inline(always)]
    fn fetch_add(&self, cell: &mut u32) -> u32 {
        atomic::fetch_add(cell)
    }

    #[inline(always)]
    fn fetch_sub(&self, cell: &mut u32) -> u32 {
        atomic::fetch_sub(cell)
    }

    #[inline(always)]
    fn count_knock(&self, gate: u16, outcome: Outcome) {
        if let Some(count) = maps::KNOCKS.get_ptr_mut(outcome.counter(gate)) {
            // SAFETY: a per-CPU entry, see `count` in main.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn wants_report(&self, class: u32) -> bool {
        report::wants(class)
    }

    #[inline(always)]
    fn report(&self, event: &Event) {
        report::report(event);
    }
}

/// [`session::claim`] by the tables of the context's packet.
///
/// Exported, so that the verifier takes it for a global function: it checks such a one once, for all
/// arguments that there can be (since Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_session(context: *mut xdp_md, holder: u32, now: u64) -> u32 {
    session::claim(&Tables { context }, holder as u16, now)
}

/// [`session::vacate`], as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vacate_session(context: *mut xdp_md, index: u32, now: u64, bars: u64) -> u32 {
    u32::from(session::vacate(&Tables { context }, index, now, bars))
}

/// Of `linux/socket.h`.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Bytes of what `bpf_fib_lookup` is given.
const FIB_LOOKUP: i32 = 64;
const _: () = assert!(size_of::<FibLookup>() == FIB_LOOKUP.unsigned_abs() as usize);

/// What `bpf_fib_lookup` says of a packet that is forwarded (`BPF_FIB_LKUP_RET_…` of `linux/bpf.h`), though
/// perhaps not by an XDP program: into a tunnel, or when the next hop has been asked for, or in fragments.
const FIB_SUCCESS: i64 = 0;
const FIB_UNSUPPORTED_TUNNEL: i64 = 6;
const FIB_NO_NEIGHBOUR: i64 = 7;
const FIB_TOO_LONG: i64 = 8;

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
    /// Without what follows for alignment's sake.
    const LENGTH: u32 = 2 * size_of::<A>() as u32 + 4;
}

/// State of a UDP socket that is connected: `TCP_ESTABLISHED` of `linux/tcp_states.h`, for these too.
const CONNECTED: u32 = 1;

/// `BPF_F_CURRENT_NETNS` of `linux/bpf.h`: in an XDP program, that of the interface.
const CURRENT_NETNS: u64 = u64::MAX;

/// Takes the next ticket of a ring with `size` places.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "see `Table::find`")]
fn next_slot<T>(ring: &Array<T>, cursor: u32, size: u32) -> Option<(u32, &mut T)> {
    let ticket = maps::CURSOR.get_ptr_mut(cursor)?;
    // SAFETY: an aligned word of an array entry, which is there for good; other CPUs reach it only
    // by the same atomic instruction.
    let ticket = atomic::fetch_add(unsafe { &mut (*ticket).next });
    let index = ticket.checked_rem(size)?;
    // SAFETY: the entry is there for good. The ticket makes this CPU the only one that looks at it
    // until the ring has come round; a torn slot then names no entry, and counts as free.
    Some((index, unsafe { &mut *ring.get_ptr_mut(index)? }))
}

/// A hash table that forgets nothing.
#[repr(transparent)]
pub struct Hash<K, V>(HashMap<K, V>);

impl<K, V> Hash<K, V> {
    pub const fn with_max_entries(entries: u32) -> Self {
        Self(HashMap::with_max_entries(entries, 0))
    }
}

impl<K, V> Table<K, V> for Hash<K, V> {
    #[inline(always)]
    fn find(&self, key: &K) -> Option<&mut V> {
        // SAFETY: the entry stays mapped until the program has run (RCU). Other CPUs may write to it:
        // see `Table::find` for how values guard against that.
        self.0.get_ptr_mut(key).map(|value| unsafe { &mut *value })
    }

    #[inline(always)]
    fn insert(&self, key: &K, value: &V) -> bool {
        self.0.insert(key, value, NO_EXIST).is_ok()
    }

    #[inline(always)]
    fn remove(&self, key: &K) -> bool {
        self.0.remove(key).is_ok()
    }
}

/// `BPF_NOEXIST` of `linux/bpf.h`.
const NO_EXIST: u64 = 1;

#[cfg(target_arch = "bpf")]
pub mod atomic {
    use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd};

    #[inline(always)]
    pub fn compare_exchange(cell: &mut u64, current: u64, new: u64) -> bool {
        // SAFETY: an aligned word in a map entry. Compiles to BPF_CMPXCHG, since Linux 5.12.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(cell, current, new).1 }
    }

    #[inline(always)]
    pub fn fetch_add(cell: &mut u32) -> u32 {
        // SAFETY: as above; BPF_FETCH | BPF_ADD, since Linux 5.12.
        unsafe { atomic_xadd::<u32, u32, { SeqCst }>(cell, 1) }
    }

    #[inline(always)]
    pub fn fetch_sub(cell: &mut u32) -> u32 {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u32, u32, { SeqCst }>(cell, u32::MAX) }
    }
}

/// So that the crate can be checked on the host; nothing there runs it.
#[cfg(not(target_arch = "bpf"))]
pub mod atomic {
    pub fn compare_exchange(cell: &mut u64, current: u64, new: u64) -> bool {
        let equal = *cell == current;
        if equal {
            *cell = new;
        }
        equal
    }

    pub fn fetch_add(cell: &mut u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_add(1);
        before
    }

    pub fn fetch_sub(cell: &mut u32) -> u32 {
        let before = *cell;
        *cell = before.wrapping_sub(1);
        before
    }
}
