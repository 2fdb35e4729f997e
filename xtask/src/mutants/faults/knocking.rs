//! Faults in counting knocks, and in the automaton that they are counted by.

use super::Fault;

const VERDICT: &str = "knock-common/src/verdict.rs";
const KNOCK: &str = "knock-common/src/knock.rs";
const PROGRESS: &str = "knock-common/src/progress.rs";
const TABLE: &str = "knock-common/src/table/knocking.rs";
const AUTOMATON: &str = "knock-user/src/datapath/compile/automaton.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a foreign probe doesn't break a run",
        file: VERDICT,
        find: "knock::foreign(kernel, segment);",
        replace: "",
    },
    Fault {
        what: "`within` is one unit too short",
        file: KNOCK,
        find: "elapsed(progress, sequence.length) <= sequence.within",
        replace: "elapsed(progress, sequence.length) < sequence.within",
    },
    Fault {
        what: "`within` is one unit too long",
        file: KNOCK,
        find: "elapsed(progress, sequence.length) <= sequence.within",
        replace: "elapsed(progress, sequence.length) <= sequence.within + 1",
    },
    Fault {
        what: "`within` runs from the second knock",
        file: KNOCK,
        find: "(length as u8).wrapping_sub(1)",
        replace: "(length as u8).wrapping_sub(2)",
    },
    Fault {
        what: "a sequence that took too long opens",
        file: KNOCK,
        find: "Some(_) => after.completes | TOO_LATE,",
        replace: "Some(_) => after.completes,",
    },
    Fault {
        what: "a duplicate counts as a step",
        file: KNOCK,
        find: "if is_duplicate(progress, &step, before.within) {",
        replace: "if false {",
    },
    Fault {
        what: "the same knock from another source port is a duplicate",
        file: KNOCK,
        find: "known.source_port == step.source_port",
        replace: "true",
    },
    Fault {
        what: "the other knock from the same source port is a duplicate",
        file: KNOCK,
        find: "&& known.symbol == step.symbol",
        replace: "",
    },
    Fault {
        what: "a duplicate is known for ever",
        file: KNOCK,
        find: "step.time.wrapping_sub(known.time) <= within",
        replace: "true",
    },
    Fault {
        what: "knocks from before the run are known for duplicates",
        file: TABLE,
        find: "(self.counted + 1).min(known)",
        replace: "self.counted.saturating_add(1)",
    },
    Fault {
        what: "another probe of the port counted last breaks a run that doesn't go on with it",
        file: KNOCK,
        find: "if repeat == Repeat::Shortens && is_recent(kernel, progress, step.time) {",
        replace: "if false {",
    },
    Fault {
        what: "another probe of the port counted last is always ignored",
        file: KNOCK,
        find: "after.depth < before.unfinished",
        replace: "true",
    },
    Fault {
        what: "another probe of any counted port is ignored where it would cost the run",
        file: KNOCK,
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
        what: "a run that can't be completed any more is kept from shrinking",
        file: KNOCK,
        find: "repeat == Repeat::Shortens && is_recent(kernel, progress, step.time)",
        replace: "repeat == Repeat::Shortens",
    },
    Fault {
        what: "what begins with an ignored knock began with the one before",
        file: KNOCK,
        find: "progress.renew(step.time, now);",
        replace: "",
    },
    Fault {
        what: "a repeated first knock counts as a break",
        file: KNOCK,
        find: "let keeps = extends || repeat == Repeat::Keeps;",
        replace: "let keeps = extends;",
    },
    Fault {
        what: "a conversation of the host's own breaks a run",
        file: KNOCK,
        find: "        && !is_own(kernel, probe)\n",
        replace: "",
    },
    Fault {
        what: "a conversation of the host's own goes on with a run",
        file: KNOCK,
        find: "if state != 0 && is_own(kernel, probe) {",
        replace: "if false {",
    },
    Fault {
        what: "a SYN belongs to a conversation over UDP",
        file: KNOCK,
        find: "probe.protocol == UDP && kernel.is_connected(probe)",
        replace: "kernel.is_connected(probe)",
    },
    Fault {
        what: "knocks of a completed run are known for duplicates",
        file: KNOCK,
        find: "progress.counted = 0;\n    match",
        replace: "match",
    },
    Fault {
        what: "networks that may knock are not checked",
        file: KNOCK,
        find: "rules.restricted != 0 && !kernel.may_knock",
        replace: "false && !kernel.may_knock",
    },
    Fault {
        what: "a knock that the run doesn't go on with begins no other",
        file: KNOCK,
        find: "onward.unwrap_or(start)",
        replace: "onward.unwrap_or(0)",
    },
    Fault {
        what: "a run may begin in the middle of a sequence",
        file: KNOCK,
        find: "if starts { u32::from(symbol) + 1 } else { 0 }",
        replace: "u32::from(symbol) + 1",
    },
    Fault {
        what: "a probe behind a completed run counts as its break",
        file: KNOCK,
        find: "!progress.is_complete()\n        && let",
        replace: "let",
    },
    Fault {
        what: "a source inherits the progress of one whose slot it was given",
        file: PROGRESS,
        find: "if progress.is_of(source) {",
        replace: "if true {",
    },
    Fault {
        what: "sources with the same tag are taken for one another",
        file: TABLE,
        find: " && self.address == source.padded()",
        replace: "",
    },
    Fault {
        what: "a source that has lost its place goes on from the next owner's progress",
        file: TABLE,
        find: "if !kernel.compare_exchange(&mut self.tag, tag, Self::HELD) {\n            return None;",
        replace: "if false {\n            return None;",
    },
    Fault {
        what: "a place is taken from a CPU that is changing it",
        file: TABLE,
        find: "if tag == Self::HELD || !kernel.compare_exchange(&mut self.tag, tag, Self::HELD) {",
        replace: "if !kernel.compare_exchange(&mut self.tag, tag, Self::HELD) {",
    },
    Fault {
        what: "a source that is seen again is forgotten as soon as others",
        file: PROGRESS,
        find: "if before.age(*next) <= old(kernel.progress_places()) {",
        replace: "if true {",
    },
    Fault {
        what: "a source leaves its progress behind when it moves to the front",
        file: PROGRESS,
        find: "to.copy(&from);",
        replace: "",
    },
    Fault {
        what: "a set of sources forgets the newest",
        file: PROGRESS,
        find: "if pair.age(next) > oldest.1.age(next) {",
        replace: "if pair.age(next) < oldest.1.age(next) {",
    },
    Fault {
        what: "two CPUs that add a source both succeed",
        file: PROGRESS,
        find: "        if pair.fingerprint() == fingerprint {\n            return None;\n        }\n        if pair.age",
        replace: "        if pair.age",
    },
    Fault {
        what: "two pairs of a set of sources have the same fingerprint",
        file: PROGRESS,
        find: "same = Some((way, pair));",
        replace: "",
    },
    Fault {
        what: "a state's only transition is taken whatever the knock",
        file: KNOCK,
        find: "before.next != 0 && before.symbol == symbol",
        replace: "before.next != 0",
    },
    Fault {
        what: "a knock of 52 days ago is taken for a new one",
        file: KNOCK,
        find: "if progress.is_forgotten(now) {",
        replace: "if false {",
    },
    Fault {
        what: "a full table of grants is not told from success",
        file: KNOCK,
        find: "event.cause = cause::TABLE_FULL;\n            Outcome::TableFull",
        replace: "Outcome::Opened",
    },
    Fault {
        what: "a source of one family is taken for one of the other",
        file: TABLE,
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
        what: "a state doesn't take over what its end would do",
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
        what: "a duplicate is known for as long as the shortest window allows",
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
