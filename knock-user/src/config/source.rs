//! The text of a configuration, places in it, and what has been found so far.

use std::{collections::HashMap, hash::Hash, ops::Range};

use toml::de::{DeTable, DeValue};

use super::{
    finding::{Finding, Level},
    fwknop::written::SHOWN,
};

/// A range of the text, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl From<Range<usize>> for Span {
    fn from(Range { start, end }: Range<usize>) -> Self {
        Self { start, end }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// Returns the values without their places.
pub(super) fn values<T>(items: Vec<Located<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}

/// Where a key stands, for [`Source::hide_secrets`].
#[derive(Clone, Copy)]
enum Place {
    Keys,
    Knocks,
    Fleet,
    Elsewhere,
}

/// Returns whether the value is an absolute path, or a list of nothing else.
fn is_path(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(text) => text.starts_with('/'),
        DeValue::Array(list) => list.iter().all(|item| is_path(item.get_ref())),
        _ => false,
    }
}

/// A text and its name in messages.
pub(super) struct Source<'t> {
    name: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    /// What no message may show.
    hidden: Vec<Span>,
}

impl<'t> Source<'t> {
    pub(super) fn new(name: &'t str, text: &'t str) -> Self {
        let after_newlines = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            name,
            text,
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            hidden: Vec::new(),
        }
    }

    /// Keeps the secrets of the document out of what findings show: in a section of keys everything but what is known to be
    /// none, and elsewhere each value that looks as if it were a misplaced one.
    pub(super) fn hide_secrets(&mut self, document: &DeTable<'_>) {
        self.hide_in(document, Place::Elsewhere);
    }

    fn hide_in(&mut self, table: &DeTable<'_>, place: Place) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let within = match name {
                "fwknop" => Place::Keys,
                // Its key is a name.
                "knock" => Place::Knocks,
                "fleet" => Place::Fleet,
                _ => Place::Elsewhere,
            };
            let mut nested = Vec::new();
            match value.get_ref() {
                DeValue::Table(table) => nested.push(table),
                DeValue::Array(list) => {
                    nested.extend(list.iter().filter_map(|item| item.get_ref().as_table()));
                }
                _ => {}
            }
            let named_as_key = name.to_ascii_lowercase().contains("key");
            let is_secret = match place {
                Place::Keys => !SHOWN.contains(&name),
                Place::Knocks => false,
                // Its keys are files. What is no path may be a key that was pasted in place of one.
                Place::Fleet => named_as_key && !is_path(value.get_ref()),
                Place::Elsewhere => named_as_key,
            };
            if is_secret && (nested.is_empty() || matches!(place, Place::Keys)) {
                self.hidden.push(value.span().into());
            }
            for table in nested {
                self.hide_in(table, within);
            }
        }
    }

    /// As [`Source::hide_secrets`], for a text that is not valid TOML: shows what begins with a name of which the value is no
    /// secret, and of other lines the name at most. `is_known`: of the file's names.
    pub(super) fn hide_unread_secrets(&mut self, is_known: impl Fn(&str) -> bool) {
        for (at, line) in self.line_starts.iter().zip(self.text.split('\n')) {
            let indent = line.len() - line.trim_start().len();
            let content = &line[indent..];
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let (name, rest) =
                content.split_at(content.find(|c| !is_of_name(c)).unwrap_or(content.len()));
            let lower = content.to_ascii_lowercase();
            let may_tell = lower.contains("key") || lower.contains("fwknop");
            let is_value = rest.trim_start().starts_with('=') && is_known(name);
            let is_title = content.starts_with('[') && !content.contains(['"', '\'', '=']);
            if content.starts_with('#') || is_title || (is_value && !may_tell) {
                continue;
            }
            let shown = if is_known(name) { name.len() } else { 0 };
            self.hidden.push(Span {
                start: at + indent + shown,
                end: at + line.len(),
            });
        }
    }

    /// Returns the text of a line that begins at `start`, with a star in place of each hidden character.
    fn shown(&self, start: usize, content: &str) -> String {
        let is_hidden = |at: usize| {
            let mut hidden = self.hidden.iter();
            hidden.any(|span| (span.start..span.end).contains(&at))
        };
        let shown = |(offset, c)| if is_hidden(start + offset) { '*' } else { c };
        content.char_indices().map(shown).collect()
    }

    /// Returns the number of the line on which the span begins, counted from 1.
    pub(super) fn line_of(&self, span: Span) -> usize {
        self.line_starts
            .partition_point(|start| *start <= span.start)
    }

    fn finding(&self, level: Level, code: &'static str, span: Span, message: String) -> Finding {
        let line = self.line_of(span);
        let start = self.line_starts[line - 1];
        let end = self
            .line_starts
            .get(line)
            .copied()
            .unwrap_or(self.text.len());
        let content = self.text[start..end].trim_end_matches(['\r', '\n']);
        let chars_up_to = |at: usize| {
            content
                .char_indices()
                .take_while(|(offset, _)| start + offset < at)
                .count()
        };
        let first = chars_up_to(span.start);
        let last = chars_up_to(span.end).max(first + 1);
        let shown = self.shown(start, content);
        Finding::about_line(level, code, self.name, message, line, &shown, first..last)
    }
}

/// What has been found in one text so far.
pub(super) struct Findings<'s> {
    pub(super) source: &'s Source<'s>,
    found: Vec<Finding>,
}

impl<'s> Findings<'s> {
    pub(super) fn new(source: &'s Source<'s>) -> Self {
        Self {
            source,
            found: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, code: &'static str, span: Span, message: String) {
        self.found
            .push(self.source.finding(Level::Error, code, span, message));
    }

    pub(super) fn warning(&mut self, code: &'static str, span: Span, message: String) {
        self.found
            .push(self.source.finding(Level::Warning, code, span, message));
    }

    pub(super) fn about_file(&mut self, level: Level, code: &'static str, message: String) {
        let file = self.source.name;
        self.found
            .push(Finding::about_file(level, code, file, message));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether there is a finding with this code.
    pub(super) fn has(&self, code: &str) -> bool {
        self.found.iter().any(|finding| finding.code == code)
    }

    /// Reports each value that occurred before, with the line of its first occurrence.
    pub(super) fn duplicates<'v, T: Eq + Hash + 'v>(
        &mut self,
        items: impl IntoIterator<Item = &'v Located<T>>,
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

    /// Returns the findings in the order of the file.
    pub(super) fn in_order(self) -> Vec<Finding> {
        let mut found = self.found;
        found.sort_by_key(|finding| (finding.line, finding.column));
        found
    }
}
