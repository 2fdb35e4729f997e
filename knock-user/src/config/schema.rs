//! The keys of the file, one row each: name, default, what the key sets, kind and range of its value, and the
//! field that the value goes to.
//!
//! The reader, `init` and the test of docs/configuration.md use these rows. To add a key, add its row here and
//! its field to the type in [`super`].

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use toml::de::{DeTable, DeValue};

use super::{
    Addresses, Alert, Limits, Listen,
    draft::{
        Draft, DraftAddresses, DraftAuthenticated, DraftGate, DraftHook, DraftInterface,
        DraftKnock, DraftMetrics,
    },
    finding::Level,
    fleet::{self, DraftFleet, FLEET},
    fwknop::written::{DraftKey, FWKNOP, KEYS},
    kinds::{ADDRESS, ARGUMENT, FOLDER, INTERFACE, KEY_NAME, LISTEN, NAME, NETWORK, NEXT, PORT},
    reader::{Field, List, Reader},
    section::{
        Describe,
        Presence::{Nested, OneOf, Optional, Required},
        Row, Section,
    },
    source::{Findings, Located, Span, values},
};
use crate::values::{Port, Protocol, nearest};

const LONGEST_WITHIN: Duration = Duration::from_hours(24);
/// The most that `open_for` may say, and `knockgate allow --for`.
pub(crate) const LONGEST_GRANT: Duration = Duration::from_hours(366 * 24);
/// The kernel's tables of sources forget early when they are smaller than this.
const FEWEST_SOURCES: u32 = 16_384;
const MOST_ENTRIES: u32 = 16_777_216;
/// A packet names its key's slot in two bytes.
const MOST_KEYS: u32 = 65_535;
/// The most that the clocks of a client and of this host may differ.
const LONGEST_OFF: Duration = Duration::from_hours(1);
/// Less than the service remembers of all sources together.
const MOST_FAILURES: u32 = 10_000;
const SEQUENCE_LENGTHS: RangeInclusive<usize> = 2..=12;

/// Every section of the file, in its order.
pub const SECTIONS: [&dyn Describe; 12] = [
    &FILE,
    &INTERFACES,
    &LIMITS,
    &METRICS,
    &ALERT,
    &AUTHENTICATED,
    &FLEET,
    &GATE,
    &KNOCK,
    &HOOK,
    &FWKNOP,
    &KEYS,
];

const FILE: Section<Draft> = Section {
    title: "the file",
    place: "at the top level (before the first [section])",
    about: "The host: which packets are judged, and how.",
    rows: &[
        Row::new(
            "interfaces",
            Optional("[]"),
            "Interfaces to guard; `-i IFACE` on the command line replaces them.",
            |reader, field, file| set(&mut file.interfaces, reader.set(field, &INTERFACE)),
        ),
        Row::new(
            "attach",
            Optional(r#""auto""#),
            r#"How the program is attached: "native" (XDP in the driver), "generic" (XDP behind it), "tcx" (behind the kernel's own
handling of the link; Linux 6.6), or "auto": native, else TCX, else generic, with a warning that says why."#,
            |reader, field, file| put(&mut file.rest.attach, reader.choice(field)),
        ),
        Row::new(
            "order",
            Optional(r#""first""#),
            r#"Where the program is among others at TCX: "first", in front of all; or "last", behind those that are there."#,
            |reader, field, file| put(&mut file.rest.order, reader.choice(field)),
        ),
        Row::new(
            "mode",
            Optional(r#""enforce""#),
            r#""enforce", or "monitor": count and log what would be denied, deny nothing."#,
            |reader, field, file| put(&mut file.rest.mode, reader.choice(field)),
        ),
        Row::new(
            "allow",
            Optional("[]"),
            r#"Networks to which no gate is ever closed, such as ["192.0.2.0/24"]: the way back in when a knock is
lost. List at least one from which you can always connect."#,
            |reader, field, file| set(&mut file.allow, reader.set(field, &NETWORK)),
        ),
        Row::new(
            "addresses",
            Optional("[]"),
            r#"Guard only packets to these addresses of this host, such as ["192.0.2.1"], or "host": to any of its own,
as they change; empty: every destination."#,
            |reader, field, file| put(&mut file.addresses, addresses(reader, field)),
        ),
        Row::new(
            "open_ports",
            Optional(r#""auto""#),
            r#"Ports on which packets are not knocks: "auto" (the ports that this host listens on),
or a list such as ["443/tcp", "443/udp"]."#,
            |reader, field, file| file.open_ports = open_ports(reader, field),
        ),
        Row::new("interface", Nested("[]"), "", |reader, field, file| {
            if !is_for_the_list(reader, field) {
                file.sections = all(reader, field, "interface", &INTERFACES, |_, _| ());
            }
        }),
        Row::new("limits", Nested("{}"), "", |reader, field, file| {
            file.rest.limits = LIMITS.defaults();
            if let Some(table) = reader.table(field) {
                let limits = &mut file.rest.limits;
                LIMITS.read(&SECTIONS, reader, table, field.span(), limits);
            }
        }),
        Row::new("metrics", Nested("{}"), "", |reader, field, file| {
            file.metrics = METRICS.defaults();
            if let Some(table) = reader.table(field) {
                METRICS.read(&SECTIONS, reader, table, field.span(), &mut file.metrics);
            }
        }),
        Row::new("alert", Nested("{}"), "", |reader, field, file| {
            file.rest.alert = ALERT.defaults();
            if let Some(table) = reader.table(field) {
                let alert = &mut file.rest.alert;
                ALERT.read(&SECTIONS, reader, table, field.span(), alert);
            }
        }),
        Row::new("knock", Nested("{}"), "", |reader, field, file| {
            file.knock = AUTHENTICATED.defaults();
            if let Some(table) = reader.table(field) {
                AUTHENTICATED.read(&SECTIONS, reader, table, field.span(), &mut file.knock);
            }
        }),
        Row::new("fwknop", Nested("{}"), "", |reader, field, file| {
            file.fwknop = FWKNOP.defaults().nowhere();
            if let Some(table) = reader.table(field) {
                FWKNOP.read(&SECTIONS, reader, table, field.span(), &mut file.fwknop);
            }
        }),
        Row::new("fleet", Nested(""), "", |reader, field, file| {
            let header = field.span();
            fleet::require_feature(reader.findings, header);
            if let Some(table) = reader.table(field) {
                let fleet = file.fleet.insert(DraftFleet::defaults(header));
                FLEET.read(&SECTIONS, reader, table, header, fleet);
            }
        }),
        Row::new("gate", Nested("[]"), "", |reader, field, file| {
            file.gates = all(reader, field, "gate", &GATE, |gate, span| {
                gate.header = span;
            });
        }),
    ],
};

const INTERFACES: Section<DraftInterface> = Section {
    title: "[[interface]]",
    place: "in [[interface]]",
    about: "An interface to guard that needs more than its name; `interfaces` does not list it as well.",
    rows: &[
        Row::new(
            "name",
            Required(r#""eth1""#),
            "Its name.",
            |reader, field, interface| put(&mut interface.name, reader.one(field, &INTERFACE)),
        ),
        Row::new(
            "next",
            Optional(r#""none""#),
            r#""none", or where the XDP program is pinned that gets every packet which passes, such as
"/sys/fs/bpf/balancer/program"."#,
            |reader, field, interface| interface.next = next(reader, field),
        ),
    ],
};

const LIMITS: Section<Limits> = Section {
    title: "[limits]",
    place: "in [limits]",
    about: "Sizes of the kernel's tables, in entries. They are allocated when the gates are brought up.",
    rows: &[
        Row::new(
            "sources",
            Optional("262144"),
            "Sources whose progress in a sequence is remembered; the one seen longest ago is forgotten first.",
            |reader, field, limits| {
                put(
                    &mut limits.sources,
                    reader.number(field, FEWEST_SOURCES..=MOST_ENTRIES),
                );
            },
        ),
        Row::new(
            "grants",
            Optional("65536"),
            "Live grants; when all entries are taken, new grants are refused and reported.",
            |reader, field, limits| put(&mut limits.grants, reader.number(field, 1..=MOST_ENTRIES)),
        ),
        Row::new(
            "sessions",
            Optional("262144"),
            "Flows that began under a grant.",
            |reader, field, limits| {
                put(&mut limits.sessions, reader.number(field, 1..=MOST_ENTRIES));
            },
        ),
        Row::new(
            "keys",
            Optional("256"),
            "Slots for keys of authenticated knocks; a key that has ended keeps its slot until no other is free.",
            |reader, field, limits| put(&mut limits.keys, reader.number(field, 1..=MOST_KEYS)),
        ),
    ],
};

const ALERT: Section<Alert> = Section {
    title: "[alert]",
    place: "in [alert]",
    about: "When the service (`knockgate run`) reports a source whose knocks keep failing.",
    rows: &[
        Row::new(
            "failures",
            Optional("10"),
            "Failed knocks that cause an alert; 0: no alerts.",
            |reader, field, alert| {
                put(&mut alert.failures, reader.number(field, 0..=MOST_FAILURES));
            },
        ),
        Row::new(
            "within",
            Optional(r#""1m""#),
            "The time in which they happen. One source causes one alert in this time.",
            |reader, field, alert| {
                let duration = reader.duration(field, LONGEST_WITHIN);
                put(&mut alert.within, duration.map(|it| it.value));
            },
        ),
        Row::new(
            "per",
            Optional(r#""source""#),
            r#"Whose failures are counted together: "source": those of one address,
or "prefix": those of a /24 (IPv4) or /64 (IPv6)."#,
            |reader, field, alert| put(&mut alert.per, reader.choice(field)),
        ),
    ],
};

const METRICS: Section<DraftMetrics> = Section {
    title: "[metrics]",
    place: "in [metrics]",
    about: "What `knockgate run` hands to Prometheus, at /metrics. `knockgate metrics` needs none of this.",
    rows: &[Row::new(
        "listen",
        Optional(r#""off""#),
        r#""off", an address of this host with a port such as "127.0.0.1:9464", or the path of a Unix socket such as
"unix:/run/knockgate/metrics.sock"."#,
        |reader, field, metrics| metrics.listen = listen(reader, field),
    )],
};

const AUTHENTICATED: Section<DraftAuthenticated> = Section {
    title: "[knock]",
    place: "in [knock]",
    about: "Authenticated knocks: single UDP datagrams that prove who sent them. `knockgate key new USER` makes a key.",
    rows: &[
        Row::new(
            "ports",
            Optional("[]"),
            r#"The UDP ports that take them, such as ["41641/udp"]; [] switches them off. They keep looking as they are:
closed, open or guarded. None of them is in a sequence."#,
            |reader, field, knock| put(&mut knock.ports, datagram_ports(reader, field)),
        ),
        Row::new(
            "max_age",
            Optional(r#""90s""#),
            "How old a packet may be by this host's clock.",
            |reader, field, knock| {
                let duration = reader.duration(field, LONGEST_OFF);
                put(&mut knock.rest.max_age, duration.map(|it| it.value));
            },
        ),
        Row::new(
            "max_ahead",
            Optional(r#""15s""#),
            "How far the time of a packet may be ahead of this host's clock.",
            |reader, field, knock| {
                let duration = reader.duration(field, LONGEST_OFF);
                put(&mut knock.rest.max_ahead, duration.map(|it| it.value));
            },
        ),
        Row::new(
            "keys",
            Optional(r#""/etc/knockgate/keys""#),
            "The folder with the keys, a file for each. Only its owner may read it (mode 0700).",
            |reader, field, knock| {
                let folder = reader.one(field, &FOLDER);
                put(&mut knock.rest.keys, folder.map(|it| it.value));
            },
        ),
    ],
};

const GATE: Section<DraftGate> = Section {
    title: "[[gate]]",
    place: "in [[gate]]",
    about: "A protected service.",
    rows: &[
        Row::new(
            "name",
            Required(r#""ssh""#),
            "What commands, events and counters call this gate.",
            |reader, field, gate| put(&mut gate.name, reader.one(field, &NAME)),
        ),
        Row::new(
            "protect",
            Required(r#"["22/tcp"]"#),
            "The ports that this gate guards: closed to every source without a grant.",
            |reader, field, gate| put(&mut gate.protect, protect(reader, field)),
        ),
        Row::new(
            "protect_at",
            Optional("[]"),
            r#"Networks at which this gate guards them in place of `addresses`, such as ["10.0.0.0/24"] behind this host;
empty: where `addresses` says. Knocks are for `addresses` all the same."#,
            |reader, field, gate| set(&mut gate.protect_at, reader.set(field, &NETWORK)),
        ),
        Row::new(
            "open_for",
            Optional(r#""30s""#),
            "How long a grant lasts. Knocking again renews it.",
            |reader, field, gate| put(&mut gate.open_for, reader.duration(field, LONGEST_GRANT)),
        ),
        Row::new(
            "deny",
            Optional(r#""drop""#),
            r#"What becomes of a packet without a grant: "drop", or "reject": answer as a closed port of this host."#,
            |reader, field, gate| put(&mut gate.rest.deny, reader.choice(field)),
        ),
        Row::new(
            "established",
            Optional(r#""keep""#),
            r#"What becomes of flows when their grant ends: "keep": they go on, or "cut": they end too."#,
            |reader, field, gate| put(&mut gate.rest.established, reader.choice(field)),
        ),
        // An idle TCP connection is kept alive after two hours, at the latest 11 minutes and 15 seconds later
        // (`tcp_keepalive_time`, `_probes` and `_intvl`).
        Row::new(
            "session_idle",
            Optional(r#""3h""#),
            "A flow that outlives its grant ends after this long without a packet.",
            |reader, field, gate| {
                let duration = reader.duration(field, LONGEST_GRANT);
                put(&mut gate.rest.session_idle, duration.map(|it| it.value));
            },
        ),
        Row::new(
            "connections",
            Optional("0"),
            "New connections that one grant admits; 0: any number.",
            |reader, field, gate| {
                put(
                    &mut gate.rest.connections,
                    reader.number(field, 0..=u32::MAX),
                );
            },
        ),
        Row::new(
            "grant_to",
            Optional(r#""address""#),
            r#"Who may pass after a knock: "address": its source, or "prefix": the source's /24 (IPv4) or /64 (IPv6)."#,
            |reader, field, gate| put(&mut gate.rest.grant_to, reader.choice(field)),
        ),
        Row::new(
            "sources",
            Optional("[]"),
            r#"Networks that may knock, such as ["198.51.100.0/24"]; empty: every network."#,
            |reader, field, gate| {
                let networks = reader.set(field, &NETWORK);
                put(&mut gate.rest.sources, networks.map(|it| values(it.items)));
            },
        ),
        Row::new("knock", Nested("[]"), "", |reader, field, gate| {
            gate.knocks = all(reader, field, "gate.knock", &KNOCK, |_, _| ());
            useless_within(reader, field);
        }),
        Row::new("hook", Nested("[]"), "", |reader, field, gate| {
            gate.hooks = all(reader, field, "gate.hook", &HOOK, |_, _| ());
        }),
        Row::new("fwknop", Nested("[]"), "", |reader, field, gate| {
            let locate = |key: &mut DraftKey, span| key.header = span;
            gate.fwknop = all(reader, field, "gate.fwknop", &KEYS, locate);
        }),
    ],
};

const KNOCK: Section<DraftKnock> = Section {
    title: "[[gate.knock]]",
    place: "in [[gate.knock]]",
    about: "One such section for each person or system that may open this gate.",
    rows: &[
        Row::new(
            "user",
            Required(r#""alice""#),
            "Whose sequence or key this is; nobody else at this gate has the name.",
            |reader, field, knock| put(&mut knock.user, reader.one(field, &NAME)),
        ),
        Row::new(
            "sequence",
            OneOf(r#"["7431/udp", "2214/tcp", "9120/udp"]"#),
            "2 to 12 ports, to be knocked on in this order. No other user has the same sequence.",
            |reader, field, knock| put(&mut knock.sequence, sequence(reader, field)),
        ),
        Row::new(
            "within",
            Optional(r#""10s""#),
            "The longest time from the first knock to the last.",
            |reader, field, knock| put(&mut knock.within, reader.duration(field, LONGEST_WITHIN)),
        ),
        Row::new(
            "key",
            OneOf(r#""alice/laptop""#),
            "In place of `sequence` and `within`: the key whose holder opens this gate by one packet (see [knock]).",
            |reader, field, knock| knock.key = reader.one(field, &KEY_NAME),
        ),
    ],
};

const HOOK: Section<DraftHook> = Section {
    title: "[[gate.hook]]",
    place: "in [[gate.hook]]",
    about: "A program that the service (`knockgate run`) runs when something happens at this gate.",
    rows: &[
        Row::new(
            "on",
            Required(r#""opened""#),
            r#"When it is run: "opened": a grant is given or renewed, "closed": a grant has ended,
"alert": a source keeps failing (see [alert])."#,
            |reader, field, hook| put(&mut hook.on, reader.choice(field)),
        ),
        Row::new(
            "run",
            Required(r#"["/usr/local/bin/notify", "{event}", "{gate}", "{user}", "{source}"]"#),
            "The program, by its absolute path, and its arguments. No shell reads them. {event}, {gate} and the like
stand for what `knockgate events` shows under these keys.",
            |reader, field, hook| put(&mut hook.run, program(reader, field)),
        ),
    ],
};

/// Reads a whole document and reports everything in it that is wrong by itself.
pub(super) fn read(findings: &mut Findings<'_>, document: &DeTable<'_>) -> Draft {
    let mut draft = FILE.defaults();
    let mut reader = Reader { findings };
    let whole = Span::default();
    FILE.read(&SECTIONS, &mut reader, document, whole, &mut draft);
    let named = draft.sections.iter().map(|section| section.name.clone());
    draft
        .interfaces
        .extend(named.filter(|name| !name.value.is_empty()));
    let has_gates = document.get("gate").is_some_and(|gates| {
        let list = gates.get_ref().as_array();
        list.is_none_or(|gates| !gates.is_empty())
    });
    // An unknown key may well be the gate, misspelt.
    if !has_gates && !findings.has("unknown-key") {
        let message =
            "there is no [[gate]], so nothing would be guarded: add one with `name` and `protect`";
        findings.about_file(Level::Error, "no-gate", message.to_owned());
    }
    draft
}

/// Stores a value that could be read.
pub(super) fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Stores the elements of a list that could be read.
fn set<T>(place: &mut Vec<Located<T>>, list: Option<List<T>>) {
    put(place, list.map(|list| list.items));
}

/// Reads the tables of `[[title]]`, and tells each where it begins.
fn all<T: Clone + Default>(
    reader: &mut Reader<'_, '_>,
    field: Field<'_, '_>,
    title: &str,
    section: &Section<T>,
    locate: fn(&mut T, Span),
) -> Vec<T> {
    let defaults = section.defaults();
    let mut read = Vec::new();
    for (entries, span) in reader.tables(field, title) {
        let mut value = defaults.clone();
        locate(&mut value, span);
        section.read(&SECTIONS, reader, entries, span, &mut value);
        read.push(value);
    }
    read
}

fn addresses(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<DraftAddresses> {
    match field.value.get_ref() {
        DeValue::Array(_) => {
            let listed = reader.set(field, &ADDRESS)?;
            Some(DraftAddresses::Listed(listed.items))
        }
        DeValue::String(text) if text == Addresses::HOST => Some(DraftAddresses::Host),
        _ => {
            let expected = "\"host\" or a list of addresses such as [\"192.0.2.1\"]";
            let text = field.value.get_ref().as_str();
            let instead = text.and_then(|text| match text.parse::<IpAddr>() {
                Ok(address) => Some(format!("[\"{address}\"]")),
                Err(_) => nearest(text, [Addresses::HOST]).map(|near| format!("{near:?}")),
            });
            reader.wrong_type(field, expected, instead);
            None
        }
    }
}

fn open_ports(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<Vec<Located<Port>>> {
    match field.value.get_ref() {
        DeValue::Array(_) => reader.set(field, &PORT).map(|list| list.items),
        DeValue::String(text) if text == "auto" => None,
        _ => {
            let expected = "\"auto\" or a list of ports such as [\"443/tcp\", \"443/udp\"]";
            let text = field.value.get_ref().as_str();
            let instead = text.and_then(|text| match text.parse::<Port>() {
                Ok(port) => Some(format!("[\"{port}\"]")),
                Err(_) => nearest(text, ["auto"]).map(|near| format!("{near:?}")),
            });
            reader.wrong_type(field, expected, instead);
            None
        }
    }
}

/// Reports names in `interface`, which are for `interfaces`.
fn is_for_the_list(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> bool {
    let names: Option<Vec<&str>> = match field.value.get_ref() {
        DeValue::String(name) => Some(vec![&**name]),
        DeValue::Array(names) => names.iter().map(|name| name.get_ref().as_str()).collect(),
        _ => None,
    };
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        return false;
    };
    let message = format!(
        "`interface` begins a section, [[interface]]; a list of names is `interfaces`: write interfaces = {names:?}"
    );
    reader.findings.error("wrong-type", field.span(), message);
    true
}

fn next(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<Located<PathBuf>> {
    if field.value.get_ref().as_str() == Some("none") {
        return None;
    }
    reader.one(field, &NEXT)
}

fn listen(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<Located<Listen>> {
    if field.value.get_ref().as_str() == Some("off") {
        return None;
    }
    reader.one(field, &LISTEN)
}

fn datagram_ports(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<Vec<Located<Port>>> {
    let mut items = reader.set(field, &PORT)?.items;
    items.retain(|Located { value: port, span }| {
        let fits = port.protocol == Protocol::Udp;
        if !fits {
            let message = format!(
                "`{}`: an authenticated knock is one UDP datagram: write \"{}/udp\"",
                field.key, port.number
            );
            reader.findings.error("not-udp", *span, message);
        }
        fits
    });
    Some(items)
}

/// Reports each `within` beside a key: one packet takes no time.
fn useless_within(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) {
    let knocks = field.value.get_ref().as_array().into_iter().flatten();
    for knock in knocks.filter_map(|knock| knock.get_ref().as_table()) {
        if knock.contains_key("key")
            && let Some((within, _)) = knock.get_key_value("within")
        {
            let message = "`within` is for a sequence, and a key is one packet: leave it out";
            let span = within.span().into();
            reader
                .findings
                .error("exclusive-keys", span, message.to_owned());
        }
    }
}

fn protect(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<Vec<Located<Port>>> {
    let list = reader.set(field, &PORT)?;
    if list.written == 0 {
        let message =
            "`protect` is empty: list the ports that this gate guards, such as [\"22/tcp\"]";
        reader
            .findings
            .error("empty-list", list.span, message.to_owned());
    }
    Some(list.items)
}

fn sequence(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<List<Port>> {
    let list = reader.list(field, &PORT)?;
    let (shortest, longest) = (SEQUENCE_LENGTHS.start(), SEQUENCE_LENGTHS.end());
    let advice = match list.written {
        n if n < *shortest => "add more",
        n if n > *longest => "leave some out",
        _ => return Some(list),
    };
    let message = format!(
        "`sequence` must have {shortest} to {longest} knocks, not {}: {advice}",
        list.written
    );
    reader.findings.error("sequence-length", list.span, message);
    Some(list)
}

fn program(reader: &mut Reader<'_, '_>, field: Field<'_, '_>) -> Option<List<String>> {
    let list = reader.list(field, &ARGUMENT)?;
    if list.written == 0 {
        let message = "`run` is empty: name a program, such as [\"/usr/local/bin/notify\"]";
        reader
            .findings
            .error("empty-list", list.span, message.to_owned());
    }
    if let Some(Located { value, span }) = list.items.first()
        && list.complete()
        && !value.starts_with('/')
    {
        let message = format!(
            "`run`: {value:?} must be the absolute path of a program, such as \"/usr/bin/{}\"; for a line of shell, \
             run [\"/bin/sh\", \"-c\", \"…\"] and use \"$KNOCKGATE_SOURCE\" and the like in it",
            value.rsplit('/').next().unwrap_or_default()
        );
        reader.findings.error("relative-program", *span, message);
    }
    Some(list)
}
