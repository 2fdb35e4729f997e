//! Ports that the firewall forwards: what `check` and `up` say of them, and what becomes of them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use knockgate_tests::{
    gate_config::Gate,
    lab::{Family, Lab, Source::A, WAN},
    network::{ip, set},
    scenario::{Attach, Scenario},
};
use serde_json::{Value, json};

use crate::documents::{assert_described, find, rows, text};

/// The second set of rules is as Docker's backend for nftables and podman make them.
const RULES: &str = "
    table ip nat {
        chain prerouting {
            type nat hook prerouting priority dstnat; policy accept;
            tcp dport 8022 redirect to :22
        }
        chain output {
            type nat hook output priority -100; policy accept;
            tcp dport 9022 redirect to :22
        }
    }
    table inet containers {
        map ports { type inet_service : ipv4_addr; }
        chain arriving {
            type nat hook prerouting priority dstnat + 1; policy accept;
            ip daddr 10.77.0.1 tcp dport 8080 dnat ip to 10.88.0.2:80
            ip daddr 127.0.0.1 tcp dport 8081 dnat ip to 10.88.0.2:25
            ip daddr 10.79.0.7 tcp dport 8082 dnat ip to 10.88.0.2:82
            dnat ip to tcp dport map @ports
        }
    }
";

/// Feeds a program of the host's namespace.
fn feed(lab: &Lab, program: &str, arguments: &[&str], input: &str) {
    let mut command: Command = lab.host.command(program);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("it is installed");
    let mut to = child.stdin.take().expect("a pipe");
    to.write_all(input.as_bytes()).expect("it reads");
    drop(to);
    assert!(child.wait().expect("it ends").success(), "{program}");
}

/// Returns what `check --json` says of published ports, and its warnings of such.
fn checked(lab: &Lab) -> (Vec<Value>, Vec<String>) {
    let document = lab.knockgate(&["check", "--json"]).exits(0).json();
    assert_described("check", &document);
    let published = document["published"].as_array().expect("a list").clone();
    let findings = rows(&document["findings"], &["code", "message"]);
    let open = findings
        .iter()
        .filter(|row| row["code"] == "published-port-open");
    let open = open.map(|row| text(&row["message"]).to_owned()).collect();
    (published, open)
}

#[test]
fn of_nft() {
    Scenario::run(Attach::Generic, Family::V4, &["nft"], |scenario| {
        feed(&scenario.lab, "nft", &["-f", "-"], RULES);
        scenario.up(Gate::ssh());
        scenario.closed(A, "22/tcp");
        // As `check` says.
        scenario.open(A, "8022/tcp");
        let (published, open) = checked(&scenario.lab);
        assert_eq!(
            published,
            [json!({
                "port": "8022/tcp", "address": null, "to": "port 22 of this host", "gate": "ssh", "guarded": false,
            })]
        );
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(
            open[0].contains("list 8022/tcp under `protect`"),
            "{open:?}"
        );

        let gate = Gate::ssh().protect("22/tcp 8022/tcp 8080/tcp").to_string();
        scenario.configure(format!("addresses = \"host\"\n{gate}"));
        let (published, open) = checked(&scenario.lab);
        assert_eq!(open, [""; 0]);
        let of = |port: &str| {
            let rows: Vec<&Value> = published.iter().collect();
            find(&rows, "port", port).clone()
        };
        assert_eq!(published.len(), 2, "{published:?}");
        assert_eq!(of("8022/tcp")["guarded"], true);
        assert_eq!(
            of("8080/tcp"),
            json!({
                "port": "8080/tcp", "address": "10.77.0.1/32", "to": "10.88.0.2:80", "gate": "ssh", "guarded": true,
            })
        );
        let said = scenario.knockgate("check").exits(0).stdout.clone();
        for line in [
            "8080/tcp at 10.77.0.1, forwarded to 10.88.0.2:80, is guarded by gate \"ssh\"",
            "1 firewall rule was not examined: it names no port",
        ] {
            assert!(said.contains(line), "{said}");
        }
        let said = scenario.knockgate("up").exits(0).stderr.clone();
        assert!(said.contains("8080/tcp at 10.77.0.1"), "{said}");
        scenario.closed(A, "8022/tcp");

        forwarding(&scenario.lab);
    });
}

/// A host that forwards lets packets to others by, which only some of the rules take.
fn forwarding(lab: &Lab) {
    set(&lab.host, &["ipv4/ip_forward"], "1");
    let gate = Gate::ssh().protect("8022/tcp 8080/tcp 8081/tcp 8082/tcp");
    lab.configure(&format!(
        "interfaces = [{WAN:?}]\naddresses = \"host\"\n{gate}"
    ));
    let guarded = || {
        let (published, open) = checked(lab);
        let rows: Vec<&Value> = published.iter().collect();
        assert_eq!(rows.len(), 4, "{rows:?}");
        let ports = ["8022/tcp", "8080/tcp", "8081/tcp", "8082/tcp"];
        let guarded = ports.map(|port| find(&rows, "port", port)["guarded"] == true);
        (guarded, open)
    };
    let (before, open) = guarded();
    assert_eq!(before, [false, true, true, false]);
    for said in [
        "8022/tcp, forwarded to port 22 of this host, stays open to packets for other hosts",
        "10.79.0.7 is not one of this host's own addresses",
    ] {
        assert!(open.iter().any(|open| open.contains(said)), "{open:?}");
    }
    ip(&lab.host, "route add local 10.79.0.0/24 dev lo");
    let (with_network, _) = guarded();
    assert_eq!(with_network, [false, true, true, true]);
}

/// Their rules are in nft's list too, but without their destinations.
#[test]
fn of_iptables() {
    const RULES: &str = "*nat\n:DOCKER - [0:0]\n\
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
        -A OUTPUT -p tcp -m tcp --dport 9022 -j REDIRECT --to-ports 22\n\
        -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8022 -j DNAT --to-destination 10.77.0.1:22\n\
        COMMIT\n";
    let tools = ["iptables-restore", "iptables-save"];
    Scenario::run(Attach::Generic, Family::V4, &tools, |scenario| {
        feed(&scenario.lab, "iptables-restore", &[], RULES);
        scenario.up(Gate::ssh());
        scenario.open(A, "8022/tcp");
        let (published, open) = checked(&scenario.lab);
        assert_eq!(published[0]["to"], "10.77.0.1:22");
        assert_eq!(open.len(), 1, "{open:?}");
        scenario.up(Gate::ssh().protect("8022/tcp"));
        scenario.closed(A, "8022/tcp");
        let (published, open) = checked(&scenario.lab);
        assert_eq!(published[0]["guarded"], true);
        assert_eq!(open, [""; 0]);
    });
}
