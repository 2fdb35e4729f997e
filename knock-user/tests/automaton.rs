//! The compiled automaton and the step function against "the last k probes are the sequence".
//!
//! The model keeps every probe of a source and looks at the end of that list. It shares nothing with
//! what it checks but the configuration.

use std::{collections::HashMap, iter, net::Ipv4Addr, time::Duration};

use knock_common::{
    Address as _,
    address::V4,
    frame::{Segment, TCP, UDP},
    grant::{GrantKey, give},
    knock::sequence,
    rules::{GateRules, Role},
    testing::TestEnv,
};
use knock_user::{
    config::{Config, Gate, Knock, Limits, OpenPorts, Port, Protocol},
    datapath::compile::{
        applied::Applied,
        automaton::{Automaton, TooEntangled},
        ids::Ids,
    },
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
/// The kernel program counts time in units of 2^20 ns; a window's end is as sharp as that.
const TICK: u64 = 1 << 20;

/// One probe of one source.
#[derive(Debug, Clone, Copy)]
struct Probe {
    source: u8,
    source_port: u16,
    port: Port,
    /// ns since the one before.
    after: u64,
}

/// Every source's probes, oldest first, without duplicates: time, source port, port.
#[derive(Default)]
struct Model {
    probes: HashMap<u8, Vec<(u64, u16, Port)>>,
    /// How many of a source's latest probes are remembered as knocks of its present run.
    remembered: HashMap<u8, usize>,
}

/// What the model says of a probe.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Duplicate,
    /// The sequence that it completes in time, as gate and user.
    Opens(Option<(usize, usize)>),
    /// So close to a window's end that either answer is right.
    Either,
}

impl Model {
    fn probe(&mut self, config: &Config, probe: Probe, now: u64) -> Said {
        let Probe {
            source,
            source_port,
            port,
            after: _,
        } = probe;
        let list = self.probes.entry(source).or_default();
        let remembered = self.remembered.entry(source).or_default();
        let run = &list[list.len() - *remembered..];
        let ports: Vec<Port> = list.iter().map(|probe| probe.2).collect();
        let depth = longest_beginning(config, &ports);
        let unfinished = longest_unfinished(config, &ports);
        let window = longest_window(config, &ports[ports.len() - depth..]);
        for &(time, known_port, known) in run {
            if (known_port, known) == (source_port, port) {
                let age = now - time;
                if age.abs_diff(window) <= 2 * TICK {
                    return Said::Either;
                }
                if age < window {
                    return Said::Duplicate;
                }
            }
        }
        // The port counted last, once more: it may not cost the run.
        let repeated = list.last().copied();
        let repeated = repeated.filter(|latest| depth > 0 && latest.2 == port);
        list.push((now, source_port, port));
        let ports: Vec<Port> = list.iter().map(|probe| probe.2).collect();
        let length = longest_beginning(config, &ports);
        let keeps = length == depth + 1 || repeated.is_some() && length >= unfinished;
        if let Some((time, first_port, _)) = repeated
            && !keeps
        {
            let (age, window) = (now - time, longest_window(config, &[]));
            if age.abs_diff(window) <= 2 * TICK {
                return Said::Either;
            }
            if age < window {
                list.pop();
                list.pop();
                // It is that knock's latest packet.
                list.push((now, first_port, port));
                return Said::Duplicate;
            }
        }
        let most = match length {
            0 => 0,
            _ if keeps => 12,
            _ => length,
        };
        *remembered = (*remembered + 1).min(most);
        for (gate, rules) in config.gates.iter().enumerate() {
            for (user, knock) in rules.knocks.iter().enumerate() {
                if ports.ends_with(&knock.sequence) {
                    // A completed run is forgotten, in time or not.
                    *remembered = 0;
                    let first = list[list.len() - knock.sequence.len()].0;
                    let window = nanoseconds(knock.within);
                    let took = now - first;
                    if took.abs_diff(window) <= 2 * TICK {
                        return Said::Either;
                    }
                    return Said::Opens((took < window).then_some((gate, user)));
                }
            }
        }
        Said::Opens(None)
    }
}

/// How many of the last probes begin some sequence, at most.
fn longest_beginning(config: &Config, ports: &[Port]) -> usize {
    (0..=ports.len().min(12))
        .rev()
        .find(|length| {
            let end = &ports[ports.len() - length..];
            sequences(config).any(|knock| knock.sequence.starts_with(end))
        })
        .unwrap_or(0)
}

/// How many of the last probes begin some sequence and do not complete it, at most.
fn longest_unfinished(config: &Config, ports: &[Port]) -> usize {
    (0..=ports.len().min(12))
        .rev()
        .find(|length| {
            let end = &ports[ports.len() - length..];
            sequences(config)
                .any(|knock| knock.sequence.len() > *length && knock.sequence.starts_with(end))
        })
        .unwrap_or(0)
}

fn longest_window(config: &Config, run: &[Port]) -> u64 {
    sequences(config)
        .filter(|knock| knock.sequence.starts_with(run))
        .map(|knock| nanoseconds(knock.within))
        .max()
        .unwrap_or(0)
}

fn sequences(config: &Config) -> impl Iterator<Item = &Knock> {
    config.gates.iter().flat_map(|gate| &gate.knocks)
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap()
}

fn compiled(config: &Config) -> Result<Automaton, TooEntangled> {
    let ids = Ids::assign(config, None);
    Automaton::compile(&Applied::new(config.clone(), ids))
}

/// A gate on the host with the tables of `config`.
fn host(config: &Config, automaton: &Automaton) -> TestEnv {
    let mut host = TestEnv::new(64, 64);
    host.gates = config
        .gates
        .iter()
        .map(|gate| GateRules {
            open_for: nanoseconds(gate.open_for),
            session_idle: nanoseconds(gate.session_idle),
            connections: 0,
            to_prefix: 0,
            restricted: 0,
            cut: 0,
            reject: 0,
        })
        .collect();
    host.sequences.clone_from(&automaton.sequences);
    host.states.clone_from(&automaton.states);
    host.transitions.clone_from(&automaton.transitions);
    host
}

fn play(config: &Config, probes: &[Probe]) {
    let automaton = compiled(config).unwrap();
    let host = host(config, &automaton);
    let mut model = Model::default();
    for (number, probe) in probes.iter().enumerate() {
        host.advance(probe.after);
        let said = model.probe(config, *probe, host.now.get());
        if said == Said::Either {
            return;
        }
        let source = V4::from(Ipv4Addr::new(198, 51, 100, probe.source));
        let segment = Segment {
            source,
            destination: V4::from(Ipv4Addr::new(192, 0, 2, 1)),
            source_port: probe.source_port,
            destination_port: probe.port.number,
            protocol: if probe.port.protocol == Protocol::Tcp {
                TCP
            } else {
                UDP
            },
            transport: 34,
        };
        // Grants are taken away first, so that one that is there afterwards is new.
        for (key, _) in host.grants_v4.rows() {
            give::remove(&host, &key);
        }
        match automaton
            .symbols
            .iter()
            .position(|port| *port == probe.port)
        {
            Some(symbol) => {
                let starts = symbol < automaton.starts;
                sequence::knock(&host, &segment, symbol.try_into().unwrap(), starts);
            }
            None => sequence::foreign(&host, &segment),
        }
        let given: Vec<_> = host.grants_v4.rows();
        let opened = match given.as_slice() {
            [] => None,
            [(key, grant)] => {
                let gate = usize::from(key.gate);
                assert_eq!(*key, GrantKey::new(source, V4::BITS, key.gate));
                let before: usize = config.gates[..gate].iter().map(|g| g.knocks.len()).sum();
                Some((gate, grant.user as usize - before))
            }
            several => panic!("one probe gave several grants: {several:?}"),
        };
        let expected = match said {
            Said::Opens(opens) => opens,
            Said::Duplicate | Said::Either => None,
        };
        assert_eq!(
            opened, expected,
            "probe {number} of {probes:?}\nwith {:?}",
            config.gates
        );
    }
}

/// Six knock ports, so that sequences overlap, repeat and share; two more that no sequence has.
fn port(number: u16) -> Port {
    Port {
        number: 7000 + number / 2,
        protocol: if number.is_multiple_of(2) {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
    }
}

prop_compose! {
    fn any_knock()(
        ports in prop::collection::vec(0_u16..6, 2..=5),
        within in 1_u64..=20,
    ) -> Knock {
        Knock {
            user: String::new(),
            sequence: ports.into_iter().map(port).collect(),
            within: Duration::from_secs(within),
        }
    }
}

prop_compose! {
    fn any_config()(
        gates in prop::collection::vec(prop::collection::vec(any_knock(), 1..=3), 1..=3),
    ) -> Config {
        let mut taken: Vec<Vec<Port>> = Vec::new();
        let mut users = (0..).map(|user| format!("user{user}"));
        let gates = gates.into_iter().enumerate().map(|(gate, knocks)| Gate {
            name: format!("gate{gate}"),
            // A checked configuration has no sequence that ends with another.
            knocks: knocks
                .into_iter()
                .filter(|knock| {
                    let clashes = taken.iter().any(|other| {
                        other.ends_with(&knock.sequence) || knock.sequence.ends_with(other)
                    });
                    if !clashes {
                        taken.push(knock.sequence.clone());
                    }
                    !clashes
                })
                .map(|knock| Knock { user: users.next().unwrap_or_default(), ..knock })
                .collect(),
            open_for: Duration::from_secs(30),
            session_idle: Duration::from_mins(1),
            ..Gate::default()
        });
        configured(gates.collect())
    }
}

/// Bits of sequences, whole ones and noise, each port once or twice; few source ports, so that duplicates are
/// common.
fn any_probes(config: &Config) -> impl Strategy<Value = Vec<Probe>> + use<> {
    let known: Vec<Vec<Port>> = sequences(config).map(|k| k.sequence.clone()).collect();
    let piece = prop_oneof![
        4 => prop::sample::select(known),
        3 => (0_u16..8).prop_map(|number| vec![port(number)]),
    ];
    let step = (
        piece,
        0_u8..2,
        any::<u16>(),
        prop_oneof![9 => 0..SECOND, 1 => 0..15 * SECOND],
        prop_oneof![2 => Just(1), 1 => Just(2)],
    );
    prop::collection::vec(step, 1..24).prop_flat_map(|pieces| {
        let probes: Vec<Probe> = pieces
            .into_iter()
            .flat_map(|(ports, source, base, after, times)| {
                ports
                    .into_iter()
                    .flat_map(move |port| iter::repeat_n(port, times))
                    .zip(0_u16..)
                    .map(move |(port, index)| Probe {
                        source,
                        source_port: base.wrapping_add(index) % 7,
                        port,
                        after,
                    })
            })
            .collect();
        Just(probes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_last_k_probes_are_the_sequence(
        (config, probes) in any_config().prop_flat_map(|config| {
            let probes = any_probes(&config);
            (Just(config), probes)
        })
    ) {
        play(&config, &probes);
    }
}

/// Of a sequence that is complete, another probe of its last port can cost only what its end begins.
#[test]
fn a_completed_sequence_leaves_to_lose_what_its_end_begins() {
    let [a, b, c, d] = [port(0), port(1), port(2), port(3)];
    let config = only(vec![
        vec![a, b, a],
        vec![c, d],
        vec![c, d, a],
        vec![a, c, d, b],
    ]);
    let automaton = compiled(&config).unwrap();
    let unfinished = |sequence: &[Port]| {
        let states = automaton.path(sequence);
        let unfinished = states.map(|state| automaton.states[state as usize].unfinished);
        unfinished.collect::<Vec<_>>()
    };
    // Its last knock begins two others.
    assert_eq!(unfinished(&[a, b, a]), [1, 2, 1]);
    // Two of them are a sequence, and begin another.
    assert_eq!(unfinished(&[c, d, a]), [1, 2, 1]);
    // Nothing begins with its end.
    assert_eq!(unfinished(&[a, c, d, b]), [1, 2, 3, 0]);
}

/// The example of the specification, played by hand.
#[test]
fn a_repeated_first_knock_does_not_spoil_the_run() {
    let ports = [port(0), port(0), port(2)];
    let config = only(vec![ports.to_vec()]);
    let automaton = compiled(&config).unwrap();
    let host = host(&config, &automaton);
    let knock = |number: u16, source_port: u16| {
        let symbol = automaton
            .symbols
            .iter()
            .position(|p| *p == port(number))
            .unwrap();
        let segment = Segment {
            source: V4::from(Ipv4Addr::new(198, 51, 100, 7)),
            destination: V4::from(Ipv4Addr::new(192, 0, 2, 1)),
            source_port,
            destination_port: port(number).number,
            protocol: UDP,
            transport: 34,
        };
        let starts = symbol < automaton.starts;
        sequence::knock(&host, &segment, symbol.try_into().unwrap(), starts);
        host.grants_v4.rows().len()
    };
    assert_eq!(knock(0, 1), 0);
    assert_eq!(knock(0, 2), 0);
    assert_eq!(knock(0, 3), 0);
    assert_eq!(knock(2, 4), 1);
}

#[test]
fn ten_thousand_sequences_stay_within_their_own_size() {
    let sequences: Vec<Vec<Port>> = (0..10_000_u32)
        .map(|index| {
            let step = |salt: u32| {
                let mixed = (index + 1).wrapping_mul(2_654_435_761).rotate_left(salt);
                port((mixed % 9_000) as u16)
            };
            vec![step(3), step(11), step(19), port((index % 9_973) as u16)]
        })
        .collect();
    let config = only(sequences);
    let automaton = compiled(&config).unwrap();
    assert!(
        automaton.states.len() <= 40_001,
        "{}",
        automaton.states.len()
    );
    assert!(
        automaton.transitions.len() <= 4 * automaton.states.len(),
        "{} transitions",
        automaton.transitions.len()
    );
}

#[test]
fn sequences_that_entangle_without_end_are_refused() {
    // Every sequence begins with the same knock and has it again in the middle.
    let sequences = (0..1_200_u16)
        .map(|index| vec![port(0), port(index + 2), port(0), port(index + 2)])
        .collect();
    compiled(&only(sequences)).unwrap_err();
}

#[test]
fn roles_are_told_apart() {
    let config = only(vec![vec![port(4), port(3)]]);
    let automaton = compiled(&config).unwrap();
    assert_eq!(automaton.symbols, [port(4), port(3)]);
    assert_eq!(automaton.starts, 1);
    assert_ne!(
        Role::Knock {
            symbol: 0,
            starts: true
        }
        .pack(),
        Role::Knock {
            symbol: 0,
            starts: false
        }
        .pack()
    );
}

/// One gate with these sequences.
fn only(sequences: Vec<Vec<Port>>) -> Config {
    let knocks = sequences
        .into_iter()
        .enumerate()
        .map(|(user, sequence)| Knock {
            user: format!("user{user}"),
            sequence,
            within: Duration::from_secs(10),
        });
    configured(vec![Gate {
        name: "ssh".into(),
        open_for: Duration::from_secs(30),
        session_idle: Duration::from_mins(1),
        knocks: knocks.collect(),
        ..Gate::default()
    }])
}

/// These gates, tables that are small, and no open port.
fn configured(gates: Vec<Gate>) -> Config {
    Config {
        open_ports: OpenPorts::List(Vec::new()),
        limits: Limits {
            sources: 16384,
            grants: 64,
            sessions: 64,
        },
        gates,
        ..Config::default()
    }
}
