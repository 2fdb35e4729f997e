//! The kernel's own tunnels, whose devices have no link header: knockgate on such a device sees the inner packets. Not
//! every kernel has these devices; `cargo xtask kernels` boots kernels that do.

use std::{
    net::{IpAddr, TcpListener},
    time::Duration,
};

use knockgate_tests::{
    attempt::{self, Outcome},
    lab::{Family, Lab, Source},
    need::kernel_has,
    network::{add_address, ip},
    run::wait_until,
    scenario::Attach,
};
use netlab::Netns;

use crate::{gate, gate_in, peer::GUARDED, wireguard};

/// A kind of tunnel, the family of its outer packets, and the inner addresses of host and client.
struct Kind {
    name: &'static str,
    over: Family,
    within: &'static [[&'static str; 2]],
    more: &'static str,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "wireguard",
        over: Family::V4,
        within: &[["10.84.0.1", "10.84.0.2"], ["fd84::1", "fd84::2"]],
        more: "",
    },
    Kind {
        name: "ipip",
        over: Family::V4,
        within: &[["10.82.0.1", "10.82.0.2"]],
        more: "",
    },
    Kind {
        name: "sit",
        over: Family::V4,
        within: &[["fd82::1", "fd82::2"]],
        more: "",
    },
    Kind {
        name: "ip6tnl",
        over: Family::V6,
        within: &[["10.83.0.1", "10.83.0.2"], ["fd83::1", "fd83::2"]],
        more: "mode any",
    },
    Kind {
        name: "gre",
        over: Family::V4,
        within: &[["10.85.0.1", "10.85.0.2"], ["fd85::1", "fd85::2"]],
        more: "",
    },
    Kind {
        name: "ip6gre",
        over: Family::V6,
        within: &[["10.86.0.1", "10.86.0.2"], ["fd86::1", "fd86::2"]],
        more: "",
    },
];

/// One SYN decides below a second.
const SILENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn tunnels_are_guarded_by_what_is_inside() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let listener = lab.host.run(|| TcpListener::bind(("::", GUARDED)));
    let _listener = listener.expect("no one else is here");
    for kind in &KINDS {
        if !join(&lab, kind) {
            return;
        }
        let name = device(kind.name);
        for (attach, deny) in [
            (Attach::Generic, "drop"),
            (Attach::Generic, "reject"),
            (Attach::Tcx, "drop"),
        ] {
            if !attach.is_there() {
                continue;
            }
            lab.configure(&gate_in(attach.name(), &[&name], deny));
            let ends = || kind.within.iter().map(|ends| ends.map(address));
            for [host, client] in ends() {
                // WireGuard needs a handshake first.
                wait_until("the tunnel leads there", || {
                    connect(&lab, client, host, PATIENCE) == Outcome::Open
                });
            }
            lab.knockgate(&["up"]).exits(0);
            let (closed, wait) = if deny == "drop" {
                (Outcome::Silent, SILENCE)
            } else {
                (Outcome::Refused, PATIENCE)
            };
            for [host, client] in ends() {
                assert_eq!(
                    connect(&lab, client, host, wait),
                    closed,
                    "{name}, {attach:?}, {deny}"
                );
                knock(&lab, client, host);
                wait_until("the knock opens the port", || {
                    connect(&lab, client, host, SILENCE) == Outcome::Open
                });
            }
            lab.knockgate(&["down"]).exits(0);
        }
    }
}

/// The packets of such a device begin with the tunnel's header.
#[test]
fn gre_to_no_one_in_particular_is_refused() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let name = device("gre");
    let link = format!("link add {name} type gre local {}", Family::V4.host());
    if !kernel_has("GRE", &lab.host, &link) {
        return;
    }
    lab.configure(&gate(&[&name]));
    let up = lab.knockgate(&["up"]);
    assert_eq!(up.code, Some(1), "{}", up.stderr);
    assert!(up.stderr.contains("cannot be guarded"), "{}", up.stderr);
    lab.assert_untouched();
}

fn device(kind: &str) -> String {
    format!("to{kind}")
}

/// Makes both ends of a tunnel between the host and [`Source::A`]. Returns whether the kernel has this kind.
fn join(lab: &Lab, kind: &Kind) -> bool {
    let Kind {
        name,
        over,
        within,
        more,
    } = kind;
    let (host, client) = (over.host().to_string(), over.address(Source::A).to_string());
    let device = device(name);
    let end = |netns: &Netns, local: &str, remote: &str, inside: usize| {
        let is_wireguard = *name == "wireguard";
        let ends = if is_wireguard {
            String::new()
        } else {
            format!("local {local} remote {remote}")
        };
        let link = format!("link add {device} type {name} {more} {ends}");
        if !kernel_has(name, netns, &link) {
            return false;
        }
        if is_wireguard {
            let mut keys = [wireguard::HOST, wireguard::CLIENT];
            keys.rotate_left(inside);
            wireguard::set(netns, &device, keys, address(remote));
        }
        for ends in *within {
            let length = if ends[inside].contains(':') { 64 } else { 24 };
            add_address(netns, &device, &format!("{}/{length}", ends[inside]));
        }
        ip(netns, &format!("link set {device} up"));
        true
    };
    end(&lab.host, &host, &client, 0) && end(&lab.client, &client, &host, 1)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("well-formed")
}

fn connect(lab: &Lab, from: IpAddr, to: IpAddr, wait: Duration) -> Outcome {
    let connected = lab
        .client
        .run(|| attempt::connect((from, 0).into(), (to, GUARDED).into(), wait));
    connected.map_or_else(|outcome| outcome, |_| Outcome::Open)
}

fn knock(lab: &Lab, from: IpAddr, to: IpAddr) {
    lab.client.run(|| {
        attempt::datagram((from, 0).into(), (to, 7000).into());
        attempt::syn((from, 0).into(), (to, 8443).into());
        attempt::datagram((from, 0).into(), (to, 9301).into());
    });
}
