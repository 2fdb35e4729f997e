//! Faults of the tables of grants and of flows.

use super::Fault;

const TABLE: &str = "knock-common/src/grant/table.rs";
const SESSION_TABLE: &str = "knock-common/src/session/table.rs";
const SET: &str = "knock-common/src/set.rs";
const ROW: &str = "knock-common/src/row.rs";
const FILTER: &str = "knock-common/src/grant/filter.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a grant is accepted whose slot has been given to another key",
        file: TABLE,
        find: "let mut differs = tag ^ key.tag();",
        replace: "let mut differs = 0;",
    },
    Fault {
        what: "an IPv6 grant is accepted that has the tag of another",
        file: TABLE,
        find: "differs |= one ^ first | other ^ second;",
        replace: "differs |= 0;",
    },
    Fault {
        what: "a slot that is being changed counts as a grant",
        file: TABLE,
        find: "again == until && until > HELD",
        replace: "again == until",
    },
    Fault {
        what: "the end of one grant is taken for that of another in its slot",
        file: TABLE,
        find: "differs == 0 && again == until",
        replace: "differs == 0",
    },
    Fault {
        what: "all keys that a slot has had are taken for one",
        file: TABLE,
        find: "grant.earned.0.wrapping_add(1 << 48)",
        replace: "grant.earned.0",
    },
    Fault {
        what: "a grant is given anew in a slot that another key has by now",
        file: TABLE,
        find: "let is_its = grant.tag == key.tag() && grant.address == [first, second];",
        replace: "let is_its = true;",
    },
    Fault {
        what: "renewing does not start the connection count afresh",
        file: TABLE,
        find: "grant.connections = details.connections;",
        replace: "",
    },
    Fault {
        what: "a knock shortens what was given for longer, and takes it over",
        file: TABLE,
        find: "return admits_more && self.until > until;",
        replace: "return false;",
    },
    Fault {
        what: "a knock for one source port prolongs a grant for any, and narrows it",
        file: TABLE,
        find: "admits_more && own_port == 0\n",
        replace: "false\n",
    },
    Fault {
        what: "a knock from another source port gets the grant for one that is there",
        file: TABLE,
        find: "admits_more && own_port == 0\n",
        replace: "admits_more\n",
    },
    Fault {
        what: "a knock under a grant that is used up leaves it so",
        file: TABLE,
        find: "return admits_more && self.until > until;",
        replace: "return self.until > until;",
    },
    Fault {
        what: "a full table pushes out live grants",
        file: TABLE,
        find: "until != HELD && until <= now && memory",
        replace: "until != HELD && memory",
    },
    Fault {
        what: "grants that have ended make no room",
        file: TABLE,
        find: "until != HELD && until <= now && memory",
        replace: "until == FREE && memory",
    },
    Fault {
        what: "a slot is freed whose grant was renewed since it was seen to have ended",
        file: TABLE,
        find: "is_so && take(memory, slot, until)",
        replace: "take(memory, slot, u64::MAX)",
    },
    Fault {
        what: "the key that a slot had still leads to it",
        file: TABLE,
        find: "if is_taken && until != FREE {",
        replace: "if false {",
    },
    Fault {
        what: "a key whose set is full is not found",
        file: SET,
        find: "};\n        // Nearly always",
        replace: "};\n        if ahead != 0 {\n            break;\n        }\n        // Nearly always",
    },
    Fault {
        what: "a key in another set than its own is not counted in its own",
        file: SET,
        find: "|further| further + 1)",
        replace: "|further| further)",
    },
    Fault {
        what: "of two keys in one word, the wrong one is unlinked",
        file: SET,
        find: "word ^ u64::from(before ^ after) << 32",
        replace: "word ^ u64::from(before ^ after)",
    },
    Fault {
        what: "the second key in a word is not found",
        file: SET,
        find: "for way in 0..WAYS {",
        replace: "for way in (0..WAYS).step_by(2) {",
    },
    Fault {
        what: "a key whose set and those behind it are full stays counted there",
        file: SET,
        find: "    count_out(sets, memory, position);\n    false",
        replace: "    false",
    },
    Fault {
        what: "a flow that has its slot elsewhere is not counted at home",
        file: SESSION_TABLE,
        find: "    if !row::count_in(rows, memory, position) {\n        return false;\n    }\n",
        replace: "",
    },
    Fault {
        what: "a row goes on leading to flows that have ended",
        file: SESSION_TABLE,
        find: "    row::unlink(rows, memory, slot);\n",
        replace: "",
    },
    Fault {
        what: "a flow that cannot be linked to its slot begins all the same",
        file: SESSION_TABLE,
        find: "        return row::link(rows, memory, position, slot);\n",
        replace: "        row::link(rows, memory, position, slot);\n        return true;\n",
    },
    Fault {
        what: "behind the slot of another flow with the same fingerprint, none is looked for",
        file: SESSION_TABLE,
        find: "    let slot = memory.search_session(position, flow.tag(), NO_SLOT);\n    at(memory, slot, flow, gate)\n}\n\n/// As [`find_at`], in every slot except",
        replace: "    None\n}\n\n/// As [`find_at`], in every slot except",
    },
    Fault {
        what: "the slot of a flow from elsewhere looks free",
        file: SESSION_TABLE,
        find: "        row::lend(rows, memory, slot);\n",
        replace: "",
    },
    Fault {
        what: "the count of those elsewhere begins anew when it is full",
        file: ROW,
        find: "if word >> COUNT_SHIFT < MOST {",
        replace: "if true {",
    },
    Fault {
        what: "a slot is taken for one with a fingerprint that it does not have",
        file: ROW,
        find: "& !differs & (EACH << 7)",
        replace: "& (EACH << 7)",
    },
    Fault {
        what: "a grant that two CPUs give at once is there twice",
        file: TABLE,
        find: "if !is_elsewhere(memory, key, position, slot) {",
        replace: "if true {",
    },
    Fault {
        what: "a flow does not get the slot where its packets look first",
        file: ROW,
        find: "home(position, rows) * SLOTS + first_place(position)",
        replace: "home(position, rows) * SLOTS",
    },
    Fault {
        what: "a flow is accepted whose slot has been given to another one",
        file: SESSION_TABLE,
        find: "differs == 0 && again == tenancy",
        replace: "again == tenancy",
    },
    Fault {
        what: "part of one flow is taken for part of another in its slot",
        file: SESSION_TABLE,
        find: "differs == 0 && again == tenancy",
        replace: "differs == 0",
    },
    Fault {
        what: "a slot that is being changed counts as a session",
        file: SESSION_TABLE,
        find: " && is_of_flow;",
        replace: ";",
    },
    Fault {
        what: "the flow that a slot had still leads to it",
        file: SESSION_TABLE,
        find: "    if tenancy.is_live() {",
        replace: "    if false {",
    },
    Fault {
        what: "a flow that two CPUs begin at once has two sessions",
        file: SESSION_TABLE,
        find: "    end_one_of_two(memory, flow, slot);",
        replace: "",
    },
    Fault {
        what: "a slot is given away while somebody changes it",
        file: SESSION_TABLE,
        find: "tenancy.state() == state::HELD || !hold",
        replace: "!hold",
    },
    Fault {
        what: "a slot whose session has ended counts to its holder for good",
        file: SESSION_TABLE,
        find: "tenancy.state() != state::UNUSED",
        replace: "tenancy.is_live()",
    },
    Fault {
        what: "a grant is not counted into the filter before the grants",
        file: TABLE,
        find: "if !filter::count_in(memory, position) {",
        replace: "if false {",
    },
    Fault {
        what: "the filter overlooks grants that found no place in their word",
        file: FILTER,
        find: " || word >= PLACELESS\n    }",
        replace: "\n    }",
    },
    Fault {
        what: "a full count of grants without a place is counted down",
        file: FILTER,
        find: "word >= PLACELESS && word < MOST",
        replace: "word >= PLACELESS",
    },
    Fault {
        what: "slots are not counted out",
        file: SESSION_TABLE,
        find: "memory.fetch_sub(held);",
        replace: "let _ = held;",
    },
    Fault {
        what: "a grant lives before all of it is stored",
        file: TABLE,
        find: "    grant.tag = key.tag();\n    grant.address",
        replace: "    memory.compare_exchange(&mut grant.until, HELD, until);\n    grant.tag = key.tag();\n    grant.address",
    },
];
