use std::slice;

use super::*;
use crate::config::Addresses;

/// What is said of rules with a gate for each of these ports, in lines.
fn said_of(rules: &[Rule], top: &str, protect: &str, host: &Host) -> Vec<String> {
    let text = format!("{top}\n[[gate]]\nname = \"web\"\nprotect = {protect}\n");
    let (config, _) = Config::parse(&text, "test").expect("valid");
    let destinations = match &config.addresses {
        Addresses::Host => Destinations {
            destinations: "host",
            addresses: vec![crate::datapath::GuardedAddress {
                address: "192.0.2.9".parse().expect("an address"),
                kind: "own",
            }],
        },
        _ => Destinations::of(&config).expect("nothing is read"),
    };
    let rows = concerned(&config, &destinations, rules, host);
    rows.iter().map(ToString::to_string).collect()
}

/// As [`said_of`], of [`SAVED`] on [`router`].
fn said(top: &str, protect: &str) -> Vec<String> {
    said_of(
        &iptables::read(SAVED, Family::V4).published,
        top,
        protect,
        &router(),
    )
}

/// A host that forwards, with an address and a network routed to it.
fn router() -> Host {
    let own = ["192.0.2.9/32", "203.0.113.0/24", "2001:db8::9/128"];
    Host {
        own: Some(own.map(|net| net.parse().expect("a network")).into()),
        ends_others: Vec::new(),
        ..Host::default()
    }
}

const TO_WEB: &str = "8080/tcp, forwarded to 172.17.0.2:80,";

#[test]
fn a_gate_with_destinations_of_its_own_guards_what_is_published_there() {
    let said_of_dns = |at: &str| said("", &format!("[\"53/udp\"]\nprotect_at = [\"{at}\"]"));
    assert_eq!(
        said_of_dns("192.0.2.0/24"),
        ["53/udp at 192.0.2.1, forwarded to 172.17.0.3:5353, is guarded by gate \"web\""]
    );
    assert_eq!(
        said_of_dns("172.17.0.0/16"),
        [
            "53/udp at 192.0.2.1, forwarded to 172.17.0.3:5353, stays open: `protect_at` of gate \"web\" does not cover \
             192.0.2.1"
        ]
    );
    let said_of_web = |at: &str| said("", &format!("[\"8080/tcp\"]\nprotect_at = [{at}]"));
    assert_eq!(
        said_of_web("\"192.0.2.0/24\", \"127.0.0.0/8\""),
        [format!(
            "{TO_WEB} stays open at each address of this host that `protect_at` of gate \"web\" does not cover"
        )]
    );
    assert_eq!(
        said_of_web("\"192.0.2.0/24\", \"203.0.113.0/24\""),
        [format!(
            "{TO_WEB} stays open to hosts on the same link, which can send to 127.0.0.1 by this host's MAC address: \
             `protect_at` of gate \"web\" does not cover 127.0.0.0/8"
        )]
    );
    for all in [
        "\"192.0.2.0/24\", \"203.0.113.0/24\", \"127.0.0.0/8\"",
        "\"0.0.0.0/0\"",
    ] {
        assert_eq!(
            said_of_web(all),
            [format!("{TO_WEB} is guarded by gate \"web\"")],
            "IPv6 addresses are not the rule's"
        );
    }
}

#[test]
fn a_gate_guards_the_port_that_is_published_and_not_the_one_behind() {
    assert_eq!(
        said("", "[\"8080/tcp\"]"),
        [format!("{TO_WEB} is guarded by gate \"web\"")]
    );
    assert_eq!(
        said("", "[\"80/tcp\"]"),
        [
            format!(
                "{TO_WEB} stays open, though gate \"web\" protects 80/tcp: packets are judged before they are forwarded, \
                 so list 8080/tcp under `protect`"
            ),
            "9090/tcp at 127.0.0.1, forwarded to 172.17.0.3:80, stays open to hosts on the same link, which can send to \
             127.0.0.1 by this host's MAC address, though gate \"web\" protects 80/tcp: packets are judged before they \
             are forwarded, so list 9090/tcp under `protect`"
                .to_owned(),
        ]
    );
    // At a gate with destinations of its own, it would be closed at these alone.
    let placed = said("", "[\"80/tcp\"]\nprotect_at = [\"172.17.0.0/16\"]");
    assert!(
        placed[0].ends_with("so protect 8080/tcp by another gate, without `protect_at`"),
        "{placed:?}"
    );
    let elsewhere = said("addresses = [\"198.51.100.1\"]", "[\"80/tcp\"]");
    assert!(
        elsewhere[0].ends_with(
            "so list 8080/tcp under `protect`, which then stays open at each address of this host that `addresses` does not \
             list"
        ),
        "{elsewhere:?}"
    );
    assert_eq!(said("", "[\"80/udp\"]"), [""; 0]);
    assert_eq!(
        said("", "[\"80/tcp\", \"8080/tcp\", \"9090/tcp\"]").len(),
        2,
        "they are guarded"
    );
    assert_eq!(
        said("", "[\"2003/tcp\"]"),
        ["2003/tcp, forwarded to 172.17.0.4, is guarded by gate \"web\""]
    );
}

#[test]
fn each_port_of_a_range_is_one_of_a_gate() {
    let said = |ports, to| {
        let rule = rule(Protocol::Tcp, ports, "10.0.0.2", Some(to));
        said_of(&[rule], "", "[\"5000/tcp\"]", &router())
    };
    assert_eq!(
        said((5000, 5010), (5000, 5010)),
        ["5000/tcp, forwarded to 10.0.0.2:5000-5010, is guarded by gate \"web\""]
    );
    assert_eq!(
        said((6000, 6010), (5000, 5010)),
        [
            "6000-6010/tcp, forwarded to 10.0.0.2:5000-5010, stays open, though gate \"web\" protects 5000/tcp: packets \
             are judged before they are forwarded, so list each port of 6000-6010/tcp under `protect`"
        ]
    );
}

#[test]
fn a_published_port_is_open_where_its_address_is_not_guarded() {
    let listed = |addresses: &str| format!("addresses = [{addresses}]");
    let one = |top: &str, protect: &str| {
        let lines = said(top, protect);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    let open = |top: &str, protect: &str| one(top, protect).contains("stays open");
    assert!(open(&listed("\"192.0.2.9\""), "[\"53/udp\"]"));
    assert!(!open(&listed("\"192.0.2.1\""), "[\"53/udp\"]"));
    let elsewhere = one(&listed("\"192.0.2.1\""), "[\"8080/tcp\"]");
    assert!(
        elsewhere.ends_with("that `addresses` does not list"),
        "{elsewhere}"
    );
    let host = "addresses = \"host\"";
    assert!(!open(host, "[\"8080/tcp\"]"));
    assert!(!open(host, "[\"9090/tcp\"]"), "a loopback address");
    // What the rule takes is this host's own, and guarded when it is there.
    assert!(!open(host, "[\"53/udp\"]"));
    let by_address = Rule {
        to_host: false,
        address: "192.0.2.1/32".parse().ok(),
        ..rule(Protocol::Udp, (53, 53), "172.17.0.3", Some((5353, 5353)))
    };
    assert_eq!(
        said_of(&[by_address], host, "[\"53/udp\"]", &router()),
        [
            "53/udp at 192.0.2.1, forwarded to 172.17.0.3:5353, stays open: 192.0.2.1 is not one of this host's own \
             addresses, and `addresses` is \"host\""
        ]
    );
    let at_loopback = one(&listed("\"192.0.2.9\""), "[\"9090/tcp\"]");
    assert!(
        at_loopback.ends_with("MAC address: `addresses` does not list 127.0.0.1"),
        "{at_loopback}"
    );
}

/// Of a list, the loopback network is always left out.
#[test]
fn addresses_of_this_host_are_compared_with_those_that_are_guarded() {
    let web = Rule {
        to_host: true,
        ..rule(Protocol::Tcp, (80, 80), "2001:db8::80", None)
    };
    let is_open = |rule: &Rule, top: &str, host: &Host| {
        let said = said_of(slice::from_ref(rule), top, "[\"80/tcp\"]", host);
        said[0].contains("stays open")
    };
    let listed = "addresses = [\"2001:db8::9\"]";
    assert!(!is_open(&web, listed, &router()));
    assert!(is_open(&web, "addresses = [\"2001:db8::8\"]", &router()));
    assert!(is_open(&web, listed, &Host::default()), "nothing is known");
    let to_v4 = Rule {
        to: "172.17.0.2".parse().ok(),
        family: Some(Family::V4),
        ..web.clone()
    };
    let all_of_v4 = "addresses = [\"192.0.2.9\"]";
    let single = Host {
        own: Some(vec!["192.0.2.9/32".parse().expect("a network")]),
        ..router()
    };
    let said = said_of(slice::from_ref(&to_v4), all_of_v4, "[\"80/tcp\"]", &single);
    assert!(
        said[0].ends_with("does not list 127.0.0.0/8, which `addresses = \"host\"` guards"),
        "{said:?}"
    );

    let host = "addresses = \"host\"";
    let at = |address: &str| Rule {
        address: address.parse().ok(),
        to_host: false,
        ..to_v4.clone()
    };
    for (address, open) in [
        ("192.0.2.9/32", false),
        ("203.0.113.7/32", false),
        ("203.0.113.0/25", false),
        ("198.51.100.1/32", true),
    ] {
        assert_eq!(is_open(&at(address), host, &router()), open, "{address}");
    }
    let others_end_here = Host {
        ends_others: vec![Family::V4, Family::V6],
        ..router()
    };
    assert!(!is_open(&at("198.51.100.1/32"), host, &others_end_here));

    // A rule that takes what is for others, too.
    let any = Rule {
        to_host: false,
        ..web
    };
    assert!(!is_open(&any, "", &router()));
    assert!(!is_open(&any, host, &others_end_here));
    // Where one family alone is forwarded, rules of the other take nothing of others.
    let of_v4_end = Host {
        ends_others: vec![Family::V4],
        ..router()
    };
    let any_of_v4 = Rule {
        family: Some(Family::V4),
        ..any.clone()
    };
    assert!(is_open(&any, host, &of_v4_end) && !is_open(&any_of_v4, host, &of_v4_end));
    for top in [host, listed] {
        let said = said_of(slice::from_ref(&any), top, "[\"80/tcp\"]", &router());
        assert_eq!(
            said,
            [
                "80/tcp, forwarded to 2001:db8::80, stays open to packets for other hosts, which the firewall's rule takes \
                 as well: restrict the rule to this host's own addresses (`fib daddr type local`, `--dst-type LOCAL`)"
            ]
        );
    }
}
