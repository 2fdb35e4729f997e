//! Faults in counting knocks, and in the automaton.

use super::Fault;

const JUDGE: &str = "knock-common/src/judge.rs";
const SEQUENCE: &str = "knock-common/src/knock/sequence.rs";
const PROGRESS: &str = "knock-common/src/knock/progress.rs";
const AUTOMATON: &str = "knock-user/src/datapath/compile/automaton.rs";
const GIVE: &str = "knock-common/src/grant/give.rs";
const RING: &str = "knock-common/src/knock/ring.rs";
const HOLD: &str = "knock-common/src/knock/hold.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a foreign probe does not break a run",
        file: JUDGE,
        find: "sequence::foreign(env, segment);",
        replace: "",
    },
    Fault {
        what: "`within` is one unit too short",
        file: SEQUENCE,
        find: "elapsed(progress, sequence.length) <= sequence.within",
        replace: "elapsed(progress, sequence.length) < sequence.within",
    },
    Fault {
        what: "`within` is one unit too long",
        file: SEQUENCE,
        find: "elapsed(progress, sequence.length) <= sequence.within",
        replace: "elapsed(progress, sequence.length) <= sequence.within + 1",
    },
    Fault {
        what: "`within` runs from the second knock",
        file: SEQUENCE,
        find: "(length as u8).wrapping_sub(1)",
        replace: "(length as u8).wrapping_sub(2)",
    },
    Fault {
        what: "a sequence that took too long opens",
        file: SEQUENCE,
        find: "Some(_) => after.completes | TOO_LATE,",
        replace: "Some(_) => after.completes,",
    },
    Fault {
        what: "a duplicate counts as a step",
        file: SEQUENCE,
        find: "if is_duplicate(progress, &step, before.within) {",
        replace: "if false {",
    },
    Fault {
        what: "the same knock from another source port is a duplicate",
        file: SEQUENCE,
        find: "known.source_port == step.source_port",
        replace: "true",
    },
    Fault {
        what: "the other knock from the same source port is a duplicate",
        file: SEQUENCE,
        find: "&& known.symbol == step.symbol",
        replace: "",
    },
    Fault {
        what: "a duplicate is recognised for ever",
        file: SEQUENCE,
        find: "step.time.wrapping_sub(known.time) <= within",
        replace: "true",
    },
    Fault {
        what: "knocks from before the run are taken for duplicates",
        file: PROGRESS,
        find: "(self.counted + 1).min(known)",
        replace: "self.counted.saturating_add(1)",
    },
    Fault {
        what: "another probe of the port counted last breaks a run that does not go on with it",
        file: SEQUENCE,
        find: "if repeat == Repeat::Shortens && is_recent(env, progress, step.time) {",
        replace: "if false {",
    },
    Fault {
        what: "another probe of the port counted last is always ignored",
        file: SEQUENCE,
        find: "after.depth < before.unfinished",
        replace: "true",
    },
    Fault {
        what: "another probe of any counted port is ignored where it would cost the run",
        file: SEQUENCE,
        find: "state == 0 || progress.step(0).symbol != symbol",
        replace: "state == 0",
    },
    Fault {
        what: "a completed sequence is kept from shrinking though nothing goes on from it",
        file: AUTOMATON,
        find: "if self.children[at].is_empty() {",
        replace: "if false {",
    },
    Fault {
        what: "a repeated knock does not break a run that is too old to be completed",
        file: SEQUENCE,
        find: "repeat == Repeat::Shortens && is_recent(env, progress, step.time)",
        replace: "repeat == Repeat::Shortens",
    },
    Fault {
        what: "a run that begins with an ignored knock begins at the knock before",
        file: SEQUENCE,
        find: "progress.renew(step.time, now);",
        replace: "",
    },
    Fault {
        what: "a repeated first knock counts as a break",
        file: SEQUENCE,
        find: "let keeps = extends || repeat == Repeat::Keeps;",
        replace: "let keeps = extends;",
    },
    Fault {
        what: "a datagram from the peer of a host's socket breaks a run",
        file: SEQUENCE,
        find: "        && !is_own(env, probe)\n",
        replace: "",
    },
    Fault {
        what: "a datagram from the peer of a host's socket advances a run",
        file: SEQUENCE,
        find: "if state != 0 && is_own(env, probe) {",
        replace: "if false {",
    },
    Fault {
        what: "a SYN is taken for a datagram from a socket's peer",
        file: SEQUENCE,
        find: "probe.protocol == UDP && env.is_connected(probe)",
        replace: "env.is_connected(probe)",
    },
    Fault {
        what: "knocks of a completed run are taken for duplicates",
        file: SEQUENCE,
        find: "progress.counted = 0;\n    match",
        replace: "match",
    },
    Fault {
        what: "networks that may knock are not checked",
        file: GIVE,
        find: "rules.restricted != 0 && !may_knock(env, source, terms.gate)",
        replace: "false",
    },
    Fault {
        what: "a knock that the run does not go on with begins no other",
        file: SEQUENCE,
        find: "onward.unwrap_or(start)",
        replace: "onward.unwrap_or(0)",
    },
    Fault {
        what: "a run may begin in the middle of a sequence",
        file: SEQUENCE,
        find: "if starts { u32::from(symbol) + 1 } else { 0 }",
        replace: "u32::from(symbol) + 1",
    },
    Fault {
        what: "a probe behind a completed run counts as its break",
        file: SEQUENCE,
        find: "!progress.is_complete()\n        && let",
        replace: "let",
    },
    Fault {
        what: "a source inherits the progress of one whose slot it was given",
        file: RING,
        find: "if progress.is_of(source) {",
        replace: "if true {",
    },
    Fault {
        what: "sources with the same tag are taken for one another",
        file: PROGRESS,
        find: " && self.address == source.padded()",
        replace: "",
    },
    Fault {
        what: "a source that has lost its place continues the next owner's progress",
        file: HOLD,
        find: "if !env.compare_exchange(&mut self.tag, tag, Self::HELD) {\n            return None;",
        replace: "if false {\n            return None;",
    },
    Fault {
        what: "a place is taken from a CPU that is changing it",
        file: HOLD,
        find: "if tag == Self::HELD || !env.compare_exchange(&mut self.tag, tag, Self::HELD) {",
        replace: "if !env.compare_exchange(&mut self.tag, tag, Self::HELD) {",
    },
    Fault {
        what: "a CPU goes on with places that others have overtaken",
        file: "knock-common/src/cursor.rs",
        find: "self.next == self.end || cursor.wrapping_sub(self.next) > slots >> Self::OLD",
        replace: "self.next == self.end",
    },
    Fault {
        what: "a CPU takes the first of its places again and again",
        file: "knock-common/src/cursor.rs",
        find: "self.next = ticket.wrapping_add(1);",
        replace: "",
    },
    Fault {
        what: "a source that is seen again is forgotten as soon as others",
        file: RING,
        find: "if before.age(next) <= old(env.progress_slots()) {",
        replace: "if true {",
    },
    Fault {
        what: "a source leaves its progress behind when it moves to the front",
        file: RING,
        find: "to.copy(&from);",
        replace: "",
    },
    Fault {
        what: "a set of sources forgets the newest",
        file: RING,
        find: "    let way = LAST - oldest as usize % WAYS;\n    let pair = set.pair(way);",
        replace: "    let way = (0..WAYS).min_by_key(|way| set.pair(*way).age(next))?;\n    let pair = set.pair(way);\n    oldest = u64::from(pair.age(next)) << BITS;",
    },
    Fault {
        what: "what another CPU has just added to a set of sources is taken for the oldest",
        file: RING,
        find: "let next = next.wrapping_add(AHEAD);",
        replace: "",
    },
    Fault {
        what: "two CPUs that add a source both succeed",
        file: RING,
        find: "        if pair.fingerprint() == fingerprint {\n            return None;\n        }\n        let (age",
        replace: "        let (age",
    },
    Fault {
        what: "a source whose fingerprint another one has is not remembered",
        file: RING,
        find: "        same: pair,\n",
        replace: "        same: Pair::UNUSED,\n",
    },
    Fault {
        what: "a state's only transition is taken whatever the knock",
        file: SEQUENCE,
        find: "before.next != 0 && before.symbol == symbol",
        replace: "before.next != 0",
    },
    Fault {
        what: "a knock of 52 days ago is taken for a new one",
        file: SEQUENCE,
        find: "if progress.is_forgotten(now) {",
        replace: "if false {",
    },
    Fault {
        what: "a full table of grants counts as success",
        file: SEQUENCE,
        find: "Opening::TableFull => (Outcome::TableFull, Kind::Refused, Cause::TableFull),",
        replace: "Opening::TableFull => (Outcome::Opened, Kind::Opened, Cause::None),",
    },
    Fault {
        what: "a source of one family is taken for one of the other",
        file: PROGRESS,
        find: "source.fold() ^ u64::from(A::FAMILY) << 56 | 1",
        replace: "source.fold() | 1",
    },
    Fault {
        what: "the automaton's failure links to first knocks are lost",
        file: AUTOMATON,
        find: ".or_else(|| self.children[0].get(&symbol))",
        replace: "",
    },
    Fault {
        what: "a state does not take over what its end would do",
        file: AUTOMATON,
        find: "moves[inherited].clone()",
        replace: "moves[0].clone()",
    },
    Fault {
        what: "a sequence within another is not completed",
        file: AUTOMATON,
        find: "self.states[at].completes = self.states[inherited].completes;",
        replace: "",
    },
    Fault {
        what: "a duplicate is recognised only within the shortest window",
        file: AUTOMATON,
        find: "shared.within.max(within)",
        replace: "within",
    },
    Fault {
        what: "`within` is rounded down, against the client",
        file: AUTOMATON,
        find: "nanoseconds.div_ceil(1 << TICK_SHIFT)",
        replace: "nanoseconds >> TICK_SHIFT",
    },
];
