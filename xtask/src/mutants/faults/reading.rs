//! Faults in reading a frame.

use super::Fault;

const IP: &str = "knock-common/src/frame/ip.rs";
const EXTENSION: &str = "knock-common/src/frame/extension.rs";
const LINK: &str = "knock-common/src/frame/link.rs";
const PLAIN: &str = "knock-common/src/frame/plain.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "IPv4 fragments of TCP at offset 1 pass",
        file: IP,
        find: "if protocol == TCP && at_one {",
        replace: "if false && protocol == TCP && at_one {",
    },
    Fault {
        what: "IPv6 fragments of TCP at offset 2 are denied in place of those at 1",
        file: EXTENSION,
        find: "TCP if offset & 0xfff8 == 8 =>",
        replace: "TCP if offset & 0xfff8 == 16 =>",
    },
    Fault {
        what: "a later IPv4 fragment is read as if it held the ports",
        file: IP,
        find: "if offset != 0 {",
        replace: "if false {",
    },
    Fault {
        what: "a later IPv6 fragment is read as if it held the ports",
        file: EXTENSION,
        find: "if offset & 0xfff8 != 0 {",
        replace: "if false {",
    },
    Fault {
        what: "an IPv4 first fragment need not hold its TCP or UDP header",
        file: IP,
        find: "if more && !holds_header(",
        replace: "if false && !holds_header(",
    },
    Fault {
        what: "an IPv6 first fragment need not hold its TCP or UDP header",
        file: EXTENSION,
        find: "if first_fragment && !holds_header(",
        replace: "if false && !holds_header(",
    },
    Fault {
        what: "a first fragment's padding counts as its header",
        file: EXTENSION,
        find: "transport + needed <= end && ",
        replace: "",
    },
    Fault {
        what: "TCP's header is taken to be as short as UDP's",
        file: EXTENSION,
        find: "        size_of::<TcpHeader>()\n",
        replace: "        size_of::<UdpHeader>()\n",
    },
    Fault {
        what: "IPv4 options are not skipped: the header is taken to have 20 bytes",
        file: IP,
        find: "at + usize::from(header.version_and_length & 0x0f).max(5) * 4",
        replace: "at + 20",
    },
    Fault {
        what: "a nonsensical IPv4 header length is believed",
        file: IP,
        find: "usize::from(header.version_and_length & 0x0f).max(5) * 4",
        replace: "usize::from(header.version_and_length & 0x0f) * 4",
    },
    Fault {
        what: "a second VLAN tag is not read",
        file: LINK,
        find: "const MAX_TAGS: usize = 2;",
        replace: "const MAX_TAGS: usize = 1;",
    },
    Fault {
        what: "packets with more tags than are read pass",
        file: LINK,
        find: "ether::VLAN | ether::QINQ => NetworkLayer::Malformed,",
        replace: "",
    },
    Fault {
        what: "service tags (802.1ad) are not recognised as tags",
        file: LINK,
        find: "if kind != ether::VLAN && kind != ether::QINQ {",
        replace: "if kind != ether::VLAN {",
    },
    Fault {
        what: "without a link header, a packet is read as if it had Ethernet's",
        file: LINK,
        find: "        if is_priority_tag(start) {\n            return NetworkLayer::Malformed;",
        replace: "        if start.len() == 2 {\n            return Ethernet::network(frame);",
    },
    Fault {
        what: "without a link header, a VLAN tag is not looked for",
        file: LINK,
        find: "        if is_priority_tag(start) {",
        replace: "        if false && is_priority_tag(start) {",
    },
    Fault {
        what: "without a link header, IPv6 with some flow labels is taken for a VLAN tag",
        file: LINK,
        find: "let is_ipv6 = version(tag) == 6;",
        replace: "let is_ipv6 = false;",
    },
    Fault {
        what: "without a link header, IPv6 is not read",
        file: LINK,
        find: "            6 => NetworkLayer::Ipv6 { at: 0 },\n",
        replace: "",
    },
    Fault {
        what: "IP behind a routing header is a tunnel's packet",
        file: EXTENSION,
        find: "            _ if unwrapped => return Chain::Malformed,\n",
        replace: "",
    },
    Fault {
        what: "IPv4 behind a routing header is a tunnel's packet",
        file: EXTENSION,
        find: "matches!(extension.next, IPV4_INSIDE | IPV6_INSIDE)",
        replace: "matches!(extension.next, IPV6_INSIDE)",
    },
    Fault {
        what: "IP behind any extension header is malformed",
        file: EXTENSION,
        find: "next == ROUTING && matches!(extension.next,",
        replace: "is_extension(next) && matches!(extension.next,",
    },
    Fault {
        what: "extension headers beyond one are not read",
        file: EXTENSION,
        find: "const MAX_EXTENSIONS: usize = 8;",
        replace: "const MAX_EXTENSIONS: usize = 1;",
    },
    Fault {
        what: "a ninth extension header is read",
        file: EXTENSION,
        find: "const MAX_EXTENSIONS: usize = 8;",
        replace: "const MAX_EXTENSIONS: usize = 9;",
    },
    Fault {
        what: "an authentication header's length is taken in units of eight bytes",
        file: EXTENSION,
        find: "(words + 2) * 4",
        replace: "(words + 2) * 8",
    },
    Fault {
        what: "other extension headers' length is taken in units of four bytes",
        file: EXTENSION,
        find: "(words + 1) * 8",
        replace: "(words + 1) * 4",
    },
    Fault {
        what: "routing headers are taken for something else than IP's",
        file: EXTENSION,
        find: "HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS",
        replace: "HOP_BY_HOP | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS",
    },
    Fault {
        what: "in a short chain, a fragment header is skipped like options",
        file: EXTENSION,
        find: "HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)",
        replace: "HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)",
    },
    Fault {
        what: "in a short chain, an authentication header's length is taken in units of eight bytes",
        file: EXTENSION,
        find: "HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)",
        replace: "HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS)",
    },
    Fault {
        what: "in a short chain, headers' length is taken in units of four bytes",
        file: EXTENSION,
        find: "(usize::from(extension.length) + 1) * 8",
        replace: "(usize::from(extension.length) + 1) * 4",
    },
    Fault {
        what: "a header chain goes on in the padding of a first fragment",
        file: EXTENSION,
        find: "if first_fragment && at + 8 > end {",
        replace: "if false {",
    },
    Fault {
        what: "a packet that ends before its ports counts as unguarded",
        file: IP,
        find: "let Some(ports) = frame.header::<Be32>(transport) else {\n        return Parsed::Malformed(Some((source, destination)));",
        replace: "let Some(ports) = frame.header::<Be32>(transport) else {\n        return Parsed::Pass(Reason::OtherProtocol);",
    },
    Fault {
        what: "the source port is taken for the destination port",
        file: "knock-common/src/frame.rs",
        find: "u16::from_be((self.0 >> 16) as u16)",
        replace: "u16::from_be(self.0 as u16)",
    },
    Fault {
        what: "behind extension headers, UDP is taken for TCP",
        file: EXTENSION,
        find: "protocol: (packed >> 16) as u8,",
        replace: "protocol: TCP,",
    },
    Fault {
        what: "a tag beside the frame does not count in places of the frame",
        file: LINK,
        find: "behind::<{ MAX_TAGS - 1 }, F>(frame, ethernet, ETHER_HEADER + VLAN_TAG)",
        replace: "behind::<{ MAX_TAGS - 1 }, F>(frame, ethernet, ETHER_HEADER)",
    },
    Fault {
        what: "as many tags are read behind one beside the frame as where there is none",
        file: LINK,
        find: "behind::<{ MAX_TAGS - 1 }, F>(frame, ethernet,",
        replace: "behind::<MAX_TAGS, F>(frame, ethernet,",
    },
    Fault {
        what: "a packet with IPv4 options is plain",
        file: PLAIN,
        find: "ip.version_and_length != WITHOUT_OPTIONS ||",
        replace: "ip.version_and_length >> 4 != 4 ||",
    },
    Fault {
        what: "a later fragment is plain",
        file: PLAIN,
        find: "const FRAGMENT: u16 = 0x3fff;",
        replace: "const FRAGMENT: u16 = 0x2000;",
    },
    Fault {
        what: "a first fragment is plain",
        file: PLAIN,
        find: "const FRAGMENT: u16 = 0x3fff;",
        replace: "const FRAGMENT: u16 = 0x1fff;",
    },
    Fault {
        what: "a packet of another protocol than TCP and UDP is plain",
        file: PLAIN,
        find: "if protocol != TCP && protocol != UDP {",
        replace: "if false {",
    },
    Fault {
        what: "a frame of another type than IPv4 is plain",
        file: PLAIN,
        find: "if ethernet.kind.raw() != ether::IPV4.to_be() {",
        replace: "if false {",
    },
    Fault {
        what: "at TCX, chains of extension headers are malformed",
        file: "knock-ebpf/src/skb/packet.rs",
        find: "        self.missed.set(true);\n        extension::",
        replace: "        extension::",
    },
];
