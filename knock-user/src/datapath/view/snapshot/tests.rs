use std::collections::BTreeSet;

use super::*;
use crate::{
    commands::host::status::{Document, Fleet},
    datapath::GuardedAddress,
};

const PAGE: &str = include_str!("../../../../../docs/reference.md");

/// Returns the keys that docs/reference.md has for the document of a command.
fn described(command: &str) -> BTreeSet<String> {
    let (_, section) = PAGE
        .split_once(&format!("\n### `{command}`\n"))
        .unwrap_or_else(|| panic!("no {command} on the page"));
    let section = section.split("\n##").next().unwrap_or(section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// Returns the keys of a document of words, objects and lists, each list of which has a row.
fn keys(document: &impl Serialize) -> BTreeSet<String> {
    let document = serde_json::to_value(document).expect("serialisable");
    let mut keys = BTreeSet::new();
    for (list, rows) in document.as_object().expect("an object") {
        let Some(rows) = rows.as_array() else {
            keys.insert(list.clone());
            let nested = rows
                .as_object()
                .into_iter()
                .flat_map(|nested| nested.keys());
            keys.extend(nested.map(|key| format!("{list}.{key}")));
            continue;
        };
        for row in rows {
            // Or a list of words.
            let Some(row) = row.as_object() else {
                keys.insert(list.clone());
                continue;
            };
            for (key, value) in row {
                keys.insert(format!("{list}[].{key}"));
                let nested = value
                    .as_object()
                    .into_iter()
                    .flat_map(|nested| nested.keys());
                keys.extend(nested.map(|nested| format!("{list}[].{key}.{nested}")));
            }
        }
    }
    keys
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let word = || "x".to_owned();
    let status = Status {
        interfaces: vec![Interface {
            name: word(),
            index: None,
            attach: None,
            mode: "enforce",
            try_left_ms: None,
            guarded: false,
            renamed_from: None,
            into: Some(CalledBy {
                pin: word(),
                slot: 0,
                program: None,
            }),
            next: Some(Next {
                pin: word(),
                program: None,
                pinned: None,
            }),
        }],
        gates: vec![GateStatus {
            name: word(),
            protect: Vec::new(),
            protect_at: Vec::new(),
            grants: 0,
        }],
        tables: vec![TableFill {
            name: "grants",
            used: 0,
            capacity: 0,
        }],
        guarded: Destinations {
            destinations: "host",
            addresses: vec![GuardedAddress {
                address: [192, 0, 2, 1].into(),
                kind: "own",
            }],
        },
        warnings: vec![word()],
        up_for: Duration::ZERO,
        attachments: Vec::new(),
    };
    let document = Document {
        status: &status,
        fleet: Some(Fleet {
            name: word(),
            connected: None,
            isolated_for_ms: None,
            why: None,
        }),
    };
    assert_eq!(keys(&document), described("status"));
    let counters = Counters {
        packets: vec![Packets {
            verdict: "pass",
            reason: "knock",
            gate: None,
            packets: 0,
            bytes: 0,
        }],
        knocks: vec![Knocks {
            gate: word(),
            result: "step",
            count: 0,
        }],
        authenticated: vec![Authenticated {
            outcome: "other",
            count: 0,
        }],
        fwknop: vec![FwknopPackets {
            outcome: "opened",
            count: 0,
        }],
    };
    assert_eq!(keys(&counters), described("stats"));
    let grants = vec![Grant {
        gate: word(),
        user: None,
        key: None,
        origin: None,
        source: word(),
        expires_in_ms: 0,
        connections: 0,
    }];
    assert_eq!(keys(&Grants { grants }), described("grants"));
    let sources = vec![Source {
        source: word(),
        step: 1,
        of: 3,
        gates: Vec::new(),
        age_ms: 0,
    }];
    assert_eq!(keys(&Sources { sources }), described("sources"));
    let sessions = vec![Session {
        gate: word(),
        protocol: "tcp",
        source: word(),
        destination: word(),
        idle_ms: 0,
    }];
    assert_eq!(keys(&Sessions { sessions }), described("sessions"));
}
