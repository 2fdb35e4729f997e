//! Faults in judging a packet: grants, flows, lists, modes.

use super::Fault;

const JUDGE: &str = "knock-common/src/judge.rs";
const FIND: &str = "knock-common/src/grant/find.rs";
const ADDRESS: &str = "knock-common/src/address.rs";
const LOOKUP: &str = "knock-common/src/session/lookup.rs";
const REMEMBER: &str = "knock-common/src/session/remember.rs";
const COMPILE: &str = "knock-user/src/datapath/compile/mod.rs";
const SESSION: &str = "knock-common/src/session.rs";
const RECENT: &str = "knock-common/src/session/recent.rs";
const EDIT_SESSIONS: &str = "knock-user/src/datapath/edit/sessions.rs";
const SESSION_TABLE: &str = "knock-common/src/session/table.rs";
const REPORT: &str = "knock-common/src/report.rs";
const GUARDED: &str = "knock-common/src/guarded.rs";
const REPLY: &str = "knock-common/src/reject/reply.rs";
const REQUEST: &str = "knock-common/src/reject/request.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "SYN with ACK counts as a probe",
        file: JUDGE,
        find: "flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) != flag::SYN",
        replace: "flags & (flag::SYN | flag::RST | flag::FIN) != flag::SYN",
    },
    Fault {
        what: "open ports are probed like others",
        file: JUDGE,
        find: "role == Role::Open || !",
        replace: "!",
    },
    Fault {
        what: "addresses that are not guarded are guarded all the same",
        file: GUARDED,
        find: "env.guarded() != which::LISTED || env.is_listed(destination)",
        replace: "true",
    },
    Fault {
        what: "a SYN with other flags begins no connection",
        file: JUDGE,
        find: "flags & (flag::SYN | flag::ACK) == flag::SYN",
        replace: "flags == flag::SYN",
    },
    Fault {
        what: "monitor mode denies",
        file: JUDGE,
        find: "if env.monitor() {",
        replace: "if false {",
    },
    Fault {
        what: "the allow list is not consulted at protected ports",
        file: JUDGE,
        find: "if env.allows(segment.source) {",
        replace: "if false {",
    },
    Fault {
        what: "the allow list is not consulted for malformed packets",
        file: JUDGE,
        find: "if env.allows(source) {",
        replace: "if false {",
    },
    Fault {
        what: "a grant of the first gate opens every gate",
        file: JUDGE,
        find: "grant::find::live(env, &segment.source, gate, segment.ports.source())",
        replace: "grant::find::live(env, &segment.source, 0, segment.ports.source())",
    },
    Fault {
        what: "one connection more than `connections` is admitted",
        file: JUDGE,
        find: "let limit = rules.connections;",
        replace: "let limit = rules.connections + u32::from(rules.connections != 0);",
    },
    Fault {
        what: "a retransmitted SYN counts as a new connection",
        file: JUDGE,
        find: "if session::lookup::retransmits(session, packet.flags, packet.sequence) {",
        replace: "if false {",
    },
    Fault {
        what: "any SYN on the ports of a known flow is taken for a retransmission",
        file: JUDGE,
        find: "if session::lookup::retransmits(session, packet.flags, packet.sequence) {",
        replace: "if true {",
    },
    Fault {
        what: "packets of a flow do not put off its end",
        file: SESSION,
        find: "if session.last != now {",
        replace: "if false {",
    },
    Fault {
        what: "a flow under a grant that has been renewed looks it up with each packet",
        file: JUDGE,
        find: "session.set_granted(grant.until);",
        replace: "",
    },
    Fault {
        what: "a flow counts as granted when its grant has ended",
        file: JUDGE,
        find: "if session.is_granted(now) {",
        replace: "if true {",
    },
    Fault {
        what: "a flow counts as under its grant for a moment after that has ended",
        file: SESSION,
        find: "let units = until >> GRANTED_SHIFT;",
        replace: "let units = (until >> GRANTED_SHIFT) + 1;",
    },
    Fault {
        what: "a flow forgets a grant that ends very late",
        file: SESSION,
        find: "let units = if units < most { units } else { most };",
        replace: "let _ = most;",
    },
    Fault {
        what: "a flow that has just passed passes for good",
        file: RECENT,
        find: "(entry.tick ^ flow.tick) | (entry.ends ^ flow.ends)",
        replace: "(entry.ends ^ flow.ends)",
    },
    Fault {
        what: "where a flow has just passed, so does another with its ports",
        file: RECENT,
        find: "| (entry.ends ^ flow.ends)",
        replace: "",
    },
    Fault {
        what: "a flow that has just passed one gate passes another",
        file: RECENT,
        find: "\n                | u64::from(gate) << 32",
        replace: "",
    },
    Fault {
        what: "where a flow of TCP has just passed, so does one of UDP",
        file: RECENT,
        find: "\n                | u64::from(segment.protocol) << 48",
        replace: "",
    },
    Fault {
        what: "a flow that has just passed closes unnoticed",
        file: JUDGE,
        find: "flags & (flag::FIN | flag::RST) == 0 && recent.has_passed()",
        replace: "recent.has_passed()",
    },
    Fault {
        what: "a flow that is closing passes by what is remembered",
        file: JUDGE,
        find: "if session.is_closing() {",
        replace: "if false {",
    },
    Fault {
        what: "a flow that has just passed begins anew unnoticed",
        file: JUDGE,
        find: "    Place::of(env, segment, gate).forget();\n",
        replace: "",
    },
    Fault {
        what: "a revocation is done before every CPU has forgotten what passed",
        file: EDIT_SESSIONS,
        find: "        pass_tick();\n",
        replace: "",
    },
    Fault {
        what: "an expired grant is accepted",
        file: FIND,
        find: "found.until > env.now() && Grant::admits",
        replace: "Grant::admits",
    },
    Fault {
        what: "a grant lives one moment too long",
        file: FIND,
        find: "found.until > env.now() && Grant::admits",
        replace: "found.until >= env.now() && Grant::admits",
    },
    Fault {
        what: "a source's own used-up grant hides its prefix's",
        file: FIND,
        find: "if closest.as_deref().is_some_and(has_room) {",
        replace: "if closest.is_some() {",
    },
    Fault {
        what: "an idle flow in the home row of a new one makes no room there",
        file: REMEMBER,
        find: "    for slot in row::slots(choice) {\n        if env.vacate",
        replace: "    for slot in 0..0 {\n        if env.vacate",
    },
    Fault {
        what: "a flow whose home row is full looks in no other row for a free slot",
        file: REMEMBER,
        find: "    let slot = elsewhere(env, first.checked_rem(rows).unwrap_or(0), rows);\n",
        replace: "    let slot = NO_SLOT;\n",
    },
    Fault {
        what: "grants to a prefix go to the source alone",
        file: "knock-common/src/grant.rs",
        find: "if rules.to_prefix != 0 {",
        replace: "if false {",
    },
    Fault {
        what: "prefixes are masked one bit too short",
        file: ADDRESS,
        find: "u64::MAX << (64 - length.min(64))",
        replace: "u64::MAX << (65 - length.min(64)).min(63)",
    },
    Fault {
        what: "long IPv6 prefixes are masked one bit too long",
        file: ADDRESS,
        find: "mask(length.saturating_sub(64))",
        replace: "mask(length.saturating_sub(63))",
    },
    Fault {
        what: "a flow's idle time is not checked",
        file: LOOKUP,
        find: "is_within(last, now, rules.session_idle)",
        replace: "is_within(last, now, u64::MAX >> 1)",
    },
    Fault {
        what: "a flow lives one moment too long",
        file: LOOKUP,
        find: "is_within(last, now, rules.session_idle)",
        replace: "is_within(last, now, rules.session_idle + 1)",
    },
    Fault {
        what: "flows of every gate live as long as those of the gate with the longest `session_idle`",
        file: COMPILE,
        find: "idle.min().unwrap_or(0)",
        replace: "idle.max().unwrap_or(0)",
    },
    Fault {
        what: "flows outlive their grant at a gate that cuts them",
        file: COMPILE,
        find: "role.and_cut()",
        replace: "role",
    },
    Fault {
        what: "a flow of one gate passes at another",
        file: SESSION_TABLE,
        find: "Some(gate) => tenancy.is_at::<A>(flow.protocol, gate),",
        replace: "Some(_) => tenancy.is_of::<A>(flow.protocol),",
    },
    Fault {
        what: "all flows that a slot has had are taken for one",
        file: SESSION,
        find: "(self.0 >> 48).wrapping_add(1) << 48",
        replace: "(self.0 >> 48) << 48",
    },
    Fault {
        what: "a full table of flows pushes out living ones",
        file: REMEMBER,
        find: ">= rules.session_idle);",
        replace: ">= rules.session_idle || true);",
    },
    Fault {
        what: "flows that have ended make no room",
        file: REMEMBER,
        find: ">= rules.session_idle);",
        replace: ">= rules.session_idle && false);",
    },
    Fault {
        what: "a flow goes on when the host has closed its socket",
        file: LOOKUP,
        find: "if !socket::is_open(socket) {",
        replace: "if false {",
    },
    Fault {
        what: "a FIN or RST that the host does not honour ends a flow",
        file: LOOKUP,
        find: "ends && socket::knows_flow(socket)",
        replace: "ends",
    },
    Fault {
        what: "half-open flows do not give way where there is no room",
        file: REMEMBER,
        find: "flow.protocol != u32::from(TCP) || !socket::is_established(env.socket(flow))",
        replace: "false",
    },
    Fault {
        what: "any flow gives way where there is no room",
        file: REMEMBER,
        find: "ended || gives_way(env, flow, held(env, tenancy.holder()), bars)",
        replace: "true",
    },
    Fault {
        what: "under `cut`, flows outlive their grant",
        file: JUDGE,
        find: "note_cut(env, segment, gate);\n        return none();",
        replace: "note_cut(env, segment, gate);",
    },
    Fault {
        what: "a SYN behind other packets of its flow is taken for a retransmission",
        file: LOOKUP,
        find: "!session.has_more() && session.initial",
        replace: "session.initial",
    },
    Fault {
        what: "a SYN with RST or FIN is taken for a retransmission",
        file: LOOKUP,
        find: "session.initial == sequence && flags & (flag::RST | flag::FIN) == 0",
        replace: "session.initial == sequence",
    },
    Fault {
        what: "a FIN or RST that the host ignored is never forgotten",
        file: LOOKUP,
        find: "if settled && !ends && socket == socket::ESTABLISHED {",
        replace: "if false {",
    },
    Fault {
        what: "a FIN is forgotten before the host has looked at it",
        file: LOOKUP,
        find: "time.wrapping_sub(session.ending).cast_signed() >= SETTLED",
        replace: "true",
    },
    Fault {
        what: "a half-open socket counts as established",
        file: SESSION,
        find: "is_open(state) && !matches!(state, SYN_SENT | SYN_RECEIVED | REQUESTED)",
        replace: "is_open(state)",
    },
    Fault {
        what: "one source's established flows fill the table for others",
        file: REMEMBER,
        find: "if held >= bars.established {",
        replace: "if false {",
    },
    Fault {
        what: "SYNs that are forged in a source's name end what it has established",
        file: REMEMBER,
        find: "let established = if tried < FIRM {",
        replace: "let established = if false {",
    },
    Fault {
        what: "a flood of one source pushes out others' flows",
        file: REMEMBER,
        find: "if held < bars.loose {",
        replace: "if bars.loose == u32::MAX {",
    },
    Fault {
        what: "flows to foreign addresses are remembered",
        file: REMEMBER,
        find: "    if is_foreign(env, &flow) {",
        replace: "if false {",
    },
    Fault {
        what: "a new connection on the ports of an ended one is treated as ended",
        file: REMEMBER,
        find: "if session.is_closing() && !socket::is_open(env.socket(&flow)) {",
        replace: "if false {",
    },
    Fault {
        what: "outcomes are reported without limit",
        file: REPORT,
        find: "self.asked < limits.asked && self.sent < limits.sent",
        replace: "self.asked < limits.asked",
    },
    Fault {
        what: "one user's outcomes use up the limit of others",
        file: REPORT,
        find: "asked: u32::MAX,\n                free: 16,\n                pause: 50_000_000,",
        replace: "asked: u32::MAX,\n                free: 16,\n                pause: 0,",
    },
    Fault {
        what: "all outcomes are one class",
        file: REPORT,
        find: "(Kind::Refused, _) => class::REFUSALS,",
        replace: "(Kind::Refused, _) => class::OPENINGS,",
    },
    Fault {
        what: "a gate with destinations of its own protects its ports at every destination",
        file: GUARDED,
        find: "return is_place(env, packet.destination, port.gate());",
        replace: "return true;",
    },
    Fault {
        what: "at addresses that are not listed, protected ports are guarded all the same",
        file: GUARDED,
        find: "which::LISTED => env.is_listed(packet.destination),",
        replace: "which::LISTED => true,",
    },
    Fault {
        what: "with this host's own addresses guarded, protected ports are open",
        file: GUARDED,
        find: "_ => is_for_host(env, packet),",
        replace: "_ => false,",
    },
    Fault {
        what: "with this host's own addresses guarded, protected ports of others behind it are too",
        file: GUARDED,
        find: "_ => is_for_host(env, packet),",
        replace: "_ => true,",
    },
    Fault {
        what: "a packet without readable ports to a gate's own destinations passes",
        file: GUARDED,
        find: "return true;\n    }\n    by_destination(",
        replace: "return false;\n    }\n    by_destination(",
    },
    Fault {
        what: "a packet that is merged of several counts once",
        file: "knock-common/src/merged.rs",
        find: "(segments, _) => segments as u64,",
        replace: "(_, _) => 1,",
    },
    Fault {
        what: "a checksum that may have been left to hardware counts as left",
        file: REPLY,
        find: "left = (link.partial || link.shows_later) && transport.checksum == fold(pseudo);",
        replace: "left = link.partial || link.shows_later;",
    },
    Fault {
        what: "the checksum of a reply is complete where the device is still to fill it in",
        file: REPLY,
        find: "let sum = if leave {",
        replace: "let sum = if leave && self.quoted != 0 {",
    },
    Fault {
        what: "a segment with an authentication code is replied to",
        file: REQUEST,
        find: "AUTHENTICATION if strict => {",
        replace: "AUTHENTICATION if strict && length == 0 => {",
    },
    Fault {
        what: "a code that a kernel ignores with IPv6 is ignored with IPv4",
        file: REQUEST,
        find: "A::FAMILY == 6 && ",
        replace: "",
    },
];
