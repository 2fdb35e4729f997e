//! Packets in packets, which a host unwraps if segment routing (RFC 8754) and RPL source routes (RFC 6554) are enabled.

use knockgate_tests::{
    lab::{Family, Source::A},
    network::set,
};
use netlab::packet::{
    Extension::{self, AtomicFragment, DestinationOptions, HopByHop, Routing},
    Packet,
};

use crate::{
    ANY, BOTH,
    Fate::{self, Dropped, Malformed, Served},
    Row, V4, V6,
    fragments::cut,
    frame, row,
    target::Target,
};

/// IANA's protocol numbers of IP in IP, and types of routing headers.
const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const RPL: u8 = 3;
const SEGMENTS: u8 = 4;

const ETHERNET: usize = 14;

/// Enables both on the host.
pub fn take(target: &Target) {
    let interface = target.interface();
    for device in ["all", interface] {
        let settings = ["seg6_enabled", "rpl_seg_enabled"]
            .map(|setting| format!("ipv6/conf/{device}/{setting}"));
        set(
            &target.lab.host,
            &settings.each_ref().map(String::as_str),
            "1",
        );
    }
}

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        row(
            "a route over segments at its end",
            V6,
            ANY,
            Served,
            |packet| {
                vec![route(
                    &frame(&packet.with_extension(Routing(2))),
                    ETHERNET,
                    SEGMENTS,
                    0,
                )]
            },
        ),
        within("a route over segments", BOTH, Malformed, |inner| {
            vec![wrapped(inner, &[], SEGMENTS, 0)]
        }),
        within("a route of RPL's", V6, Malformed, |inner| {
            vec![wrapped(inner, &[], RPL, 0)]
        }),
        // RPL does not carry IPv4.
        within("a route of RPL's", V4, Dropped, |inner| {
            vec![wrapped(inner, &[], RPL, 0)]
        }),
        within(
            "a route over one more segment, the host",
            BOTH,
            Malformed,
            |inner| {
                let mut frame = wrapped(inner, &[], SEGMENTS, 1);
                set_segment(
                    &mut frame,
                    Family::V6
                        .other_host_address()
                        .to_string()
                        .parse()
                        .expect("of IPv6"),
                );
                vec![frame]
            },
        ),
        within(
            "a route over one more segment, elsewhere",
            BOTH,
            Dropped,
            |inner| {
                let mut frame = wrapped(inner, &[], SEGMENTS, 1);
                set_segment(&mut frame, "fd77::200".parse().expect("well-formed"));
                vec![frame]
            },
        ),
        within("two routes, each in a packet", BOTH, Malformed, |inner| {
            let once = wrapped(inner, &[], SEGMENTS, 0);
            vec![wrapped(&once[ETHERNET..], &[], SEGMENTS, 0)]
        }),
        // Without a tunnel device, the host does not unwrap these.
        within("no route", BOTH, Dropped, |inner| {
            vec![frame(&outer(inner))]
        }),
        within("a route of another type", BOTH, Dropped, |inner| {
            vec![frame(&outer(inner).with_extension(Routing(2)))]
        }),
        within("a route with options behind it", BOTH, Dropped, |inner| {
            let packet = outer(inner)
                .with_extension(Routing(2))
                .with_extension(DestinationOptions(0));
            vec![route(&frame(&packet), ETHERNET, SEGMENTS, 0)]
        }),
        row(
            "fragments, each in a route",
            BOTH,
            ANY,
            Malformed,
            |packet| {
                let pieces = cut(&packet, &[24]).into_iter();
                pieces
                    .map(|piece| wrapped(&piece[ETHERNET..], &[], SEGMENTS, 0))
                    .collect()
            },
        ),
    ];
    for before in [
        &[HopByHop(0)][..],
        &[DestinationOptions(2)],
        &[AtomicFragment],
        &[HopByHop(0), DestinationOptions(0), AtomicFragment],
        &[DestinationOptions(0); 5],
    ] {
        rows.push(within(
            format!("a route behind {before:?}"),
            BOTH,
            Malformed,
            move |inner| vec![wrapped(inner, before, SEGMENTS, 0)],
        ));
    }
    // Cut after the routing header (which Linux drops), within the inner header, and after it.
    for (bytes, fate) in [
        (24, Dropped),
        (32, Malformed),
        (40, Malformed),
        (64, Malformed),
        (88, Malformed),
    ] {
        rows.push(within(
            format!("a route in fragments, cut behind {bytes} bytes"),
            BOTH,
            fate,
            move |inner| {
                let packet = outer(inner)
                    .with_extension(Routing(2))
                    .with_headers_inside();
                let mut pieces = cut(&packet, &[bytes]);
                // After the fragment header.
                pieces[0] = route(&pieces[0], ETHERNET + 8, SEGMENTS, 0);
                pieces
            },
        ));
    }
    rows
}

/// Returns a row with a plain packet inside others.
fn within(
    what: impl Into<String>,
    families: &'static [Family],
    fate: Fate,
    frames: impl Fn(&[u8]) -> Vec<Vec<u8>> + 'static,
) -> Row {
    let what = format!("within {}", what.into());
    row(what, families, ANY, fate, move |packet| {
        frames(&frame(&packet)[ETHERNET..])
    })
}

/// Returns a packet that contains this one.
fn outer(inner: &[u8]) -> Packet {
    let kind = if inner[0] >> 4 == 4 {
        IPV4_INSIDE
    } else {
        IPV6_INSIDE
    };
    Packet::other(Family::V6.address(A), Family::V6.host(), kind, inner)
}

/// Returns a frame with a packet that contains this one behind extension headers and a routing header.
fn wrapped(inner: &[u8], before: &[Extension], kind: u8, left: u8) -> Vec<u8> {
    let packet = before.iter().fold(outer(inner), |packet, &header| {
        packet.with_extension(header)
    });
    // Room for one segment, and for another one if one is left.
    let frame = frame(&packet.with_extension(Routing(2 + 2 * left)));
    let length: usize = before.iter().map(|header| length(*header)).sum();
    route(&frame, ETHERNET + length, kind, left)
}

fn length(header: Extension) -> usize {
    match header {
        HopByHop(more) | DestinationOptions(more) => 8 + 8 * usize::from(more),
        AtomicFragment => 8,
        other => panic!("no {other:?} here"),
    }
}

/// Sets type and segments left of the routing header that is `before` bytes behind IPv6's header.
fn route(frame: &[u8], before: usize, kind: u8, left: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let at = before + 40;
    frame[at + 2..at + 4].copy_from_slice(&[kind, left]);
    frame
}

/// Sets the last segment of a routing header that follows IPv6's header.
fn set_segment(frame: &mut [u8], address: std::net::Ipv6Addr) {
    let at = ETHERNET + 40 + 8;
    frame[at..at + 16].copy_from_slice(&address.octets());
}
