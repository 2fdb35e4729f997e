//! Faults in the client: retries, addresses, and the end of connections.

use super::Fault;

const PACE: &str = "knock-user/src/client/pace.rs";
const TURN: &str = "knock-user/src/client/turn.rs";
const TARGET: &str = "knock-user/src/client/target.rs";
const TRIES: &str = "knock-user/src/client/tries.rs";
const RELAY: &str = "knock-user/src/client/relay.rs";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        what: "a client's retries all begin after the same pause",
        file: PACE,
        find: "*pauses.start() + Duration::from_millis(u64::try_from(step).unwrap_or(steps))",
        replace: "*pauses.start() + Duration::from_millis(steps / 2)",
    },
    Fault {
        what: "a client's retries pause no longer between knocks than its first try",
        file: PACE,
        find: "const DELAY_GROWTH: f64 = 2.5;",
        replace: "const DELAY_GROWTH: f64 = 1.0;",
    },
    Fault {
        what: "a client's retries wait no longer for the port than its first try",
        file: PACE,
        find: "self.timeout.saturating_mul(attempt.saturating_add(1))",
        replace: "self.timeout",
    },
    Fault {
        what: "clients of one machine knock at one address at the same time",
        file: TURN,
        find: "if error.kind() == io::ErrorKind::AddrInUse",
        replace: "if error.kind() == io::ErrorKind::NotFound",
    },
    Fault {
        what: "a client tries only the first address of a name",
        file: TARGET,
        find: "self.addresses.iter().map(|&address| Address {",
        replace: "self.addresses.iter().take(1).map(|&address| Address {",
    },
    Fault {
        what: "a client takes a link-local address without its link",
        file: TARGET,
        find: "address.ip().is_unicast_link_local() && address.scope_id() == 0",
        replace: "address.ip().is_multicast()",
    },
    Fault {
        what: "a client takes a port that resets the connection for a closed one",
        file: TRIES,
        find: "=> Ok(Ok(Opened::Reset)),",
        replace: "=> Ok(Err(Closed::Refused)),",
    },
    Fault {
        what: "a reset that a client's write reports is not an error",
        file: RELAY,
        find: "Some(Sent::Refused(error)) => Err(BrokenOff::new(&error).into()),",
        replace: "Some(Sent::Refused(_)) => Ok(()),",
    },
    Fault {
        what: "the end of the peer's data ends a client's sending",
        file: RELAY,
        find: "while !received || sent.is_none() {",
        replace: "while !received {",
    },
];
