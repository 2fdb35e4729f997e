//! Interfaces whose packets begin with the IP header: gates work there as on Ethernet, and `up` refuses link types that
//! cannot be read. [`peer`] is the other end of a tun device, [`kinds`] tests the kernel's tunnels, and [`wireguard`]
//! sets up one of them.

mod kinds;
mod peer;
mod wireguard;

use knockgate_tests::{
    gate_config::Gate,
    lab::{Family, Lab, Source, WAN},
    network::ip,
    scenario::Attach,
    tun::Tun,
};
use netlab::packet::{self, Packet};

use peer::{CLOSED, GUARDED, Peer, TUN};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// How these interfaces carry the program: none has native XDP.
const MODES: [Attach; 2] = [Attach::Generic, Attach::Tcx];

/// Returns a configuration for these interfaces, in generic mode.
fn gate(interfaces: &[&str]) -> String {
    gate_in("generic", interfaces, "drop")
}

/// Returns a configuration for these interfaces, with this `attach`.
fn gate_in(attach: &str, interfaces: &[&str], deny: &str) -> String {
    let gate = Gate::ssh()
        .protect("22/tcp 22/udp")
        .key(format!("deny = {deny:?}"))
        .within("1m");
    format!(
        "interfaces = {interfaces:?}\nattach = {attach:?}\nopen_ports = []\nallow = [\"192.0.2.0/24\"]\n\
         limits = {{ sources = 16384, grants = 64, sessions = 64 }}\n{gate}"
    )
}

#[test]
fn a_gate_opens_to_those_who_knock_and_to_no_one_else() {
    for attach in MODES.into_iter().filter(|attach| attach.is_there()) {
        a_gate_opens(attach.name());
    }
}

fn a_gate_opens(attach: &str) {
    let Some(peer) = Peer::build() else {
        return;
    };
    let listeners = peer.listen();
    for family in FAMILIES {
        assert!(peer.connects(family, Source::A), "{family:?}: before `up`");
    }
    peer.lab.configure(&gate_in(attach, &[TUN], "drop"));
    peer.lab.knockgate(&["up"]).exits(0);
    let status = peer.lab.knockgate(&["status", "--json"]).exits(0).json();
    assert_eq!(status["interfaces"][0]["name"], TUN);
    assert_eq!(status["interfaces"][0]["attach"], attach);
    for family in FAMILIES {
        assert!(!peer.connects(family, Source::A), "{family:?}: closed");
        peer.knock(family, Source::A);
        assert!(peer.connects(family, Source::A), "{family:?}: open");
        assert!(
            !peer.connects(family, Source::B),
            "{family:?}: to the one who knocked"
        );
    }
    assert_eq!(peer.lab.stats().packets("not_ip"), 0);
    peer.lab.knockgate(&["down"]).exits(0);
    for family in FAMILIES {
        assert!(peer.connects(family, Source::B), "{family:?}: after `down`");
    }
    drop(listeners);
}

/// At the offset of Ethernet's ethertype, these packets have a part of an address.
#[test]
fn addresses_are_not_taken_for_ethertypes() {
    for attach in MODES.into_iter().filter(|attach| attach.is_there()) {
        addresses_are_addresses(attach.name());
    }
}

fn addresses_are_addresses(attach: &str) {
    let Some(peer) = Peer::build() else {
        return;
    };
    let listeners = peer.listen();
    peer.lab.configure(&gate_in(attach, &[TUN], "drop"));
    peer.lab.knockgate(&["up"]).exits(0);
    for source in ["134.221.96.1", "129.0.129.0", "136.168.0.1", "8.0.69.0"] {
        let source = source.parse().expect("well-formed");
        let ask = |port| {
            peer.answers_to(&Packet::tcp(
                (source, 4000),
                (peer::host(Family::V4), port),
                packet::SYN,
            ))
        };
        assert_eq!(ask(CLOSED).len(), 1, "{source}: a closed port answers");
        assert_eq!(ask(GUARDED).len(), 0, "{source}: the guarded one does not");
    }
    drop(listeners);
}

#[test]
fn a_gate_that_rejects_answers_as_the_host_does() {
    for attach in MODES.into_iter().filter(|attach| attach.is_there()) {
        answers_are_the_hosts(attach.name());
    }
}

fn answers_are_the_hosts(attach: &str) {
    let Some(peer) = Peer::build() else {
        return;
    };
    peer.lab.configure(&gate_in(attach, &[TUN], "reject"));
    peer.lab.knockgate(&["up"]).exits(0);
    let with_ack = packet::SYN | packet::ACK;
    for family in FAMILIES {
        // From an address that begins with the same bytes as the host's, and from one that does not.
        for source in [peer::address(family, Source::A), peer::stranger(family)] {
            let from = (source, 4000);
            let to = |port| (peer::host(family), port);
            let packets = |port| {
                let syn = Packet::tcp(from, to(port), packet::SYN);
                [
                    syn.clone(),
                    syn.with_payload(&[7; 900]),
                    Packet::tcp(from, to(port), with_ack),
                    Packet::udp(from, to(port), b"hello"),
                    Packet::udp(from, to(port), &[7; 1300]),
                ]
            };
            for (to_host, to_gate) in packets(CLOSED).into_iter().zip(packets(GUARDED)) {
                let [host, gate] = [&to_host, &to_gate].map(|packet| {
                    let mut answers = peer.answers_to(packet);
                    assert_eq!(answers.len(), 1, "{packet:?}");
                    peer::comparable(&answers.remove(0))
                });
                assert_eq!(gate, host, "{to_gate:?}");
            }
            let reset = Packet::tcp(from, to(GUARDED), packet::RST);
            assert!(
                peer.answers_to(&reset).is_empty(),
                "{family:?}: a RST is never answered"
            );
        }
    }
    assert_eq!(peer.lab.stats().packets("no_grant"), 2 * 2 * 6);
}

/// A gate on both kinds of link: a grant given on one is valid on the other.
#[test]
fn ethernet_and_bare_ip_share_a_gate() {
    share_a_gate("generic", ["generic"; 2]);
}

/// And where one is at XDP and the other at TCX, whose programs are two.
#[test]
fn xdp_and_tcx_share_a_gate() {
    if Attach::Tcx.is_there() {
        share_a_gate("auto", ["tcx", "native"]);
    }
}

fn share_a_gate(attach: &str, attached: [&str; 2]) {
    let Some(peer) = Peer::build() else {
        return;
    };
    let listeners = peer.listen();
    let config = gate_in(attach, &[WAN, TUN], "drop");
    peer.lab.configure(&config);
    peer.lab.knockgate(&["up"]).exits(0);
    let status = peer.lab.knockgate(&["status", "--json"]).exits(0).json();
    let interfaces = status["interfaces"]
        .as_array()
        .expect("interfaces is a list");
    let names: Vec<_> = interfaces.iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, [TUN, WAN]);
    let modes: Vec<_> = interfaces.iter().map(|row| row["attach"].clone()).collect();
    assert_eq!(modes, attached);
    for name in [TUN, WAN] {
        for pin in ["program", "program_ip"] {
            let program = peer.lab.pin_root().join(name).join(pin);
            assert!(program.exists(), "{}", program.display());
        }
    }
    for family in FAMILIES {
        assert!(!peer.connects(family, Source::A), "{family:?}: closed");
        peer.knock(family, Source::A);
        assert!(peer.connects(family, Source::A), "{family:?}: open");
        let source = peer::address(family, Source::A).to_string();
        let grants = peer.lab.list("grants");
        assert!(
            grants.iter().any(|row| row["source"]
                .as_str()
                .is_some_and(|of| of.starts_with(&source))),
            "{grants:?}"
        );
    }
    // A grant given by the entry for Ethernet is valid here, too.
    peer.lab.client.run(|| {
        use knockgate_tests::attempt;
        let source = Family::V4.address(Source::C);
        let to = Family::V4.host();
        attempt::datagram((source, 0).into(), (to, 7000).into());
        attempt::syn((source, 0).into(), (to, 8443).into());
        attempt::datagram((source, 0).into(), (to, 9301).into());
    });
    knockgate_tests::run::wait_until("the knock by Ethernet is counted", || {
        let mut grants = peer.lab.list("grants").into_iter();
        grants.any(|grant| grant.to_string().contains("10.77.2.2"))
    });
    // Another configuration replaces it on both.
    peer.lab
        .configure(&config.replace("within = \"1m\"", "within = \"2m\""));
    peer.lab.knockgate(&["reload"]).exits(0);
    peer.lab.knockgate(&["revoke", "--all"]).exits(0);
    for family in FAMILIES {
        assert!(
            !peer.connects(family, Source::A),
            "{family:?}: closed again"
        );
        peer.knock(family, Source::A);
        assert!(peer.connects(family, Source::A), "{family:?}: open again");
    }
    peer.lab.knockgate(&["down", "-i", TUN]).exits(0);
    for family in FAMILIES {
        assert!(
            peer.connects(family, Source::B),
            "{family:?}: taken down here"
        );
    }
    drop(listeners);
}

/// The entry for the new kind is loaded when it is needed, and uses the existing tables.
#[test]
fn an_interface_comes_back_as_another_kind() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    ip(
        &lab.host,
        &format!("link add {TUN} type veth peer name other0"),
    );
    lab.configure(&gate(&[TUN]));
    lab.knockgate(&["up"]).exits(0);
    let pin = |name| lab.pin_root().join(TUN).join(name);
    assert!(pin("program").exists() && !pin("program_ip").exists());
    let granted = peer::address(Family::V4, Source::A).to_string();
    lab.knockgate(&["allow", "--gate", "ssh", &granted])
        .exits(0);
    ip(&lab.host, &format!("link delete {TUN}"));

    let peer = Peer::in_lab(lab);
    let listeners = peer.listen();
    assert_eq!(peer.lab.knockgate(&["status"]).code, Some(7));
    peer.lab.knockgate(&["up"]).exits(0);
    assert!(peer.lab.pin_root().join(TUN).join("program_ip").exists());
    assert!(
        peer.connects(Family::V4, Source::A),
        "the grant is still there"
    );
    assert!(!peer.connects(Family::V4, Source::B));
    peer.knock(Family::V6, Source::B);
    assert!(peer.connects(Family::V6, Source::B));
    drop(listeners);
}

/// Packets of such a link cannot be read: `check` says so, and `up` attaches nothing.
#[test]
fn a_link_type_that_is_not_known_is_refused() {
    /// `ARPHRD_TUNNEL`, `ARPHRD_INFINIBAND` and `ARPHRD_PPP` of `linux/if_arp.h`; a tun device may say that it is
    /// any of these.
    const TYPES: [u32; 3] = [768, 32, 512];
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let tun = Tun::create_down(&lab.host, TUN);
    for link_type in TYPES {
        tun.pretend(link_type);
        lab.configure(&gate(&[TUN]));
        let check = lab.knockgate(&["check", "--json"]).exits(0).json();
        let findings = check["findings"].as_array().expect("findings is a list");
        let finding = findings
            .iter()
            .find(|of| of["code"] == "unreadable-interface");
        let finding = finding.unwrap_or_else(|| panic!("{check}"));
        assert_eq!(
            (&finding["line"], &finding["column"]),
            (&1.into(), &15.into())
        );
        let up = lab.knockgate(&["up"]);
        assert_eq!(up.code, Some(1), "{link_type}: {}", up.stderr);
        assert!(up.stderr.contains("cannot be guarded"), "{}", up.stderr);
        assert!(up.stderr.contains(&link_type.to_string()), "{}", up.stderr);
        lab.assert_untouched();
        // Nor is another interface of the same configuration guarded.
        lab.configure(&gate(&[WAN, TUN]));
        assert_eq!(lab.knockgate(&["up"]).code, Some(1));
        lab.assert_untouched();
    }
}

/// `init` chooses the interface of the default route.
#[test]
fn init_names_no_interface_that_can_not_be_guarded() {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    let tun = Tun::create_down(&lab.host, TUN);
    let route = || {
        let up = format!("link set {TUN} up\nroute replace default dev {TUN}");
        ip(&lab.host, &up);
    };
    route();
    let init = lab.knockgate(&["init"]);
    init.exits(0);
    assert!(
        init.stdout.contains(&format!("for {TUN}")),
        "{}",
        init.stdout
    );
    std::fs::remove_file(lab.config()).expect("it was written");
    ip(&lab.host, &format!("link set {TUN} down"));
    tun.pretend(32);
    route();
    let init = lab.knockgate(&["init"]);
    assert_eq!(init.code, Some(1), "{}", init.stdout);
    assert!(init.stderr.contains("cannot be guarded"), "{}", init.stderr);
    assert!(!lab.config().exists(), "no file is written");
}
