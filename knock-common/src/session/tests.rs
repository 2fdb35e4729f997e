use core::net::Ipv4Addr;

use bytemuck::Zeroable as _;

use super::{
    lookup::{find, goes_on, retransmits},
    remember::{held, holder, remember},
    *,
};
use crate::{
    frame::{TCP, UDP, flag},
    rules::GateRules,
    testing::{TestEnv, segment_of, socket_of},
    time::is_within,
};

const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const SECOND: u64 = 1_000_000_000;
const CLOSE_WAIT: u32 = 8;
const IDLE: u64 = 3600 * SECOND;

fn env(sessions: usize) -> TestEnv {
    let mut env = TestEnv::new(1, sessions);
    env.gates.push(GateRules {
        open_for: SECOND,
        session_idle: IDLE,
        connections: 0,
        to_prefix: 0,
        restricted: 0,
        reject: 0,
        zero: 0,
    });
    env
}

fn flow(source_port: u16) -> Flow<V4> {
    Flow {
        source: SOURCE.into(),
        destination: Ipv4Addr::new(192, 0, 2, 1).into(),
        ports: PortPair::new(source_port, 22),
        protocol: u32::from(TCP),
    }
}

/// Returns the session of a flow, if it has one.
fn session<'e>(env: &'e TestEnv, flow: &Flow<V4>) -> Option<&'e mut Session> {
    Some(table::find(env, flow)?.session)
}

fn begin_at(env: &TestEnv, source_port: u16) -> bool {
    begin_of(env, SOURCE, source_port)
}

fn remember_flow(env: &TestEnv, flow: &Flow<V4>, gate: u16, initial: u32) -> bool {
    remember(env, &segment_of(flow), gate, initial)
}

fn begin_of(env: &TestEnv, source: Ipv4Addr, source_port: u16) -> bool {
    let source = source.into();
    remember_flow(
        env,
        &Flow {
            source,
            ..flow(source_port)
        },
        0,
        0,
    )
}

/// The host's socket for this flow is in this state.
fn now_in(env: &TestEnv, source_port: u16, state: u32) {
    let key = socket_of(&flow(source_port));
    env.sockets.borrow_mut().insert(key, state);
}

/// A packet with these flags, while the host's socket is in this state; false where there is no
/// session, or none any more.
fn packet(env: &TestEnv, source_port: u16, flags: u8, state: u32) -> bool {
    packet_of(env, SOURCE, source_port, flags, state)
}

fn packet_of(env: &TestEnv, source: Ipv4Addr, source_port: u16, flags: u8, state: u32) -> bool {
    let flow = Flow {
        source: source.into(),
        ..flow(source_port)
    };
    let key = socket_of(&flow);
    env.sockets.borrow_mut().insert(key, state);
    let Some((session, now)) = find(env, &flow, 0) else {
        return false;
    };
    let goes_on = goes_on(env, &segment_of(&flow), session, flags, now);
    if goes_on {
        seen(session, now);
    }
    goes_on
}

#[test]
fn a_session_is_over_once_its_socket_is() {
    for end in [flag::FIN | flag::ACK, flag::RST, flag::RST | flag::ACK] {
        for state in [
            socket::NONE,
            socket::TIME_WAIT,
            socket::CLOSE,
            socket::LISTEN,
        ] {
            let env = env(4);
            assert!(begin_at(&env, 1));
            assert!(packet(&env, 1, flag::ACK, socket::ESTABLISHED));
            assert!(packet(&env, 1, end, socket::ESTABLISHED));
            assert!(!packet(&env, 1, flag::ACK, state), "{end:#x} {state}");
            // Nor does it come back.
            assert!(!packet(&env, 1, flag::ACK, socket::ESTABLISHED));
        }
    }
}

#[test]
fn a_session_goes_on_while_its_socket_does() {
    let env = env(4);
    assert!(begin_at(&env, 1));
    for flags in [flag::RST, flag::FIN, flag::ACK, flag::FIN | flag::ACK, 0] {
        assert!(packet(&env, 1, flags, socket::ESTABLISHED), "{flags:#x}");
        assert!(packet(&env, 1, flags, CLOSE_WAIT), "{flags:#x}");
    }
}

/// Its socket is another host's, so nothing is known of it.
#[test]
fn a_forwarded_flow_ends_by_being_idle_alone() {
    let env = env(4);
    assert!(begin_at(&env, 1));
    assert!(packet(&env, 1, flag::FIN | flag::ACK, socket::NONE));
    assert!(packet(&env, 1, flag::ACK, socket::NONE));
    env.advance(IDLE - 1);
    assert!(packet(&env, 1, flag::ACK, socket::NONE));
    env.advance(IDLE);
    assert!(!packet(&env, 1, flag::ACK, socket::NONE));
}

#[test]
fn a_flow_lives_as_long_as_its_own_gate_says() {
    let mut env = env(4);
    env.least_idle = IDLE;
    env.gates.push(GateRules {
        session_idle: 2 * IDLE,
        ..env.gates[0]
    });
    for gate in [0, 1] {
        assert!(remember_flow(&env, &flow(gate), gate, 0));
    }
    let lives = |gate| find(&env, &flow(gate), gate).is_some();
    for (time, expected) in [
        (0, [true, true]),
        (IDLE - 1, [true, true]),
        (IDLE, [false, true]),
        (2 * IDLE - 1, [false, true]),
        (2 * IDLE, [false, false]),
    ] {
        env.now.set(env.now.get() + time);
        assert_eq!([lives(0), lives(1)], expected, "after {time} ns");
        env.now.set(env.now.get() - time);
    }
    assert!(find(&env, &flow(0), 1).is_none(), "it is of another gate");
}

/// The host closed first, so the client's FIN finds a socket that only waits for it.
#[test]
fn a_fin_to_a_waiting_socket_is_the_last_of_its_flow() {
    let env = env(4);
    assert!(begin_at(&env, 1));
    assert!(packet(&env, 1, flag::FIN | flag::ACK, socket::TIME_WAIT));
    assert!(!packet(&env, 1, flag::ACK, socket::TIME_WAIT));
}

#[test]
fn half_open_flows_give_way_and_others_do_not() {
    let env = env(16);
    for kept in 0..3 {
        assert!(begin_at(&env, kept));
        assert!(packet(&env, kept, flag::ACK, socket::ESTABLISHED));
    }
    for flood in 100..2000 {
        assert!(begin_at(&env, flood), "there is room for {flood}");
    }
    for kept in 0..3 {
        assert!(packet(&env, kept, flag::ACK, socket::ESTABLISHED), "{kept}");
    }
    assert!(begin_at(&env, 5));
    assert!(packet(&env, 5, flag::ACK, socket::ESTABLISHED));
    assert_eq!(env.sessions().len(), 16);
}

#[test]
fn a_full_table_refuses_until_a_flow_has_ended() {
    let env = env(8);
    for kept in 0..8 {
        assert!(begin_at(&env, kept));
        assert!(packet(&env, kept, flag::ACK, socket::ESTABLISHED));
    }
    assert!(!begin_at(&env, 8), "all go on");
    assert!(packet(&env, 3, flag::FIN | flag::ACK, socket::ESTABLISHED));
    now_in(&env, 3, CLOSE_WAIT);
    env.advance(60 * SECOND);
    assert!(!begin_at(&env, 8), "it may have a half to go on with");
    now_in(&env, 3, socket::NONE);
    assert!(begin_at(&env, 8), "the env has closed it");
    env.advance(IDLE);
    for new in 20..28 {
        assert!(begin_at(&env, new), "all have been idle for too long");
    }
}

/// Nor is there anything that a forged packet could have made of it.
#[test]
fn a_reset_that_the_host_ignores_changes_nothing() {
    for forged in [
        flag::RST,
        flag::RST | flag::ACK,
        flag::FIN,
        flag::FIN | flag::ACK,
    ] {
        let env = env(8);
        for kept in 0..8 {
            assert!(begin_at(&env, kept));
            assert!(packet(&env, kept, flag::ACK, socket::ESTABLISHED));
            assert!(packet(&env, kept, forged, socket::ESTABLISHED));
        }
        env.advance(120 * SECOND);
        assert!(
            !begin_at(&env, 8),
            "{forged:#x}: all go on, though no packet came"
        );
        for kept in 0..8 {
            assert!(packet(&env, kept, flag::ACK, socket::ESTABLISHED));
            let session = session(&env, &flow(kept)).unwrap();
            assert!(!session.is_closing(), "{forged:#x}");
        }
    }
}

/// The host may look at a FIN later than the next packet is judged.
#[test]
fn a_fin_is_not_forgotten_at_once() {
    let env = env(8);
    assert!(begin_at(&env, 1));
    assert!(packet(&env, 1, flag::FIN | flag::ACK, socket::ESTABLISHED));
    env.advance(SECOND / 2);
    assert!(packet(&env, 1, flag::ACK, socket::ESTABLISHED));
    assert!(!packet(&env, 1, flag::ACK, socket::TIME_WAIT));
}

/// A SYN may be forged just as well, on the ports of a connection that goes on.
#[test]
fn a_syn_makes_no_flow_give_way() {
    let env = env(8);
    for kept in 0..8 {
        assert!(begin_at(&env, kept));
        assert!(packet(&env, kept, flag::ACK, socket::ESTABLISHED));
        assert!(begin_at(&env, kept), "it is there already");
    }
    assert!(!begin_at(&env, 8), "all go on");
    for kept in 0..8 {
        assert!(packet(&env, kept, flag::ACK, socket::ESTABLISHED));
    }
}

/// The ports of a connection that is over are used again, and the host keeps no socket while it waits for the
/// answer (SYN cookies).
#[test]
fn a_new_connection_on_old_ports_is_not_over() {
    let env = env(8);
    assert!(begin_at(&env, 1));
    assert!(packet(&env, 1, flag::RST, socket::ESTABLISHED));
    now_in(&env, 1, socket::LISTEN);
    assert!(begin_at(&env, 1));
    assert!(packet(&env, 1, flag::ACK, socket::LISTEN));
    assert!(packet(&env, 1, flag::ACK, socket::ESTABLISHED));
}

/// Whatever a client sends: only the host knows whether there is a connection.
#[test]
fn flows_that_the_host_has_not_established_give_way() {
    for state in [
        socket::NONE,
        socket::SYN_SENT,
        socket::SYN_RECEIVED,
        socket::TIME_WAIT,
        socket::CLOSE,
        socket::LISTEN,
        socket::REQUESTED,
    ] {
        let env = env(8);
        for bogus in 0..8 {
            assert!(begin_at(&env, bogus));
            packet(&env, bogus, flag::ACK, state);
            packet(&env, bogus, flag::ACK, state);
        }
        assert!(begin_at(&env, 8), "{state}");
        assert!(begin_of(&env, OTHER, 1), "{state}");
    }
}

/// A source that fills the table, by real connections, does so for itself alone.
#[test]
fn who_holds_more_than_a_share_makes_room() {
    // As many as a new flow searches for a free one.
    const SLOTS: usize = 448;
    let env = env(SLOTS);
    for real in 0..SLOTS as u16 {
        assert!(begin_at(&env, real));
        assert!(packet(&env, real, flag::ACK, socket::ESTABLISHED));
    }
    assert!(!begin_at(&env, 1000), "it has no more room itself");
    for own in 0..20 {
        assert!(begin_of(&env, OTHER, own), "there is room for {own}");
        assert!(packet_of(&env, OTHER, own, flag::ACK, socket::ESTABLISHED));
    }
    for more in 1000..3000 {
        begin_at(&env, more);
    }
    for own in 0..20 {
        assert!(
            packet_of(&env, OTHER, own, flag::ACK, socket::ESTABLISHED),
            "{own}"
        );
    }
    let left = env.sessions().len();
    assert_eq!(left, SLOTS, "no slot is left empty");
}

/// SYNs in the name of a source that has a grant, from someone off the path, do not end what is established.
#[test]
fn a_source_in_whose_name_the_table_was_filled_keeps_what_is_established() {
    let env = env(448);
    for real in 0..5 {
        assert!(begin_at(&env, real));
        assert!(packet(&env, real, flag::ACK, socket::ESTABLISHED));
    }
    for forged in 1000..3000 {
        assert!(begin_at(&env, forged));
        now_in(&env, forged, socket::NONE);
    }
    for other in 0..200 {
        assert!(begin_of(&env, OTHER, other), "there is room for {other}");
    }
    for real in 0..5 {
        assert!(packet(&env, real, flag::ACK, socket::ESTABLISHED), "{real}");
    }
}

/// Half open, forwarded and UDP flows, which the host can say nothing of, are pushed out by nobody who holds
/// more than their source.
#[test]
fn a_flood_of_one_source_pushes_out_its_own_flows_alone() {
    // So many that each slot is looked at at each try.
    let env = env(61);
    let udp = Flow {
        protocol: u32::from(UDP),
        source: OTHER.into(),
        ..flow(1)
    };
    assert!(remember_flow(&env, &udp, 0, 0));
    assert!(begin_of(&env, OTHER, 2));
    for flood in 0..5000 {
        assert!(begin_at(&env, flood));
        let udp = Flow {
            protocol: u32::from(UDP),
            ..flow(flood)
        };
        assert!(remember_flow(&env, &udp, 0, 0));
    }
    assert!(session(&env, &udp).is_some());
    assert!(packet_of(&env, OTHER, 2, flag::ACK, socket::NONE));
}

/// What is counted of a holder is what it has.
#[test]
fn slots_are_counted_out_as_they_were_counted_in() {
    let env = env(16);
    for round in 0..2000_u16 {
        begin_at(&env, round);
        begin_of(&env, OTHER, round % 7);
        if round % 3 == 0 {
            table::remove(&env, &flow(round));
        }
        let counted: u32 = env
            .session_counts
            .rows()
            .iter()
            .map(|(_, held)| *held)
            .sum();
        assert!(counted <= 16, "{counted} in round {round}");
    }
    let holders = [SOURCE, OTHER].map(|source| {
        let flow = Flow {
            source: source.into(),
            ..flow(1)
        };
        held(&env, holder(&env, flow.source, 0))
    });
    assert_eq!(holders[0] + holders[1], 16, "{holders:?}");
}

#[test]
fn a_grant_to_a_prefix_has_one_share() {
    let mut env = env(16);
    let of = |env: &TestEnv, source: Ipv4Addr| {
        let flow = Flow {
            source: source.into(),
            ..flow(1)
        };
        holder(env, flow.source, 0)
    };
    assert_ne!(of(&env, SOURCE), of(&env, NEIGHBOUR));
    env.gates[0].to_prefix = 1;
    assert_eq!(of(&env, SOURCE), of(&env, NEIGHBOUR));
    assert_ne!(of(&env, SOURCE), of(&env, OTHER));
}

#[test]
fn flows_to_foreign_addresses_are_not_remembered() {
    let mut env = env(16);
    let [own, forwarded, foreign] = [1, 2, 3].map(|last| Flow::<V4> {
        destination: Ipv4Addr::new(192, 0, 2, last).into(),
        ..flow(1)
    });
    assert!(remember_flow(&env, &foreign, 0, 0));
    assert_eq!(env.sessions().len(), 1, "not all addresses are known");
    table::remove(&env, &foreign);

    env.own = Some([(4, own.destination.padded())].into());
    env.forwarded.insert((4, forwarded.destination.padded()));
    for flow in [own, forwarded, foreign] {
        assert!(remember_flow(&env, &flow, 0, 0), "that is no lack of room");
    }
    assert!(session(&env, &own).is_some());
    assert!(session(&env, &forwarded).is_some());
    assert!(session(&env, &foreign).is_none());
}

#[test]
fn a_syn_is_a_retransmission_until_anything_else_has_come() {
    let env = env(4);
    let session = |env: &TestEnv| *session(env, &flow(1)).unwrap();
    assert!(remember_flow(&env, &flow(1), 0, 7));
    assert!(retransmits(&session(&env), flag::SYN, 7));
    assert!(!retransmits(&session(&env), flag::SYN, 8));
    assert!(!retransmits(&session(&env), flag::SYN | flag::RST, 7));
    assert!(!retransmits(&session(&env), flag::SYN | flag::FIN, 7));
    for flags in [flag::ACK, flag::RST, flag::RST | flag::ACK, 0] {
        assert!(remember_flow(&env, &flow(1), 0, 7));
        packet(&env, 1, flags, socket::REQUESTED);
        assert!(!retransmits(&session(&env), flag::SYN, 7), "{flags:#x}");
    }
}

#[test]
fn idle_time_is_told_across_the_boot_and_between_cpus() {
    const HOUR: u64 = 3600 * 1_000_000_000;
    let session = |last| Session {
        last,
        ..Session::zeroed()
    };
    for (last, now, idle) in [
        (HOUR, HOUR, 0),
        (HOUR, 2 * HOUR, HOUR),
        // Another CPU's clock has ticked already.
        (HOUR + 4_000_000, HOUR, 0),
        // An hour before a boot that was a second ago.
        (
            0_u64.wrapping_sub(HOUR),
            1_000_000_000,
            HOUR + 1_000_000_000,
        ),
    ] {
        assert_eq!(session(last).idle(now), idle, "{last} {now}");
        assert!(is_within(last, now, idle + 1), "{last} {now}");
        assert!(idle == 0 || !is_within(last, now, idle), "{last} {now}");
    }
}

#[test]
fn a_session_says_no_longer_that_its_grant_lives_than_it_does() {
    let unit = 1 << GRANTED_SHIFT;
    for until in [0, 1, unit - 1, unit, 7 * unit + unit / 2] {
        let mut session = Session::zeroed();
        session.set_granted(until);
        assert!(!session.has_more() && !session.is_granted(until), "{until}");
        let before = until.saturating_sub(unit);
        assert_eq!(session.is_granted(before), until >= unit, "{until}");
    }
    let mut endless = Session::zeroed();
    // The lower 31 bits of the second in that unit are 0.
    for until in [u64::MAX, 1 << (GRANTED_SHIFT + u32::BITS - 1)] {
        endless.set_granted(until);
        assert!(endless.is_granted((1 << 58) - (2 << GRANTED_SHIFT)));
    }
}
