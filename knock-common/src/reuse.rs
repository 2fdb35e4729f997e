//! A kernel table may give an entry to another key while a packet still reads it. What was found then carries
//! the other key's tag, and must count as nothing. No stream of packets on one CPU gets there.

use core::net::Ipv4Addr;

use bytemuck::Zeroable as _;

use crate::{
    Address as _, Table as _,
    address::V4,
    frame::{Segment, UDP},
    grant,
    host::Host,
    knock::{self, Outcome},
    session,
    table::{
        Flow, GateRules, Grant, GrantKey, Progress, Sequence, Session, State, Step, Transition,
    },
};

/// Two sources; what is found under the first's keys may be the second's.
const SOURCES: [Ipv4Addr; 2] = [
    Ipv4Addr::new(198, 51, 100, 7),
    Ipv4Addr::new(198, 51, 100, 8),
];
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn host() -> Host {
    let mut host = Host::new(4, 4);
    host.gates.push(GateRules {
        open_for: 1_000_000_000,
        session_idle: 1_000_000_000,
        ..GateRules::zeroed()
    });
    host
}

#[test]
fn a_grant_of_another_source_lets_nobody_pass() {
    let host = host();
    let [key, other] = SOURCES.map(|source| GrantKey::<V4>::whole(source.into(), 0));
    let found = Grant {
        until: u64::MAX,
        tag: other.tag(),
        ..Grant::zeroed()
    };
    assert!(grant::insert(&host, &key, &found));
    assert!(grant::live(&host, &key.address, 0).is_none());
    // Nor is it renewed: that would let the other source in for longer.
    assert_eq!(grant::give(&host, &key.address, 0, 0), None);

    host.grants_v4.find(&key).unwrap().tag = key.tag();
    assert!(grant::live(&host, &key.address, 0).is_some());
    assert_eq!(grant::give(&host, &key.address, 0, 0), Some(u64::MAX));
}

#[test]
fn a_flow_of_another_source_keeps_nobody_in() {
    let host = host();
    let [flow, other] = SOURCES.map(|source| Flow::<V4> {
        source: source.into(),
        destination: HOST.into(),
        source_port: 4000,
        destination_port: 22,
        protocol: 6,
    });
    let found = Session {
        last: host.now.get(),
        tag: other.tag(),
        ..Session::zeroed()
    };
    assert!(host.sessions_v4.insert(&flow, &found));
    assert!(session::find(&host, &flow, 0, &host.gates[0]).is_none());

    host.sessions_v4.find(&flow).unwrap().tag = flow.tag();
    assert!(session::find(&host, &flow, 0, &host.gates[0]).is_some());
}

#[test]
fn progress_of_another_source_takes_nobody_further() {
    let mut host = host();
    // Two knocks; the state behind the first has number 1.
    let state = |depth, completes| State {
        within: 1000,
        of: 2,
        depth,
        completes,
        ..State::zeroed()
    };
    host.states = vec![state(0, 0), state(1, 0), state(2, 1)];
    let second = Transition {
        state: 1,
        symbol: 1,
    };
    host.transitions.insert(second, 2);
    host.sequences.push(Sequence {
        within: 1000,
        length: 2,
        gate: 0,
    });
    let [key, other] = SOURCES.map(|source| V4::from(source).source_key());
    let mut found = Progress {
        tag: other.tag(),
        last: host.now.get(),
        state: 1,
        counted: 1,
        ..Progress::zeroed()
    };
    found.steps[0] = Step {
        time: (host.now.get() >> crate::table::TICK_SHIFT) as u32,
        source_port: 4000,
        symbol: 0,
    };
    assert!(host.progress.insert(&key, &found));
    let knocked = |host: &Host| {
        let probe = Segment {
            source: V4::from(SOURCES[0]),
            destination: HOST.into(),
            source_port: 4001,
            destination_port: 9000,
            protocol: UDP,
            transport: 34,
        };
        knock::knock(host, &probe, 1, false);
        host.counted(0, Outcome::Opened)
    };
    assert_eq!(knocked(&host), 0);

    host.progress.find(&key).unwrap().tag = key.tag();
    assert_eq!(knocked(&host), 1);
}
