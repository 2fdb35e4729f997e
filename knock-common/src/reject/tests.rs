//! Packets, and the replies that Linux 6.18 was seen to send, byte for byte; except for flow labels, which it generates,
//! and with the checksums filled in that it offloads.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{
    rate_limit::{GlobalIcmpBucket, IcmpBucket},
    reply::{Quote, ReplyBuffer},
    *,
};
use crate::{
    address::{Address as _, Padded, V4, V6},
    frame::{
        TCP, flag,
        link::{BareIp, ETHER_HEADER, Ethernet, Framing, VLAN_TAG},
    },
    judge::{action, judge},
    rules::{GateRules, Role},
    testing::TestEnv,
    verdict::Action,
};

const SECOND: u64 = 1_000_000_000;

const SETTINGS: ReplySettings = ReplySettings {
    interval4: SECOND,
    interval6: SECOND,
    per_second: 1000,
    burst: 50,
    tick: 4_000_000,
    secret: 42,
    ttl: 64,
    labels: 0,
    limited: 3,
    known: 1,
    strict: 1,
    least_options: SIGNATURE_LENGTH,
    zero: [0; 2],
};

const LINK: Link = Link {
    mac: [2, 0, 0, 0, 0, 1],
    hop_limit: 64,
    partial: 0,
};

/// A host at 10.77.0.1 and `fd77::1`, and the VLANs 5 and 7 in 5. One gate guards all its ports, and rejects.
struct Lab {
    env: TestEnv,
}

impl Lab {
    fn new() -> Self {
        let mut env = TestEnv::new(1, 1);
        env.roles.fill(Role::Protected { gate: 0 }.pack());
        env.gates.push(GateRules {
            reject: 1,
            ..GateRules::zeroed()
        });
        let own = [v4([10, 77, 0, 1]), (V6::FAMILY, V6::from(FD77_1).padded())];
        env.own = Some(own.into_iter().collect());
        env.broadcast.insert(v4([10, 77, 255, 255]));
        // So that the identification of the first error is 0x90b9.
        env.random.set(0x90b8);
        let mut lab = Self { env };
        lab.set(SETTINGS, LINK);
        lab
    }

    fn set(&mut self, settings: ReplySettings, link: Link) {
        self.env.reply_settings = Some(settings);
        let vlans = [[0, 0], [5, 0], [5, 7]];
        self.env.reply_links = vlans.into_iter().map(|vlans| (vlans, link)).collect();
    }

    /// Returns the reply to a frame.
    fn ask(&self, frame: &[u8]) -> Option<Vec<u8>> {
        self.ask_on::<Ethernet>(frame)
    }

    /// Returns the reply to a packet on a link of this kind.
    fn ask_on<L: Framing>(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let verdict = judge::<L, _, _>(&self.env, frame);
        if action(&self.env, verdict) != Action::Reply {
            return None;
        }
        let mut buffer = ReplyBuffer::empty();
        match buffer.read_link::<L, _, _>(&self.env, frame) {
            4 => self.sent::<L, V4>(frame, &mut buffer),
            6 => self.sent::<L, V6>(frame, &mut buffer),
            _ => None,
        }
    }

    /// Takes the steps of the XDP program. That at TCX must come to the same.
    fn sent<L: Framing, A: ReplyFamily>(
        &self,
        frame: &[u8],
        buffer: &mut ReplyBuffer,
    ) -> Option<Vec<u8>> {
        let env = &self.env;
        if !buffer.read_packet::<A, _, _>(env, frame) || !buffer.permit(env, A::FAMILY) {
            return None;
        }
        let mut sent = frame.to_vec();
        let shift = buffer.shift::<L, A>();
        if let Ok(shift) = usize::try_from(shift) {
            sent.drain(..shift);
        } else {
            sent.splice(0..0, vec![0xee; shift.unsigned_abs()]);
        }
        let length = buffer.length::<L, A>();
        assert!(length <= sent.len(), "it is only ever cut");
        sent.truncate(length);
        buffer
            .write::<L, A, _>(&mut sent[..])
            .expect("there is room");
        assert_eq!(beside::<L, A>(frame, *buffer, false), sent, "at TCX");
        Some(sent)
    }
}

/// Takes the steps of the TCX program: the reply is written beside the packet, and its tags are put on afterwards.
fn beside<L: Framing, A: ReplyFamily>(
    frame: &[u8],
    mut buffer: ReplyBuffer,
    leave: bool,
) -> Vec<u8> {
    const TAGS: usize = ETHER_HEADER - 2;
    let mut packet = frame.to_vec();
    let tags = VLAN_TAG * buffer.untag::<L>();
    if tags != 0 {
        packet.drain(TAGS..TAGS + tags);
    }
    let Quote { from, at, length } = buffer.quote::<L, A>();
    let mut reply = vec![0xee; buffer.length::<L, A>()];
    if length != 0 {
        reply[at..at + length].copy_from_slice(&packet[from..from + length]);
    }
    buffer
        .write_with::<L, A, _>(&mut reply[..], leave)
        .expect("there is room");
    for tag in buffer.tags().into_iter().rev().filter(|tag| *tag != 0) {
        reply.splice(TAGS..TAGS, tag.to_ne_bytes());
    }
    reply
}

const FD77_1: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

fn v4(address: [u8; 4]) -> (u8, Padded) {
    (V4::FAMILY, V4::from(Ipv4Addr::from(address)).padded())
}

const SYN4: &str = "02000000000102000000000208004500002812340000400653000a4d01020a4d00010fa00063000003e8\
                    000007d0500204007a8b0000";
const SYN6: &str = "02000000000102000000000286dd6000000000140640fd770000000000000000000000000002fd77000000\
                    00000000000000000000010fa00063000003e8000007d05002040095350000";
const DATAGRAM4: &str =
    "02000000000102000000000208004500001f12340000401152fe0a4d01020a4d00010fa00063000b15d6616263";
const DATAGRAM6: &str = "02000000000102000000000286dd60000000000b1140fd770000000000000000000000000002fd770000\
                         0000000000000000000000010fa00063000b3080616263";
/// Five bytes of data and all of the traffic class.
const ACK4: &str = "020000000001020000000002080045ff002d12340000400651fc0a4d01020a4d00010fa00063000003e8\
                    000007d05010040036a6000068656c6c6f000000";

const SEEN: [(&str, &str, &str); 5] = [
    (
        "a SYN",
        SYN4,
        "02000000000202000000000108004500002800004000400625340a4d00010a4d010200630fa000000000000003e9\
      5014000086480000",
    ),
    (
        "an ACK with data and padding",
        ACK4,
        "020000000002020000000001080045fc002800004000400624380a4d00010a4d010200630fa0000007d000000000\
      5004000082710000",
    ),
    (
        "a SYN over IPv6",
        SYN6,
        "02000000000202000000000186dd6000000000140640fd770000000000000000000000000001fd77000000000000\
      000000000000000200630fa000000000000003e950140000a0f20000",
    ),
    (
        "a datagram",
        DATAGRAM4,
        "020000000002020000000001080045c0003b90b900004001d3ac0a4d00010a4d0102030312b60000000045 00001f\
      12340000401152fe0a4d01020a4d00010fa00063000b15d6616263",
    ),
    (
        "a datagram over IPv6",
        DATAGRAM6,
        "02000000000202000000000186dd60000000003b3a40fd770000000000000000000000000001fd77000000000000\
      0000000000000002010492640000000060000000000b1140fd770000000000000000000000000002fd7700000000\
      00000000000000000001 0fa00063000b3080616263",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn replies_are_those_of_linux() {
    for (what, asked, seen) in SEEN {
        assert_eq!(Lab::new().ask(&bytes(asked)), Some(bytes(seen)), "{what}");
    }
}

/// Whatever bit of a packet is wrong, its checksum is, or its lengths are.
#[test]
fn replies_without_a_link_header_are_the_same_packets() {
    let lab = Lab::new();
    for (what, asked, seen) in SEEN {
        let (asked, seen) = (bytes(asked), bytes(seen));
        let reply = lab.ask_on::<BareIp>(&asked[ETHER_HEADER..]);
        assert_eq!(reply.as_deref(), Some(&seen[ETHER_HEADER..]), "{what}");
    }
}

#[test]
fn no_damaged_packet_gets_a_reply() {
    for asked in [SYN4, SYN6, DATAGRAM4, DATAGRAM6] {
        let whole = bytes(asked);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The sender's MAC address is under no sum, and so are IPv6's class, label and hop limit.
            let sender = (6..12).contains(&(bit / 8)) && bit != 6 * 8;
            let uncovered = whole[12] == 0x86
                && (matches!(bit / 8, 15..=17 | 21) || bit / 8 == 14 && bit % 8 < 4);
            let answered = Lab::new().ask(&damaged).is_some();
            assert_eq!(answered, sender || uncovered, "bit {bit} of {asked}");
        }
    }
}

#[test]
fn no_packet_cut_short_gets_a_reply() {
    for (what, asked, _) in SEEN {
        let whole = bytes(asked);
        let padding = if asked == ACK4 { 3 } else { 0 };
        for length in 0..whole.len() - padding {
            assert_eq!(
                Lab::new().ask(&whole[..length]),
                None,
                "{what}, {length} bytes"
            );
        }
    }
}

#[test]
fn a_sum_left_to_hardware_is_good_only_where_it_may_be() {
    for (asked, place) in [(SYN4, 50), (SYN6, 70), (DATAGRAM4, 40), (DATAGRAM6, 60)] {
        let mut frame = bytes(asked);
        let network = if frame[12] == 0x08 { 26..34 } else { 22..54 };
        let protocol = if place % 20 == 0 { 17 } else { TCP };
        let behind = frame.len() - network.end;
        let length = u8::try_from(behind).expect("short");
        let covered = [&frame[network], &[0, protocol, 0, length]].concat();
        let sum = fold(covered.sum(0, covered.len()).expect("few bytes"));
        frame[place..place + 2].copy_from_slice(&sum.to_ne_bytes());
        let mut lab = Lab::new();
        assert_eq!(lab.ask(&frame), None, "{asked}");
        lab.set(SETTINGS, Link { partial: 1, ..LINK });
        assert!(lab.ask(&frame).is_some(), "{asked}");
    }
}

/// Who leaves a RST's checksum to hardware stores the sum of the pseudo-header, as the sender of the packet did.
#[test]
fn the_sum_of_a_reset_can_be_left_to_hardware() {
    fn left<A: ReplyFamily>(frame: &[u8], pseudo: std::ops::Range<usize>) {
        let lab = Lab::new();
        let mut buffer = ReplyBuffer::empty();
        buffer.read_link::<Ethernet, _, _>(&lab.env, frame);
        buffer.judge_sum_later();
        assert!(buffer.read_packet::<A, _, _>(&lab.env, frame));
        assert!(buffer.is_right(false) && !buffer.is_right(true));
        let whole = beside::<Ethernet, A>(frame, buffer, false);
        let mut left = beside::<Ethernet, A>(frame, buffer, true);
        let transport = pseudo.end;
        let place = transport + 16;
        let covered = [&left[pseudo], &[0, TCP, 0, 20]].concat();
        let sum = fold(covered.sum(0, covered.len()).expect("few bytes"));
        assert_eq!(left[place..place + 2], sum.to_ne_bytes());
        // As a device completes it.
        let sum = !fold(left.sum(transport, 20).expect("few bytes"));
        left[place..place + 2].copy_from_slice(&sum.to_ne_bytes());
        assert_eq!(left, whole);
    }
    left::<V4>(&bytes(SYN4), 26..34);
    left::<V6>(&bytes(SYN6), 22..54);
}

#[test]
fn replies_go_back_into_their_vlan() {
    let lab = Lab::new();
    let [outer, inner, priority] = [[0x88, 0xa8, 0, 5], [0x81, 0, 0, 7], [0x81, 0, 0xe0, 0]];
    for (what, asked, seen) in SEEN {
        let (asked, seen) = (bytes(asked), bytes(seen));
        let tagged = |frame: &[u8], tags: &[[u8; 4]]| {
            let (macs, rest) = frame.split_at(12);
            [macs, &tags.concat(), rest].concat()
        };
        let both = [outer, inner];
        for (tags, kept) in [
            (&both[..], &both[..]),
            (&both[..1], &both[..1]),
            (&[priority], &[]),
        ] {
            let reply = lab
                .ask(&tagged(&asked, tags))
                .map(|reply| sums_aside(&reply));
            let expected = sums_aside(&tagged(&seen, kept));
            assert_eq!(reply, Some(expected), "{what}, {tags:?}");
        }
    }
}

/// Clears what differs from one ICMP error to the next: identification and checksum of an IPv4 header.
fn sums_aside(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut network = ETHER_HEADER;
    while matches!(frame[network - 2..network], [0x81, 0] | [0x88, 0xa8]) {
        network += VLAN_TAG;
    }
    if frame[network] >> 4 == 4 {
        frame[network + 4..network + 6].fill(0);
        frame[network + 10..network + 12].fill(0);
    }
    frame
}

#[test]
fn flow_labels_are_made_up_as_the_host_is_set() {
    let label = |lab: &Lab, frame: &[u8]| {
        let reply = lab.ask(frame).expect("an reply");
        u32::from_be_bytes([0, reply[15], reply[16], reply[17]]) & 0xf_ffff
    };
    let lab = |labels, secret| {
        let mut lab = Lab::new();
        let settings = ReplySettings {
            secret,
            labels,
            ..SETTINGS
        };
        lab.set(settings, LINK);
        lab
    };
    let mut labelled = bytes(SYN6);
    labelled[17] = 0x77;
    assert_eq!(label(&lab(0, 42), &labelled), 0);
    let made = label(&lab(labels::AUTO, 42), &labelled);
    assert_ne!(made, 0);
    let again = label(&lab(labels::AUTO, 42), &bytes(SYN6));
    assert_eq!(again, made, "the same flow");
    let other = label(&lab(labels::AUTO, 43), &labelled);
    assert_ne!(other, made, "unpredictable without the secret");
    let stateless = labels::AUTO | labels::STATELESS;
    assert_ne!(label(&lab(stateless, 43), &labelled) & 0x8_0000, 0);
    let reflected = lab(stateless | labels::REFLECT, 43);
    assert_eq!(label(&reflected, &labelled), 0x77);
}

#[test]
fn errors_keep_to_both_limits() {
    for asked in [DATAGRAM4, DATAGRAM6] {
        let lab = Lab::new();
        let answered = |lab: &Lab| {
            let all = (0..20).filter(|_| lab.ask(&bytes(asked)).is_some());
            all.count()
        };
        assert_eq!(answered(&lab), 6, "a destination's share");
        lab.env.advance(SECOND);
        assert_eq!(answered(&lab), 1);

        let mut few = Lab::new();
        let settings = ReplySettings {
            burst: 2,
            ..SETTINGS
        };
        few.set(settings, LINK);
        assert_eq!(answered(&few), 2, "all destinations' share");
        let settings = ReplySettings {
            limited: 0,
            ..settings
        };
        few.set(settings, LINK);
        assert_eq!(answered(&few), 20, "no limit");
    }
}

#[test]
fn resets_have_no_limit() {
    let lab = Lab::new();
    assert!((0..100).all(|_| lab.ask(&bytes(SYN4)).is_some()));
}

#[test]
fn a_flood_from_many_addresses_makes_no_buckets() {
    let mut lab = Lab::new();
    let settings = ReplySettings {
        burst: 0,
        ..SETTINGS
    };
    lab.set(settings, LINK);
    assert_eq!(lab.ask(&bytes(DATAGRAM4)), None);
    assert!(lab.env.icmp_buckets.rows().is_empty());
}

#[test]
fn a_reset_never_gets_a_reply() {
    let mut frame = bytes(SYN4);
    frame[47] |= flag::RST;
    // Makes up for the flag.
    frame[51] -= flag::RST;
    assert_eq!(Lab::new().ask(&frame), None);
}

#[test]
fn a_destination_gets_six_errors_and_one_an_interval() {
    let mut bucket = IcmpBucket::new(0, SECOND, 7);
    let taken = |bucket: &mut IcmpBucket, now| (0..20).filter(|_| bucket.take(now, SECOND)).count();
    assert_eq!(taken(&mut bucket, 0), 6);
    assert_eq!(taken(&mut bucket, SECOND - 1), 0);
    assert_eq!(taken(&mut bucket, SECOND), 1);
    assert_eq!(taken(&mut bucket, 4 * SECOND), 3);
    assert_eq!(taken(&mut bucket, 1000 * SECOND), 6);
    // Nobody has more than a minute saved up beforehand.
    let mut long = IcmpBucket::new(0, 20 * SECOND, 7);
    assert_eq!((0..20).filter(|_| long.take(0, 20 * SECOND)).count(), 3);
}

#[test]
fn identifications_go_on_as_time_does() {
    let mut bucket = IcmpBucket::new(0, SECOND, 65_534);
    assert_eq!(bucket.identify(5, 5, 4, 3), 65_535);
    assert_eq!(bucket.identify(5, 5, 4, 3), 0);
    assert_eq!(
        bucket.identify(0, 40, 4, 13),
        4,
        "by one, and three of ten ticks"
    );
}

#[test]
fn all_destinations_together_get_so_many_a_second() {
    let settings = SETTINGS;
    let take = |global: &mut GlobalIcmpBucket, now| {
        (0..200)
            .filter(|_| {
                let filled = global.filled(now, &settings);
                *global = filled.map_or(*global, |filled| filled.less(1));
                filled.is_some()
            })
            .count()
    };
    let mut global = GlobalIcmpBucket(0);
    let start = 100 * SECOND;
    assert_eq!(take(&mut global, start), 50, "a burst");
    assert_eq!(
        take(&mut global, start + 10_000_000),
        0,
        "not before a fiftieth of a second"
    );
    assert_eq!(
        take(&mut global, start + 30_000_000),
        30,
        "a thousand a second"
    );
    assert_eq!(take(&mut global, start + 10 * SECOND), 50);
}
