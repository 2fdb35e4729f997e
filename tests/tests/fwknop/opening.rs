//! What the client opens, and for whom.

use std::{thread::sleep, time::Duration};

use knockgate_tests::{
    foreign::freeze,
    fwknop::{
        DRAWN, Keys, OTHER, PASSPHRASES, PORT, count, counted, fwknop, is_refused, packet, send,
        ssh,
    },
    lab::{
        CLIENT_INTERFACE, Family,
        Source::{A, B},
        WAN,
    },
    network::ip,
    run::{wait_for_value, wait_until},
    scenario::{Attach, Scenario},
};
use serde_json::Value;

use super::{serve, with_client};

/// Returns the one grant that there is, once it is there.
fn grant(scenario: &Scenario) -> Value {
    wait_until("there is a grant", || {
        !scenario.lab.list("grants").is_empty()
    });
    let mut grants = scenario.lab.list("grants");
    assert_eq!(grants.len(), 1, "{grants:?}");
    grants.remove(0)
}

/// Asserts that there is one grant: of this user, for this address. Then takes it away.
fn granted(scenario: &Scenario, user: &str, address: &str) -> Value {
    let grant = grant(scenario);
    assert_eq!(grant["user"], user, "{grant}");
    assert_eq!(grant["source"], format!("{address}/32"), "{grant}");
    scenario.knockgate("revoke --all").exits(0);
    grant
}

#[test]
fn with_keys_of_every_kind() {
    const DIGESTS: [&str; 7] = [
        "MD5", "SHA1", "SHA256", "SHA384", "SHA512", "SHA3_256", "SHA3_512",
    ];
    with_client(|scenario| {
        // The same keys by another digest are another key, at a gate of its own.
        let ports = 3001..;
        let of_digests: Vec<String> = ports
            .clone()
            .zip(DIGESTS)
            .map(|(port, digest): (u16, &str)| {
                let name = digest.to_lowercase();
                let section = DRAWN.section(&name, &format!("hmac_digest_type = '{name}'"));
                format!("[[gate]]\nname = '{name}'\nprotect = ['{port}/tcp']\n{section}")
            })
            .collect();
        let of_digests = of_digests.concat();
        let config = format!("{}{of_digests}", ssh(&PASSPHRASES.section("bob", "")));
        let _service = serve(scenario, &config);
        let a = scenario.address(A).to_string();
        fwknop(scenario, PASSPHRASES, "", &["-a", &a]);
        granted(scenario, "bob", &a);
        for (port, digest) in ports.zip(DIGESTS) {
            let lines = format!("HMAC_DIGEST_TYPE {digest}\nDIGEST_TYPE {digest}\n");
            let access = format!("tcp/{port}");
            fwknop(scenario, DRAWN, &lines, &["-a", &a, "-A", &access]);
            granted(scenario, &digest.to_lowercase(), &a);
        }
        counted(scenario, "opened", 8);
    });
}

#[test]
fn for_the_address_that_it_names_or_comes_from_and_no_longer_than_it_asks() {
    with_client(|scenario| {
        let config = ssh(&DRAWN.section("alice", ""));
        let _service = serve(scenario, &config);
        let (a, b) = (
            scenario.address(A).to_string(),
            scenario.address(B).to_string(),
        );
        let fwknop = |options: &[&str]| fwknop(scenario, DRAWN, "", options);
        scenario.closed(A, "22/tcp");
        fwknop(&["-s"]);
        grant(scenario);
        scenario.open(A, "22/tcp");
        scenario.closed(B, "22/tcp");
        granted(scenario, "alice", &a);
        // As its `-R` does, which asks a web server for the address first.
        fwknop(&["-a", &b]);
        let grant = granted(scenario, "alice", &b);
        let left = |grant: &Value| grant["expires_in_ms"].as_u64().expect("a number");
        assert!(left(&grant) > 120_000, "{grant}");
        fwknop(&["-a", &a, "-f", "120"]);
        let grant = granted(scenario, "alice", &a);
        assert!(left(&grant) <= 120_000, "{grant}");
        fwknop(&["-a", &a, "-f", "65000"]);
        let grant = granted(scenario, "alice", &a);
        assert!((120_000..=600_000).contains(&left(&grant)), "{grant}");
        let opened = wait_for_value(
            "four openings are reported",
            || {
                let events = scenario.lab.events().into_iter();
                let openings = events.filter(|event| event["event"] == "gate.opened");
                openings.collect::<Vec<Value>>()
            },
            |opened| opened.len() >= 4,
        );
        assert_eq!(opened.len(), 4, "{opened:?}");
        for event in &opened {
            assert_eq!(event["gate"], "ssh");
            assert_eq!(event["user"], "alice");
            assert_eq!(event["port"], format!("{PORT}/udp"));
            assert!(
                event["until"].is_string() && event["source"].is_string(),
                "{event}"
            );
        }
        assert_eq!(opened[1]["source"], b);
        counted(scenario, "opened", 4);
        let metrics = scenario.knockgate("metrics").exits(0).stdout.clone();
        let line = "knockgate_fwknop_total{outcome=\"opened\"} 4";
        assert!(metrics.contains(line), "{metrics}");
    });
}

/// The client knows IPv4 alone, but its packet with `-s` may come over IPv6.
#[test]
fn over_ipv6_for_where_it_comes_from() {
    with_client(|scenario| {
        let _service = serve(scenario, &ssh(&DRAWN.section("alice", "")));
        let packet = packet(scenario, DRAWN, "", &["-s", "-T"]);
        let v6 = scenario.over(Family::V6);
        send(&v6, A, &packet);
        let grant = grant(scenario);
        assert_eq!(grant["source"], format!("{}/128", v6.address(A)));
        v6.open(A, "22/tcp");
        v6.closed(B, "22/tcp");
    });
}

#[test]
fn every_gate_whose_ports_it_asks_for_or_none() {
    with_client(|scenario| {
        let alice = DRAWN.section("alice", "");
        let mail =
            |section: &str| format!("[[gate]]\nname = 'mail'\nprotect = ['25/tcp']\n{section}");
        let both = format!("{}{}", ssh(&alice), mail(&alice));
        let _service = serve(scenario, &both);
        let a = scenario.address(A).to_string();
        let ask = |access: &str| {
            fwknop(scenario, DRAWN, "", &["-a", &a, "-A", access]);
        };
        ask("tcp/22,tcp/25");
        counted(scenario, "opened", 1);
        let mut gates: Vec<String> = scenario
            .lab
            .list("grants")
            .iter()
            .map(|grant| grant["gate"].as_str().unwrap_or_default().to_owned())
            .collect();
        gates.sort();
        assert_eq!(gates, ["mail", "ssh"]);
        scenario.open(A, "22/tcp");
        scenario.open(A, "25/tcp");
        scenario.knockgate("revoke --all").exits(0);
        for access in ["tcp/22,tcp/80", "udp/22", "tcp/22,udp/25"] {
            ask(access);
        }
        counted(scenario, "gate", 3);
        // The key is another one at one of them.
        scenario.configure(format!(
            "{}{}",
            ssh(&alice),
            mail(&OTHER.section("alice", ""))
        ));
        scenario.knockgate("reload").exits(0);
        ask("tcp/22,tcp/25");
        counted(scenario, "gate", 4);
        assert_eq!(scenario.lab.list("grants"), [] as [Value; 0]);
        ask("tcp/22");
        counted(scenario, "opened", 2);
        assert_eq!(count(scenario, "failed"), 0);
    });
}

/// The thread ends with each packet, since it cannot write down its counts.
#[test]
fn also_after_its_thread_has_ended_by_itself() {
    with_client(|scenario| {
        let _service = serve(scenario, &ssh(&DRAWN.section("alice", "")));
        freeze(&scenario.lab.pin_root().join(WAN).join("fwknop_count"));
        let [a, b] = [A, B].map(|source| scenario.address(source).to_string());
        fwknop(scenario, DRAWN, "", &["-a", &a]);
        granted(scenario, "alice", &a);
        fwknop(scenario, DRAWN, "", &["-a", &b]);
        granted(scenario, "alice", &b);
        assert_eq!(count(scenario, "opened"), 0);
    });
}

/// What a reload puts into force holds from then on, for keys too.
#[test]
fn with_the_keys_in_force() {
    with_client(|scenario| {
        let config = |keys: Keys| ssh(&keys.section("alice", ""));
        let service = serve(scenario, &config(DRAWN));
        let knock = |keys: Keys| {
            fwknop(scenario, keys, "", &["-s"]);
        };
        knock(DRAWN);
        counted(scenario, "opened", 1);
        scenario.configure(config(OTHER));
        // The file has another key by now, but the one in force stays.
        knock(DRAWN);
        counted(scenario, "opened", 2);
        scenario.knockgate("reload").exits(0);
        wait_until("the service has seen it", || {
            let events = scenario.lab.events();
            events
                .iter()
                .any(|event| event["event"] == "config.applied")
        });
        knock(DRAWN);
        counted(scenario, "forged", 1);
        knock(OTHER);
        counted(scenario, "opened", 3);
        scenario.configure(config(DRAWN));
        service.signal(libc::SIGHUP);
        wait_until("the service has seen it", || {
            let events = scenario.lab.events();
            let applied = events
                .iter()
                .filter(|event| event["event"] == "config.applied");
            applied.count() == 2
        });
        knock(DRAWN);
        counted(scenario, "opened", 4);
        // A gate without keys has no port of fwknop's, and no thread.
        scenario.configure(ssh(""));
        scenario.knockgate("reload").exits(0);
        let document = scenario.knockgate("stats --json").exits(0).json();
        assert_eq!(document["fwknop"], Value::Array(Vec::new()));
    });
}

#[test]
fn in_native_mode_and_through_frames_in_several_buffers() {
    Scenario::run(Attach::Native, Family::V4, &["fwknop"], |scenario| {
        for mtu in ["1500", "9000"] {
            let lab = &scenario.lab;
            for (netns, interface) in [(&lab.host, WAN), (&lab.client, CLIENT_INTERFACE)] {
                ip(netns, &format!("link set {interface} mtu {mtu}"));
            }
            let service = serve(scenario, &ssh(&DRAWN.section("alice", "")));
            fwknop(scenario, DRAWN, "", &["-s"]);
            granted(scenario, "alice", &scenario.address(A).to_string());
            // Longer than what most need.
            let ports: Vec<String> = (2000..2020).map(|port| format!("tcp/{port}")).collect();
            fwknop(scenario, DRAWN, "", &["-s", "-A", &ports.join(",")]);
            counted(scenario, "gate", 1);
            service.signal(libc::SIGTERM);
            assert_eq!(service.ends(), Some(0));
            scenario.knockgate("down").exits(0);
        }
    });
}

/// The port looks like any closed one, whatever is sent to it.
#[test]
fn by_a_port_that_looks_closed() {
    with_client(|scenario| {
        let _service = serve(scenario, &ssh(&DRAWN.section("alice", "")));
        let packet = packet(scenario, DRAWN, "", &["-s", "-T"]);
        assert!(is_refused(scenario, A, b"anything"));
        assert!(is_refused(scenario, A, &packet));
        counted(scenario, "opened", 1);
        assert!(is_refused(scenario, A, &packet));
        counted(scenario, "replay", 1);
        // As before the service, and as another port.
        scenario.refused(B, &format!("{PORT}/udp"));
        scenario.refused(B, "62202/udp");
    });
}

/// The kernel reports the end, and a thread of the service's what it has given since, while the service does something else.
#[test]
fn what_is_given_where_a_grant_has_ended_is_said_after_that_end() {
    with_client(|scenario| {
        let section = DRAWN.section("alice", "");
        let service = serve(scenario, &ssh(&format!("connections = 1\n{section}")));
        let a = scenario.address(A).to_string();
        let of_grants = || {
            let events = scenario.lab.events().into_iter();
            let names = events.filter_map(|event| event["event"].as_str().map(ToOwned::to_owned));
            let names = names.filter(|name| ["gate.opened", "gate.closed"].contains(&&**name));
            names.collect::<Vec<String>>()
        };
        fwknop(scenario, DRAWN, "", &["-a", &a]);
        let mut expected = vec!["gate.opened"];
        wait_for_value("the first is said", of_grants, |said| *said == expected);
        service.hold();
        scenario.open(A, "22/tcp");
        // By more than the kernel's coarse clock may be behind.
        sleep(Duration::from_millis(50));
        fwknop(scenario, DRAWN, "", &["-a", &a]);
        counted(scenario, "opened", 2);
        service.let_go();
        expected.extend(["gate.closed", "gate.opened"]);
        let said = wait_for_value("all is said", of_grants, |said| said.len() >= 3);
        assert_eq!(said, expected);
    });
}
