//! The checks of coverage-guided fuzzing: input that a fuzzer has chosen, compared with the model. Each function
//! returns the difference. The fuzz targets in `knock-common/fuzz` call them, and so does a suite that replays the
//! inputs that fuzzing has kept.

use std::{fmt::Write as _, net::IpAddr};

use knock_common::{
    Address, Reason,
    frame::{
        Frame as _, Parsed, TCP, ip,
        link::{BareIp, Ethernet, Framing, NetworkLayer},
    },
    knock::authenticated::message::{self, has_length},
};
use knock_user::{
    config::Config,
    values::{Port, Protocol},
};

use super::{Look, difference, generate, random::Random};
use crate::{
    model::{
        authenticated::Message,
        frame::{Contents, Segment, read as read_slowly, read_bare},
    },
    stream::Step,
    system::Hosted,
};

/// Steps of the longest stream.
const STEPS: usize = 400;

/// Has `knock-common` and the model read bytes as an Ethernet frame and as a packet without link header. Ignores input
/// that is shorter than an Ethernet header, which drivers and the kernel never deliver.
pub fn read(frame: &[u8]) -> Option<String> {
    if frame.len() < 14 {
        return None;
    }
    differs::<Ethernet>(frame, read_slowly(frame))
        .or_else(|| differs::<BareIp>(frame, read_bare(frame)))
}

/// Compares what the model has read with what `knock-common` reads step by step, and at once if the packet is plain.
fn differs<L: Framing>(frame: &[u8], wanted: Contents) -> Option<String> {
    let got = match L::network(frame) {
        NetworkLayer::Ipv4 { at } => contents(frame, ip::ipv4(frame, at)),
        NetworkLayer::Ipv6 { at } => contents(frame, ip::ipv6(frame, at)),
        NetworkLayer::Other => Contents::NotIp,
        NetworkLayer::Malformed => Contents::Malformed(None),
    };
    let plain = L::plain(frame).map(|segment| contents(frame, Parsed::Segment(segment)));
    difference_of(frame, got, wanted).or_else(|| difference_of(frame, plain?, wanted))
}

fn difference_of(frame: &[u8], got: Contents, wanted: Contents) -> Option<String> {
    let (got, wanted) = (decisive(got), decisive(wanted));
    (got != wanted).then(|| {
        let bytes = frame.iter().fold(String::new(), |mut bytes, byte| {
            // Writing to a string does not fail.
            let _ = write!(bytes, "{byte:02x}");
            bytes
        });
        format!("{bytes}: the model reads {wanted:?}, knock-common {got:?}")
    })
}

/// Clears the fields that decide nothing: flags except TCP's, and the sequence number except in a SYN.
fn decisive(contents: Contents) -> Contents {
    const SYN: u8 = 0x02;
    match contents {
        Contents::Segment(segment) => {
            let tcp = segment.port.protocol == Protocol::Tcp;
            let flags = if tcp { segment.flags } else { 0 };
            let sequence = if flags & SYN == 0 {
                0
            } else {
                segment.sequence
            };
            Contents::Segment(Segment {
                flags,
                sequence,
                ..segment
            })
        }
        other => other,
    }
}

/// Converts what `knock-common` has read into the type of the model.
fn contents<A: Address>(frame: &[u8], parsed: Parsed<A>) -> Contents {
    match parsed {
        Parsed::Segment(segment) => {
            let tcp = segment.protocol == TCP;
            let (flags, sequence) = ip::tcp(frame, &segment);
            Contents::Segment(Segment {
                source: segment.source.into(),
                source_port: segment.ports.source(),
                destination: segment.destination.into(),
                port: Port {
                    number: segment.ports.destination(),
                    protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
                },
                flags,
                sequence,
                message: (!tcp).then(|| message(frame, segment.transport)).flatten(),
            })
        }
        Parsed::Pass(Reason::NotIp) => Contents::NotIp,
        Parsed::Pass(Reason::Fragment) => Contents::LaterFragment,
        Parsed::Pass(_) => Contents::OtherProtocol,
        Parsed::Malformed(ends) => Contents::Malformed(ends.map(|(source, destination)| {
            let (source, destination): (IpAddr, IpAddr) = (source.into(), destination.into());
            (source, destination)
        })),
    }
}

/// Returns what may be an authenticated knock, of the datagram at `transport`.
fn message(frame: &[u8], transport: usize) -> Option<Message> {
    let mut datagram: message::Datagram = [0; 9];
    if !frame.copy(transport, &mut datagram) || !has_length(&datagram) {
        return None;
    }
    // In words as they lie in the packet; the first is UDP's header.
    let bytes = datagram[1..].iter().flat_map(|word| word.to_ne_bytes());
    bytes.collect::<Vec<u8>>().try_into().ok()
}

/// Three gates, one of which is restricted and one of which opens to prefixes, for [`knock`].
const GATES: &str = r#"interfaces = ["eth0"]
open_ports = ["53/udp"]
limits = { sources = 16384, grants = 4, sessions = 1024, keys = 6 }
[knock]
ports = ["41641/udp", "53/udp", "22/udp"]
max_age = "30s"
max_ahead = "15s"
[[gate]]
name = "a"
protect = ["22/tcp", "22/udp"]
open_for = "5s"
[[gate.knock]]
user = "erin"
key = "erin"
[[gate]]
name = "b"
protect = ["25/tcp"]
sources = ["198.51.100.0/25", "2001:db8:1::/64"]
connections = 1
[[gate]]
name = "c"
protect = ["7002/tcp"]
open_for = "2s"
grant_to = "prefix"
established = "cut"
"#;

/// Makes a stream of authenticated knocks from chosen bytes, sealed with keys, since a fuzzer finds no tags by itself, and has
/// the decisions on the host and the model judge it.
pub fn knock(choices: &[u8]) -> Option<String> {
    let mut random = Random::chosen(choices);
    let (config, _) = Config::parse(GATES, "knock").expect("it is valid");
    let steps = generate::chosen_knocks(&mut random, &config, STEPS);
    compared(GATES, &config, &steps)
}

/// Makes a configuration and a stream as the oracle does, but from chosen bytes, and has the decisions on the host and
/// the model judge it. Leaves out grants by hand, which the test itself would give on the host.
pub fn decide(choices: &[u8]) -> Option<String> {
    let mut random = Random::chosen(choices);
    let (toml, config) = generate::try_config(&mut random, 0)?;
    let mut steps = generate::chosen_stream(&mut random, &config, STEPS);
    steps.retain(|step| !matches!(step, Step::Allow { .. } | Step::Revoke { .. }));
    compared(&toml, &config, &steps)
}

/// Returns the difference that a stream shows, with the stream.
fn compared(toml: &str, config: &Config, steps: &[Step]) -> Option<String> {
    let mut system = Hosted::new(config);
    let found = difference(config, &mut system, steps, Look::Close)?;
    let mut shown = format!("{}\n\n{toml}---\n", found.what);
    for step in &steps[..=found.at] {
        let _ = writeln!(shown, "{step}");
    }
    Some(shown)
}
