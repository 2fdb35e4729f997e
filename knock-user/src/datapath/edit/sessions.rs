//! Sessions whose grant has been changed by hand.

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

use crate::{
    datapath::tables::{absent_as_none, data},
    sys::bpf::batch,
};

/// `BPF_EXIST` of `linux/bpf.h`: change an entry, never make one.
const EXIST: u64 = 2;

/// Makes the sessions from within `network` at `gate` look up their grant again: each caches when the grant that
/// admitted it ends, which may be earlier now.
pub(super) fn look_up_again<A: Address>(
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
        // The time of a packet that has come since it was read is lost, so the session may end that much earlier.
        absent_as_none(sessions.insert(flow, session, EXIST))?;
    }
    Ok(())
}
