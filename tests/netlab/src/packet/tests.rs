use super::{
    headers::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP},
    *,
};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn v4() -> [IpAddr; 2] {
    [[10, 77, 1, 2].into(), [10, 77, 0, 1].into()]
}

fn v6() -> [IpAddr; 2] {
    ["fd77:0:0:1::2".parse().unwrap(), "fd77::1".parse().unwrap()]
}

#[test]
fn checksum_of_the_rfc_1071_example() {
    let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(checksum(&example), !0xddf2);
    assert_eq!(checksum(&[0xff]), !0xff00, "an odd byte is padded");
}

#[test]
fn ipv4_header_sums_to_zero_and_names_its_length() {
    let [source, destination] = v4();
    let packet = Packet::udp((source, 1), (destination, 2), b"x").with_options(&[1, 1, 1]);
    let frame = packet.frame(A, B);
    assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    assert_eq!(frame[14], 0x46);
    assert_eq!(checksum(&frame[14..38]), 0);
    assert_eq!(frame[16..18], 33_u16.to_be_bytes());
    assert_eq!(frame.len(), 14 + 33);
}

#[test]
fn ipv6_headers_name_each_other() {
    let [source, destination] = v6();
    let frame = Packet::tcp((source, 1), (destination, 2), SYN)
        .with_extension(Extension::HopByHop(0))
        .with_extension(Extension::Authentication(1))
        .frame(A, B);
    assert_eq!(frame[20], HOP_BY_HOP);
    assert_eq!(frame[54..56], [AUTHENTICATION, 0]);
    assert_eq!(frame[62..64], [TCP, 2]);
    assert_eq!(frame.len(), 54 + 8 + 16 + 20);
    assert_eq!(frame[18..20], 44_u16.to_be_bytes());
}

#[test]
fn fragments_carry_the_whole_body_in_order() {
    for [source, destination] in [v4(), v6()] {
        let packet = Packet::udp((source, 1), (destination, 2), &[7; 20]);
        let frames = packet.fragments(A, B, &[8, 24]);
        let header = if source.is_ipv4() { 34 } else { 62 };
        let bodies: Vec<u8> = frames
            .iter()
            .flat_map(|frame| &frame[header..])
            .copied()
            .collect();
        assert_eq!(bodies, packet.body);
        let fields: Vec<[u8; 2]> = frames
            .iter()
            .map(|frame| {
                if source.is_ipv4() {
                    [frame[20], frame[21]]
                } else {
                    [frame[56], frame[57]]
                }
            })
            .collect();
        let expected = if source.is_ipv4() {
            [[0x20, 0], [0x20, 1], [0, 3]]
        } else {
            [[0, 1], [0, 9], [0, 24]]
        };
        assert_eq!(fields, expected);
    }
}

#[test]
fn tags_stand_between_addresses_and_type() {
    let [source, destination] = v4();
    let frame = Packet::udp((source, 1), (destination, 2), b"")
        .tagged(Tag::service(5))
        .tagged(Tag::vlan(7))
        .frame(A, B);
    assert_eq!(frame[12..22], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0]);
}

#[test]
fn payload_and_addresses_are_summed_anew() {
    for [source, destination] in [v4(), v6()] {
        let at_once = Packet::udp((source, 1), (destination, 2), b"xyz").frame(A, B);
        let added = Packet::udp((destination, 1), (source, 2), b"x")
            .with_payload(b"yz")
            .sent_from(source)
            .sent_to(destination);
        assert_eq!(added.frame(A, B), at_once);
    }
}

#[test]
fn headers_moved_inside_make_the_same_packet_and_are_cut() {
    let [source, destination] = v6();
    let packet = Packet::udp((source, 1), (destination, 2), b"x")
        .with_extension(Extension::DestinationOptions(0))
        .with_extension(Extension::AtomicFragment);
    let inside = packet.clone().with_headers_inside();
    assert_eq!(inside.frame(A, B), packet.frame(A, B));
    let first = inside.piece(A, B, 0..8, true);
    assert_eq!(first[20], FRAGMENT);
    assert_eq!(first[54..58], [DESTINATION_OPTIONS, 0, 0, 1]);
    assert_eq!(
        first[62], FRAGMENT,
        "the header that the next fragment begins with"
    );
    assert_eq!(first.len(), 62 + 8);
}

#[test]
fn a_checksum_may_be_left_out() {
    let [source, destination] = v4();
    let packet = Packet::udp((source, 1), (destination, 2), b"abc");
    assert_ne!(packet.frame(A, B)[40..42], [0, 0]);
    assert_eq!(packet.without_checksum().frame(A, B)[40..42], [0, 0]);
}
