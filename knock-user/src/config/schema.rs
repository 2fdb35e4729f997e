//! The keys of the file: which there are, what each may hold, and its default.

use std::{ops::RangeInclusive, time::Duration};

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::{
    Attach, Deny, Established, Gate, GrantTo, Knock, Limits, Mode, Port,
    draft::{Draft, DraftGate, DraftKnock, values},
    finding::{Finding, Level, Span},
    kinds::{ADDRESS, DURATION, INTERFACE, NAME, NETWORK, PORT},
    nearest::nearest,
    reader::{Field, List, Located, Reader, Section, Table},
};

const TOP: Section = Section {
    title: "the file",
    place: "at the top level (before the first [section])",
    keys: &[
        "interfaces",
        "attach",
        "mode",
        "allow",
        "addresses",
        "open_ports",
        "limits",
        "metrics",
        "alert",
        "gate",
    ],
};
const LIMITS: Section = Section {
    title: "[limits]",
    place: "in [limits]",
    keys: &["sources", "grants", "sessions"],
};
const GATE: Section = Section {
    title: "[[gate]]",
    place: "in [[gate]]",
    keys: &[
        "name",
        "protect",
        "open_for",
        "deny",
        "established",
        "session_idle",
        "connections",
        "grant_to",
        "sources",
        "knock",
        "hook",
    ],
};
const KNOCK: Section = Section {
    title: "[[gate.knock]]",
    place: "in [[gate.knock]]",
    keys: &["user", "sequence", "within"],
};
const SECTIONS: [&Section; 4] = [&TOP, &LIMITS, &GATE, &KNOCK];

const DAY: Duration = Duration::from_hours(24);
const LONGEST_WITHIN: Duration = DAY;
const LONGEST_GRANT: Duration = Duration::from_hours(366 * 24);
/// The kernel's tables of sources forget early when they are smaller than this.
const FEWEST_SOURCES: u32 = 16_384;
const MOST_ENTRIES: u32 = 16_777_216;
const SEQUENCE_LENGTHS: RangeInclusive<usize> = 2..=12;

impl Reader<'_, '_> {
    /// Reads the whole document, reporting whatever in it is wrong by itself.
    pub(super) fn draft(&mut self, document: &DeTable<'_>) -> Draft {
        let top = self.table(&TOP, &SECTIONS, document, Span::default());
        for key in ["metrics", "alert"] {
            self.not_available(top.get(key), &format!("[{key}]"), "leave the section out");
        }
        Draft {
            interfaces: self.interfaces(&top),
            attach: self.chosen(&top, "attach", &Attach::WORDS),
            mode: self.chosen(&top, "mode", &Mode::WORDS),
            allow: self.networks(&top, "allow"),
            addresses: top
                .get("addresses")
                .and_then(|field| self.set(field, &ADDRESS))
                .map_or_else(Vec::new, |list| list.items),
            open_ports: top
                .get("open_ports")
                .and_then(|field| self.open_ports(field)),
            limits: self.limits(&top),
            gates: self.gates(&top),
        }
    }

    fn interfaces(&mut self, top: &Table<'_, '_>) -> Vec<Located<String>> {
        let list = top
            .get("interfaces")
            .and_then(|field| self.list(field, &INTERFACE));
        let items = list.map_or_else(Vec::new, |list| list.items);
        self.unique(&items, "duplicate-entry", |name, line| {
            format!("`interfaces`: {name} is listed already, on line {line}: leave one out")
        });
        items
    }

    fn open_ports(&mut self, field: Field<'_, '_>) -> Option<Vec<Located<Port>>> {
        match field.value.get_ref() {
            DeValue::Array(_) => self.set(field, &PORT).map(|list| list.items),
            DeValue::String(text) if text == "auto" => None,
            _ => {
                let expected = "\"auto\" or a list of ports such as [\"443/tcp\", \"443/udp\"]";
                let text = field.value.get_ref().as_str();
                let instead = text.and_then(|text| match text.parse::<Port>() {
                    Ok(port) => Some(format!("[\"{port}\"]")),
                    Err(_) => nearest(text, ["auto"]).map(|near| format!("{near:?}")),
                });
                self.wrong_type(field, expected, instead);
                None
            }
        }
    }

    fn limits(&mut self, top: &Table<'_, '_>) -> Limits {
        let mut limits = Limits::default();
        let Some(field) = top.get("limits") else {
            return limits;
        };
        let Some(entries) = field.value.get_ref().as_table() else {
            self.wrong_type(field, "a table, begun with [limits]", None);
            return limits;
        };
        let table = self.table(&LIMITS, &SECTIONS, entries, field.span());
        for (key, least, limit) in [
            ("sources", FEWEST_SOURCES, &mut limits.sources),
            ("grants", 1, &mut limits.grants),
            ("sessions", 1, &mut limits.sessions),
        ] {
            let given = table
                .get(key)
                .and_then(|field| self.number(field, least..=MOST_ENTRIES));
            *limit = given.unwrap_or(*limit);
        }
        limits
    }

    fn gates(&mut self, top: &Table<'_, '_>) -> Vec<DraftGate> {
        let Some(field) = top.get("gate") else {
            let message = "there is no [[gate]], so nothing would be guarded: add one with `name` and `protect`";
            let file = self.source.name;
            // An unknown key may well be the gate, misspelt.
            if self
                .findings
                .iter()
                .all(|finding| finding.code != "unknown-key")
            {
                self.findings.push(Finding::about_file(
                    Level::Error,
                    "no-gate",
                    file,
                    message.to_owned(),
                ));
            }
            return Vec::new();
        };
        let gates = self.tables(field, "gate");
        gates
            .into_iter()
            .map(|(entries, span)| self.gate(entries, span))
            .collect()
    }

    fn gate(&mut self, entries: &DeTable<'_>, span: Span) -> DraftGate {
        let table = self.table(&GATE, &SECTIONS, entries, span);
        self.not_available(table.get("hook"), "[[gate.hook]]", "leave the section out");
        let connections = table
            .get("connections")
            .and_then(|field| self.number(field, 0..=u32::MAX));
        DraftGate {
            header: span,
            name: self.name(&table, "name", "name = \"ssh\""),
            protect: self.protect(&table),
            open_for: self.duration(&table, "open_for", Gate::DEFAULT_OPEN_FOR, LONGEST_GRANT),
            session_idle: self
                .duration(
                    &table,
                    "session_idle",
                    Gate::DEFAULT_SESSION_IDLE,
                    LONGEST_GRANT,
                )
                .value,
            established: self.chosen(&table, "established", &Established::WORDS),
            connections: connections.unwrap_or_default(),
            grant_to: self.chosen(&table, "grant_to", &GrantTo::WORDS),
            deny: self.chosen(&table, "deny", &Deny::WORDS),
            sources: values(self.networks(&table, "sources")),
            knocks: self.knocks(&table),
        }
    }

    fn protect(&mut self, table: &Table<'_, '_>) -> Vec<Located<Port>> {
        let Some(field) = table.get("protect") else {
            self.missing(table, "protect", "protect = [\"22/tcp\"]");
            return Vec::new();
        };
        let Some(list) = self.set(field, &PORT) else {
            return Vec::new();
        };
        if list.written == 0 {
            let message =
                "`protect` is empty: list the ports that this gate guards, such as [\"22/tcp\"]";
            self.error("empty-list", list.span, message.to_owned());
        }
        list.items
    }

    fn knocks(&mut self, gate: &Table<'_, '_>) -> Vec<DraftKnock> {
        let Some(field) = gate.get("knock") else {
            return Vec::new();
        };
        let tables = self.tables(field, "gate.knock");
        let mut knocks = Vec::with_capacity(tables.len());
        for (entries, span) in tables {
            let table = self.table(&KNOCK, &SECTIONS, entries, span);
            knocks.push(DraftKnock {
                user: self.name(&table, "user", "user = \"alice\""),
                sequence: self.sequence(&table),
                within: self.duration(&table, "within", Knock::DEFAULT_WITHIN, LONGEST_WITHIN),
            });
        }
        knocks
    }

    fn sequence(&mut self, table: &Table<'_, '_>) -> List<Port> {
        let unread = List {
            items: Vec::new(),
            span: table.span,
            written: 1,
        };
        let Some(field) = table.get("sequence") else {
            self.missing(
                table,
                "sequence",
                "sequence = [\"7431/udp\", \"2214/tcp\", \"9120/udp\"]",
            );
            return unread;
        };
        let Some(list) = self.list(field, &PORT) else {
            return unread;
        };
        let (shortest, longest) = (SEQUENCE_LENGTHS.start(), SEQUENCE_LENGTHS.end());
        let advice = match list.written {
            n if n < *shortest => "add more",
            n if n > *longest => "leave some out",
            _ => return list,
        };
        let message = format!(
            "`sequence` must have {shortest} to {longest} knocks, not {}: {advice}",
            list.written
        );
        self.error("sequence-length", list.span, message);
        list
    }

    fn name(&mut self, table: &Table<'_, '_>, key: &'static str, example: &str) -> Located<String> {
        let Some(field) = table.get(key) else {
            self.missing(table, key, example);
            return Located {
                value: String::new(),
                span: table.span,
            };
        };
        let unread = Located {
            value: String::new(),
            span: field.span(),
        };
        self.one(field, &NAME).unwrap_or(unread)
    }

    fn networks(&mut self, table: &Table<'_, '_>, key: &'static str) -> Vec<Located<IpNet>> {
        let list = table.get(key).and_then(|field| self.set(field, &NETWORK));
        list.map_or_else(Vec::new, |list| list.items)
    }

    fn duration(
        &mut self,
        table: &Table<'_, '_>,
        key: &'static str,
        default: Duration,
        longest: Duration,
    ) -> Located<Duration> {
        let default = Located {
            value: default,
            span: table.span,
        };
        let Some(duration) = table.get(key).and_then(|field| self.one(field, &DURATION)) else {
            return default;
        };
        let wrong = match duration.value {
            Duration::ZERO => "must be longer than 0s".to_owned(),
            value if value > longest => format!("must be at most {}h", longest.as_secs() / 3600),
            _ => return duration,
        };
        self.error("out-of-range", duration.span, format!("`{key}` {wrong}"));
        default
    }

    fn chosen<T: Copy + Default>(
        &mut self,
        table: &Table<'_, '_>,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> T {
        let chosen = table.get(key).and_then(|field| self.choice(field, words));
        chosen.unwrap_or_default()
    }

    fn not_available(&mut self, field: Option<Field<'_, '_>>, what: &str, advice: &str) {
        if let Some(field) = field {
            let message = format!("{what} is not available in this version yet; {advice}");
            self.error("not-available", field.key_span, message);
        }
    }
}
