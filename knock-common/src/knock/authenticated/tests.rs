//! Knocks made by other people's crates, and what becomes of them and of every alteration.

mod opening;

use core::net::{Ipv4Addr, Ipv6Addr};

use bytemuck::Zeroable as _;

use super::{
    key::{HostSecret, KEY_USER, Key, state},
    message::{LENGTH, MOST_PADDING, flag},
    outcome::Outcome,
    sha256::Midstates,
    verify::WRONG,
};
use crate::{
    Env as _, Reason,
    address::{V4, V6},
    event::{Cause, Kind},
    frame::{TCP, UDP, link::Ethernet},
    grant::find,
    judge::judge,
    rules::{GateRules, PortRole, Role},
    testing::{TestEnv, knock::Knock},
};

const SECOND: u64 = 1_000_000_000;
const PORT: u16 = 41_641;
const SLOT: u16 = 3;
const KEY: [u8; 32] = *b"the key of alice for this host..";
const HOST: [u8; 16] = *b"the host's own..";
const EARLIER: [u8; 16] = *b"the one before..";
const ALICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const EVE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
const ALICE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
/// As a knock names the gate.
const SSH: u32 = 0x7373_6800;

fn knock(time: u64) -> Knock {
    Knock {
        host: HOST,
        key: KEY,
        slot: SLOT,
        ..Knock::at(time)
    }
}

/// Lists the addresses of both families.
fn for_both(time: u64) -> Knock {
    Knock {
        flags: flag::IPV4 | flag::IPV6,
        v4: ALICE,
        v6: ALICE_V6,
        ..knock(time)
    }
}

/// A host with one gate, one key and one port for authenticated knocks.
fn host() -> TestEnv {
    with_room_for(8)
}

fn with_room_for(grants: usize) -> TestEnv {
    let mut env = TestEnv::new(grants, 8);
    env.authenticated = true;
    env.roles[Role::index(true, PORT) as usize] =
        PortRole::of(Role::Open).and_authenticated().packed();
    env.roles[Role::index(false, 22) as usize] = Role::Protected { gate: 0 }.pack();
    env.gates.push(GateRules {
        open_for: 30 * SECOND,
        session_idle: 60 * SECOND,
        ..GateRules::zeroed()
    });
    let secret = |bytes: [u8; 16], not_after| HostSecret {
        words: bytemuck::must_cast::<_, [u64; 2]>(bytes).map(u64::from_le),
        not_after,
    };
    let until = env.wall.get() + 3600 * SECOND;
    env.host_secrets = [secret(HOST, u64::MAX), secret(EARLIER, until)];
    env.key_slots = 8;
    *key(&env) = Key {
        secret: Midstates::of(&KEY),
        state: state::VALID,
        ..Key::zeroed()
    };
    env.key_gates.insert((u32::from(SLOT), 0), 0);
    env.key_gates.insert((u32::from(SLOT), SSH), 0);
    env
}

fn key(env: &TestEnv) -> &mut Key {
    env.knock_key(u32::from(SLOT)).expect("its slot")
}

/// An Ethernet frame from `source` to the port for knocks.
fn datagram(source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp = (8 + payload.len()) as u16;
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0, 0x45, 0]);
    frame.extend((20 + udp).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    frame.extend(source.octets());
    frame.extend([192, 0, 2, 1]);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

fn datagram_v6(source: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let udp = (8 + payload.len()) as u16;
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(udp.to_be_bytes());
    frame.extend([UDP, 64]);
    frame.extend(source.octets());
    frame.extend(Ipv6Addr::LOCALHOST.octets());
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// Sends a frame, and returns the one outcome that is counted.
fn send_frame(env: &TestEnv, frame: &[u8]) -> Outcome {
    let before = env.authenticated_outcomes.borrow().clone();
    let verdict = judge::<Ethernet, _, _>(env, frame);
    let after = env.authenticated_outcomes.borrow();
    let mut moved = after
        .iter()
        .filter(|(outcome, count)| **count != before.get(*outcome).copied().unwrap_or(0));
    let (outcome, _) = moved.next().expect("it is counted");
    assert!(moved.next().is_none(), "it is counted once");
    let accepted = matches!(outcome, Outcome::Opened | Outcome::Closed | Outcome::Held);
    let reason = if accepted {
        Reason::Knock
    } else {
        Reason::Unguarded
    };
    assert_eq!(verdict.reason, reason);
    *outcome
}

fn send(env: &TestEnv, source: Ipv4Addr, knock: &Knock) -> Outcome {
    send_frame(env, &datagram(source, &knock.sealed()))
}

fn may_pass(env: &TestEnv, source: Ipv4Addr, port: u16) -> bool {
    find::live(env, &V4::from(source), 0, port).is_some()
}

fn may_pass_v6(env: &TestEnv, source: Ipv6Addr) -> bool {
    find::live(env, &V6::from(source), 0, 1).is_some()
}

#[test]
fn a_knock_opens_once() {
    let env = host();
    let knock = knock(env.wall.get());
    assert_eq!(send(&env, ALICE, &knock), Outcome::Opened);
    assert!(may_pass(&env, ALICE, 1));
    let grant = find::live(&env, &V4::from(ALICE), 0, 1).expect("it was given");
    assert_eq!(grant.earned.user(), KEY_USER | u32::from(SLOT));
    assert_eq!(grant.until, env.now.get() + 30 * SECOND);
    assert_eq!(send(&env, ALICE, &knock), Outcome::Duplicate);
    assert_eq!(send(&env, EVE, &knock), Outcome::Replay);
    assert!(!may_pass(&env, EVE, 1));
    let events = env.events.borrow();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| (event.kind, event.cause, event.key))
        .collect();
    assert_eq!(
        kinds,
        [
            (Kind::Opened as u8, Cause::None as u8, SLOT),
            (Kind::Captured as u8, Cause::Replay as u8, SLOT)
        ]
    );
}

#[test]
fn an_older_knock_is_not_taken_after_a_newer_one() {
    let env = host();
    let wall = env.wall.get();
    assert_eq!(send(&env, ALICE, &knock(wall)), Outcome::Opened);
    assert_eq!(send(&env, ALICE, &knock(wall - 1)), Outcome::Duplicate);
    assert_eq!(send(&env, EVE, &knock(wall - 1)), Outcome::Replay);
    assert_eq!(send(&env, EVE, &knock(wall + 1)), Outcome::Opened);
}

/// To the addresses of a host a client sends one each, and they may arrive in another order.
#[test]
fn one_that_was_overtaken_by_another_of_its_client_was_not_captured() {
    let env = host();
    let wall = env.wall.get();
    let by_v6 = Knock {
        flags: flag::IPV6,
        v6: ALICE_V6,
        ..knock(wall)
    };
    assert_eq!(send(&env, ALICE, &knock(wall + 1)), Outcome::Opened);
    let frame = datagram_v6(ALICE_V6, &by_v6.sealed());
    assert_eq!(send_frame(&env, &frame), Outcome::Duplicate);
    assert!(!may_pass_v6(&env, ALICE_V6));
    // From elsewhere it was.
    assert_eq!(send(&env, EVE, &by_v6), Outcome::Replay);
    assert_eq!(send(&env, EVE, &for_both(wall)), Outcome::Replay);
}

/// As after a restart of the host: the key begins later than now, and nothing was accepted since.
#[test]
fn nothing_was_captured_of_which_no_source_is_known() {
    let env = host();
    let wall = env.wall.get();
    key(&env).newest = wall + 2;
    for (source, later) in [(ALICE, 0), (EVE, 2)] {
        assert_eq!(send(&env, source, &knock(wall + later)), Outcome::Duplicate);
    }
    assert_eq!(send(&env, ALICE, &knock(wall + 3)), Outcome::Opened);
    assert_eq!(send(&env, EVE, &knock(wall)), Outcome::Replay);
    // Another host of the fleet has accepted one.
    key(&env).newest = wall + 6;
    assert_eq!(send(&env, EVE, &knock(wall + 3)), Outcome::Replay);
    assert_eq!(send(&env, EVE, &knock(wall + 4)), Outcome::Duplicate);
}

#[test]
fn every_bit_counts() {
    let env = host();
    let message = knock(env.wall.get()).sealed();
    for bit in 0..LENGTH * 8 {
        let mut altered = message;
        altered[bit / 8] ^= 1 << (bit % 8);
        let outcome = send_frame(&env, &datagram(ALICE, &altered));
        assert!(
            !matches!(outcome, Outcome::Opened | Outcome::Closed),
            "bit {bit}: {outcome:?}"
        );
    }
    assert!(!may_pass(&env, ALICE, 1));
    assert_eq!(key(&env).newest, 0);
    assert_eq!(
        send_frame(&env, &datagram(ALICE, &message)),
        Outcome::Opened
    );
}

/// Made by one who knows the host's secret and not the key, so that only the comparison of the tag is left.
#[test]
fn every_bit_of_the_tag_is_compared() {
    let env = host();
    let knock = knock(env.wall.get());
    let tag: [u8; 16] = knock.sealed()[..16].try_into().expect("16 bytes");
    for bit in 0..128 {
        let mut other = tag;
        other[bit / 8] ^= 1 << (bit % 8);
        let frame = datagram(ALICE, &knock.sealed_with(other));
        assert_eq!(send_frame(&env, &frame), Outcome::Forged, "bit {bit}");
    }
    assert_eq!(send(&env, ALICE, &knock), Outcome::Opened);
}

#[test]
fn the_window_of_time_is_exact() {
    let env = host();
    let wall = env.wall.get();
    for (time, expected) in [
        (wall - 90 * SECOND - 1, Outcome::Stale),
        (wall - 90 * SECOND, Outcome::Opened),
        (wall + 15 * SECOND + 1, Outcome::Stale),
        (wall + 15 * SECOND, Outcome::Opened),
        (wall - WRONG, Outcome::Stale),
        (wall + WRONG, Outcome::Stale),
        // So far off are nearly all datagrams that are no knocks.
        (wall - WRONG - 1, Outcome::Other),
        (wall + WRONG + 1, Outcome::Other),
        (0, Outcome::Other),
        (u64::MAX, Outcome::Other),
    ] {
        assert_eq!(send(&env, ALICE, &knock(time)), expected, "{time}");
    }
}

#[test]
fn only_valid_keys_open() {
    let env = host();
    let wall = env.wall.get();
    let knock = |later: u64| knock(wall + later);
    for slot in [0, 7, 8, u16::MAX] {
        let other = Knock { slot, ..knock(0) };
        assert_eq!(send(&env, ALICE, &other), Outcome::Unknown);
    }
    let mut forged = knock(0);
    forged.key[0] ^= 1;
    assert_eq!(send(&env, ALICE, &forged), Outcome::Forged);
    key(&env).not_after = wall - 1;
    assert_eq!(send(&env, ALICE, &knock(0)), Outcome::Expired);
    key(&env).not_after = wall;
    assert_eq!(send(&env, ALICE, &knock(0)), Outcome::Opened);
    key(&env).state = state::REVOKED;
    assert_eq!(send(&env, ALICE, &knock(1)), Outcome::Revoked);
    key(&env).state = state::NONE;
    assert_eq!(send(&env, ALICE, &knock(1)), Outcome::Unknown);
}

#[test]
fn an_earlier_secret_of_the_host_counts_until_its_end() {
    let env = host();
    let wall = env.wall.get();
    let earlier = |time| Knock {
        host: EARLIER,
        ..knock(time)
    };
    assert_eq!(send(&env, ALICE, &earlier(wall)), Outcome::Opened);
    env.wall.set(wall + 3600 * SECOND + 1);
    let wall = env.wall.get();
    assert_eq!(send(&env, ALICE, &earlier(wall)), Outcome::Other);
    assert_eq!(send(&env, ALICE, &knock(wall)), Outcome::Opened);
    let other = Knock {
        host: [7; 16],
        ..knock(wall + 1)
    };
    assert_eq!(send(&env, ALICE, &other), Outcome::Other);
}

#[test]
fn what_is_not_defined_is_refused() {
    let env = host();
    let wall = env.wall.get();
    let base = knock(wall);
    let other = |knock: Knock| assert_eq!(send(&env, ALICE, &knock), Outcome::Other);
    other(Knock {
        version: 0,
        ..base.clone()
    });
    other(Knock {
        version: 2,
        ..base.clone()
    });
    for bit in 4..8 {
        other(Knock {
            flags: flag::OBSERVED | 1 << bit,
            ..base.clone()
        });
    }
    let forged = |knock: Knock| assert_eq!(send(&env, ALICE, &knock), Outcome::Forged);
    forged(Knock {
        action: 0,
        ..base.clone()
    });
    forged(Knock {
        action: 3,
        ..base.clone()
    });
    forged(Knock {
        reserved: 1,
        ..base.clone()
    });
    for byte in 0..6 {
        let mut rest = [0; 6];
        rest[byte] = 1;
        forged(Knock {
            rest,
            ..base.clone()
        });
    }
    assert_eq!(key(&env).newest, 0);
}

#[test]
fn its_length_is_that_of_a_knock() {
    let env = host();
    for padding in [0, 1, MOST_PADDING] {
        let mut payload = knock(env.wall.get() + padding as u64).sealed().to_vec();
        payload.resize(LENGTH + padding, 0xaa);
        assert_eq!(
            send_frame(&env, &datagram(ALICE, &payload)),
            Outcome::Opened
        );
    }
    let mut long = knock(env.wall.get() + 1000).sealed().to_vec();
    long.resize(LENGTH + MOST_PADDING + 1, 0xaa);
    assert_eq!(send_frame(&env, &datagram(ALICE, &long)), Outcome::Other);
    let knock = knock(env.wall.get() + 1000).sealed();
    let frame = datagram(ALICE, &knock);
    for length in 0..LENGTH {
        assert_eq!(
            send_frame(&env, &datagram(ALICE, &knock[..length])),
            Outcome::Other
        );
        // The frame has it, but the datagram ends before.
        let mut shorter = frame.clone();
        shorter[38..40].copy_from_slice(&((8 + length) as u16).to_be_bytes());
        assert_eq!(send_frame(&env, &shorter), Outcome::Other);
        // The datagram has it, but the frame ends before.
        assert_eq!(send_frame(&env, &frame[..42 + length]), Outcome::Other);
    }
    assert_eq!(send_frame(&env, &frame), Outcome::Opened);
}

#[test]
fn at_a_protected_port_it_is_judged_by_the_state_before_it() {
    let mut env = host();
    let role = Role::Protected { gate: 0 };
    env.roles[Role::index(true, PORT) as usize] = PortRole::of(role).and_authenticated().packed();
    let wall = env.wall.get();
    let pass = |later: u64| {
        let frame = datagram(ALICE, &knock(wall + later).sealed());
        judge::<Ethernet, _, _>(&env, &frame[..]).reason
    };
    assert_eq!(pass(0), Reason::NoGrant);
    assert_eq!(pass(1), Reason::Grant);
    let opened = env.authenticated_outcomes.borrow()[&Outcome::Opened];
    assert_eq!(opened, 2);
}

#[test]
fn no_other_packet_is_looked_at() {
    let env = host();
    let knock = knock(env.wall.get()).sealed();
    let mut tcp = datagram(ALICE, &knock);
    tcp[23] = TCP;
    let mut other_port = datagram(ALICE, &knock);
    other_port[37] ^= 1;
    let mut later_fragment = datagram(ALICE, &knock);
    later_fragment[21] = 9;
    for frame in [tcp, other_port, later_fragment] {
        judge::<Ethernet, _, _>(&env, &frame[..]);
        assert!(env.authenticated_outcomes.borrow().is_empty());
    }
}
