//! Rows that need no network, and so run on every kernel: packet in, packet out. They include VLANs, for which not
//! every kernel has devices. At TCX the outer tag lies beside the reply, where a run does not show it.

use std::net::IpAddr;

use knock_user::config::Config;
use knock_user::datapath::Framing;
use knockgate_tests::system::{Program, SystemUnderTest as _};
use netlab::packet::{ACK, FIN, Packet, RST, SYN, Tag, checksum};

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VLAN: [Tag; 1] = [Tag::vlan(5)];
const WITHIN: [Tag; 2] = [Tag::service(5), Tag::vlan(7)];
const CONFIG: &str = r#"
    interfaces = ["none"]
    open_ports = []
    limits = { sources = 16384, grants = 16, sessions = 64 }
    [[gate]]
    name = "ssh"
    protect = ["22/tcp", "22/udp"]
    session_idle = "30s"
    deny = "reject"
    [[gate]]
    name = "mail"
    protect = ["25/tcp", "25/udp"]
    session_idle = "30s"
"#;

#[test]
fn answers_are_what_they_should_be() {
    if let Some(program) = Program::load(&config()) {
        answers(program, 0);
    }
}

#[test]
fn so_they_are_at_tcx() {
    if let Some(program) = Program::load_at_tcx(&config(), Framing::Ethernet) {
        answers(program, 1);
    }
}

fn config() -> Config {
    let (config, _) = Config::parse(CONFIG, "reject").expect("a valid configuration");
    config
}

/// `beside`: how many tags of a reply lie beside it.
fn answers(mut program: Program, beside: usize) {
    let tagged = |packet: &Packet, tags: &[Tag]| {
        tags.iter()
            .fold(packet.clone(), |packet, tag| packet.tagged(*tag))
    };
    let shown = |tags: &'static [Tag]| tags.get(beside..).unwrap_or_default();
    program.listens_at([0, 0], HOST);
    program.listens_at([5, 0], HOST);
    program.listens_at([5, 7], HOST);
    for (source, host) in [("192.0.2.7", "192.0.2.1"), ("2001:db8::7", "2001:db8::1")] {
        let (source, host): (IpAddr, IpAddr) = (
            source.parse().expect("well-formed"),
            host.parse().expect("well-formed"),
        );
        program.lives_at(host);
        let (from, to) = ((source, 4000), (host, 22));
        let back = Packet::tcp(to, from, RST);
        let refused = tagged(&back, shown(&VLAN));
        let v4 = source.is_ipv4();
        let mut asks = |asked: &Packet| {
            program.judge(&asked.frame(CLIENT, HOST));
            program.answer().map(unlabelled)
        };

        // The packets have the sequence number 0x1000 and the acknowledgement number 0.
        let plain = asks(&Packet::tcp(from, to, ACK)).expect("an answer");
        assert_eq!(plain, reset(&back, v4, RST, [0; 4]), "{source}");
        let plain =
            asks(&Packet::tcp(from, to, SYN | FIN).with_payload(b"abc")).expect("an answer");
        assert_eq!(
            plain,
            reset(&back, v4, RST | ACK, [0, 0, 0x10, 5]),
            "{source}"
        );
        assert_eq!(asks(&Packet::tcp(from, to, RST | ACK)), None);
        assert_eq!(
            asks(&Packet::tcp(from, (host, 25), SYN)),
            None,
            "a gate that drops"
        );

        let in_vlan = asks(&Packet::tcp(from, to, ACK).tagged(Tag::vlan(5))).expect("an answer");
        assert_eq!(in_vlan, reset(&refused, v4, RST, [0; 4]), "in a VLAN");
        let asked = Packet::tcp(from, to, ACK);
        let answer = asks(&tagged(&asked, &WITHIN)).expect("an answer");
        assert_eq!(
            answer,
            reset(&tagged(&back, shown(&WITHIN)), v4, RST, [0; 4]),
            "in a VLAN in a VLAN"
        );
        let answer = asks(&asked.clone().tagged(Tag::PRIORITY).tagged(Tag::vlan(5)));
        assert_eq!(
            answer,
            Some(reset(&refused, v4, RST, [0; 4])),
            "behind a priority"
        );
        assert_eq!(
            asks(&asked.tagged(Tag::vlan(6))),
            None,
            "in a VLAN without a device"
        );

        for tags in [&[][..], &VLAN, &WITHIN] {
            let asked = tagged(&Packet::udp(from, to, b"whatever"), tags);
            let frame = asked.frame(CLIENT, HOST);
            let answer = asks(&asked).expect("an answer");
            let network = 14 + 4 * shown(tags).len();
            let asked_network = 14 + 4 * tags.len();
            let header = if v4 { 20 } else { 40 };
            let message = &answer[network + header..];
            assert_eq!(answer[..12], [CLIENT, HOST].concat(), "turned round");
            let (had, has) = (&frame[12..asked_network], &answer[12..network]);
            assert_eq!(has, &had[had.len() - has.len()..], "the same tags");
            assert_eq!(
                message[..2],
                if v4 { [3, 3] } else { [1, 4] },
                "port unreachable"
            );
            assert_eq!(message[4..8], [0; 4]);
            assert_eq!(
                message[8..],
                frame[asked_network..],
                "all of the packet is quoted"
            );
            let mut covered = message.to_vec();
            if v4 {
                assert_eq!(checksum(&answer[network..network + 20]), 0);
            } else {
                let length = u8::try_from(message.len()).expect("short");
                covered.splice(0..0, [0, length, 0, 58]);
                covered.splice(0..0, answer[network + 8..network + 40].to_vec());
            }
            assert_eq!(checksum(&covered), 0);
        }
    }
}

/// Clears the flow label of an answer, which must not be zero.
fn unlabelled(answer: &[u8]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    let mut network = 14;
    while matches!(answer[network - 2..network], [0x81, 0] | [0x88, 0xa8]) {
        network += 4;
    }
    if answer[network] >> 4 == 6 {
        assert_ne!(answer[network + 1..network + 4], [0; 3], "no flow label");
        answer[network + 1..network + 4].fill(0);
    }
    answer
}

/// Makes a packet into a RST as knockgate sends it: without window, and for IPv4 with "don't fragment".
fn reset(like: &Packet, v4: bool, flags: u8, acknowledgement: [u8; 4]) -> Vec<u8> {
    let mut frame = like.frame(HOST, CLIENT);
    let at = frame.len() - 20;
    frame[at + 4..at + 8].fill(0);
    frame[at + 8..at + 12].copy_from_slice(&acknowledgement);
    frame[at + 13] = flags;
    frame[at + 14..at + 16].fill(0);
    if v4 {
        let network = at - 20;
        frame[network + 4..network + 8].copy_from_slice(&[0, 0, 0x40, 0]);
        sum(&mut frame, network..at, network + 10, &[]);
        let pseudo = [&frame[at - 8..at], &[0, 6, 0, 20]].concat();
        let end = frame.len();
        sum(&mut frame, at..end, at + 16, &pseudo);
    } else {
        let pseudo = [&frame[at - 32..at], &[0, 6, 0, 20]].concat();
        let end = frame.len();
        sum(&mut frame, at..end, at + 16, &pseudo);
    }
    frame
}

/// Fills in a checksum over a part of a frame and further bytes.
fn sum(frame: &mut [u8], covered: std::ops::Range<usize>, place: usize, beside: &[u8]) {
    frame[place..place + 2].fill(0);
    let sum = checksum(&[beside, &frame[covered]].concat());
    frame[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}
