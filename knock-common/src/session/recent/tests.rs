use core::net::{Ipv4Addr, Ipv6Addr};

use bytemuck::Zeroable as _;

use super::*;
use crate::{
    Reason,
    address::{V4, V6},
    frame::{PortPair, TCP, UDP, flag},
    grant::{GrantKey, give, table as grants},
    judge,
    memory::SessionMemory as _,
    rules::{GateRules, PortRole, Role},
    session::{Flow, Session, socket, table},
    testing::{TestEnv, segment_of, socket_of},
};

const SECOND: u64 = 1_000_000_000;
const PORT: u16 = 22;

/// A host with a gate for TCP and UDP, whose grants last for ten seconds.
fn env() -> TestEnv {
    let mut env = TestEnv::new(4, 4);
    env.gates.push(GateRules {
        open_for: 10 * SECOND,
        session_idle: 3600 * SECOND,
        ..GateRules::zeroed()
    });
    for is_udp in [false, true] {
        let role = PortRole::of(Role::Protected { gate: 0 });
        env.roles[Role::index(is_udp, PORT) as usize] = role.packed();
    }
    env
}

fn v4(source: u8) -> Flow<V4> {
    flow(
        Ipv4Addr::new(198, 51, 100, source).into(),
        Ipv4Addr::new(192, 0, 2, 1).into(),
    )
}

fn v6(source: u16) -> Flow<V6> {
    flow(
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, source).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into(),
    )
}

fn flow<A: Address>(source: A, destination: A) -> Flow<A> {
    Flow {
        source,
        destination,
        ports: PortPair::new(4000, PORT),
        protocol: u32::from(TCP),
    }
}

fn packet<A: Address>(env: &TestEnv, flow: &Flow<A>, flags: u8, sequence: u32) -> Reason {
    let segment = segment_of(flow);
    judge::segment(env, &[0_u8; 0][..], &segment, || (flags, sequence)).reason
}

fn session<'e>(env: &'e TestEnv, flow: &Flow<V4>) -> &'e mut Session {
    table::find(env, flow)
        .expect("it has begun and goes on")
        .session
}

fn is_remembered(env: &TestEnv, flow: &Flow<V4>) -> bool {
    Place::of(env, &segment_of(flow), 0).has_passed()
}

/// Gives the source of a flow a grant, and begins the flow, whose client has sent data since.
fn begun(env: &TestEnv, flow: &Flow<V4>) {
    give::give(env, &flow.source, &give::Terms::of(0, 0), env.now.get());
    let key = socket_of(flow);
    env.sockets.borrow_mut().insert(key, socket::ESTABLISHED);
    assert_eq!(packet(env, flow, flag::SYN, 7), Reason::Grant);
    assert!(!is_remembered(env, flow));
    // This one looks the grant up, and the next one needs not.
    assert_eq!(packet(env, flow, flag::ACK, 8), Reason::Grant);
    assert!(!is_remembered(env, flow));
    assert_eq!(packet(env, flow, flag::ACK, 8), Reason::Grant);
    assert!(is_remembered(env, flow));
}

/// Ends the grant and the session of a flow, as a command does, but does not wait for a tick.
fn revoke<A: Address>(env: &TestEnv, flow: &Flow<A>) {
    assert!(grants::remove(env, &GrantKey::whole(flow.source, 0)));
    for slot in 0..env.session_slots() {
        let tenancy = env.session(slot).expect("a slot of the table").tenancy;
        table::end(env, slot, tenancy);
    }
    assert!(table::find(env, flow).is_none());
}

#[test]
fn what_has_passed_passes_until_the_next_tick() {
    let (env, flow) = (env(), v4(7));
    begun(&env, &flow);
    revoke(&env, &flow);
    assert_eq!(packet(&env, &flow, flag::ACK, 9), Reason::Grant);
    env.pass_tick();
    assert_eq!(packet(&env, &flow, flag::ACK, 9), Reason::NoGrant);
    assert!(!is_remembered(&env, &flow));
}

#[test]
fn no_flow_passes_as_another() {
    let (env, flow) = (env(), v4(7));
    begun(&env, &flow);
    let segment = segment_of(&flow);
    // Wherever others are looked for.
    let remembered = *entry(&env, &segment).expect("it is of IPv4");
    for index in 0..ENTRIES {
        *env.recent(index).expect("an entry of the table") = remembered;
    }
    assert!(is_remembered(&env, &flow));
    let others = [
        v4(8),
        Flow {
            destination: flow.source,
            ..flow
        },
        Flow {
            source: flow.destination,
            destination: flow.source,
            ..flow
        },
        Flow {
            ports: PortPair::new(4001, PORT),
            ..flow
        },
        Flow {
            ports: PortPair::new(4000, PORT + 1),
            ..flow
        },
        Flow {
            protocol: u32::from(UDP),
            ..flow
        },
    ];
    for other in others {
        assert!(!is_remembered(&env, &other), "{other:?}");
    }
    assert!(!Place::of(&env, &segment, 1).has_passed());
}

#[test]
fn a_flow_of_ipv6_is_looked_up_each_time() {
    let (env, flow) = (env(), v6(7));
    give::give(&env, &flow.source, &give::Terms::of(0, 0), env.now.get());
    for (flags, sequence) in [(flag::SYN, 7), (flag::ACK, 8), (flag::ACK, 8)] {
        assert_eq!(packet(&env, &flow, flags, sequence), Reason::Grant);
    }
    revoke(&env, &flow);
    assert_eq!(packet(&env, &flow, flag::ACK, 9), Reason::NoGrant);
}

#[test]
fn a_flow_that_closes_is_judged_by_its_session() {
    for flags in [flag::FIN | flag::ACK, flag::RST] {
        let (env, flow) = (env(), v4(7));
        begun(&env, &flow);
        assert_eq!(packet(&env, &flow, flags, 9), Reason::Grant);
        assert!(session(&env, &flow).is_closing());
        for _ in 0..3 {
            assert!(!is_remembered(&env, &flow));
            assert_eq!(packet(&env, &flow, flag::ACK, 10), Reason::Grant);
        }
        // The host has closed its socket too.
        env.sockets.borrow_mut().remove(&socket_of(&flow));
        assert_eq!(packet(&env, &flow, flag::ACK, 10), Reason::Grant);
        assert!(table::find(&env, &flow).is_none());
    }
}

#[test]
fn a_flow_whose_end_the_host_does_not_honour_goes_on() {
    let (env, flow) = (env(), v4(7));
    begun(&env, &flow);
    env.sockets.borrow_mut().remove(&socket_of(&flow));
    assert_eq!(packet(&env, &flow, flag::RST, 9), Reason::Grant);
    assert!(is_remembered(&env, &flow));
}

#[test]
fn a_new_connection_on_the_same_ports_is_followed_by_its_session() {
    let (env, flow) = (env(), v4(7));
    begun(&env, &flow);
    assert!(session(&env, &flow).has_more());
    // Whether this SYN comes again depends on what has come since.
    assert_eq!(packet(&env, &flow, flag::SYN, 1000), Reason::Grant);
    assert!(!session(&env, &flow).has_more());
    assert_eq!(packet(&env, &flow, flag::ACK, 1001), Reason::Grant);
    assert!(session(&env, &flow).has_more());
}

#[test]
fn a_flow_whose_grant_has_ended_is_not_remembered() {
    let (env, flow) = (env(), v4(7));
    begun(&env, &flow);
    env.advance(11 * SECOND);
    for _ in 0..3 {
        assert_eq!(packet(&env, &flow, flag::ACK, 9), Reason::Session);
        assert!(!is_remembered(&env, &flow));
    }
}
