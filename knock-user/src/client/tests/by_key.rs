//! Knocking with a key. The packets are unmasked by what made them; that another program can read them is tested where they
//! are made.

use super::*;
use crate::{
    client::packet::unmasked,
    keys::{PersonKey, Secret},
};

/// A key for the knocks of these tests, to be sent to `port`.
fn by_key(port: Port) -> ByKey {
    let key = PersonKey {
        name: "alice".parse().expect("a name"),
        host: None,
        root: Secret::new([1; 32]),
        host_id: [2; 16],
        host_secret: Secret::new([3; 16]),
        slot: 4,
        port: port.number,
        gates: vec!["ssh".to_owned()],
    };
    ByKey {
        key,
        gate: None,
        seconds: 300,
        address: AddressRule::Auto,
        both: false,
        close: false,
        exact: false,
    }
}

#[tokio::test]
async fn each_try_with_a_key_is_one_new_packet() {
    let (udp, udp_port) = receiver();
    let (_socket, closed) = closed_port();
    let by = by_key(udp_port);
    let mut seen = Vec::new();
    let mut observe = |_: &Address<'_>, progress: &Progress<'_>| seen.push(progress.to_string());
    let target = loopback().await;
    let error = Client::new(
        &target,
        Means::Key(&by),
        pace(Duration::ZERO, 2),
        &mut observe,
    )
    .open(closed.number)
    .await
    .expect_err("nothing listens there");
    let error = error
        .downcast_ref::<NotOpen>()
        .expect("its kind")
        .to_string();
    for says in [
        "did not open: a knock was sent 3 times",
        "the clocks: ",
        "whether alice is valid",
        "--address observed",
    ] {
        assert!(error.contains(says), "{says:?} is missing: {error}");
    }
    let packets: Vec<_> = received(&udp)
        .into_iter()
        .map(|(_, payload)| payload)
        .collect();
    assert_eq!(packets.len(), 3);
    let bodies: Vec<_> = packets
        .iter()
        .map(|packet| {
            assert!((64..=256).contains(&packet.len()), "{}", packet.len());
            unmasked(packet, &by.key.host_secret)
        })
        .collect();
    // The time comes first.
    assert!(bodies.is_sorted_by(|a, b| a[..8] < b[..8]), "{bodies:?}");
    for body in &bodies {
        // Slot 4, version 1, IPv4 listed, the first gate; open, for 300 seconds, 127.0.0.1.
        assert_eq!(body[8..16], [0, 4, 1, 1, 0, 0, 0, 0]);
        assert_eq!(body[16..24], [1, 0, 1, 44, 127, 0, 0, 1]);
        assert_eq!(body[24..], [0; 24]);
    }
    let packets = seen
        .iter()
        .filter(|line| line.starts_with("authenticated knock: "));
    let expected = format!("authenticated knock: {udp_port}, for 127.0.0.1");
    assert_eq!(packets.collect::<Vec<_>>(), [&expected; 3]);
}

#[tokio::test]
async fn an_exact_knock_names_the_port_that_the_connection_comes_from() {
    let (udp, udp_port) = receiver();
    let (tcp, tcp_port) = listener().await;
    let by = ByKey {
        exact: true,
        address: AddressRule::Observed,
        ..by_key(udp_port)
    };
    let target = loopback().await;
    let opened = Client::new(
        &target,
        Means::Key(&by),
        pace(Duration::ZERO, 0),
        &mut |_, _| {},
    )
    .open(tcp_port.number)
    .await
    .expect("it listens");
    assert!(matches!(opened, Opened::Stream(_)));
    let [(_, packet)] = &received(&udp)[..] else {
        panic!("one packet");
    };
    let body = unmasked(packet, &by.key.host_secret);
    // Observed, with a source port.
    assert_eq!((body[11], &body[20..40]), (4 | 8, &[0; 20][..]));
    let port = u16::from_be_bytes([body[40], body[41]]);
    assert_eq!(accepted(&tcp).await[0].port(), port);
}

#[tokio::test]
async fn both_families_need_an_address_of_each() {
    let (udp, udp_port) = receiver();
    let by = ByKey {
        both: true,
        ..by_key(udp_port)
    };
    let (v4, v6) = ("127.0.0.1:0", "[::1]:0");
    let addresses = |all: &[&str]| {
        all.iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    };
    let one = Target::of("host.example", addresses(&[v4]));
    let error = Client::new(
        &one,
        Means::Key(&by),
        pace(Duration::ZERO, 0),
        &mut |_, _| {},
    )
    .send()
    .await
    .expect_err("one family");
    assert!(error.to_string().contains("of one family alone"), "{error}");
    assert_eq!(received(&udp).len(), 0);

    let two = Target::of("host.example", addresses(&[v4, v6]));
    Client::new(
        &two,
        Means::Key(&by),
        pace(Duration::ZERO, 0),
        &mut |_, _| {},
    )
    .send()
    .await
    .expect("sent");
    let [(_, packet)] = &received(&udp)[..] else {
        panic!("one packet to the IPv4 address");
    };
    let body = unmasked(packet, &by.key.host_secret);
    assert_eq!((body[11], &body[20..24]), (1 | 2, &[127, 0, 0, 1][..]));
    assert_eq!(body[24..40], std::net::Ipv6Addr::LOCALHOST.octets());
}
