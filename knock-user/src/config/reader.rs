//! A typed reader over the TOML document that goes on after an error, so that one run shows them all.

use std::{collections::HashMap, fmt::Display, hash::Hash, ops::RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    finding::{Finding, Level, Source, Span},
    nearest::nearest,
};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Collects findings while values are taken out of the document.
///
/// A method that returns `None` or a shorter list has reported why.
pub(super) struct Reader<'s, 't> {
    pub(super) source: &'s Source<'t>,
    pub(super) findings: Vec<Finding>,
}

/// A kind of table: how it is written and which keys it knows.
pub(super) struct Section {
    pub(super) title: &'static str,
    /// Where its keys stand: "unknown key … {place}".
    pub(super) place: &'static str,
    pub(super) keys: &'static [&'static str],
}

/// A kind of value that is written as a string.
pub(super) struct Kind<T> {
    /// The code of the finding when the string can't be read.
    pub(super) code: &'static str,
    /// What it is and looks like, after "must be".
    pub(super) expected: &'static str,
    pub(super) parse: fn(&str) -> Result<T, String>,
    /// What to write where someone wrote a bare number.
    pub(super) for_number: Option<fn(&str) -> String>,
}

/// A value and where it was written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A list as far as it could be read.
#[derive(Debug, Clone)]
pub(super) struct List<T> {
    pub(super) items: Vec<Located<T>>,
    pub(super) span: Span,
    /// How many elements the file has, unreadable ones included.
    pub(super) written: usize,
}

/// A table of the document whose keys are known to be spelt right.
#[derive(Clone, Copy)]
pub(super) struct Table<'v, 'i> {
    section: &'static Section,
    entries: &'v DeTable<'i>,
    pub(super) span: Span,
}

/// One `key = value` of a table, or one element of the list that stands there.
#[derive(Clone, Copy)]
pub(super) struct Field<'v, 'i> {
    pub(super) key: &'static str,
    pub(super) key_span: Span,
    pub(super) value: &'v Value<'i>,
}

impl<'v, 'i> Table<'v, 'i> {
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'v, 'i>> {
        debug_assert!(
            self.section.keys.contains(&key),
            "{key} is not declared in its section"
        );
        let (spelt, value) = self.entries.get_key_value(key)?;
        Some(Field {
            key,
            key_span: spelt.span().into(),
            value,
        })
    }
}

impl Field<'_, '_> {
    pub(super) fn span(&self) -> Span {
        self.value.span().into()
    }
}

impl<T> List<T> {
    /// Whether every element could be read.
    pub(super) fn complete(&self) -> bool {
        self.items.len() == self.written
    }
}

impl<'s, 't> Reader<'s, 't> {
    pub(super) fn new(source: &'s Source<'t>) -> Self {
        Self {
            source,
            findings: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, code: &'static str, span: Span, message: String) {
        self.findings
            .push(self.source.finding(Level::Error, code, span, message));
    }

    /// Takes a table in, reporting each key that `section` doesn't know. `sections` are all there
    /// are: a key that belongs to another one is answered with its place.
    pub(super) fn table<'v, 'i>(
        &mut self,
        section: &'static Section,
        sections: &[&'static Section],
        entries: &'v DeTable<'i>,
        span: Span,
    ) -> Table<'v, 'i> {
        for key in entries
            .keys()
            .filter(|key| !section.keys.contains(&&**key.get_ref()))
        {
            let name = key.get_ref();
            let shown = name.escape_debug();
            let at_home = sections
                .iter()
                .filter(|s| s.keys.contains(&&**name))
                .map(|s| s.place);
            let at_home = at_home.collect::<Vec<_>>().join(" or ");
            let advice = if !at_home.is_empty() {
                format!("; it belongs {at_home}")
            } else if let Some(near) = nearest(name, section.keys.iter().copied()) {
                format!("; did you mean `{near}`?")
            } else {
                format!("; the keys here are {}", listed(section.keys, '`', "and"))
            };
            let message = format!("unknown key `{shown}` {}{advice}", section.place);
            self.error("unknown-key", key.span().into(), message);
        }
        Table {
            section,
            entries,
            span,
        }
    }

    /// The tables of `[[title]]`.
    pub(super) fn tables<'v, 'i>(
        &mut self,
        field: Field<'v, 'i>,
        title: &str,
    ) -> Vec<(&'v DeTable<'i>, Span)> {
        let expected = format!("a list of tables, each begun with [[{title}]]");
        let Some(elements) = field.value.get_ref().as_array() else {
            // `[gate]` for `[[gate]]` is the usual slip; the error sits on the header either way.
            self.wrong_type(field, &expected, None);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for value in elements {
            match value.get_ref().as_table() {
                Some(table) => tables.push((table, value.span().into())),
                None => self.wrong_type(Field { value, ..field }, &expected, None),
            }
        }
        tables
    }

    /// One value written as a string.
    pub(super) fn one<T>(&mut self, field: Field<'_, '_>, kind: &Kind<T>) -> Option<Located<T>> {
        let Some(text) = field.value.get_ref().as_str() else {
            let instead = match (field.value.get_ref(), kind.for_number) {
                (DeValue::Integer(number), Some(write)) => Some(write(number.as_str())),
                _ => None,
            };
            self.wrong_type(field, kind.expected, instead);
            return None;
        };
        match (kind.parse)(text) {
            Ok(value) => Some(Located {
                value,
                span: field.span(),
            }),
            Err(why) => {
                self.error(kind.code, field.span(), format!("`{}`: {why}", field.key));
                None
            }
        }
    }

    /// A list of values written as strings.
    pub(super) fn list<T>(&mut self, field: Field<'_, '_>, kind: &Kind<T>) -> Option<List<T>> {
        let Some(elements) = field.value.get_ref().as_array() else {
            let instead = field
                .value
                .get_ref()
                .as_str()
                .map(|text| format!("[{text:?}]"));
            let expected = format!("a list, each element {}", kind.expected);
            self.wrong_type(field, &expected, instead);
            return None;
        };
        let items = elements
            .iter()
            .filter_map(|value| self.one(Field { value, ..field }, kind));
        Some(List {
            items: items.collect(),
            span: field.span(),
            written: elements.len(),
        })
    }

    /// A list whose elements differ from each other.
    pub(super) fn set<T>(&mut self, field: Field<'_, '_>, kind: &Kind<T>) -> Option<List<T>>
    where
        T: Copy + Eq + Hash + Display,
    {
        let list = self.list(field, kind)?;
        self.unique(&list.items, "duplicate-entry", |value, line| {
            format!(
                "`{}`: {value} is listed already, on line {line}: leave one out",
                field.key
            )
        });
        Some(list)
    }

    /// Reports each value that came before, with the line of the first.
    pub(super) fn unique<T: Eq + Hash>(
        &mut self,
        items: &[Located<T>],
        code: &'static str,
        message: impl Fn(&T, usize) -> String,
    ) {
        let mut seen = HashMap::new();
        for Located { value, span } in items {
            if let Some(first) = seen.get(value) {
                self.error(code, *span, message(value, self.source.line_of(*first)));
            } else {
                seen.insert(value, *span);
            }
        }
    }

    /// One word out of a few.
    pub(super) fn choice<T: Copy>(
        &mut self,
        field: Field<'_, '_>,
        options: &[(&'static str, T)],
    ) -> Option<T> {
        let words = options.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let expected = listed(&words, '"', "or");
        let Some(text) = field.value.get_ref().as_str() else {
            self.wrong_type(field, &expected, None);
            return None;
        };
        if let Some((_, value)) = options.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let advice = nearest(text, words)
            .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        let message = format!("`{}` must be {expected}, not {text:?}{advice}", field.key);
        self.error("bad-choice", field.span(), message);
        None
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &mut self,
        field: Field<'_, '_>,
        bounds: RangeInclusive<u32>,
    ) -> Option<u32> {
        let (low, high) = (bounds.start(), bounds.end());
        let expected = format!("a whole number from {low} to {high}");
        let DeValue::Integer(number) = field.value.get_ref() else {
            // A number in quotes is as common as one without them where they belong.
            let quoted = field
                .value
                .get_ref()
                .as_str()
                .map(|text| text.trim().replace('_', ""));
            let instead =
                quoted.filter(|text| text.parse::<u32>().is_ok_and(|n| bounds.contains(&n)));
            self.wrong_type(field, &expected, instead);
            return None;
        };
        let value = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let value = value.filter(|value| bounds.contains(value));
        if value.is_none() {
            let message = format!("`{}` must be {expected}, not {number}", field.key);
            self.error("out-of-range", field.span(), message);
        }
        value
    }

    pub(super) fn missing(&mut self, table: &Table<'_, '_>, key: &str, example: &str) {
        let message = format!(
            "{} has no `{key}`: add one, such as {example}",
            table.section.title
        );
        self.error("missing-key", table.span, message);
    }

    pub(super) fn wrong_type(
        &mut self,
        field: Field<'_, '_>,
        expected: &str,
        instead: Option<String>,
    ) {
        let found = match field.value.get_ref() {
            DeValue::String(text) => format!("the string {text:?}"),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {}", number.as_str()),
            DeValue::Boolean(truth) => format!("the boolean {truth}"),
            DeValue::Datetime(time) => format!("the date {time}"),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        let instead = instead.map_or_else(String::new, |text| format!(": write {text}"));
        let message = format!("`{}` must be {expected}, not {found}{instead}", field.key);
        self.error("wrong-type", field.span(), message);
    }
}

/// `a`, `b` and `c`, each between quotes.
fn listed(words: &[&str], quote: char, and: &str) -> String {
    let quoted = words
        .iter()
        .map(|word| format!("{quote}{word}{quote}"))
        .collect::<Vec<_>>();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} {and} {last}", rest.join(", ")),
    }
}
