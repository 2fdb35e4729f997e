//! Faults of authenticated knocks.

use super::Fault;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "an authenticated knock counts that was made without the key",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "if !has_tag(key, work) || !is_well_formed(&work.body) {",
        replace: "if !is_well_formed(&work.body) {",
    },
    Fault {
        what: "only half of the tag of an authenticated knock is compared",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "(first.to_be() ^ work.datagram[1]) | (second.to_be() ^ work.datagram[2]) == 0",
        replace: "(first.to_be() ^ work.datagram[1]) == 0",
    },
    Fault {
        what: "an authenticated knock opens again and again",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "if env.compare_exchange(&mut key.newest, newest, time) {",
        replace: "if true {",
    },
    Fault {
        what: "an authenticated knock counts however old it is",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "> max_age.saturating_add(max_ahead) {",
        replace: "> u64::MAX - max_age.saturating_add(max_ahead) {",
    },
    Fault {
        what: "a key that has been revoked opens",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "state::REVOKED => return Outcome::Revoked,",
        replace: "state::REVOKED => {}",
    },
    Fault {
        what: "a key that has expired opens",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "if key.not_after != 0 && key.not_after < wall {",
        replace: "if key.not_after != 0 && key.not_after < head.time.min(wall) - wall {",
    },
    Fault {
        what: "a listed address may be that of anyone",
        file: "knock-common/src/knock/authenticated/open.rs",
        find: "if !request.lists(head.flags, work.source, work.family) {",
        replace: "if false {",
    },
    Fault {
        what: "a bound key opens for the address that is observed",
        file: "knock-common/src/knock/authenticated/open.rs",
        find: "if key.bound != 0 {",
        replace: "if false {",
    },
    Fault {
        what: "an authenticated knock may come from a network that may not knock",
        file: "knock-common/src/knock/authenticated/open.rs",
        find: "if rules.restricted != 0\n",
        replace: "if false\n",
    },
    Fault {
        what: "a knock may close what another user has opened",
        file: "knock-common/src/grant/end.rs",
        find: "found.earned.user() & !HOST == terms.user && ",
        replace: "",
    },
    Fault {
        what: "a knock does not close what another host has given to its user",
        file: "knock-common/src/grant/end.rs",
        find: "found.earned.user() & !HOST",
        replace: "found.earned.user()",
    },
    Fault {
        what: "a knock that closes nothing is reported as if it had",
        file: "knock-common/src/knock/authenticated/report.rs",
        find: " && work.has_ended == 0",
        replace: "&& false",
    },
    Fault {
        what: "a knock that another one of its client has overtaken counts as captured",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "if lists_source(work) {",
        replace: "if false {",
    },
    Fault {
        what: "a datagram that is most likely no knock makes an event",
        file: "knock-common/src/knock/authenticated/verify.rs",
        find: "if wall.abs_diff(head.time) > WRONG {",
        replace: "if false {",
    },
    Fault {
        what: "a close ends one of two grants of its source",
        file: "knock-common/src/grant/end.rs",
        find: "        seen = found.slot;\n",
        replace: "        let _ = (seen, seen = found.slot);\n        break;\n",
    },
    Fault {
        what: "a grant for one source port admits every other",
        file: "knock-common/src/grant.rs",
        find: "limit as u32 * (limit ^ port) as u32 == 0",
        replace: "port == port",
    },
];
