//! Authentication headers (RFC 4302) that the host accepts, because it has security associations with the client.

use knockgate_tests::{
    lab::{Family, Source::A},
    need::kernel_has,
};
use netlab::packet::{
    Extension::{self, AtomicFragment, Authentication, DestinationOptions, HopByHop, Routing},
    SPI, Tag,
};

use crate::{
    ANY, DATAGRAM,
    Fate::{self, Dropped, Served},
    Row, SYN, V6,
    fragments::cut,
    frame, row,
    target::Target,
};

/// Linux's header for `digest_null`, which authenticates every packet: twelve bytes, padded to sixteen.
const HEADER: Extension = Authentication(1);
/// The extension headers that may be before and after it in IPv6.
const LINKS: [Extension; 3] = [DestinationOptions(2), Routing(0), AtomicFragment];

/// Adds security associations for packets of the client. Returns whether the kernel supports them.
pub fn agree(target: &Target) -> bool {
    target.wait_for_all_with(HEADER);
    // The echo request at the end of each shot uses IPv4.
    [Family::V4, Family::V6].into_iter().all(|family| {
        let association = format!(
            "xfrm state add src {} dst {} proto ah spi {SPI} mode transport auth digest_null \"\"",
            family.address(A),
            family.host()
        );
        kernel_has(
            "IPsec's authentication header",
            &target.lab.host,
            &association,
        )
    })
}

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        chain(V6, vec![HEADER], Served),
        chain(V6, vec![HEADER; 2], Served),
        chain(V6, vec![HEADER; 6], Served),
        // Linux accepts up to six.
        chain(V6, vec![HEADER; 7], Dropped),
        chain(V6, vec![HEADER; 9], Dropped),
        // Not the length of the association.
        chain(V6, vec![Authentication(0)], Dropped),
        chain(V6, vec![Authentication(3)], Dropped),
        row("behind a priority tag", V6, ANY, Served, |packet| {
            let packet = packet.tagged(Tag::PRIORITY);
            vec![frame(&packet.with_extension(HEADER))]
        }),
        row("in two VLANs", V6, ANY, Served, |packet| {
            let packet = packet.tagged(Tag::service(5)).tagged(Tag::vlan(7));
            vec![frame(&packet.with_extension(HEADER))]
        }),
        row("of no association", V6, ANY, Dropped, |packet| {
            let mut frame = frame(&packet.with_extension(HEADER));
            // The last byte of its SPI.
            frame[54 + 7] ^= 1;
            vec![frame]
        }),
        row("in each fragment", V6, ANY, Served, |packet| {
            cut(&packet.with_extension(HEADER), &[24])
        }),
    ];
    for (bytes, families, probes, fate) in [
        (24, V6, DATAGRAM, Served),
        (40, V6, ANY, Served),
        // Linux takes no IPv6 packet whose first fragment does not hold all headers (RFC 8200, section 4.5).
        (16, V6, ANY, Dropped),
        (32, V6, SYN, Dropped),
    ] {
        let what = format!("with {bytes} bytes in a first fragment");
        rows.push(row(what, families, probes, fate, move |packet| {
            let packet = packet.with_extension(HEADER).with_headers_inside();
            cut(&packet, &[bytes])
        }));
    }
    rows.push(row(
        "in fragments, the last first",
        V6,
        ANY,
        Served,
        |packet| {
            let packet = packet.with_extension(HEADER).with_headers_inside();
            cut(&packet, &[40]).into_iter().rev().collect()
        },
    ));
    let some = || LINKS.into_iter().map(|link| vec![link]).chain([Vec::new()]);
    for before in some() {
        for behind in some() {
            // A second fragment header is malformed, as in other chains.
            let fragments = [&before[..], &behind].concat() == [AtomicFragment; 2];
            let fate = if fragments { Dropped } else { Served };
            let links = [&before[..], &[HEADER], &behind].concat();
            rows.push(chain(V6, links.clone(), fate));
            rows.push(chain(V6, [vec![HopByHop(0)], links].concat(), fate));
        }
    }
    rows
}

fn chain(families: &'static [Family], links: Vec<Extension>, fate: Fate) -> Row {
    row(format!("{links:?}"), families, ANY, fate, move |packet| {
        let links = links.iter();
        vec![frame(
            &links.fold(packet, |packet, &link| packet.with_extension(link)),
        )]
    })
}
