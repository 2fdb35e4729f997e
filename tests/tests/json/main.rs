//! JSON documents: they have exactly the keys of docs/reference.md, standard output contains nothing else, and the exit
//! status is the documented one.

mod documents;
mod published;

use std::{collections::BTreeSet, fs};

use documents::{assert_described, described, document, find, is_heading, number, rows, text};
use knockgate_tests::{
    foreign,
    gate_config::{ALICE, Gate},
    lab::{
        Family, Lab,
        Source::{A, B},
        WAN,
    },
    need,
    scenario::{Attach, Scenario},
};
use serde_json::{Value, json};

/// Returns a gate of alice, and one of bob with a port of each transport.
fn gates() -> String {
    let mail = Gate::mail().protect("25/tcp 51820/udp");
    [Gate::ssh(), mail]
        .map(|gate| gate.open_for("1m").within("1m").to_string())
        .concat()
}

#[test]
fn status() {
    both_families(|scenario| {
        scenario.up(gates());
        scenario.knock(A, ALICE);
        let _goes_on = scenario.connected(A, 22);
        let status = document(scenario, "status --json");
        let index = scenario.lab.host.index_of(WAN).expect("it is there");
        assert_eq!(
            status["interfaces"],
            json!([{
                "name": WAN,
                "index": index,
                "attach": "generic",
                "mode": "enforce",
                "try_left_ms": null,
                "guarded": true,
                "renamed_from": null,
                "next": null,
                "into": null,
            }])
        );
        let gates = rows(&status["gates"], &["name", "protect", "grants"]);
        assert_eq!(gates.len(), 2);
        let ssh = find(&gates, "name", "ssh");
        assert_eq!(ssh["protect"], json!(["22/tcp"]));
        assert_eq!(ssh["grants"], 1);
        let mail = find(&gates, "name", "mail");
        assert_eq!(mail["protect"], json!(["25/tcp", "51820/udp"]));
        assert_eq!(mail["grants"], 0);
        let tables = rows(&status["tables"], &["name", "used", "capacity"]);
        let capacities: BTreeSet<(&str, u64)> = tables
            .iter()
            .map(|table| (text(&table["name"]), number(&table["capacity"])))
            .collect();
        let expected = [("sources", 16384), ("grants", 1024), ("sessions", 1024)];
        assert_eq!(capacities, BTreeSet::from(expected));
        assert_eq!(find(&tables, "name", "grants")["used"], 1);
        assert_eq!(status["destinations"], "every");
        assert_eq!(status["addresses"], json!([]));
        assert_eq!(find(&tables, "name", "sessions")["used"], 1);
    });
}

#[test]
fn status_names_monitor_mode_and_native_attach() {
    Scenario::run(Attach::Native, Family::V4, &[], |scenario| {
        scenario.up(format!("mode = \"monitor\"\n{}", gates()));
        let status = document(scenario, "status --json");
        assert_eq!(status["interfaces"][0]["attach"], "native");
        assert_eq!(status["interfaces"][0]["mode"], "monitor");
    });
}

#[test]
fn grants() {
    both_families(|scenario| {
        scenario.up(gates());
        assert_eq!(document(scenario, "grants --json"), json!({"grants": []}));
        scenario.knock(A, ALICE);
        let _connection = scenario.connected(A, 22);
        scenario
            .knockgate("allow {network} --gate mail --for 1h")
            .exits(0);
        let grants = document(scenario, "grants --json");
        let keys = ["gate", "user", "source", "expires_in_ms", "connections"];
        let grants = rows(&grants["grants"], &keys);
        assert_eq!(grants.len(), 2);

        let knocked = find(&grants, "gate", "ssh");
        let full = if scenario.family == Family::V4 {
            32
        } else {
            128
        };
        let source = format!("{}/{full}", scenario.family.address(A));
        assert_eq!(knocked["source"], source);
        assert_eq!(knocked["user"], "alice");
        assert_eq!(knocked["connections"], 1);
        assert!((1..=60_000).contains(&number(&knocked["expires_in_ms"])));

        let given = find(&grants, "gate", "mail");
        assert_eq!(given["source"], scenario.family.network());
        assert!((3_000_000..=3_600_000).contains(&number(&given["expires_in_ms"])));
    });
}

#[test]
fn sources() {
    both_families(|scenario| {
        scenario.up(gates());
        assert_eq!(document(scenario, "sources --json"), json!({"sources": []}));
        scenario.knock(A, "7000/udp 8443/tcp");
        scenario.knock(B, "7100/tcp");
        let sources = document(scenario, "sources --json");
        let sources = rows(
            &sources["sources"],
            &["source", "step", "of", "gates", "age_ms"],
        );
        assert_eq!(sources.len(), 2);
        for (who, step, gate) in [(A, 2, "ssh"), (B, 1, "mail")] {
            let row = find(
                &sources,
                "source",
                &scenario.family.address(who).to_string(),
            );
            assert_eq!(row["step"], step);
            assert_eq!(row["of"], 3);
            assert_eq!(row["gates"], json!([gate]));
            assert!(number(&row["age_ms"]) < 60_000);
        }
    });
}

#[test]
fn sessions() {
    both_families(|scenario| {
        scenario.up(gates());
        assert_eq!(
            document(scenario, "sessions --json"),
            json!({"sessions": []})
        );
        scenario.knock(A, ALICE);
        let connection = scenario.connected(A, 22);
        let local = connection.local_addr().expect("a connection has two ends");
        let remote = connection.peer_addr().expect("a connection has two ends");
        let sessions = document(scenario, "sessions --json");
        let keys = ["gate", "protocol", "source", "destination", "idle_ms"];
        let [session] = rows(&sessions["sessions"], &keys)[..] else {
            panic!("not one session: {sessions}");
        };
        assert_eq!(session["gate"], "ssh");
        assert_eq!(session["protocol"], "tcp");
        // In Rust's notation of socket addresses, with brackets around IPv6.
        assert_eq!(session["source"], local.to_string());
        assert_eq!(session["destination"], remote.to_string());
        assert!(number(&session["idle_ms"]) < 60_000);
    });
}

#[test]
fn stats() {
    both_families(|scenario| {
        scenario.up(gates());
        scenario.knock(A, "22/tcp 22/tcp");
        scenario.knock(B, "7000/udp 7000/udp@4000 1234/tcp");
        scenario.knock(A, ALICE);
        drop(scenario.connected(A, 22));
        let stats = document(scenario, "stats --json");
        let packets = rows(
            &stats["packets"],
            &["verdict", "reason", "gate", "packets", "bytes"],
        );
        let reasons = [
            "not_ip",
            "other_protocol",
            "unguarded",
            "knock",
            "fragment",
            "grant",
            "session",
            "allow_list",
            "monitor",
            "lapsed",
            "no_grant",
            "used_up",
            "malformed",
        ];
        for row in &packets {
            let deny = ["no_grant", "used_up", "malformed"].contains(&text(&row["reason"]));
            assert!(reasons.contains(&text(&row["reason"])), "{row}");
            assert_eq!(row["verdict"], if deny { "deny" } else { "pass" }, "{row}");
            assert!(row["gate"].is_null() || row["gate"].is_string(), "{row}");
        }
        let ssh: Vec<&Value> = packets
            .iter()
            .copied()
            .filter(|row| row["gate"] == "ssh")
            .collect();
        let denied = find(&ssh, "reason", "no_grant");
        assert_eq!(denied["packets"], 2);
        // Linux's SYN has 74 bytes over IPv4, 94 over IPv6.
        let syn = if scenario.family == Family::V4 {
            74
        } else {
            94
        };
        assert_eq!(denied["bytes"], 2 * syn);
        assert!(number(&find(&ssh, "reason", "grant")["packets"]) >= 1);
        assert!(number(&find(&packets, "reason", "unguarded")["packets"]) >= 1);
        let knocks: u64 = packets
            .iter()
            .filter(|row| row["reason"] == "knock")
            .map(|row| number(&row["packets"]))
            .sum();
        assert_eq!(knocks, 5, "{stats}");

        let results = rows(&stats["knocks"], &["gate", "result", "count"]);
        let known = [
            "step",
            "opened",
            "wrong",
            "late",
            "source",
            "table_full",
            "duplicate",
        ];
        for row in &results {
            assert!(known.contains(&text(&row["result"])), "{row}");
        }
        let ssh: Vec<&Value> = results
            .iter()
            .copied()
            .filter(|row| row["gate"] == "ssh")
            .collect();
        assert_eq!(find(&ssh, "result", "opened")["count"], 1);
        assert!(number(&find(&ssh, "result", "step")["count"]) >= 3);
    });
}

#[test]
fn check() {
    let Some(lab) = Lab::build(&[]) else { return };
    let finding = ["level", "code", "message", "line", "column"];
    lab.configure(&format!("interfaces = [\"{WAN}\"]\n{}", gates()));
    let good = lab.knockgate(&["check", "--json"]).exits(0).json();
    assert_described("check", &good);
    assert_eq!(good["valid"], true);
    for row in rows(&good["findings"], &finding) {
        assert_eq!(row["level"], "warning", "{row}");
    }

    let twice = gates().replace("mail", "ssh");
    let twice = format!("interfaces = [\"{WAN}\"]\n{twice}");
    let names = twice
        .lines()
        .zip(1..)
        .filter(|(line, _)| line.starts_with("name"));
    let second = names.map(|(_, number)| number).nth(1);
    lab.configure(&twice);
    let bad = lab.knockgate(&["check", "--json"]).exits(3).json();
    assert_eq!(bad["valid"], false);
    let findings = rows(&bad["findings"], &finding);
    let error = find(&findings, "level", "error");
    assert_eq!(error["line"].as_u64(), second);
    assert!(number(&error["column"]) >= 1);
    assert!(text(&error["message"]).contains("ssh"), "{error}");

    let file = lab.folder().join("other.toml");
    fs::write(&file, "nonsense").expect("the temporary folder is writable");
    let path = file.to_str().expect("a temporary folder has a plain name");
    let other = lab.knockgate(&["check", path, "--json"]).exits(3).json();
    assert_eq!(other["valid"], false);
}

#[test]
fn events() {
    both_families(|scenario| {
        scenario.up(gates());
        scenario.closed(B, "22/tcp");
        scenario.knock(A, ALICE);
        scenario.open(A, "22/tcp");
        let run = scenario.knockgate("events --json");
        let events: Vec<Value> = run
            .exits(0)
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is a document"))
            .collect();
        let events: Vec<&Value> = events.iter().collect();
        for event in &events {
            let time = text(&event["time"]);
            assert!(
                time.contains('T') && time.ends_with('Z'),
                "not RFC 3339 in UTC: {event}"
            );
        }
        let source = scenario.family.address(A).to_string();
        let opened = find(&events, "event", "gate.opened");
        assert_eq!(opened["gate"], "ssh");
        assert_eq!(opened["user"], "alice");
        assert_eq!(opened["source"], source);
        assert!(text(&opened["until"]).ends_with('Z'), "{opened}");
        let step = find(&events, "event", "knock.step");
        assert_eq!(step["source"], source);
        assert_eq!(step["step"], 1);
        assert_eq!(step["of"], 3);
        assert_eq!(step["port"], "7000/udp");
        let denied = find(&events, "event", "packet.denied");
        assert_eq!(denied["source"], scenario.family.address(B).to_string());
        assert_eq!(denied["port"], "22/tcp");
        assert_eq!(denied["reason"], "no_grant");
    });
}

/// Without `--json`, each item has a line of text.
#[test]
fn text_for_people_names_the_same_things() {
    both_families(|scenario| {
        scenario.up(gates());
        scenario.knock(B, "7000/udp");
        scenario.knock(A, ALICE);
        let _session = scenario.connected(A, 22);
        let a = scenario.family.address(A).to_string();
        let b = scenario.family.address(B).to_string();
        for (command, words) in [
            ("status", [WAN, "ssh", "mail", "22/tcp"].as_slice()),
            ("grants", &["ssh", "alice", &a]),
            ("sources", &["ssh", &b]),
            ("sessions", &["ssh", &a]),
            ("stats", &["knock", "grant", "opened"]),
            ("events", &["gate.opened", "ssh", "alice", &a]),
        ] {
            let run = scenario.knockgate(command);
            let said = &run.exits(0).stdout;
            for word in words {
                assert!(said.contains(word), "no {word:?} in {run:#?}");
            }
            for heading in said.lines().filter(|line| is_heading(line)) {
                // Columns are two spaces apart.
                for column in heading.split("  ").filter(|column| !column.is_empty()) {
                    let column = format!("`{}`", column.trim());
                    let section = described(command);
                    assert!(section.contains(&column), "no {column} of {command}");
                }
            }
            assert!(!said.contains('{'), "{run:#?}");
            assert!(
                !said.contains('\u{1b}'),
                "coloured, but no terminal: {run:#?}"
            );
        }
    });
}

#[test]
fn up_and_down_leave_the_interface_as_it_was() {
    let Some(lab) = Lab::build(&[]) else { return };
    for attach in ["native", "generic", "auto", "tcx"] {
        if attach == "tcx" && !need::tcx() {
            continue;
        }
        // `ip link` shows what is at XDP.
        let carried = || (lab.interface(), foreign::programs_at_tcx(&lab.host, WAN));
        lab.configure(&format!(
            "interfaces = [\"{WAN}\"]\nattach = \"{attach}\"\n{}",
            gates()
        ));
        let before = carried();
        for down in [
            ["down"].as_slice(),
            &["down", "-i", WAN],
            &["down", "--all"],
        ] {
            lab.knockgate(&["up"]).exits(0);
            assert_ne!(carried(), before);
            assert!(!lab.pins().is_empty());
            lab.knockgate(down).exits(0);
            assert_eq!(carried(), before);
            lab.assert_untouched();
        }
    }
}

/// Runs `row` over IPv4 and over IPv6, with generic attach.
fn both_families(row: impl Fn(&Scenario)) {
    for family in [Family::V4, Family::V6] {
        Scenario::run(Attach::Generic, family, &[], &row);
    }
}
