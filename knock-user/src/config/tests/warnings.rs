//! One row for each kind of warning, on a host that is part of the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::{MetadataExt as _, chown},
};

use super::*;
use crate::sys::links::{Address, Link};

const SEQUENCE: &str = "\"7431/udp\", \"2214/tcp\", \"9120/udp\"";
const USER: &str = "user = \"alice\"\n";
const GATE: &str = "protect = [\"22/tcp\"]\n";
const ALLOW: &str = "allow = [\"192.0.2.0/24\"]\n";
pub(super) const KNOCK: &str =
    "[[gate.knock]]\nuser = \"alice\"\nsequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row { what: "an interface that no entry of the program reads", replace: "\"eth0\"", with: "\"eth0\", \"ib0\"",
        code: "unreadable-interface", at: (1, 23), says: &["ib0 cannot be guarded"] },
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
    Row { what: "the SSH session that would end", replace: "192.0.2.0/24\"]\n\n[[gate]]\n",
        with: "192.0.3.0/24\"]\n\n[[gate]]\nestablished = \"cut\"\n", code: "ssh-session", at: (7, 12), says: &["192.0.2.77", "gate \"ssh\" guards 22/tcp", "\"192.0.2.77/32\" to `allow`"] },
    Row { what: "an interface that is not there", replace: "\"eth0\"", with: "\"eth0\", \"ethO\"",
        code: "absent-interface", at: (1, 23), says: &["no interface ethO", "did you mean \"eth0\"?"] },
    Row { what: "an interface that is like no other", replace: "\"eth0\"", with: "\"wlan7\"",
        code: "absent-interface", at: (1, 15), says: &["no interface wlan7", "ip -brief link"] },
    Row { what: "everyone on the allow list", replace: ALLOW, with: "allow = [\"192.0.2.0/24\", \"0.0.0.0/0\"]\n",
        code: "allow-everyone", at: (2, 26), says: &["every IPv4 address", "nothing is guarded"] },
    Row { what: "everyone on the allow list in two halves", replace: ALLOW,
        with: "allow = [\"192.0.2.0/24\", \"8000::/1\", \"::/1\"]\n",
        code: "allow-everyone", at: (2, 26), says: &["every IPv6 address"] },
    Row { what: "a guarded UDP port that this host may send from", replace: "\"22/tcp\"", with: "\"22/tcp\", \"123/udp\"",
        code: "guarded-udp-socket", at: (6, 22), says: &["123/udp", "replies are denied"] },
    Row { what: "addresses without those that nobody thinks of", replace: ALLOW,
        with: "allow = [\"192.0.2.0/24\"]\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\n",
        code: "addresses-left-open", at: (3, 14),
        says: &["fe80::1 (link-local)", "2001:db8::7e:1 (temporary)", "addresses = \"host\""] },
    Row { what: "metrics for everyone", replace: "[[gate]]", with: "[metrics]\nlisten = \"0.0.0.0:9464\"\n[[gate]]",
        code: "exposed-metrics", at: (5, 10), says: &["0.0.0.0:9464", "127.0.0.1:9464"] },
    Row { what: "metrics on a port for which the service has no privilege", replace: "[[gate]]",
        with: "[metrics]\nlisten = \"[::1]:80\"\n[[gate]]",
        code: "privileged-metrics-port", at: (5, 10), says: &["port 80", "below 1024", "[::1]:9464"] },
    Row { what: "a sequence beside a key", replace: KNOCK,
        with: "[[gate.knock]]\nuser = \"bob\"\nkey = \"bob\"\n[[gate.knock]]\nuser = \"alice\"\nsequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]\n[knock]\nports = [\"4164/udp\"]\n",
        code: "sequence-beside-key", at: (13, 12), says: &["gate \"ssh\" opens to a key", "user \"alice\""] },
];

/// Facts about a host on which [`GOOD`] has no weakness.
pub(super) fn host() -> HostFacts {
    let address = |ip: &str| Address {
        ip: ip.parse().expect("an address"),
        prefix: 0,
        broadcast: None,
        is_temporary: false,
    };
    let eth0 = Link {
        name: "eth0".to_owned(),
        kind: None,
        is_up: true,
        addresses: vec![
            Address {
                broadcast: Some("192.0.2.255".parse().expect("an address")),
                ..address("192.0.2.1")
            },
            address("2001:db8::1"),
            address("fe80::1"),
            Address {
                is_temporary: true,
                ..address("2001:db8::7e:1")
            },
        ],
        ..Link::default()
    };
    HostFacts {
        ephemeral_ports: Some(32_768..=60_999),
        first_unprivileged_port: Some(1024),
        listening: BTreeSet::from(["5353/udp".parse().expect("a port")]),
        udp_sockets: BTreeSet::from([123]),
        devices: Some(vec![
            device("lo", None),
            eth0,
            device("eth1", None),
            device("ib0", None),
        ]),
        source_routing: BTreeMap::new(),
        forwarding_unsaid: BTreeSet::new(),
        ssh: SshSession::parse("192.0.2.77 50022 192.0.2.1 22"),
        unreadable: [(
            "ib0".to_owned(),
            "the interface ib0 cannot be guarded".to_owned(),
        )]
        .into(),
        has_programs: false,
        has_keys: false,
        clock_is_free: false,
    }
}

fn device(name: &str, kind: Option<&str>) -> Link {
    Link {
        name: name.to_owned(),
        kind: kind.map(ToOwned::to_owned),
        is_up: true,
        ..Link::default()
    }
}

pub(super) fn codes(text: &str, host: &HostFacts) -> Vec<&'static str> {
    let (_, findings) = Config::parse_on(text, "k.toml", host).expect("valid");
    assert!(
        findings
            .iter()
            .all(|finding| finding.level == Level::Warning)
    );
    findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn every_weakness_is_warned_of_alone_and_in_its_place() {
    assert_eq!(codes(GOOD, &host()), [] as [&str; 0]);
    for row in ROWS {
        let (_, findings) = Config::parse_on(&row.text(), "k.toml", &host())
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
        // With a list of open ports, what listens is not looked at.
        ("allow", "open_ports = []\nallow"),
        ("9120/udp", "2216/udp"),
        (ALLOW, "allow = [\"128.0.0.0/1\", \"::/1\"]\n"),
        // The TCP port of that number, and a UDP port that no socket has.
        (GATE, "protect = [\"22/tcp\", \"123/tcp\", \"124/udp\"]\n"),
    ] {
        let text = GOOD.replacen(replace, with, 1);
        assert_eq!(codes(&text, &host()), [] as [&str; 0], "{with}");
    }
}

#[test]
fn the_ssh_session_is_spared_by_whatever_lets_it_through() {
    let kept = GOOD.replace("192.0.2.0/24", "192.0.3.0/24");
    let cut_off = kept.replace(GATE, &format!("{GATE}established = \"cut\"\n"));
    let host = || HostFacts {
        devices: None,
        ..host()
    };
    for (replace, with, codes_expected) in [
        ("allow", "mode = \"monitor\"\nallow", &[] as &[&str]),
        ("allow", "addresses = [\"192.0.2.2\"]\nallow", &[]),
        (
            "allow",
            "addresses = [\"192.0.2.1\"]\nallow",
            &["ssh-session"],
        ),
        (
            "[\"22/tcp\"]",
            "[\"22/tcp\"]\nprotect_at = [\"10.0.0.0/24\"]",
            &[],
        ),
        (
            "[\"22/tcp\"]",
            "[\"22/tcp\"]\nprotect_at = [\"192.0.2.0/24\"]",
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
        assert_eq!(codes(&text, &host()), codes_expected, "{with}");
    }
    assert_eq!(codes(&cut_off, &HostFacts::default()), [] as [&str; 0]);
    assert_eq!(codes(&kept, &host()), [] as [&str; 0]);
}

#[test]
fn a_tunnel_that_unwraps_behind_the_gate_is_warned_of_until_it_is_guarded() {
    for (kind, is_up, codes_expected) in [
        ("gre", true, ["unguarded-tunnel"].as_slice()),
        ("ipip", true, &["unguarded-tunnel"]),
        ("sit", true, &["unguarded-tunnel"]),
        ("vxlan", true, &["unguarded-tunnel"]),
        ("geneve", true, &["unguarded-tunnel"]),
        // The kernel creates `tunl0` and the like by itself, down.
        ("ipip", false, &[]),
        ("wireguard", true, &[]),
        ("veth", true, &[]),
    ] {
        let mut host = host();
        let tunnel = Link {
            is_up,
            ..device("tunnel1", Some(kind))
        };
        host.devices
            .iter_mut()
            .for_each(|devices| devices.push(tunnel.clone()));
        assert_eq!(codes(GOOD, &host), codes_expected, "{kind}");
        let guarded = GOOD.replace("\"eth0\"", "\"eth0\", \"tunnel1\"");
        assert_eq!(codes(&guarded, &host), [] as [&str; 0], "{kind}");
    }
}

#[test]
fn source_routing_is_warned_of_where_it_is_on_at_a_guarded_interface() {
    let mut host = host();
    let setting = "net/ipv6/conf/eth0/seg6_enabled".to_owned();
    host.source_routing.insert("eth0".to_owned(), vec![setting]);
    let (_, findings) = Config::parse_on(GOOD, "k.toml", &host).expect("valid");
    let [finding] = findings.as_slice() else {
        panic!("one finding, not {findings:#?}");
    };
    assert_eq!(finding.code, "source-routing");
    assert!(
        finding
            .message
            .contains("sysctl -w net/ipv6/conf/eth0/seg6_enabled=0"),
        "{finding}"
    );
    let elsewhere = GOOD.replace("eth0", "eth1");
    assert_eq!(codes(&elsewhere, &host), [] as [&str; 0]);
}

#[test]
fn forwarding_that_the_routes_do_not_tell_is_warned_of_where_they_are_asked() {
    let mut host = host();
    host.forwarding_unsaid.insert("eth0".to_owned());
    assert_eq!(codes(GOOD, &host), [] as [&str; 0]);
    let asked = GOOD.replace(ALLOW, &format!("{ALLOW}addresses = \"host\"\n"));
    let (_, findings) = Config::parse_on(&asked, "k.toml", &host).expect("valid");
    let [finding] = findings.as_slice() else {
        panic!("one finding, not {findings:#?}");
    };
    assert_eq!(finding.code, "ipv6-forwarding");
    assert!(
        finding
            .message
            .contains("`sysctl -w net/ipv6/conf/eth0/forwarding=1`"),
        "{finding}"
    );
    let elsewhere = asked.replace("eth0", "eth1");
    assert_eq!(codes(&elsewhere, &host), [] as [&str; 0]);
}

#[test]
fn groups_are_left_open_where_a_gate_guards_a_udp_port() {
    let addresses =
        "addresses = [\"192.0.2.1\", \"2001:db8::1\", \"fe80::1\", \"2001:db8::7e:1\"]\n";
    let tcp = GOOD.replace(ALLOW, &format!("{ALLOW}{addresses}"));
    assert_eq!(codes(&tcp, &host()), [] as [&str; 0]);
    let udp = tcp.replace("22/tcp", "51820/udp");
    let host = HostFacts {
        ephemeral_ports: None,
        ..host()
    };
    let (_, findings) = Config::parse_on(&udp, "k.toml", &host).expect("valid");
    let [finding] = findings.as_slice() else {
        panic!("one finding, not {findings:#?}");
    };
    assert_eq!(finding.code, "addresses-left-open");
    for left in [
        "192.0.2.255 (broadcast)",
        "255.255.255.255 (broadcast)",
        "224.0.0.1 (every host)",
        "ff02::1 (every host)",
    ] {
        assert!(finding.message.contains(left), "{left}: {finding}");
    }
    assert!(!finding.message.contains("fe80::1"), "{finding}");
}

/// A typing error, or a router that guards what is behind it.
#[test]
fn a_host_that_has_none_of_the_addresses_is_told_its_own() {
    let foreign = GOOD.replace(ALLOW, &format!("{ALLOW}addresses = [\"192.0.2.99\"]\n"));
    let (_, findings) = Config::parse_on(&foreign, "k.toml", &host()).expect("valid");
    let said: Vec<_> = findings
        .iter()
        .filter(|finding| finding.code == "addresses-left-open")
        .map(|finding| finding.message.as_str())
        .collect();
    let [said] = said.as_slice() else {
        panic!("one of these, not {findings:#?}");
    };
    for address in [
        "192.0.2.1 (this host's own)",
        "2001:db8::1 (this host's own)",
        "fe80::1 (link-local)",
    ] {
        assert!(said.contains(address), "{said}");
    }
}

#[test]
fn the_sequence_everyone_knows_gets_every_warning_it_deserves() {
    let text = GOOD.replace(SEQUENCE, "\"7000/tcp\", \"8000/tcp\", \"9000/tcp\"");
    assert_eq!(
        codes(&text, &host()),
        ["monotonic-sequence", "well-known-sequence"]
    );
    let text = GOOD.replace(SEQUENCE, "\"7000/tcp\", \"7001/tcp\", \"7002/tcp\"");
    assert_eq!(
        codes(&text, &host()),
        ["monotonic-sequence", "neighbouring-ports"]
    );
}

/// With the programs that are in the file system of this test.
#[test]
fn programs_that_cannot_be_run_or_that_others_can_change_are_warned_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("notify");
    let text = format!(
        "{GOOD}[[gate.hook]]\non = \"opened\"\nrun = [\"{}\", \"{{source}}\"]\n",
        program.display()
    );
    let host = HostFacts {
        has_programs: true,
        ..host()
    };
    let expect = |what: &str, expected: &[(&str, &str)]| {
        let (_, findings) = Config::parse_on(&text, "k.toml", &host).expect("valid");
        assert_eq!(findings.len(), expected.len(), "{what}: {findings:#?}");
        for (finding, (code, says)) in findings.iter().zip(expected) {
            assert_eq!(finding.code, *code, "{what}");
            assert_eq!(
                (finding.line, finding.column),
                (Some(13), Some(8)),
                "{what}"
            );
            assert!(finding.message.contains(says), "{what}: {finding}");
        }
    };
    let set = |mode| fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("ours");
    expect("absent", &[("missing-program", "No such file")]);
    fs::write(&program, "#!/bin/sh\n").expect("writable");
    set(0o644);
    expect("not executable", &[("missing-program", "chmod +x")]);
    let is_root = fs::metadata(&program).expect("written").uid() == 0;
    if is_root {
        set(0o755);
        expect("as it should be", &[]);
    }
    set(0o775);
    expect(
        "for a group to change",
        &[("program-open-to-others", "mode 0775")],
    );
    set(0o755);
    if is_root {
        chown(&program, Some(65_534), None).expect("root may");
    }
    expect(
        "of another owner",
        &[("program-open-to-others", "chown root")],
    );
}
