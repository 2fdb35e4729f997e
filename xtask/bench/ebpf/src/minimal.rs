//! A minimal port-knocking gate.

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, xdp_action},
    helpers::bpf_ktime_get_coarse_ns,
    macros::{map, xdp},
    maps::{HashMap, LruHashMap, PerCpuArray, RingBuf},
    programs::XdpContext,
};

use crate::{
    parsed,
    terms::{KNOCKS, PROTECTED, count},
};

/// How long an admitted source may pass, ns.
const OPEN_FOR: u64 = 300_000_000_000;
/// The longest time from one knock to the next, ns.
const WITHIN: u64 = 5_000_000_000;

const FIRST: u16 = KNOCKS[0];
const SECOND: u16 = KNOCKS[1];
const LAST: u16 = KNOCKS[2];

/// A source that has begun to knock.
#[repr(C)]
#[derive(Clone, Copy)]
struct Candidate {
    /// The end of the time for the next knock, ns of `CLOCK_MONOTONIC`.
    until: u64,
    /// How many knocks it has made.
    knocks: u32,
    _unused: u32,
}

/// The report of an admitted source.
#[repr(C)]
struct Opened {
    source: u32,
    kind: u32,
    at: u64,
}

/// The admitted sources, and the ends of their admission (ns of `CLOCK_MONOTONIC`). Its size is set at load.
#[map]
static ADMITTED: HashMap<u32, u64> = HashMap::with_max_entries(1, 0);
/// The same in a table that evicts: the source that was admitted or looked up longest ago makes room for a new one.
#[map]
static ADMITTED_LRU: LruHashMap<u32, u64> = LruHashMap::with_max_entries(1, 0);
/// 1: the admitted sources are in that table. Set at load.
#[unsafe(no_mangle)]
static EVICTS: u32 = 0;
/// The sources that have begun to knock. Its size may be set at load.
#[map]
static CANDIDATES: LruHashMap<u32, Candidate> = LruHashMap::with_max_entries(65_536, 0);
/// Counters of packets, with the indices of [`count`].
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(count::ALL, 0);
/// Reports of admitted sources. Nothing reads them, as nothing reads knockgate's events while the bench measures
/// packets; when it is full, no more are written.
#[map]
static REPORTS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// As [`parse_only`](crate::parse_only), with one look-up: of the source at the protected port, of its progress at a
/// knock port. Also reads a coarse clock where it is needed, and counts. Supports one sequence, and no tags, options,
/// IPv6, probes, duplicates or sessions. Knocks pass, as with knockgate, so that they cost the host the same.
#[xdp]
#[inline(always)]
pub fn minimal_gate(ctx: XdpContext) -> u32 {
    let Some((source, port)) = parsed(&ctx) else {
        return xdp_action::XDP_PASS;
    };
    let outcome = match port {
        PROTECTED => protected(source),
        FIRST => first(source),
        SECOND => second(source),
        LAST => last(source),
        _ => return xdp_action::XDP_PASS,
    };
    if let Some(count) = COUNTS.get_ptr_mut(outcome) {
        // SAFETY: the entry is this CPU's, and nothing else runs this program on it meanwhile.
        unsafe { *count += 1 };
    }
    if outcome == count::DENIED {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

#[inline(always)]
fn protected(source: u32) -> u32 {
    // SAFETY: the entry stays mapped until the program has run, and its one word is read at once.
    let until = unsafe {
        if evicts() {
            ADMITTED_LRU.get(source)
        } else {
            ADMITTED.get(source)
        }
    };
    match until {
        Some(until) if *until > now() => count::ADMITTED,
        _ => count::DENIED,
    }
}

/// Counts a first knock, which begins a new run in any case.
#[inline(always)]
fn first(source: u32) -> u32 {
    let begun = Candidate {
        until: now() + WITHIN,
        knocks: 1,
        _unused: 0,
    };
    match CANDIDATES.get_ptr_mut(source) {
        // SAFETY: the entry stays mapped until the program has run.
        Some(candidate) => unsafe { *candidate = begun },
        // An LRU table is never full.
        None => drop(CANDIDATES.insert(source, begun, 0)),
    }
    count::STEP
}

#[inline(always)]
fn second(source: u32) -> u32 {
    let now = now();
    let Some(candidate) = in_turn(source, 1, now) else {
        return count::ASTRAY;
    };
    candidate.knocks = 2;
    candidate.until = now + WITHIN;
    count::STEP
}

#[inline(always)]
fn last(source: u32) -> u32 {
    let now = now();
    if in_turn(source, 2, now).is_none() {
        return count::ASTRAY;
    }
    let until = now + OPEN_FOR;
    let admitted = if evicts() {
        ADMITTED_LRU.insert(source, until, 0)
    } else {
        ADMITTED.insert(source, until, 0)
    };
    if admitted.is_err() {
        return count::FULL;
    }
    let _ = CANDIDATES.remove(source);
    if let Some(mut report) = REPORTS.reserve::<Opened>(0) {
        report.write(Opened {
            source,
            kind: 1,
            at: now,
        });
        report.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    count::OPENED
}

/// Returns the source's progress, if it has made this many knocks and is in time for the next.
#[inline(always)]
fn in_turn(source: u32, knocks: u32, now: u64) -> Option<&'static mut Candidate> {
    // SAFETY: the entry stays mapped until the program has run, and the bench runs one at a time.
    let candidate = unsafe { &mut *CANDIDATES.get_ptr_mut(source)? };
    (candidate.knocks == knocks && candidate.until >= now).then_some(candidate)
}

#[inline(always)]
fn evicts() -> bool {
    // SAFETY: a static that is there for good; volatile, since the loader replaces what the compiler believes to be its value.
    unsafe { (&raw const EVICTS).read_volatile() != 0 }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_coarse_ns() }
}
