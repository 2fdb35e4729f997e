//! Faults in the kernel program, and in the code that reads and writes its tables.

use super::Fault;

const VERDICT: &str = "knock-common/src/verdict.rs";
const ENTRY: &str = "knock-ebpf/src/main.rs";
const SCATTERED: &str = "knock-ebpf/src/scattered.rs";
const SRC_SCATTERED: &str = "knock-common/src/scattered.rs";
const CHECKSUMS: &str = "knock-user/src/datapath/host/checksums.rs";
const NATIVE: &str = "knock-user/src/datapath/install/native/mod.rs";
const FRAMING: &str = "knock-user/src/datapath/install/framing.rs";
const ENV: &str = "knock-ebpf/src/env.rs";
const CLOCK: &str = "knock-ebpf/src/clock.rs";
const RULES: &str = "knock-common/src/rules.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a packet is counted under another reason",
        file: VERDICT,
        find: "+ self.reason as u32",
        replace: "+ (self.reason as u32 ^ 1)",
    },
    Fault {
        what: "a packet is counted for the next gate",
        file: VERDICT,
        find: "self.gate.wrapping_add(1) as u32",
        replace: "self.gate.wrapping_add(2) as u32",
    },
    Fault {
        what: "a packet's bytes are counted wrong",
        file: ENTRY,
        find: "counter.bytes += bytes;",
        replace: "counter.bytes += bytes - 4;",
    },
    Fault {
        what: "denied packets pass",
        file: ENTRY,
        find: "xdp_action::XDP_DROP",
        replace: "xdp_action::XDP_PASS",
    },
    Fault {
        what: "a frame in several buffers is judged by the first",
        file: SCATTERED,
        find: "if length == Packet::of(context).length() as u64 {",
        replace: "if length != 0 {",
    },
    Fault {
        what: "a frame in several buffers is counted shorter than it is",
        file: SCATTERED,
        find: "&Packet::of(context));\n            counted(verdict, length)",
        replace: "&Packet::of(context));\n            counted(verdict, length - 1)",
    },
    Fault {
        what: "flags of a frame in several buffers are not read",
        file: SRC_SCATTERED,
        find: "(read.flags, read.sequence) = ip::tcp(frame, &segment);",
        replace: "let _ = ip::tcp(frame, &segment);",
    },
    Fault {
        what: "a device above a veth is taken for hardware",
        file: CHECKSUMS,
        find: "under.peek().is_none() || under.any(|lower| reaches_software(lower, links, depth - 1))",
        replace: "under.peek().is_none()",
    },
    Fault {
        what: "a network card may leave checksums out",
        file: CHECKSUMS,
        find: "return VIRTUAL_BUSES.contains(&bus.as_str());",
        replace: "return true;",
    },
    Fault {
        what: "a veth's own MTU is taken for its peer's",
        file: NATIVE,
        find: "facts.peer.as_ref().map_or(facts.mtu, |peer| peer.mtu)",
        replace: "facts.mtu",
    },
    Fault {
        what: "Ethernet's entry is put on links without a header",
        file: FRAMING,
        find: "Self::BareIp => \"knockgate_ip\",",
        replace: "Self::BareIp => \"knockgate\",",
    },
    Fault {
        what: "the kernel looks for IPv6 prefixes by IPv4's lengths",
        file: ENV,
        find: "u32::from(A::FAMILY != 4)",
        replace: "0",
    },
    Fault {
        what: "knocks are counted for another gate",
        file: ENV,
        find: "outcome.counter(gate)",
        replace: "outcome.counter(gate ^ 1)",
    },
    Fault {
        what: "the time of the first packet holds for all others",
        file: CLOCK,
        find: "time ^ check == tick",
        replace: "time != 0",
    },
    Fault {
        what: "the ports of both protocols share their roles",
        file: RULES,
        find: "(udp as u32) << 16 | port as u32",
        replace: "port as u32 | (udp as u32 & 0) << 16",
    },
];
