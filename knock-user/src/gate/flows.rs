//! Flows whose grant has been changed by hand.

use std::net::IpAddr;

use anyhow::Result;
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use ipnet::IpNet;
use knock_common::{
    Address,
    session::{Flow, Session},
};

use super::{
    batch,
    tables::{absent_as_none, data},
};

/// `BPF_EXIST` of `linux/bpf.h`: change an entry, never make one.
const EXIST: u64 = 2;

/// Has the flows from within `network` at `gate` look for their grant again: each knows until when the one
/// that it was admitted under lives, and that may be sooner now.
pub fn look_again<A: Address>(
    sessions: &mut HashMap<MapData, Flow<A>, Session>,
    network: IpNet,
    gate: u16,
) -> Result<()>
where
    Flow<A>: Pod,
{
    let mut changed = Vec::new();
    batch::for_each(data(sessions), |flow: &Flow<A>, session: &Session| {
        let source: IpAddr = flow.source.into();
        if session.gate == gate && network.contains(&source) {
            let session = Session {
                granted_until: 0,
                ..*session
            };
            changed.push((*flow, session));
        }
    })?;
    for (flow, session) in changed {
        // The time of a packet that came since it was read is lost: the flow may end that much earlier.
        absent_as_none(sessions.insert(flow, session, EXIST))?;
    }
    Ok(())
}
