//! The text of a configuration, places in it, and what has been found so far.

use std::{collections::HashMap, hash::Hash, ops::Range};

use super::finding::{Finding, Level};

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

/// A text and its name in messages.
pub(super) struct Source<'t> {
    name: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
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
        }
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
        Finding::about_line(level, code, self.name, message, line, content, first..last)
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
