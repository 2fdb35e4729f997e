//! One table of packets and their expected verdicts, run on every system under test: the decisions called on the
//! host, and the program in the kernel.
//!
//! A row is a configuration and a stream. The text behind `=>` lists every counter that the packet moves, as
//! [`Tally::since`](crate::system::Tally::since) writes it: the reason and gate under which it is counted, and its
//! result as a knock. No other counter may move. In endpoints, `A`, `B` and `C` are sources (A and B share a prefix),
//! `H` is the host, `O` its other address, `F` an address of another host; in configurations, `{A}` to `{F}`,
//! `{prefix}` (of A and B) and `{whole}` (the length of an address in bits) stand for the same.

mod knocking;
mod passing;
mod proving;
mod reading;
mod repeating;

use knock_user::config::Config;

use crate::{
    lab::Family,
    stream::{self, Step},
    system::{SystemUnderTest, bytes},
};

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Fixture {
    /// The behaviour, as a statement that could be wrong.
    pub what: &'static str,
    pub families: &'static [Family],
    /// TOML.
    pub config: &'static str,
    pub stream: &'static str,
}

const BOTH: &[Family] = &[Family::V4, Family::V6];
const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];

/// A gate for most rows: opened for 10 s by three knocks within 5 s.
const ONE_GATE: &str = r#"
    interfaces = ["eth0"]
    open_ports = ["80/tcp", "53/udp"]
    limits = { sources = 16384, grants = 16, sessions = 64 }
    [[gate]]
    name = "ssh"
    protect = ["22/tcp", "22/udp"]
    open_for = "10s"
    session_idle = "30s"
    [[gate.knock]]
    user = "alice"
    sequence = ["7000/udp", "8000/tcp", "9000/udp"]
    within = "5s"
"#;

/// Returns all rows, beginning with those that the others depend on.
pub fn all() -> impl Iterator<Item = &'static Fixture> {
    let tables = [
        reading::ROWS,
        knocking::ROWS,
        repeating::ROWS,
        passing::ROWS,
        proving::ROWS,
    ];
    tables.into_iter().flatten()
}

impl Fixture {
    /// Returns the configuration for one family. Panics if it is not valid.
    pub fn config(&self, family: Family) -> Config {
        self.config_with("", family)
    }

    /// As [`Fixture::config`], with further lines of TOML.
    pub fn config_with(&self, more: &str, family: Family) -> Config {
        let text = filled(self.config, family) + more;
        match Config::parse(&text, self.what) {
            Ok((config, _)) => config,
            Err(error) => panic!("{}: {error}", self.what),
        }
    }

    /// Returns whether the row means the same on a link without a header.
    pub fn is_same_bare(&self, family: Family) -> bool {
        let steps = stream::read(&filled(self.stream, family));
        steps.iter().all(|(step, _)| match step {
            Step::Packet(datagram) => datagram.is_same_bare(),
            _ => true,
        })
    }

    /// Empties the system, then has it judge the stream. Panics if any other counter moves than the row says.
    pub fn run(&self, family: Family, system: &mut dyn SystemUnderTest) {
        let what = self.what;
        system.forget();
        let config = self.config(family);
        let gate = |name: &str| {
            let index = config.gates.iter().position(|gate| gate.name == name);
            let index = index.unwrap_or_else(|| panic!("{what}: no gate {name}"));
            u16::try_from(index).expect("few gates")
        };
        for (step, expected) in stream::read(&filled(self.stream, family)) {
            let before = system.tally();
            match &step {
                Step::Packet(datagram) => {
                    let frame = bytes(datagram, system);
                    if !system.takes(&frame) {
                        continue;
                    }
                    let passed = system.judge(&frame);
                    let after = system.tally();
                    let denied = ["no_grant", "used_up", "malformed"];
                    let admitted = !denied.iter().any(|reason| expected.starts_with(reason));
                    assert_eq!(
                        after.since(&before),
                        expected,
                        "{what} ({family:?}): {step}"
                    );
                    assert_eq!(passed, admitted, "{what} ({family:?}): {step} passes");
                    let bytes = after.total().1 - before.total().1;
                    assert_eq!(
                        bytes,
                        frame.len() as u64,
                        "{what} ({family:?}): bytes of {step}"
                    );
                }
                Step::Wait(time) => system.wait(*time),
                Step::Allow {
                    source,
                    gate: name,
                    length,
                } => assert!(system.allow(*source, gate(name), *length), "{what}: {step}"),
                Step::Revoke { source, gate: name } => system.revoke(*source, gate(name)),
                Step::Connect { own, peer } => system.connect(*own, *peer),
            }
            if !matches!(step, Step::Packet(_)) {
                let after = system.tally();
                assert_eq!(after, before, "{what} ({family:?}): {step} counts nothing");
            }
        }
    }
}

fn filled(text: &str, family: Family) -> String {
    let (names, prefix) = match family {
        Family::V4 => (
            [
                ("A", "198.51.100.10"),
                ("B", "198.51.100.11"),
                ("C", "203.0.113.12"),
                ("H", "192.0.2.1"),
                ("O", "192.0.2.9"),
                ("F", "192.0.2.77"),
            ],
            "198.51.100.0/24",
        ),
        Family::V6 => (
            [
                ("A", "2001:db8:1::a"),
                ("B", "2001:db8:1::b"),
                ("C", "2001:db8:2::c"),
                ("H", "2001:db8::1"),
                ("O", "2001:db8::9"),
                ("F", "2001:db8::77"),
            ],
            "2001:db8:1::/64",
        ),
    };
    let whole = match family {
        Family::V4 => "32",
        Family::V6 => "128",
    };
    let mut text = text.replace("{prefix}", prefix).replace("{whole}", whole);
    for (name, address) in names {
        let endpoint = match family {
            Family::V4 => format!(" {address}:"),
            Family::V6 => format!(" [{address}]:"),
        };
        text = text
            .replace(&format!(" {name}:"), &endpoint)
            .replace(&format!("{{{name}}}"), address);
    }
    text
}
