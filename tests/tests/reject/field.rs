//! Where rows are sent, and answers taken apart.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use knockgate_tests::{
    foreign::ForeignProgram,
    gate_config::Gate,
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, GATE_MAC, Lab, Source, WAN},
    network,
    scenario::Attach,
    tap::Tap,
    wire::Wire,
};
use netlab::packet::{self, Packet, SYN};

/// A port that the gate guards, for both transports, and one where nothing listens.
pub const GUARDED: u16 = 22;
pub const CLOSED: u16 = 99;
/// Where rows come from.
pub const SOURCE: u16 = 4000;
/// Nothing listens there either; asked only to know that all that was sent before has been dealt with.
const FENCE: u16 = 97;

pub const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// An answer, field by field. What may differ from port to port is made equal, or said in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer(Vec<(&'static str, String)>);

/// A lab with a gate in it that rejects.
pub struct Field {
    pub lab: Lab,
    attach: Attach,
    pub wire: Wire,
    replies: Tap,
    fences: Cell<u16>,
    /// Without, a veth takes no XDP frames from its peer: see `limits::lost_on_a_veth`.
    _peer: ForeignProgram,
}

impl Field {
    pub fn new(lab: Lab, attach: Attach) -> Self {
        let wire = Wire::open(&lab);
        Self {
            _peer: ForeignProgram::on(&lab.client, CLIENT_INTERFACE),
            replies: Tap::open(&lab.client, CLIENT_INTERFACE),
            wire,
            lab,
            attach,
            fences: Cell::new(10_000),
        }
    }

    /// Sets a value under /proc/sys/net of the host.
    pub fn set(&self, setting: &str, value: &str) {
        network::set(&self.lab.gate, &[setting], value);
    }

    /// Lets the host answer every datagram.
    pub fn without_limits(&self) {
        self.set("ipv4/icmp_ratemask", "0");
        self.set("ipv6/icmp/ratemask", "0");
    }

    pub fn up(&self) {
        self.up_on(WAN);
    }

    /// Puts the gate on an interface of the host's.
    pub fn up_on(&self, interface: &str) {
        let attach = self.attach.name();
        let gate = Gate::ssh()
            .protect(&format!("{GUARDED}/tcp {GUARDED}/udp"))
            .key("deny = \"reject\"")
            .knocks("7000/udp 8000/tcp 6000/udp");
        self.lab.configure(&format!(
            "interfaces = [\"{interface}\"]\nattach = \"{attach}\"\nopen_ports = []\n\
             limits = {{ sources = 16384, grants = 64, sessions = 64 }}\n{gate}"
        ));
        self.lab.knockgate(&["up"]).exits(0);
    }

    /// Sends frames, and returns the answers that came.
    pub fn send(&self, family: Family, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.wire.send(&self.lab, frames);
        self.answers(family)
    }

    /// The answers to what has been sent.
    pub fn answers(&self, family: Family) -> Vec<Vec<u8>> {
        let mut seen = self.fence(family);
        // An answer that leaves at the driver may be behind the first fence's, not behind the second's.
        seen.extend(self.fence(family));
        seen.retain(|frame| is_answer(frame));
        seen
    }

    /// The answer to one frame.
    pub fn ask(&self, family: Family, asked: &[u8]) -> Option<Answer> {
        self.wire.send(&self.lab, &[asked.to_vec()]);
        self.answer(family, asked)
    }

    /// The answer to one frame that has been sent.
    pub fn answer(&self, family: Family, asked: &[u8]) -> Option<Answer> {
        let mut seen = self.answers(family);
        assert!(
            seen.len() <= 1,
            "{} answers to one packet: {seen:02x?}",
            seen.len()
        );
        seen.pop().map(|answer| Answer::read(&answer, asked))
    }

    fn fence(&self, family: Family) -> Vec<Vec<u8>> {
        let port = self.fences.get();
        self.fences.set(port + 1);
        let from = (family.address(Source::A), port);
        let fence = Packet::tcp(from, (family.host(), FENCE), SYN);
        self.wire
            .send(&self.lab, &[fence.frame(CLIENT_MAC, GATE_MAC)]);
        let ports = [FENCE.to_be_bytes(), port.to_be_bytes()].concat();
        self.replies.until(|frame| {
            let at = ETHERNET + header_length(frame);
            frame.get(at..at + 4) == Some(&ports)
        })
    }
}

/// Bytes of the network header of an untagged frame without options.
pub fn header_length(frame: &[u8]) -> usize {
    if frame[12..14] == [0x08, 0x00] {
        20
    } else {
        40
    }
}

/// TCP, or an ICMP error; not what neighbours tell each other.
pub fn is_answer(frame: &[u8]) -> bool {
    let tags = 4 * frame[12..].chunks(4).take_while(|tag| is_tag(tag)).count();
    let network = ETHERNET + tags;
    match frame[12 + tags..network] {
        [0x08, 0x00] => frame[network + 9] == TCP || frame[network + 20] == 3,
        [0x86, 0xdd] => frame[network + 6] == TCP || frame[network + 40] == 1,
        _ => false,
    }
}

fn is_tag(bytes: &[u8]) -> bool {
    matches!(bytes, [0x81, 0x00, ..] | [0x88, 0xa8, ..])
}

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
            // An ICMP error's is one of a series.
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
        // The kernel leaves the sum to a device; a veth has none that does it.
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

pub fn network_of(frame: &[u8]) -> usize {
    let tags = frame[12..].chunks(4).take_while(|tag| is_tag(tag)).count();
    ETHERNET + 4 * tags
}

/// Where the transport header of a packet that was sent begins.
pub fn transport(frame: &[u8]) -> usize {
    let network = network_of(frame);
    if frame[network] >> 4 == 4 {
        network + 4 * usize::from(frame[network] & 15)
    } else {
        network + 40
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn half_of(length: usize) -> u16 {
    u16::try_from(length).expect("a packet is shorter than 64 KiB")
}

fn good(covered: &[u8]) -> String {
    match packet::checksum(covered) {
        0 => "good".to_owned(),
        sum => format!("off by {sum:04x}"),
    }
}

/// A packet of A's to one of the host's ports, as a frame that `edit` may change; checksums are put right
/// afterwards. `edit` gets the frame and where its network and transport headers begin.
pub fn tcp(
    family: Family,
    port: u16,
    flags: u8,
    edit: impl Fn(&mut Vec<u8>, usize, usize),
) -> Vec<u8> {
    let from = (family.address(Source::A), SOURCE);
    let mut packet = Packet::tcp(from, (family.host(), port), flags).frame(CLIENT_MAC, GATE_MAC);
    let (network, transport) = (network_of(&packet), transport(&packet));
    // Numbers of which every byte counts.
    packet[transport + 4..transport + 12].copy_from_slice(&[0xff, 0xfe, 3, 4, 0x85, 6, 7, 8]);
    edit(&mut packet, network, transport);
    settle(&mut packet);
    packet
}

pub fn udp(
    family: Family,
    port: u16,
    payload: &[u8],
    edit: impl Fn(&mut Vec<u8>, usize, usize),
) -> Vec<u8> {
    let from = (family.address(Source::A), SOURCE);
    let mut packet = Packet::udp(from, (family.host(), port), payload).frame(CLIENT_MAC, GATE_MAC);
    let (network, transport) = (network_of(&packet), transport(&packet));
    edit(&mut packet, network, transport);
    settle(&mut packet);
    packet
}

/// Puts lengths of the network header and all checksums right, for a frame whose bytes all belong to the
/// packet.
pub fn settle(frame: &mut [u8]) {
    let (network, transport) = (network_of(frame), transport(frame));
    let end = frame.len();
    let protocol;
    let mut covered;
    if frame[network] >> 4 == 4 {
        let total = half_of(end - network).to_be_bytes();
        frame[network + 2..network + 4].copy_from_slice(&total);
        sum_header(frame);
        protocol = frame[network + 9];
        covered = frame[network + 12..network + 20].to_vec();
    } else {
        let payload = half_of(end - network - 40).to_be_bytes();
        frame[network + 4..network + 6].copy_from_slice(&payload);
        protocol = frame[network + 6];
        covered = frame[network + 8..network + 40].to_vec();
    }
    let at = transport + if protocol == UDP { 6 } else { 16 };
    frame[at..at + 2].fill(0);
    // A datagram may be shorter than what holds it.
    let end = if protocol == UDP {
        end.min(transport + usize::from(half(frame, transport + 4)).max(8))
    } else {
        end
    };
    covered.extend([0, protocol]);
    covered.extend(half_of(end - transport).to_be_bytes());
    covered.extend(&frame[transport..end]);
    let sum = packet::checksum(&covered);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Leaves a frame's transport checksum to hardware: it becomes the sum of the pseudo-header. Returns where
/// the transport header begins, and how far behind that the checksum is.
pub fn leave_sum(frame: &mut [u8]) -> (usize, usize) {
    let (network, transport) = (network_of(frame), transport(frame));
    let (addresses, protocol) = if frame[network] >> 4 == 4 {
        (12..20, frame[network + 9])
    } else {
        (8..40, frame[network + 6])
    };
    let mut covered = frame[network..][addresses].to_vec();
    covered.extend([0, protocol]);
    covered.extend(half_of(frame.len() - transport).to_be_bytes());
    let offset = if protocol == UDP { 6 } else { 16 };
    let at = transport + offset;
    let sum = !packet::checksum(&covered);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    (transport, offset)
}

/// Puts the checksum of an IPv4 header right.
pub fn sum_header(frame: &mut [u8]) {
    let network = network_of(frame);
    let end = transport(frame);
    frame[network + 10..network + 12].fill(0);
    let sum = packet::checksum(&frame[network..end]);
    frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Moves a frame's packet to other addresses.
pub fn readdress(frame: &mut [u8], source: Option<IpAddr>, destination: Option<IpAddr>) {
    let network = network_of(frame);
    for (address, v4, v6) in [(source, 12, 8), (destination, 16, 24)] {
        match address {
            Some(IpAddr::V4(to)) => {
                frame[network + v4..network + v4 + 4].copy_from_slice(&to.octets());
            }
            Some(IpAddr::V6(to)) => {
                frame[network + v6..network + v6 + 16].copy_from_slice(&to.octets());
            }
            None => {}
        }
    }
    settle(frame);
}
