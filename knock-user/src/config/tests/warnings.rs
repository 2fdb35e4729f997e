//! One row for each kind of warning, in surroundings that are part of the test.

use std::collections::BTreeSet;

use super::*;

const SEQUENCE: &str = "\"7431/udp\", \"2214/tcp\", \"9120/udp\"";
const USER: &str = "user = \"alice\"\n";
const GATE: &str = "protect = [\"22/tcp\"]\n";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { what: "two knocks", replace: "\"7431/udp\", ", with: "",
        code: "short-sequence", at: (10, 12), says: &["use three or more"] },
    Row { what: "rising ports", replace: SEQUENCE, with: "\"2214/tcp\", \"7431/udp\", \"9120/udp\"",
        code: "monotonic-sequence", at: (10, 12), says: &["only rise"] },
    Row { what: "falling ports", replace: SEQUENCE, with: "\"9120/tcp\", \"7431/udp\", \"2214/udp\"",
        code: "monotonic-sequence", at: (10, 12), says: &["only fall"] },
    Row { what: "one port again and again", replace: SEQUENCE, with: "\"7431/udp\", \"7431/udp\", \"7431/udp\"",
        code: "monotonic-sequence", at: (10, 12), says: &["go up and down"] },
    Row { what: "neighbours", replace: "\"2214/tcp\"", with: "\"2214/tcp\", \"2213/udp\"",
        code: "neighbouring-ports", at: (10, 37), says: &["2214/tcp and 2213/udp"] },
    Row { what: "a sequence from every tutorial, inside another", replace: SEQUENCE,
        with: "\"5120/udp\", \"9000/udp\", \"8000/tcp\", \"7000/udp\", \"7431/udp\"",
        code: "well-known-sequence", at: (10, 12), says: &["9000, 8000, 7000", "knockgate init"] },
    Row { what: "a long window", replace: USER, with: "user = \"alice\"\nwithin = \"61s\"\n",
        code: "long-window", at: (10, 10), says: &["1m1s", "1m at most"] },
    Row { what: "a long grant", replace: GATE, with: "protect = [\"22/tcp\"]\nopen_for = \"601s\"\n",
        code: "long-grant", at: (7, 12), says: &["10m1s", "10m at most"] },
    Row { what: "a knock in the ephemeral range", replace: "9120/udp", with: "40000/udp",
        code: "ephemeral-port", at: (10, 37), says: &["40000/udp", "32768 to 60999"] },
    Row { what: "a guarded port in the ephemeral range", replace: "\"22/tcp\"", with: "\"22/tcp\", \"60999/tcp\"",
        code: "ephemeral-port", at: (6, 22), says: &["60999/tcp", "would be denied"] },
    Row { what: "a knock on a port in use", replace: "9120/udp", with: "5353/udp",
        code: "knock-port-in-use", at: (10, 37), says: &["listens on 5353/udp"] },
    Row { what: "a gate without knocks", replace: "[[gate.knock]]\nuser = \"alice\"\nsequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n",
        with: "", code: "gate-without-knocks", at: (4, 1), says: &["gate \"ssh\"", "knockgate allow"] },
    Row { what: "the SSH session that would end", replace: "192.0.2.0/24", with: "192.0.3.0/24",
        code: "ssh-session", at: (6, 12), says: &["192.0.2.77", "gate \"ssh\" guards 22/tcp", "\"192.0.2.77/32\" to `allow`"] },
];

fn surroundings() -> Surroundings {
    Surroundings {
        ephemeral_ports: Some(32_768..=60_999),
        listening: BTreeSet::from(["5353/udp".parse().expect("a port")]),
        ssh: SshSession::parse("192.0.2.77 50022 192.0.2.1 22"),
    }
}

fn codes(text: &str, surroundings: &Surroundings) -> Vec<&'static str> {
    let (_, findings) = Config::parse_on(text, "k.toml", surroundings).expect("valid");
    assert!(
        findings
            .iter()
            .all(|finding| finding.level == Level::Warning)
    );
    findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn every_weakness_is_warned_of_alone_and_in_its_place() {
    assert_eq!(codes(GOOD, &surroundings()), [] as [&str; 0]);
    for row in ROWS {
        let (_, findings) = Config::parse_on(&row.text(), "k.toml", &surroundings())
            .unwrap_or_else(|e| panic!("{}: {e}", row.what));
        row.assert_is(&findings);
    }
}

#[test]
fn the_edge_of_each_bound_is_no_weakness() {
    for (replace, with) in [
        (USER, "user = \"alice\"\nwithin = \"1m\"\n"),
        (GATE, "protect = [\"22/tcp\"]\nopen_for = \"10m\"\n"),
        ("9120/udp", "32767/udp"),
        ("9120/udp", "61000/udp"),
        ("9120/udp", "5353/tcp"),
        // With a list of open ports, what listens is the user's own affair.
        ("allow", "open_ports = []\nallow"),
        ("9120/udp", "2216/udp"),
    ] {
        let text = GOOD.replacen(replace, with, 1);
        assert_eq!(codes(&text, &surroundings()), [] as [&str; 0], "{with}");
    }
}

#[test]
fn the_ssh_session_is_spared_by_whatever_lets_it_through() {
    let cut_off = GOOD.replace("192.0.2.0/24", "192.0.3.0/24");
    for (replace, with, codes_expected) in [
        ("allow", "mode = \"monitor\"\nallow", &[] as &[&str]),
        ("allow", "addresses = [\"192.0.2.2\"]\nallow", &[]),
        (
            "allow",
            "addresses = [\"192.0.2.1\"]\nallow",
            &["ssh-session"],
        ),
        ("22/tcp", "2222/tcp", &[]),
        ("22/tcp", "22/udp", &[]),
        (
            "allow = [\"192.0.3.0/24\"]",
            "allow = []",
            &["no-allow-list", "ssh-session"],
        ),
    ] {
        let text = cut_off.replacen(replace, with, 1);
        assert_eq!(codes(&text, &surroundings()), codes_expected, "{with}");
    }
    assert_eq!(codes(&cut_off, &Surroundings::default()), [] as [&str; 0]);
}

#[test]
fn the_sequence_everyone_knows_gets_every_warning_it_deserves() {
    let text = GOOD.replace(SEQUENCE, "\"7000/tcp\", \"8000/tcp\", \"9000/tcp\"");
    assert_eq!(
        codes(&text, &surroundings()),
        ["monotonic-sequence", "well-known-sequence"]
    );
    let text = GOOD.replace(SEQUENCE, "\"7000/tcp\", \"7001/tcp\", \"7002/tcp\"");
    assert_eq!(
        codes(&text, &surroundings()),
        ["monotonic-sequence", "neighbouring-ports"]
    );
}
