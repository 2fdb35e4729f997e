//! Random configurations and probes, and configurations of given sequences.

use std::{iter, time::Duration};

use knock_user::{
    config::{Config, Gate, Knock, Limits, OpenPorts},
    values::{Port, Protocol},
};
use proptest::prelude::*;

use crate::model::{Probe, sequences};

const SECOND: u64 = 1_000_000_000;

/// Six knock ports, so that sequences overlap, repeat and share; two more that no sequence has.
pub fn port(number: u16) -> Port {
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
    pub fn any_config()(
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
pub fn any_probes(config: &Config) -> impl Strategy<Value = Vec<Probe>> + use<> {
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

/// One gate with these sequences.
pub fn only(sequences: Vec<Vec<Port>>) -> Config {
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
            keys: 1,
        },
        gates,
        ..Config::default()
    }
}
