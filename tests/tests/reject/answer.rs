//! Answers, parsed field by field.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlab::packet;

use crate::frame::{ETHERNET, TCP, half, half_of, is_tag, network_of, transport};

/// The fields of an answer. Those that may differ from port to port are made equal, or described in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer(Vec<(&'static str, String)>);

impl Answer {
    pub fn read(answer: &[u8], asked: &[u8]) -> Self {
        let mut fields = Vec::new();
        let mut put = |name, value: String| fields.push((name, value));
        put("to", format!("{:02x?}", &answer[..6]));
        put("from", format!("{:02x?}", &answer[6..12]));
        let mut network = ETHERNET;
        while is_tag(&answer[network - 2..]) {
            put("tag", format!("{:02x?}", &answer[network - 2..network + 2]));
            network += 4;
        }
        put(
            "ethertype",
            format!("{:02x?}", &answer[network - 2..network]),
        );
        let ip = &answer[network..];
        let (length, protocol, pseudo) = if ip[0] >> 4 == 4 {
            put("version and length", format!("{:02x}", ip[0]));
            put("type of service", format!("{:02x}", ip[1]));
            put("total length", half(ip, 2).to_string());
            // ICMP errors have consecutive identifications.
            let identification = half(ip, 4);
            put(
                "identification",
                if ip[9] == TCP {
                    identification.to_string()
                } else {
                    "any".to_owned()
                },
            );
            put("fragment", format!("{:04x}", half(ip, 6)));
            put("time to live", ip[8].to_string());
            put("checksum", good(&ip[..20]));
            put(
                "source",
                Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]).to_string(),
            );
            put(
                "destination",
                Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]).to_string(),
            );
            let pseudo = if ip[9] == TCP {
                ip[12..20].to_vec()
            } else {
                Vec::new()
            };
            (20, ip[9], pseudo)
        } else {
            let address = |at: usize| {
                let bytes: [u8; 16] = ip[at..at + 16].try_into().expect("sixteen bytes");
                Ipv6Addr::from(bytes).to_string()
            };
            put("version and class", format!("{:x}", half(ip, 0) >> 4));
            let label = u32::from_be_bytes([0, ip[1], ip[2], ip[3]]) & 0xf_ffff;
            put("label", if label == 0 { "none" } else { "some" }.to_owned());
            put("payload length", half(ip, 4).to_string());
            put("hop limit", ip[7].to_string());
            put("source", address(8));
            put("destination", address(24));
            (40, ip[6], ip[8..40].to_vec())
        };
        put("protocol", protocol.to_string());
        put("bytes of the frame", answer.len().to_string());
        let body = &ip[length..];
        let mut covered = pseudo;
        if !covered.is_empty() {
            covered.extend([0, protocol]);
            covered.extend(half_of(body.len()).to_be_bytes());
        }
        // The kernel offloads the checksum to the device, and a veth does not compute it.
        let partial = protocol == TCP && half(body, 16) == !packet::checksum(&covered);
        covered.extend(body);
        let sum = if partial {
            "good".to_owned()
        } else {
            good(&covered)
        };
        put("checksum of the rest", sum);
        if protocol == TCP {
            let asked_tcp = &asked[asked.len().min(transport(asked))..];
            let swapped =
                half(body, 0) == half(asked_tcp, 2) && half(body, 2) == half(asked_tcp, 0);
            put("ports swapped", swapped.to_string());
            put("sequence", format!("{:02x?}", &body[4..8]));
            put("acknowledgement", format!("{:02x?}", &body[8..12]));
            put("offset and flags", format!("{:02x?}", &body[12..14]));
            put("window", half(body, 14).to_string());
            put("urgent", half(body, 18).to_string());
            put("behind the header", format!("{:02x?}", &body[20..]));
        } else {
            put("type and code", format!("{:?}", &body[..2]));
            put("unused", format!("{:02x?}", &body[4..8]));
            let quoted = &body[8..];
            let original = &asked[network_of(asked)..];
            put("quoted", quoted.len().to_string());
            put(
                "quoted as it came",
                original.starts_with(quoted).to_string(),
            );
        }
        Self(fields)
    }
}

/// Returns whether a frame is TCP or an ICMP error, and not neighbour discovery.
pub fn is_answer(frame: &[u8]) -> bool {
    let tags = 4 * frame[12..].chunks(4).take_while(|tag| is_tag(tag)).count();
    let network = ETHERNET + tags;
    match frame[12 + tags..network] {
        [0x08, 0x00] => frame[network + 9] == TCP || frame[network + 20] == 3,
        [0x86, 0xdd] => frame[network + 6] == TCP || frame[network + 40] == 1,
        _ => false,
    }
}

fn good(covered: &[u8]) -> String {
    match packet::checksum(covered) {
        0 => "good".to_owned(),
        sum => format!("off by {sum:04x}"),
    }
}
