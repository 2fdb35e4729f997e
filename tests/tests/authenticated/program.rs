//! The loaded program on knocks that other people's crates have made, and on every alteration of one.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Barrier,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use jiff::Timestamp;
use knock_common::{
    knock::authenticated::outcome::Outcome,
    testing::knock::{Knock, gate},
};
use knock_user::{
    config::Config,
    keys::{Host, HostKey, KeySet, KeyState, Secret},
};
use knockgate_tests::system::{Program, SystemUnderTest as _};
use netlab::packet::Packet;

const PORT: u16 = 41_641;
const HOST: [u8; 16] = *b"the host's own..";
const ALICE: [u8; 32] = *b"the key of alice for this host..";
const BOB: [u8; 32] = *b"the key of bob, which is bound..";
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const PAST: &str = "2021-01-01T00:00:00Z";
const SECOND: u64 = 1_000_000_000;

const CONFIG: &str = r#"
    interfaces = ["eth0"]
    open_ports = []
    limits = { sources = 16384, grants = 64, sessions = 64, keys = 6 }
    [knock]
    ports = ["41641/udp"]
    [[gate]]
    name = "ssh"
    protect = ["22/tcp"]
    [[gate]]
    name = "web"
    protect = ["443/tcp"]
    sources = ["198.51.100.0/24", "2001:db8::/32"]
"#;

fn config() -> Config {
    Config::parse(CONFIG, "authenticated").expect("valid").0
}

fn keys() -> KeySet {
    let created = Timestamp::now();
    let key = |name: &str, slot, secret, bound| HostKey {
        name: name.parse().expect("a name"),
        slot,
        state: KeyState::Valid,
        secret: Secret::new(secret),
        created,
        expires: None,
        bound,
        gates: vec!["ssh".into(), "web".into()],
        replaced: false,
    };
    KeySet {
        host: Some(Host {
            id: [0; 16],
            secret: Secret::new(HOST),
            previous: None,
        }),
        keys: vec![key("alice", 0, ALICE, false), key("bob", 2, BOB, true)],
    }
}

/// The program with these keys, which count from now on.
struct Instance {
    program: Program,
}

impl Instance {
    fn load(load: impl FnOnce(&Config) -> Option<Program>) -> Option<Self> {
        let mut program = load(&config())?;
        let datapath = program.datapath_mut();
        // A program that has been emptied has the keys of the oracle, one of which is alice's too.
        for keys in [KeySet::default(), keys()] {
            datapath.apply_keys(&keys, &[0, 2]).expect("the keys fit");
        }
        for (slot, name) in [(0, "alice"), (2, "bob")] {
            assert_eq!(datapath.key_name(slot).as_deref(), Some(name));
        }
        Some(Self { program })
    }

    /// Sends a frame, and returns the one outcome that is counted; `None`: none is.
    fn send_frame(&self, frame: &[u8]) -> Option<Outcome> {
        let before = self.counts();
        self.program.take(frame);
        let after = self.counts();
        let mut moved = Outcome::ALL.into_iter().filter(|outcome| {
            let index = usize::from(*outcome as u8);
            before[index] != after[index]
        });
        let outcome = moved.next();
        assert!(moved.next().is_none(), "more than one outcome is counted");
        outcome
    }

    fn send(&self, source: Ipv4Addr, knock: &Knock) -> Option<Outcome> {
        self.send_frame(&datagram(source, &knock.sealed()))
    }

    fn counts(&self) -> Vec<u64> {
        let rows = self
            .program
            .datapath()
            .authenticated()
            .expect("the table is there");
        rows.into_iter().map(|(_, count)| count).collect()
    }

    /// Returns the networks with a grant, and at which gate.
    fn grants(&self) -> Vec<(String, u16)> {
        let rows = self
            .program
            .datapath()
            .grants()
            .expect("the tables are there");
        rows.into_iter()
            .map(|row| (row.source.to_string(), row.gate))
            .collect()
    }
}

fn unix() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_nanos()).expect("before 2554")
}

fn alice() -> Knock {
    Knock {
        host: HOST,
        key: ALICE,
        ..Knock::at(unix())
    }
}

fn bob() -> Knock {
    Knock {
        key: BOB,
        slot: 2,
        ..alice()
    }
}

fn datagram(source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let packet = Packet::udp(
        (source.into(), 40_000),
        (Ipv4Addr::new(192, 0, 2, 1).into(), PORT),
        payload,
    );
    packet.frame([2; 6], [4; 6])
}

fn datagram_v6(source: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let to = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
    let packet = Packet::udp((source.into(), 40_000), (to.into(), PORT), payload);
    packet.frame([2; 6], [4; 6])
}

#[test]
fn every_outcome() {
    let Some(instance) = Instance::load(Program::load) else {
        return;
    };
    let send = |source, knock: Knock| instance.send(source, &knock);
    let first = alice();
    assert_eq!(send(CLIENT, first.clone()), Some(Outcome::Opened));
    assert_eq!(instance.grants(), [("198.51.100.7/32".to_owned(), 0)]);
    assert_eq!(send(CLIENT, first.clone()), Some(Outcome::Duplicate));
    assert_eq!(send(OTHER, first), Some(Outcome::Replay));
    // The times that are configured, of a slower clock.
    let second = SECOND * u64::from(instance.program.slowed());
    let stale = |time| Knock { time, ..alice() };
    assert_eq!(
        send(CLIENT, stale(unix() - 120 * second)),
        Some(Outcome::Stale)
    );
    assert_eq!(
        send(CLIENT, stale(unix() + 45 * second)),
        Some(Outcome::Stale)
    );
    for slot in [1, 3, 4, 1000] {
        assert_eq!(
            send(CLIENT, Knock { slot, ..alice() }),
            Some(Outcome::Unknown)
        );
    }
    assert_eq!(
        send(
            CLIENT,
            Knock {
                key: BOB,
                ..alice()
            }
        ),
        Some(Outcome::Forged)
    );
    let other_host = Knock {
        host: [1; 16],
        ..alice()
    };
    assert_eq!(send(CLIENT, other_host), Some(Outcome::Other));
    let web = |knock: Knock| Knock {
        gate: gate("web"),
        ..knock
    };
    assert_eq!(send(OTHER, web(alice())), Some(Outcome::Source));
    assert_eq!(send(CLIENT, web(alice())), Some(Outcome::Opened));
    assert_eq!(instance.grants().len(), 2);
    let unknown_gate = Knock {
        gate: gate("mail"),
        ..alice()
    };
    assert_eq!(send(CLIENT, unknown_gate), Some(Outcome::Gate));
    assert_eq!(send(CLIENT, bob()), Some(Outcome::Address));
    let listed = || Knock {
        flags: 1,
        v4: CLIENT,
        ..bob()
    };
    assert_eq!(send(OTHER, listed()), Some(Outcome::Address));
    assert_eq!(send(CLIENT, listed()), Some(Outcome::Opened));
    let close = Knock {
        action: 2,
        ..alice()
    };
    assert_eq!(send(CLIENT, close), Some(Outcome::Closed));
    // It was renewed by bob.
    assert_eq!(instance.grants().len(), 2);
    let close = Knock {
        action: 2,
        ..web(alice())
    };
    assert_eq!(send(CLIENT, close), Some(Outcome::Closed));
    assert_eq!(instance.grants(), [("198.51.100.7/32".to_owned(), 0)]);
    let both = Knock {
        flags: 3,
        v4: CLIENT,
        v6: CLIENT_V6,
        ..web(alice())
    };
    let frame = datagram_v6(CLIENT_V6, &both.sealed());
    assert_eq!(instance.send_frame(&frame), Some(Outcome::Opened));
    assert_eq!(instance.grants().len(), 3);
}

#[test]
fn keys_that_are_taken_back_open_nothing() {
    let Some(mut instance) = Instance::load(Program::load) else {
        return;
    };
    assert_eq!(instance.send(CLIENT, &alice()), Some(Outcome::Opened));
    let mut set = keys();
    set.keys[0].state = KeyState::Revoked {
        since: PAST.parse().expect("a time"),
    };
    set.keys[1].expires = Some(PAST.parse().expect("a time"));
    let ended = instance
        .program
        .datapath_mut()
        .apply_keys(&set, &[])
        .expect("they fit");
    assert_eq!(ended, 1, "the grant ends with its key");
    assert_eq!(instance.send(CLIENT, &alice()), Some(Outcome::Revoked));
    assert_eq!(instance.send(CLIENT, &bob()), Some(Outcome::Expired));
    assert_eq!(instance.grants(), []);
    // The same key again: what it had accepted stays accepted.
    let newest = |instance: &Instance| {
        instance
            .program
            .datapath()
            .newest_times()
            .expect("the table is there")
    };
    let before = newest(&instance);
    instance
        .program
        .datapath_mut()
        .apply_keys(&keys(), &[])
        .expect("they fit");
    assert_eq!(newest(&instance), before);
    assert_eq!(instance.send(CLIENT, &alice()), Some(Outcome::Opened));
    // Without its file there is no key, and its name is gone.
    set.keys.clear();
    instance
        .program
        .datapath_mut()
        .apply_keys(&set, &[])
        .expect("they fit");
    assert_eq!(instance.send(CLIENT, &alice()), Some(Outcome::Unknown));
    assert_eq!(instance.program.datapath().key_name(0), None);
    // A key that comes back may have been used before, however young it is.
    instance
        .program
        .datapath_mut()
        .apply_keys(&keys(), &[])
        .expect("they fit");
    assert_eq!(instance.send(CLIENT, &alice()), Some(Outcome::Duplicate));
}

#[test]
fn every_bit_counts() {
    let Some(instance) = Instance::load(Program::load) else {
        return;
    };
    let message = alice().sealed();
    for bit in 0..message.len() * 8 {
        let mut altered = message;
        altered[bit / 8] ^= 1 << (bit % 8);
        let outcome = instance.send_frame(&datagram(CLIENT, &altered));
        assert!(
            !matches!(outcome, Some(Outcome::Opened | Outcome::Closed)),
            "bit {bit}: {outcome:?}"
        );
    }
    assert_eq!(instance.grants(), []);
    let outcome = instance.send_frame(&datagram(CLIENT, &message));
    assert_eq!(outcome, Some(Outcome::Opened));
}

#[test]
fn its_length_and_place_may_vary() {
    let Some(instance) = Instance::load(Program::load) else {
        return;
    };
    for (length, expected) in [
        (0, Outcome::Other),
        (63, Outcome::Other),
        (64, Outcome::Opened),
        (65, Outcome::Opened),
        (256, Outcome::Opened),
        (257, Outcome::Other),
        (1400, Outcome::Other),
    ] {
        let mut payload = alice().sealed().to_vec();
        payload.resize(length, 0xaa);
        let outcome = instance.send_frame(&datagram(CLIENT, &payload));
        assert_eq!(outcome, Some(expected), "{length} bytes");
    }
    let plain = datagram(CLIENT, &alice().sealed());
    let mut tagged = plain[..12].to_vec();
    tagged.extend([0x81, 0, 0, 5]);
    tagged.extend(&plain[12..]);
    assert_eq!(instance.send_frame(&tagged), Some(Outcome::Opened));
    let mut options = datagram(CLIENT, &alice().sealed());
    options[14] = 0x47;
    options.splice(34..34, [1; 8]);
    options[17] += 8;
    assert_eq!(instance.send_frame(&options), Some(Outcome::Opened));
    let v6 = datagram_v6(CLIENT_V6, &alice().sealed());
    let mut extended = v6.clone();
    extended[20] = 60;
    extended.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    extended[19] += 8;
    assert_eq!(instance.send_frame(&extended), Some(Outcome::Opened));
    // A later fragment has no ports.
    let mut fragment = datagram(CLIENT, &alice().sealed());
    fragment[21] = 9;
    assert_eq!(instance.send_frame(&fragment), None);
}

#[test]
fn it_may_lie_in_several_buffers() {
    for first in [14, 60, 100] {
        let Some(instance) = Instance::load(|config| Program::load_scattered(config, first)) else {
            return;
        };
        assert_eq!(
            instance.send(CLIENT, &alice()),
            Some(Outcome::Opened),
            "{first}"
        );
        let short = datagram(CLIENT, &alice().sealed()[..63]);
        assert_eq!(instance.send_frame(&short), Some(Outcome::Other), "{first}");
    }
}

/// The very same datagram at the same moment on two CPUs: one of them accepts it.
#[test]
fn of_several_cpus_one_accepts_it() {
    const ROUNDS: usize = 300;
    const THREADS: usize = 2;
    let Some(instance) = Instance::load(Program::load) else {
        return;
    };
    let together = Barrier::new(THREADS);
    for _ in 0..ROUNDS {
        let frame = datagram(CLIENT, &alice().sealed());
        thread::scope(|scope| {
            for _ in 0..THREADS {
                let (program, frame, together) = (instance.program.xdp(), &frame, &together);
                scope.spawn(move || {
                    together.wait();
                    run(program, frame);
                });
            }
        });
    }
    let counts = instance.counts();
    let count = |outcome: Outcome| counts[usize::from(outcome as u8)];
    assert_eq!(count(Outcome::Opened), ROUNDS as u64);
    assert_eq!(count(Outcome::Duplicate), ROUNDS as u64);
}

fn run(program: &Xdp, frame: &[u8]) {
    let options = TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    };
    program.test_run(options).expect("the kernel takes it");
}
