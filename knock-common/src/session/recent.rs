//! What each CPU remembers of the flows that have just passed.
//!
//! The coarse clock stands still between two timer ticks, and on a busy host a CPU judges many packets of one flow in that time. So a
//! flow that has passed by its session under a live grant passes again until the next tick, and its session is not looked up.
//!
//! - An entry belongs to one CPU, which alone reads and writes it.
//! - It holds the whole flow and its gate, not a hash of them: no flow passes as another.
//! - The tick is read before the session, so it is no later than what the entry follows from.
//! - A grant that is removed may admit packets by an entry until the next tick. So whoever removes one waits for that tick before
//!   saying that it has ended.
//! - A packet that may close a connection is judged by its session, and so are those behind it while the session is closing. A packet
//!   that begins a connection makes its CPU forget the flow, as the session is to note that others follow.
//!
//! Flows of IPv6 are not remembered. A packet of IPv6 can have been read in many ways, and the verifier would follow this for each.

#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::tag;
use crate::{Address, Env, frame::Segment, seed::GOLDEN};

/// A flow of IPv4 that has passed a gate. Two entries fill one line of the processor's cache.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Recent {
    /// [`Env::tick`] when its session and its grant were live; 0: there is no flow.
    tick: u64,
    /// Source, and destination from the 32nd bit on.
    ends: u64,
    /// From the lowest bit: its [`PortPair`](crate::frame::PortPair), 16 bits of the gate, and the IP protocol.
    rest: u64,
    zero: u64,
}

records!(Recent: 32 { tick: 0, ends: 8, rest: 16, zero: 24 });

/// Entries of each CPU: 128 KiB. With 1,000 flows at a time, four of five have one for themselves.
pub const ENTRIES: u32 = 1 << ENTRY_BITS;
const ENTRY_BITS: u32 = 12;

/// Where the flow of a packet is remembered on this CPU, if it is.
///
/// All of it is set where there is no such entry, too. For an `Option` of this, the compiler would leave registers unset that the
/// verifier takes for used.
pub struct Place<'e> {
    entry: Option<&'e mut Recent>,
    flow: Recent,
}

impl<'e> Place<'e> {
    /// Returns the place of the flow of a packet at a gate.
    #[inline(always)]
    pub fn of<E: Env, A: Address>(env: &'e E, segment: &Segment<A>, gate: u16) -> Self {
        let (source, _) = segment.source.padded().words();
        let (destination, _) = segment.destination.padded().words();
        let flow = Recent {
            tick: env.tick(),
            ends: source | destination << 32,
            rest: u64::from(segment.ports.to_bits())
                | u64::from(gate) << 32
                | u64::from(segment.protocol) << 48,
            zero: 0,
        };
        let entry = entry(env, segment);
        Self { entry, flow }
    }

    /// Returns whether the flow has passed the gate since the last tick.
    #[inline(always)]
    pub fn has_passed(&self) -> bool {
        let Self { entry, flow } = self;
        entry.as_ref().is_some_and(|entry| {
            (entry.tick ^ flow.tick) | (entry.ends ^ flow.ends) | (entry.rest ^ flow.rest) == 0
        })
    }

    /// Remembers that the flow passes the gate.
    #[inline(always)]
    pub const fn passes(self) {
        if let Some(entry) = self.entry {
            *entry = self.flow;
        }
    }

    /// Forgets the flow, and any other that has this place.
    #[inline(always)]
    pub const fn forget(self) {
        if let Some(entry) = self.entry {
            entry.tick = 0;
        }
    }
}

/// Returns the entry in which the flow of a packet is remembered. It is found without a seed: only flows under a grant are
/// remembered, and one whose entry another takes passes all the same.
#[inline(always)]
fn entry<'e, E: Env, A: Address>(env: &'e E, segment: &Segment<A>) -> Option<&'e mut Recent> {
    if A::BITS > 32 {
        return None;
    }
    let (source, destination) = (segment.source.padded(), segment.destination.padded());
    let tag = tag(source, destination, segment.ports.to_bits());
    env.recent((tag.wrapping_mul(GOLDEN) >> (u64::BITS - ENTRY_BITS)) as u32)
}
