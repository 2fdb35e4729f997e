//! IPv6's header, and chains of extension headers.

use netlab::packet::Extension::{
    self, AtomicFragment, Authentication, DestinationOptions, HopByHop, Routing,
};

use crate::{
    ANY, DATAGRAM,
    Fate::{self, Dropped, Malformed, Served},
    Row, SYN, V6, edited, frame, row,
};

/// Extension headers that Linux accepts anywhere in a chain.
const LINKS: [Extension; 4] = [
    DestinationOptions(0),
    DestinationOptions(2),
    Routing(0),
    AtomicFragment,
];
/// The length up to which all chains of [`LINKS`] are tried, with and without hop-by-hop options before them.
const LENGTH: usize = 3;

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        edited("flow label and traffic class", V6, ANY, Served, |frame| {
            frame[14..18].copy_from_slice(&[0x6f, 0xff, 0xff, 0xff]);
        }),
        edited("no hops left", V6, ANY, Served, |frame| frame[21] = 0),
        edited("version 4", V6, ANY, Dropped, |frame| frame[14] = 0x45),
        edited("a length beyond the frame", V6, ANY, Dropped, |frame| {
            frame[18] = 4;
        }),
        edited("a length of nothing", V6, ANY, Dropped, |frame| {
            frame[18..20].fill(0);
        }),
        row(
            "hop-by-hop options and a length of nothing",
            V6,
            ANY,
            Served,
            |packet| {
                let mut frame = frame(&packet.with_extension(HopByHop(0)));
                frame[18..20].fill(0);
                vec![frame]
            },
        ),
        row("a route with a segment left", V6, ANY, Dropped, |packet| {
            let mut frame = frame(&packet.with_extension(Routing(2)));
            frame[57] = 1;
            vec![frame]
        }),
        row(
            "an option that a host must not pass over",
            V6,
            ANY,
            Dropped,
            |packet| {
                let mut frame = frame(&packet.with_extension(DestinationOptions(0)));
                frame[56] = 0x5e;
                vec![frame]
            },
        ),
        edited("a wrong UDP checksum", V6, DATAGRAM, Dropped, |frame| {
            frame[60] ^= 1;
        }),
        edited("no UDP checksum", V6, DATAGRAM, Dropped, |frame| {
            frame[60..62].fill(0);
        }),
        edited(
            "a UDP length beyond the packet",
            V6,
            DATAGRAM,
            Dropped,
            |frame| frame[58] = 4,
        ),
        // A length of zero, which only jumbograms have (RFC 2675); the checksum is adapted to it.
        edited("a UDP length of nothing", V6, DATAGRAM, Served, |frame| {
            let field = |frame: &[u8], at| u16::from_be_bytes([frame[at], frame[at + 1]]);
            let (sum, carry) = field(frame, 60).overflowing_add(field(frame, 58));
            frame[58..60].fill(0);
            frame[60..62].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
        }),
        edited("a wrong TCP checksum", V6, SYN, Dropped, |frame| {
            frame[70] ^= 1;
        }),
    ];
    // With no segment left, a host skips routing headers, except those of RPL and segment routing, which are off.
    // Mobile IPv6's type is left out, since it depends on the kernel's build.
    for (kind, fate) in [(0, Served), (1, Served), (3, Dropped), (4, Dropped)] {
        let what = format!("a route of type {kind} at its end");
        rows.push(row(what, V6, ANY, fate, move |packet| {
            let mut frame = frame(&packet.with_extension(Routing(2)));
            frame[56] = kind;
            vec![frame]
        }));
    }
    // Mobility, HIP, Shim6, experiments: Linux skips none of these.
    for next in [135, 139, 140, 253, 254] {
        rows.push(row(
            format!("extension header {next}"),
            V6,
            ANY,
            Dropped,
            move |packet| {
                let mut frame = frame(&packet.with_extension(DestinationOptions(0)));
                frame[20] = next;
                vec![frame]
            },
        ));
    }
    for (what, source, probes, fate) in [
        ("from loopback", "::1", ANY, Dropped),
        ("from a group", "ff02::1", ANY, Dropped),
        // Datagrams only: an answer to the host itself, or to the unspecified address, cannot be seen.
        ("from the host itself", "fd77::1", DATAGRAM, Served),
        ("from nowhere", "::", DATAGRAM, Served),
        (
            "from an IPv4-mapped address",
            "::ffff:10.77.1.2",
            DATAGRAM,
            Served,
        ),
        (
            "from an IPv4-mapped address",
            "::ffff:10.77.1.2",
            SYN,
            Dropped,
        ),
    ] {
        rows.push(row(what, V6, probes, fate, move |packet| {
            let source = source.parse().expect("well-formed");
            vec![frame(&packet.sent_from(source))]
        }));
    }
    rows.extend(long_and_odd_chains());
    for links in chains() {
        // A second fragment header is malformed, even if both are atomic.
        let fragments = links.iter().filter(|&&link| link == AtomicFragment);
        let fate = if fragments.count() > 1 {
            Dropped
        } else {
            Served
        };
        rows.push(chain(links.clone(), fate));
        rows.push(chain([vec![HopByHop(0)], links].concat(), fate));
    }
    rows
}

/// Returns every chain of up to [`LENGTH`] headers from [`LINKS`].
fn chains() -> Vec<Vec<Extension>> {
    let mut all = vec![Vec::new()];
    let mut longest = all.clone();
    for _ in 0..LENGTH {
        longest = longest
            .iter()
            .flat_map(|chain| LINKS.map(|link| [&chain[..], &[link]].concat()))
            .collect();
        all.extend(longest.iter().cloned());
    }
    all
}

fn long_and_odd_chains() -> Vec<Row> {
    let mut eight = vec![DestinationOptions(0); 8];
    eight[0] = HopByHop(3);
    eight[4] = AtomicFragment;
    eight[6] = Routing(5);
    vec![
        chain(vec![DestinationOptions(30)], Served),
        chain(
            vec![HopByHop(30), DestinationOptions(30), Routing(100)],
            Served,
        ),
        chain(eight, Served),
        chain(vec![DestinationOptions(0); 9], Malformed),
        chain(vec![Routing(0); 40], Malformed),
        chain(
            [vec![HopByHop(0)], vec![DestinationOptions(0); 8]].concat(),
            Malformed,
        ),
        chain(vec![HopByHop(0), HopByHop(0)], Dropped),
        chain(vec![DestinationOptions(0), HopByHop(0)], Dropped),
        // Without a security association, the host drops it.
        chain(vec![Authentication(1)], Dropped),
        chain(
            vec![DestinationOptions(0), Authentication(3), Routing(0)],
            Dropped,
        ),
    ]
}

fn chain(links: Vec<Extension>, fate: Fate) -> Row {
    row(format!("{links:?}"), V6, ANY, fate, move |packet| {
        let links = links.iter();
        vec![frame(
            &links.fold(packet, |packet, &link| packet.with_extension(link)),
        )]
    })
}
