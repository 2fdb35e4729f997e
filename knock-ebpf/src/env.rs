//! [`Env`] as the kernel has it: maps, clock, atomic instructions.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id, generated::bpf_ktime_get_tai_ns},
    maps::lpm_trie,
};
use knock_common::{
    Address, Env, HashTable,
    address::{V4, V6},
    cursor::{self, Tickets},
    event::Event,
    frame::{Frame, Segment},
    grant::give,
    keys::{ScopedAddress, SourceKey},
    knock::{
        Outcome,
        authenticated::{
            self,
            held::Held,
            key::{HostSecret, Key, KeyGate},
            work::Work,
        },
        automaton::{Sequence, State, Transition},
        progress::{Progress, ProgressSet},
        ring,
    },
    reject::{Link, LinkKey, ReplySettings, rate_limit::IcmpBucket},
    report::Budget,
    rules::{GateRules, PortRole},
    session::{
        self, Flow,
        recent::{self, Recent},
    },
};

use crate::{
    atomic, clock, fwknop, host, maps,
    opaque::opaque,
    packet::{self, Context, Packet},
    settings,
};

/// The program's maps, and the packet's context, for look-ups in the host's sockets and routes.
pub struct KernelEnv {
    context: *mut Context,
}

impl KernelEnv {
    /// For decisions that do not look at the packet, nor at sockets and routes.
    pub const WITHOUT_PACKET: Self = Self {
        context: core::ptr::null_mut(),
    };

    #[inline(always)]
    pub fn of(context: *mut Context) -> Self {
        Self { context }
    }
}

impl Env for KernelEnv {
    #[inline(always)]
    fn now(&self) -> u64 {
        clock::now()
    }

    #[inline(always)]
    fn tick(&self) -> u64 {
        clock::ticks()
    }

    #[inline(always)]
    fn recent(&self, index: u32) -> Option<&mut Recent> {
        // SAFETY: takes nothing and returns a number. Nothing moves a program to another CPU while it runs.
        let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
        let entry = maps::RECENT.get_ptr_mut(cpu * recent::ENTRIES + index)?;
        // SAFETY: an array entry is there for good, and no other CPU uses those of this one; see `count` in main.
        Some(unsafe { &mut *entry })
    }

    #[inline(always)]
    fn monitor(&self) -> bool {
        settings::monitor() != 0
    }

    #[inline(always)]
    fn lapsed(&self) -> bool {
        if settings::trial() == 0 {
            return false;
        }
        let deadline = maps::DEADLINE.get(0).copied().unwrap_or(0);
        deadline != 0 && self.now() >= deadline
    }

    #[inline(always)]
    fn guarded(&self) -> u32 {
        settings::guarded()
    }

    #[inline(always)]
    fn is_listed<A: Address>(&self, destination: A) -> bool {
        // SAFETY: only whether the entry is there is asked, not what it holds.
        unsafe { maps::GUARDED_ADDRESS.get(ScopedAddress::new(destination)) }.is_some()
    }

    #[inline(always)]
    fn allows<A: Address>(&self, source: A) -> bool {
        settings::has_allow() != 0
            && maps::ALLOW
                .get(lpm_trie::Key::new(
                    ScopedAddress::HEAD_BITS + u32::from(A::BITS),
                    ScopedAddress::new(source),
                ))
                .is_some()
    }

    #[inline(always)]
    fn may_knock<A: Address>(&self, source: A, gate: u16) -> bool {
        maps::KNOCKER
            .get(lpm_trie::Key::new(
                ScopedAddress::HEAD_BITS + u32::from(A::BITS),
                ScopedAddress::of_gate(source, gate),
            ))
            .is_some()
    }

    #[inline(always)]
    fn has_places(&self) -> bool {
        settings::has_places() != 0
    }

    #[inline(always)]
    fn is_place<A: Address>(&self, destination: A, gate: u16) -> bool {
        maps::PLACE
            .get(lpm_trie::Key::new(
                ScopedAddress::HEAD_BITS + u32::from(A::BITS),
                ScopedAddress::of_place(destination, gate),
            ))
            .is_some()
    }

    #[inline(always)]
    fn port(&self, index: u32) -> PortRole {
        let packed = maps::ROLE.get(index).copied().unwrap_or(0);
        // Every index has an entry. The compiler would add a separate path for a missing one, and every packet would pay for it.
        PortRole::unpack(opaque(packed))
    }

    #[inline(always)]
    fn gate(&self, gate: u16) -> Option<&GateRules> {
        maps::GATE.get(u32::from(gate))
    }

    #[inline(always)]
    fn least_idle(&self) -> u64 {
        settings::least_idle()
    }

    #[inline(always)]
    fn rejects(&self, gate: u16) -> bool {
        settings::rejects() != 0 && self.gate(gate).is_some_and(|rules| rules.reject != 0)
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
        // SAFETY: this map is not written once the program is attached.
        unsafe { maps::TRANSITION.get(key) }.copied()
    }

    #[inline(always)]
    fn grant_lengths<A: Address>(&self) -> u64 {
        let index = u32::from(A::FAMILY != 4);
        maps::GRANT_LENGTHS.get(index).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn progress_set(&self, index: u32) -> Option<&mut ProgressSet> {
        let mask = ring::sets(settings::progress_slots() as usize) as u32 - 1;
        let set = maps::PROGRESS_SET.get_ptr_mut(index & mask)?;
        // SAFETY: an array entry is there for good, and made of whole words. Other CPUs change them by atomic
        // instructions.
        Some(unsafe { &mut *set })
    }

    #[inline(always)]
    fn progress(&self, ticket: u32) -> Option<&mut Progress> {
        let progress = maps::PROGRESS.get_ptr_mut(ticket & (settings::progress_slots() - 1))?;
        // SAFETY: an array entry is there for good; see `knock::ring` for how it is shared with other CPUs.
        Some(unsafe { &mut *progress })
    }

    #[inline(always)]
    fn progress_slots(&self) -> u32 {
        settings::progress_slots()
    }

    #[inline(always)]
    fn progress_cursor(&self) -> Option<u32> {
        let cursor = maps::PROGRESS_CURSOR.get_ptr_mut(0)?;
        // SAFETY: an aligned word of an array entry, which is there for good; other CPUs change it by an atomic
        // instruction.
        Some(unsafe { (*cursor).next })
    }

    #[inline(always)]
    fn progress_ticket(&self) -> Option<u32> {
        let cursor = maps::PROGRESS_CURSOR.get_ptr_mut(0)?;
        let tickets = maps::PROGRESS_TICKETS.get_ptr_mut(0)?;
        // SAFETY: entries that are there for good; of the cursor an aligned word, which other CPUs change by the same atomic
        // instruction, and of the tickets the one of this CPU.
        let (next, tickets) = unsafe { (&mut (*cursor).next, &mut *tickets) };
        let slots = settings::progress_slots();
        Some(tickets.take(*next, slots, || atomic::fetch_add(next, Tickets::BLOCK)))
    }

    #[inline(always)]
    fn next_grant_slot(&self) -> Option<u32> {
        next_slot(cursor::GRANTS, settings::grant_slots())
    }

    #[inline(always)]
    fn next_session_slot(&self) -> Option<u32> {
        next_slot(cursor::SESSIONS, settings::session_slots())
    }

    #[inline(always)]
    fn claim_grant(&self, now: u64) -> u32 {
        claim_grant(now)
    }

    #[inline(always)]
    fn claim_session(&self, choice: u32, holder: u16, now: u64) -> u32 {
        claim_session(self.context, choice, u32::from(holder), now)
    }

    #[inline(always)]
    fn vacate_session(&self, index: u32, now: u64, bars: u64) -> bool {
        vacate_session(self.context, index, now, bars) != 0
    }

    #[inline(always)]
    fn session_slots(&self) -> u32 {
        settings::session_slots()
    }

    #[inline(always)]
    fn knows_addresses(&self) -> bool {
        // SAFETY: only whether the entry is there is asked, not what it holds.
        unsafe { maps::LOCAL_ADDRESS.get(ScopedAddress::COMPLETE) }.is_some()
    }

    #[inline(always)]
    fn address_kind<A: Address>(&self, address: A) -> u32 {
        // SAFETY: a single word, written once.
        unsafe { maps::LOCAL_ADDRESS.get(ScopedAddress::new(address)) }
            .copied()
            .unwrap_or(0)
    }

    #[inline(always)]
    fn is_bridged(&self) -> bool {
        // SAFETY: as in `knows_addresses`.
        unsafe { maps::LOCAL_ADDRESS.get(ScopedAddress::BRIDGED) }.is_some()
    }

    #[inline(always)]
    fn route<A: Address>(&self, flow: &Flow<A>) -> u32 {
        host::route(self.context, flow)
    }

    #[inline(always)]
    fn route_here<A: Address>(&self, packet: &Segment<A>) -> u32 {
        host::look_up_route(
            self.context,
            (packet.source, packet.ports.source()),
            (packet.destination, packet.ports.destination()),
            packet.protocol,
        )
    }

    #[inline(always)]
    fn socket<A: Address>(&self, flow: &Flow<A>) -> u32 {
        host::socket(self.context, flow)
    }

    #[inline(always)]
    fn is_connected<A: Address>(&self, datagram: &Segment<A>) -> bool {
        host::is_connected(self.context, datagram)
    }

    #[inline(always)]
    fn count_knock(&self, gate: u16, outcome: Outcome) {
        if let Some(count) = maps::KNOCKS.get_ptr_mut(outcome.counter(gate)) {
            // SAFETY: a per-CPU entry, see `count` in main.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn takes_authenticated(&self) -> bool {
        settings::takes_authenticated() != 0
    }

    #[inline(always)]
    fn holds_knocks(&self) -> bool {
        settings::holds_knocks() != 0
    }

    #[inline(always)]
    fn hold(&self, held: &Held) -> bool {
        maps::HELD.output::<Held>(held, 0).is_ok()
    }

    #[inline(always)]
    fn wall(&self) -> u64 {
        let offset = maps::CLOCK_OFFSET.get(0).copied().unwrap_or(0);
        // SAFETY: takes nothing and returns a number (since Linux 6.1).
        unsafe { bpf_ktime_get_tai_ns() }.wrapping_sub(offset)
    }

    #[inline(always)]
    fn max_age(&self) -> u64 {
        settings::max_age()
    }

    #[inline(always)]
    fn max_ahead(&self) -> u64 {
        settings::max_ahead()
    }

    #[inline(always)]
    fn host_secret(&self, index: usize) -> Option<&HostSecret> {
        maps::HOST_SECRET.get(index as u32)
    }

    #[inline(always)]
    fn knock_key(&self, slot: u32) -> Option<&mut Key> {
        let key = maps::KEY.get_ptr_mut(slot)?;
        // SAFETY: an array entry is there for good. Other CPUs change its times by atomic instructions; see
        // `Key::source_time` for the rest.
        Some(unsafe { &mut *key })
    }

    #[inline(always)]
    fn key_gate(&self, slot: u32, gate: u32) -> Option<u16> {
        // SAFETY: a single word, written once.
        let gate = unsafe { maps::KEY_GATE.get(KeyGate { slot, gate }) };
        gate.map(|gate| *gate as u16)
    }

    #[inline(always)]
    fn knock_work(&self) -> Option<&mut Work> {
        let work = maps::KNOCK_WORK.get_ptr_mut(0)?;
        // SAFETY: a per-CPU entry, see `count` in main.
        Some(unsafe { &mut *work })
    }

    #[inline(always)]
    fn verify_knock<F: Frame + ?Sized>(&self, _: &F, transport: usize) {
        verify_knock(self.context, transport as u32);
    }

    #[inline(always)]
    fn answer_knock(&self) -> bool {
        answer_knock() != 0
    }

    #[inline(always)]
    fn report_knock(&self) {
        report_knock();
    }

    #[inline(always)]
    fn give_v4(&self) -> u64 {
        give_v4()
    }

    #[inline(always)]
    fn give_v6(&self) -> u64 {
        give_v6()
    }

    #[inline(always)]
    fn count_authenticated(&self, outcome: authenticated::outcome::Outcome) {
        if let Some(count) = maps::AUTHENTICATED.get_ptr_mut(outcome as u32) {
            // SAFETY: a per-CPU entry, see `count` in main.
            unsafe { *count += 1 };
        }
    }

    /// From timer ticks: one takes 0.7 to 1.4 seconds. Every packet of a flood pays for this.
    #[inline(always)]
    fn second(&self) -> u64 {
        clock::ticks() >> (settings::tick_bits() & 63)
    }

    #[inline(always)]
    fn report_budget(&self, class: u32) -> Option<&mut Budget> {
        let budget = maps::BUDGET.get_ptr_mut(class)?;
        // SAFETY: a per-CPU entry, see `count` in main.
        Some(unsafe { &mut *budget })
    }

    #[inline(always)]
    fn reported(&self) -> &impl HashTable<SourceKey, u64> {
        &maps::REPORTED
    }

    #[inline(always)]
    fn reply_settings(&self) -> Option<&ReplySettings> {
        maps::REPLY_SETTINGS
            .get(0)
            .filter(|settings| settings.known != 0)
    }

    #[inline(always)]
    fn reply_link(&self, vlans: [u16; 2]) -> Option<&Link> {
        let key = LinkKey {
            interface: packet::interface(self.context),
            vlans,
        };
        // SAFETY: user space writes an entry only when the link has changed, and a torn entry is right
        // again with the next packet.
        unsafe { maps::REPLY_LINK.get(key) }
    }

    #[inline(always)]
    fn icmp_buckets(&self) -> &impl HashTable<SourceKey, IcmpBucket> {
        &maps::ICMP_BUCKET
    }

    #[inline(always)]
    fn icmp_global(&self) -> Option<&mut u64> {
        let global = maps::ICMP_GLOBAL.get_ptr_mut(0)?;
        // SAFETY: an aligned word of an array entry, which other CPUs change by the atomic instruction.
        Some(unsafe { &mut *global })
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: takes nothing and returns a number.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn hand_up<A: Address>(&self, datagram: &Segment<A>) {
        fwknop::hand_up(self.context, datagram);
    }

    #[inline(always)]
    fn send(&self, event: &Event) -> bool {
        maps::EVENTS.output::<Event>(event, 0).is_ok()
    }
}

/// [`give::claim`].
///
/// Exported, so that it is a global function to the verifier, which verifies it once, independently of its callers
/// (since Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_grant(now: u64) -> u32 {
    give::claim(&KernelEnv::WITHOUT_PACKET, now)
}

/// [`session::remember::claim`] for the packet of the context, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_session(context: *mut Context, choice: u32, holder: u32, now: u64) -> u32 {
    session::remember::claim(&KernelEnv { context }, choice, holder as u16, now)
}

/// [`session::remember::vacate`], as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn vacate_session(context: *mut Context, index: u32, now: u64, bars: u64) -> u32 {
    u32::from(session::remember::vacate(
        &KernelEnv { context },
        index,
        now,
        bars,
    ))
}

/// [`authenticated::verify`] of the datagram whose UDP header is at `transport` in the context's packet, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn verify_knock(context: *mut Context, transport: u32) -> u32 {
    // Where a transport header can be at most; see `frame::extension`. The verifier needs a bound.
    let transport = (transport & 0x7fff) as usize;
    authenticated::verify(&KernelEnv { context }, &Packet::of(context), transport);
    0
}

/// [`authenticated::answer`], as above. It looks at no packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_knock() -> u32 {
    u32::from(authenticated::answer(&KernelEnv::WITHOUT_PACKET))
}

/// [`authenticated::report`], as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_knock() -> u32 {
    authenticated::report(&KernelEnv::WITHOUT_PACKET);
    0
}

/// [`authenticated::give`] for IPv4, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn give_v4() -> u64 {
    authenticated::give::<_, V4>(&KernelEnv::WITHOUT_PACKET)
}

/// [`authenticated::give`] for IPv6, as above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn give_v6() -> u64 {
    authenticated::give::<_, V6>(&KernelEnv::WITHOUT_PACKET)
}

/// Takes the next ticket of a ring with `size` slots. Returns the index of its slot.
#[inline(always)]
fn next_slot(cursor: u32, size: u32) -> Option<u32> {
    let ticket = maps::CURSOR.get_ptr_mut(cursor)?;
    // SAFETY: an aligned word of an array entry, which is there for good; other CPUs reach it only
    // by the same atomic instruction.
    let ticket = atomic::fetch_add(unsafe { &mut (*ticket).next }, 1);
    ticket.checked_rem(size)
}
