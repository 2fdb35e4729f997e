//! Faults in counting knocks, and in the automaton that they are counted by.

use super::Fault;

const VERDICT: &str = "knock-common/src/verdict.rs";
const KNOCK: &str = "knock-common/src/knock.rs";
const ADDRESS: &str = "knock-common/src/address.rs";
const AUTOMATON: &str = "knock-user/src/gate/automaton.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a foreign probe doesn't break a run",
        file: VERDICT,
        find: "knock::foreign(kernel, &segment);",
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
        file: KNOCK,
        find: "(progress.counted + 1).min(after.depth)",
        replace: "progress.counted + 1",
    },
    Fault {
        what: "knocks of a completed run are known for duplicates",
        file: KNOCK,
        find: "progress.complete = 1;\n    progress.counted = 0;",
        replace: "progress.complete = 1;",
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
        find: "kernel.transition(progress.state, symbol).unwrap_or(start)",
        replace: "kernel.transition(progress.state, symbol).unwrap_or(0)",
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
        find: "progress.complete == 0\n        && let",
        replace: "let",
    },
    Fault {
        what: "a source inherits the progress of one whose slot it was given",
        file: KNOCK,
        find: ".filter(|progress| progress.tag == key.tag());",
        replace: ";",
    },
    Fault {
        what: "a full table of grants is not told from success",
        file: KNOCK,
        find: "event.cause = cause::TABLE_FULL;\n            Outcome::TableFull",
        replace: "Outcome::Opened",
    },
    Fault {
        what: "a source of one family is taken for one of the other",
        file: ADDRESS,
        find: "family: u64::from(Self::FAMILY),",
        replace: "family: 4,",
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
