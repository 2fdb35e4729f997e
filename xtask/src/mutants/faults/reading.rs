//! Faults in reading a frame.

use super::Fault;

const FRAME: &str = "knock-common/src/frame.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "IPv4 fragments of TCP at offset 1 pass",
        file: FRAME,
        find: "if protocol == TCP && at_one {",
        replace: "if false && protocol == TCP && at_one {",
    },
    Fault {
        what: "IPv6 fragments of TCP at offset 2 are denied in place of those at 1",
        file: FRAME,
        find: "TCP if offset & 0xfff8 == 8 =>",
        replace: "TCP if offset & 0xfff8 == 16 =>",
    },
    Fault {
        what: "a later IPv4 fragment is read as if it held the ports",
        file: FRAME,
        find: "if offset != 0 {",
        replace: "if false {",
    },
    Fault {
        what: "a later IPv6 fragment is read as if it held the ports",
        file: FRAME,
        find: "if offset & 0xfff8 != 0 {",
        replace: "if false {",
    },
    Fault {
        what: "an IPv4 first fragment need not hold its TCP or UDP header",
        file: FRAME,
        find: "if more && !holds_header(",
        replace: "if false && !holds_header(",
    },
    Fault {
        what: "an IPv6 first fragment need not hold its TCP or UDP header",
        file: FRAME,
        find: "if first_fragment && !holds_header(",
        replace: "if false && !holds_header(",
    },
    Fault {
        what: "a first fragment's padding counts as its header",
        file: FRAME,
        find: "transport + needed <= end && ",
        replace: "",
    },
    Fault {
        what: "TCP's header is taken to be as short as UDP's",
        file: FRAME,
        find: "if protocol == TCP { 20 } else { 8 }",
        replace: "8",
    },
    Fault {
        what: "IPv4 options are not read over: the header is taken to have 20 bytes",
        file: FRAME,
        find: "at + usize::from(header[0] & 0x0f).max(5) * 4",
        replace: "at + 20",
    },
    Fault {
        what: "a nonsensical IPv4 header length is believed",
        file: FRAME,
        find: "usize::from(header[0] & 0x0f).max(5) * 4",
        replace: "usize::from(header[0] & 0x0f) * 4",
    },
    Fault {
        what: "a second VLAN tag is not read",
        file: FRAME,
        find: "const MAX_TAGS: usize = 2;",
        replace: "const MAX_TAGS: usize = 1;",
    },
    Fault {
        what: "more tags than are read are waved through",
        file: FRAME,
        find: "ETHER_VLAN | ETHER_QINQ => NetworkLayer::Malformed,",
        replace: "",
    },
    Fault {
        what: "service tags (802.1ad) are not known for tags",
        file: FRAME,
        find: "if kind != ETHER_VLAN && kind != ETHER_QINQ {",
        replace: "if kind != ETHER_VLAN {",
    },
    Fault {
        what: "without a link header, a packet is read as if it had Ethernet's",
        file: FRAME,
        find: "        if is_priority_tag(start) {\n            return NetworkLayer::Malformed;",
        replace: "        if start.len() == 8 {\n            return Ethernet::network(frame);",
    },
    Fault {
        what: "without a link header, a VLAN tag is not looked for",
        file: FRAME,
        find: "        if is_priority_tag(start) {",
        replace: "        if false && is_priority_tag(start) {",
    },
    Fault {
        what: "without a link header, IPv6 with some flow labels is taken for a VLAN tag",
        file: FRAME,
        find: "let is_ipv6 = start[0] >> 4 == 6;",
        replace: "let is_ipv6 = false;",
    },
    Fault {
        what: "without a link header, IPv6 is not read",
        file: FRAME,
        find: "            6 => NetworkLayer::Ipv6 { at: 0 },\n",
        replace: "",
    },
    Fault {
        what: "IP behind a routing header is a tunnel's packet",
        file: FRAME,
        find: "            _ if unwrapped => return Chain::Malformed,\n",
        replace: "",
    },
    Fault {
        what: "IPv4 behind a routing header is a tunnel's packet",
        file: FRAME,
        find: "matches!(extension[0], IPV4_INSIDE | IPV6_INSIDE)",
        replace: "matches!(extension[0], IPV6_INSIDE)",
    },
    Fault {
        what: "IP behind any extension header is malformed",
        file: FRAME,
        find: "next == ROUTING && matches!(extension[0],",
        replace: "is_extension(next) && matches!(extension[0],",
    },
    Fault {
        what: "extension headers beyond one are not read",
        file: FRAME,
        find: "const MAX_EXTENSIONS: usize = 8;",
        replace: "const MAX_EXTENSIONS: usize = 1;",
    },
    Fault {
        what: "a ninth extension header is read",
        file: FRAME,
        find: "const MAX_EXTENSIONS: usize = 8;",
        replace: "const MAX_EXTENSIONS: usize = 9;",
    },
    Fault {
        what: "an authentication header's length is taken in units of eight bytes",
        file: FRAME,
        find: "(words + 2) * 4",
        replace: "(words + 2) * 8",
    },
    Fault {
        what: "other extension headers' length is taken in units of four bytes",
        file: FRAME,
        find: "(words + 1) * 8",
        replace: "(words + 1) * 4",
    },
    Fault {
        what: "routing headers are taken for something else than IP's",
        file: FRAME,
        find: "HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS",
        replace: "HOP_BY_HOP | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS",
    },
    Fault {
        what: "in a short chain, a fragment header is read over like options",
        file: FRAME,
        find: "HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)",
        replace: "HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)",
    },
    Fault {
        what: "in a short chain, an authentication header's length is taken in units of eight bytes",
        file: FRAME,
        find: "HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)",
        replace: "HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS)",
    },
    Fault {
        what: "in a short chain, headers' length is taken in units of four bytes",
        file: FRAME,
        find: "(usize::from(extension[1]) + 1) * 8",
        replace: "(usize::from(extension[1]) + 1) * 4",
    },
    Fault {
        what: "a header chain goes on in the padding of a first fragment",
        file: FRAME,
        find: "if first_fragment && at + 8 > end {",
        replace: "if false {",
    },
    Fault {
        what: "what is cut short before its ports is none of the gate's business",
        file: FRAME,
        find: "let Some(ports) = frame.header::<4>(transport) else {\n        return Parsed::Malformed(Some((source, destination)));",
        replace: "let Some(ports) = frame.header::<4>(transport) else {\n        return Parsed::Pass(Reason::OtherProtocol);",
    },
    Fault {
        what: "the source port is taken for the destination port",
        file: FRAME,
        find: "destination_port: u16_at(ports, 2)",
        replace: "destination_port: u16_at(ports, 0)",
    },
    Fault {
        what: "behind extension headers, UDP is taken for TCP",
        file: FRAME,
        find: "protocol: (packed >> 16) as u8,",
        replace: "protocol: TCP,",
    },
];
