//! A list of rows that can be sorted, filtered and selected from.

use std::{cmp::Ordering, net::IpAddr};

/// A row of a list.
pub trait Row {
    /// The orders that there are, by name.
    const SORTS: &'static [&'static str];

    /// Returns what stays the same when the row is read again: address, prefix length, gate.
    fn key(&self) -> (IpAddr, u8, u16);

    /// Compares by one of [`Row::SORTS`].
    fn compare(&self, other: &Self, sort: usize) -> Ordering;

    fn matches(&self, filter: &str) -> bool;
}

/// The rows, and which of them are shown in which order.
#[derive(Debug)]
pub struct List<R> {
    rows: Vec<R>,
    shown: Vec<usize>,
    pub sort: usize,
    /// The row that is selected, by its key: rows come and go.
    selected: Option<(IpAddr, u8, u16)>,
    /// Its place in `shown`.
    pub cursor: usize,
}

impl<R> Default for List<R> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            shown: Vec::new(),
            sort: 0,
            selected: None,
            cursor: 0,
        }
    }
}

impl<R: Row> List<R> {
    /// Replaces the rows.
    pub fn set(&mut self, rows: Vec<R>, filter: &str) {
        self.rows = rows;
        self.arrange(filter);
    }

    /// Sorts and filters again.
    pub fn arrange(&mut self, filter: &str) {
        let rows = &self.rows;
        let wanted = |index: &usize| filter.is_empty() || rows[*index].matches(filter);
        let mut shown: Vec<usize> = (0..rows.len()).filter(wanted).collect();
        let sort = self.sort;
        shown.sort_by(|one, other| {
            let by_key = || rows[*one].key().cmp(&rows[*other].key());
            rows[*one].compare(&rows[*other], sort).then_with(by_key)
        });
        self.shown = shown;
        let found = self.selected.and_then(|key| {
            let mut shown = self.shown.iter();
            shown.position(|index| self.rows[*index].key() == key)
        });
        match found {
            Some(cursor) => self.cursor = cursor,
            // Its neighbour has its place now.
            None => self.select(self.cursor),
        }
    }

    /// Goes on to the next order.
    pub fn sort_next(&mut self, filter: &str) {
        self.sort = (self.sort + 1) % R::SORTS.len();
        self.selected = None;
        self.cursor = 0;
        self.arrange(filter);
    }

    /// Moves the cursor by so many rows.
    pub fn step(&mut self, by: isize) {
        self.select(self.cursor.saturating_add_signed(by));
    }

    fn select(&mut self, cursor: usize) {
        self.cursor = cursor.min(self.shown.len().saturating_sub(1));
        // At the top nothing is held on to: who looks at the first rows wants to see the first ones.
        let is_first = self.cursor == 0;
        self.selected = self.selected().filter(|_| !is_first).map(Row::key);
    }

    pub fn selected(&self) -> Option<&R> {
        self.shown.get(self.cursor).map(|index| &self.rows[*index])
    }

    /// Returns the rows that are shown.
    pub fn shown(&self) -> impl ExactSizeIterator<Item = &R> {
        self.shown.iter().map(|index| &self.rows[*index])
    }

    /// Returns the number of rows, also of those that the filter leaves out.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn sort_name(&self) -> &'static str {
        R::SORTS[self.sort]
    }
}
