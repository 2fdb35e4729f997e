//! Typed reading of values in a TOML document. It goes on after an error, so that one run shows all of them.

use std::{fmt::Display, hash::Hash, ops::RangeInclusive, time::Duration};

use clap::{ValueEnum, builder::PossibleValue};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    kinds::{DURATION, Kind},
    source::{Findings, Located, Span},
};
use crate::values::nearest;

type Value<'i> = Spanned<DeValue<'i>>;

/// Reads values and reports those that are wrong.
///
/// Where a method returns `None` or leaves elements of a list out, it has reported why.
pub(super) struct Reader<'r, 's> {
    pub(super) findings: &'r mut Findings<'s>,
}

/// A list, as far as it could be read.
#[derive(Debug, Clone)]
pub(super) struct List<T> {
    pub(super) items: Vec<Located<T>>,
    pub(super) span: Span,
    /// How many elements the file has, unreadable ones included.
    pub(super) written: usize,
}

/// One `key = value` of a table, or one element of the list that is the value.
#[derive(Clone, Copy)]
pub(super) struct Field<'v, 'i> {
    pub(super) key: &'static str,
    pub(super) value: &'v Value<'i>,
}

impl Field<'_, '_> {
    pub(super) fn span(&self) -> Span {
        self.value.span().into()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            span: Span::default(),
            written: 0,
        }
    }
}

impl<T> List<T> {
    /// Whether every element could be read.
    pub(super) fn complete(&self) -> bool {
        self.items.len() == self.written
    }
}

impl Reader<'_, '_> {
    /// Reads the table of `[key]`.
    pub(super) fn table<'v, 'i>(&mut self, field: Field<'v, 'i>) -> Option<&'v DeTable<'i>> {
        let table = field.value.get_ref().as_table();
        if table.is_none() {
            let expected = format!("a table, begun with [{}]", field.key);
            self.wrong_type(field, &expected, None);
        }
        table
    }

    /// Reads the tables of `[[title]]`.
    pub(super) fn tables<'v, 'i>(
        &mut self,
        field: Field<'v, 'i>,
        title: &str,
    ) -> Vec<(&'v DeTable<'i>, Span)> {
        let expected = format!("a list of tables, each begun with [[{title}]]");
        let Some(elements) = field.value.get_ref().as_array() else {
            // `[gate]` for `[[gate]]` is the usual mistake; the span is that of the header then.
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

    /// Reads a value that is written as a string.
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
                self.findings
                    .error(kind.code, field.span(), format!("`{}`: {why}", field.key));
                None
            }
        }
    }

    /// Reads a list of values that are written as strings.
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

    /// Reads a list whose elements must differ from each other.
    pub(super) fn set<T>(&mut self, field: Field<'_, '_>, kind: &Kind<T>) -> Option<List<T>>
    where
        T: Eq + Hash + Display,
    {
        let list = self.list(field, kind)?;
        self.findings
            .duplicates(&list.items, "duplicate-entry", |value, line| {
                format!(
                    "`{}`: {value} is listed already, on line {line}: leave one out",
                    field.key
                )
            });
        Some(list)
    }

    /// Reads one of the words of a choice.
    pub(super) fn choice<T: ValueEnum>(&mut self, field: Field<'_, '_>) -> Option<T> {
        let words: Vec<_> = T::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .collect();
        let words: Vec<&str> = words.iter().map(PossibleValue::get_name).collect();
        let expected = listed(&words, '"', "or");
        let Some(text) = field.value.get_ref().as_str() else {
            self.wrong_type(field, &expected, None);
            return None;
        };
        if let Ok(value) = T::from_str(text, false) {
            return Some(value);
        }
        let advice = nearest(text, words)
            .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        let message = format!("`{}` must be {expected}, not {text:?}{advice}", field.key);
        self.findings.error("bad-choice", field.span(), message);
        None
    }

    /// Reads a duration that is longer than zero and no longer than `longest`.
    pub(super) fn duration(
        &mut self,
        field: Field<'_, '_>,
        longest: Duration,
    ) -> Option<Located<Duration>> {
        let duration = self.one(field, &DURATION)?;
        let wrong = match duration.value {
            Duration::ZERO => "must be longer than 0s".to_owned(),
            value if value > longest => format!("must be at most {}h", longest.as_secs() / 3600),
            _ => return Some(duration),
        };
        let message = format!("`{}` {wrong}", field.key);
        self.findings.error("out-of-range", duration.span, message);
        None
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self, field: Field<'_, '_>) -> Option<bool> {
        let value = field.value.get_ref().as_bool();
        if value.is_none() {
            let quoted = field.value.get_ref().as_str();
            let instead = quoted.filter(|text| matches!(*text, "true" | "false"));
            self.wrong_type(field, "true or false", instead.map(ToOwned::to_owned));
        }
        value
    }

    /// Reads a whole number within bounds.
    pub(super) fn number(
        &mut self,
        field: Field<'_, '_>,
        bounds: RangeInclusive<u32>,
    ) -> Option<u32> {
        let (low, high) = (bounds.start(), bounds.end());
        let expected = format!("a whole number from {low} to {high}");
        let DeValue::Integer(number) = field.value.get_ref() else {
            // A number in quotes is a common mistake: show it without them.
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
            self.findings.error("out-of-range", field.span(), message);
        }
        value
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
        self.findings.error("wrong-type", field.span(), message);
    }
}

/// Returns the words in a sentence: `a`, `b` and `c`, each between quotes.
pub(super) fn listed(words: &[&str], quote: char, and: &str) -> String {
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
