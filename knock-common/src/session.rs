//! Sessions: flows that began under a grant and go on past it (`established = "keep"`).
//!
//! They end after `session_idle` without a packet. A ring of slots bounds their number as it does
//! for grants; where it is full, a new flow lives as long as its grant does.

use crate::{
    Address, Kernel, Table,
    address::{V4, V6},
    table::{Flow, Session, SessionSlot},
};

/// How many slots a new flow looks at before it gives up.
const TRIES: usize = 8;

/// The session of `flow` at `gate`, unless it has been idle for the gate's `session_idle` or more.
#[inline(always)]
pub fn find<'k, K: Kernel, A: Address>(
    kernel: &'k K,
    flow: &Flow<A>,
    gate: u16,
) -> Option<&'k mut Session> {
    let session = A::sessions(kernel).find(flow)?;
    let idle = kernel.now().saturating_sub(session.last);
    let ours = session.tag == flow.tag() && session.gate == u32::from(gate);
    (ours && idle < kernel.gate(gate)?.session_idle).then_some(session)
}

/// Remembers a flow that a grant living until `granted_until` has admitted. `initial`: its TCP
/// client's initial sequence number.
#[inline(never)]
pub fn remember<K: Kernel, A: Address>(
    kernel: &K,
    flow: &Flow<A>,
    gate: u16,
    initial: u32,
    granted_until: u64,
) {
    let now = kernel.now();
    let sessions = A::sessions(kernel);
    if let Some(session) = sessions.find(flow)
        && session.tag == flow.tag()
    {
        session.last = now;
        session.granted_until = granted_until;
        session.initial = initial;
        session.gate = u32::from(gate);
        return;
    }
    let Some(slot) = claim(kernel, flow, now) else {
        return;
    };
    sessions.insert(
        flow,
        &Session {
            last: now,
            tag: flow.tag(),
            granted_until,
            initial,
            slot,
            gate: u32::from(gate),
            zero: 0,
        },
    );
}

/// Takes a slot for `flow`, whose former owner has been idle too long.
#[inline(always)]
fn claim<K: Kernel, A: Address>(kernel: &K, flow: &Flow<A>, now: u64) -> Option<u32> {
    for _ in 0..TRIES {
        let (index, slot) = kernel.next_session_slot()?;
        let free = match slot.family {
            4 => vacate::<K, V4>(kernel, slot, index, now),
            6 => vacate::<K, V6>(kernel, slot, index, now),
            _ => true,
        };
        if free {
            *slot = SessionSlot {
                source: flow.source.padded(),
                destination: flow.destination.padded(),
                source_port: flow.source_port,
                destination_port: flow.destination_port,
                protocol: flow.protocol as u16,
                family: u16::from(A::FAMILY),
            };
            return Some(index);
        }
    }
    None
}

/// Is the slot free, or could it be freed?
#[inline(always)]
fn vacate<K: Kernel, A: Address>(kernel: &K, slot: &SessionSlot, index: u32, now: u64) -> bool {
    let flow = Flow::<A> {
        source: A::unpadded(slot.source),
        destination: A::unpadded(slot.destination),
        source_port: slot.source_port,
        destination_port: slot.destination_port,
        protocol: u32::from(slot.protocol),
    };
    let sessions = A::sessions(kernel);
    let Some(owner) = sessions.find(&flow) else {
        return true;
    };
    if owner.slot != index || owner.tag != flow.tag() {
        return true;
    }
    let idle = kernel
        .gate(owner.gate as u16)
        .is_none_or(|rules| now.saturating_sub(owner.last) >= rules.session_idle);
    if idle {
        sessions.remove(&flow);
    }
    idle
}
