//! A section of the file and its keys, as data: the reader, `init` and the tests of the documentation use the
//! same rows.

use toml::de::DeTable;

use super::{
    reader::{Field, Reader, listed},
    source::{Findings, Source, Span},
};
use crate::values::nearest;

/// One key of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub presence: Presence,
    /// What it sets, in a sentence or two. `init` writes it above the key.
    pub about: &'static str,
}

/// Whether a key must be in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The key must be there. With an example of its value, as TOML.
    Required(&'static str),
    /// Exactly one of the keys of the section that have this must be there. With an example of its value, as TOML.
    OneOf(&'static str),
    /// This key or another one must be there. With an example of its value, as TOML, and the other's name.
    Alternative(&'static str, &'static str),
    /// The key may be left out. With its default, as TOML.
    Optional(&'static str),
    /// The key may be left out and begins a section of its own. With its default, as TOML; empty where none is the default.
    Nested(&'static str),
}

/// A section of the file, whatever type its keys are read into.
pub trait Describe {
    /// Returns how it begins, such as `[[gate]]`; "the file" for the keys before the first section.
    fn title(&self) -> &'static str;
    /// Returns where its keys are, as messages say it: "unknown key … {place}".
    fn place(&self) -> &'static str;
    /// Returns what it is for. `init` writes this above the section.
    fn about(&self) -> &'static str;
    /// Returns its keys, in the order in which they are shown.
    fn keys(&self) -> Vec<Key>;
}

/// A section of the file whose keys are read into a `T`.
pub(super) struct Section<T: 'static> {
    pub(super) title: &'static str,
    pub(super) place: &'static str,
    pub(super) about: &'static str,
    pub(super) rows: &'static [Row<T>],
}

/// A key, and how its value gets into a `T`.
pub(super) struct Row<T> {
    key: Key,
    /// Where it cannot read the value, it reports why and leaves the `T` as it is.
    read: fn(&mut Reader<'_, '_>, Field<'_, '_>, &mut T),
}

impl<T> Row<T> {
    pub(super) const fn new(
        name: &'static str,
        presence: Presence,
        about: &'static str,
        read: fn(&mut Reader<'_, '_>, Field<'_, '_>, &mut T),
    ) -> Self {
        Self {
            key: Key {
                name,
                presence,
                about,
            },
            read,
        }
    }
}

impl<T> Describe for Section<T> {
    fn title(&self) -> &'static str {
        self.title
    }

    fn place(&self) -> &'static str {
        self.place
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn keys(&self) -> Vec<Key> {
        self.rows.iter().map(|row| row.key).collect()
    }
}

impl<T: Default> Section<T> {
    /// Returns the values of a section in which every key is left out.
    pub(super) fn defaults(&self) -> T {
        let mut text = String::new();
        for row in self.rows {
            let (Presence::Optional(value) | Presence::Nested(value)) = row.key.presence else {
                continue;
            };
            if !value.is_empty() {
                text.extend([row.key.name, " = ", value, "\n"]);
            }
        }
        let mut value = T::default();
        let source = Source::new(self.title, &text);
        let mut findings = Findings::new(&source);
        let findings = &mut findings;
        let document = DeTable::parse(&text).expect("a test reads the defaults of every section");
        self.read_present(&mut Reader { findings }, document.get_ref(), &mut value);
        debug_assert!(
            findings.is_empty(),
            "a default of {} is invalid",
            self.title
        );
        value
    }

    /// Reads the keys of one such section of the file into `value`, which holds the defaults.
    ///
    /// Reports required keys that are missing, and unknown keys. Where an unknown key belongs to another of
    /// the `sections`, the message names that one.
    pub(super) fn read(
        &self,
        sections: &[&dyn Describe],
        reader: &mut Reader<'_, '_>,
        entries: &DeTable<'_>,
        span: Span,
        value: &mut T,
    ) {
        self.unknown_keys(sections, reader, entries);
        self.read_present(reader, entries, value);
        for row in self.rows {
            let Key { name, presence, .. } = row.key;
            if let Presence::Required(example) = presence
                && !entries.contains_key(name)
            {
                let title = self.title;
                let message =
                    format!("{title} has no `{name}`: add one, such as {name} = {example}");
                reader.findings.error("missing-key", span, message);
            }
        }
        self.one_of(reader, entries, span);
    }

    /// Reports that none of the keys of which one must be there is there, or more than one.
    fn one_of(&self, reader: &mut Reader<'_, '_>, entries: &DeTable<'_>, span: Span) {
        let mut names = Vec::new();
        let mut examples = Vec::new();
        let mut written = Vec::new();
        for row in self.rows {
            let Key { name, presence, .. } = row.key;
            if let Presence::OneOf(example) = presence {
                names.push(format!("`{name}`"));
                examples.push(format!("{name} = {example}"));
                written.extend(entries.get_key_value(name));
            }
        }
        let title = self.title;
        match written.as_slice() {
            [] if !names.is_empty() => {
                let message = format!(
                    "{title} has no {}: add one, such as {}",
                    names.join(" and no "),
                    examples.join(" or ")
                );
                reader.findings.error("missing-key", span, message);
            }
            [(first, _), (second, _), ..] => {
                let message = format!(
                    "{title} has both `{}` and `{}`: leave one out, or begin a section for each",
                    first.get_ref(),
                    second.get_ref()
                );
                reader
                    .findings
                    .error("exclusive-keys", second.span().into(), message);
            }
            _ => {}
        }
    }

    fn read_present(&self, reader: &mut Reader<'_, '_>, entries: &DeTable<'_>, value: &mut T) {
        for row in self.rows {
            let Some(written) = entries.get(row.key.name) else {
                continue;
            };
            let field = Field {
                key: row.key.name,
                value: written,
            };
            (row.read)(reader, field, value);
        }
    }

    fn unknown_keys(
        &self,
        sections: &[&dyn Describe],
        reader: &mut Reader<'_, '_>,
        entries: &DeTable<'_>,
    ) {
        let has = |keys: &[Key], name: &str| keys.iter().any(|key| key.name == name);
        let known = self.keys();
        for key in entries.keys() {
            let name = &**key.get_ref();
            if has(&known, name) {
                continue;
            }
            let shown = name.escape_debug();
            let at_home = sections
                .iter()
                .filter(|section| has(&section.keys(), name))
                .map(|section| section.place());
            let at_home = at_home.collect::<Vec<_>>().join(" or ");
            let names: Vec<&str> = known.iter().map(|key| key.name).collect();
            let advice = if !at_home.is_empty() {
                format!("; it belongs {at_home}")
            } else if let Some(near) = nearest(name, names.iter().copied()) {
                format!("; did you mean `{near}`?")
            } else {
                format!("; the keys here are {}", listed(&names, '`', "and"))
            };
            let message = format!("unknown key `{shown}` {}{advice}", self.place);
            reader
                .findings
                .error("unknown-key", key.span().into(), message);
        }
    }
}
