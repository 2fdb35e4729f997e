//! The compiled automaton and the step function against "the last k probes are the sequence".
//!
//! The [model] shares nothing with what it checks but the configuration.

mod generate;
mod model;

use std::net::Ipv4Addr;

use knock_common::{
    Address as _,
    address::V4,
    frame::{PortPair, Segment, TCP, UDP},
    grant::{GrantKey, table},
    knock::sequence,
    rules::{GateRules, Role},
    testing::TestEnv,
};
use knock_user::{
    config::Config,
    datapath::compile::{
        applied::{Applied, Circumstances},
        automaton::{Automaton, TooEntangled},
        ids::Ids,
    },
    values::{Port, Protocol},
};
use proptest::prelude::*;

use self::{
    generate::{any_config, any_probes, only, port},
    model::{Model, Probe, Said, nanoseconds},
};

fn compiled(config: &Config) -> Result<Automaton, TooEntangled> {
    let ids = Ids::assign(config, None);
    Automaton::compile(&Applied::new(config.clone(), ids, Circumstances::default()))
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
            reject: 0,
            zero: 0,
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
            ports: PortPair::new(probe.source_port, probe.port.number),
            protocol: if probe.port.protocol == Protocol::Tcp {
                TCP
            } else {
                UDP
            },
            transport: 34,
        };
        // Grants are taken away first, so that one that is there afterwards is new.
        for (key, _) in host.grants_of::<V4>() {
            table::remove(&host, &key);
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
        let given: Vec<_> = host.grants_of::<V4>();
        let opened = match given.as_slice() {
            [] => None,
            [(key, grant)] => {
                let gate = usize::from(key.gate);
                assert_eq!(*key, GrantKey::new(source, V4::BITS, key.gate));
                let before: usize = config.gates[..gate].iter().map(|g| g.knocks.len()).sum();
                Some((gate, grant.earned.user() as usize - before))
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
            ports: PortPair::new(source_port, port(number).number),
            protocol: UDP,
            transport: 34,
        };
        let starts = symbol < automaton.starts;
        sequence::knock(&host, &segment, symbol.try_into().unwrap(), starts);
        host.grants_of::<V4>().len()
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
