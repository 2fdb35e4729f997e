//! The errors of `status`, for which it exits with a status of its own.

use std::fmt;

use super::attachment::{Attachment, Lack};

/// Configured interfaces that are not guarded. Exit status 7.
#[derive(Debug)]
pub struct NotGuarded(Vec<(String, Lack)>);

impl NotGuarded {
    /// Returns the interfaces among these that are not guarded; `None` where all are.
    pub fn among(attachments: &[Attachment]) -> Option<Self> {
        let lacks = attachments.iter().filter_map(|attachment| {
            let lack = attachment.state.as_ref().err()?;
            Some((attachment.name.clone(), lack.clone()))
        });
        let lacks: Vec<_> = lacks.collect();
        (!lacks.is_empty()).then_some(Self(lacks))
    }
}

impl fmt::Display for NotGuarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(lacks) = self;
        let words = lacks.iter();
        let words: Vec<_> = words
            .map(|(name, lack)| format!("{name} is NOT GUARDED: {lack}"))
            .collect();
        write!(f, "{}", words.join("; "))
    }
}

impl std::error::Error for NotGuarded {}

/// Interfaces on which nothing follows, though the configuration names a program. Exit status 7.
#[derive(Debug)]
pub struct NotFollowed(Vec<(String, String)>);

impl NotFollowed {
    /// Makes the error of these interfaces, each with where the program should be pinned; `None` where there are none.
    pub fn of(rows: Vec<(String, String)>) -> Option<Self> {
        (!rows.is_empty()).then_some(Self(rows))
    }
}

impl fmt::Display for NotFollowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter();
        let words: Vec<_> = rows
            .map(|(name, pin)| format!("what passes on {name} DOES NOT GO ON to {pin}"))
            .collect();
        write!(
            f,
            "{}: pin the program there, then `knockgate reload`",
            words.join("; ")
        )
    }
}

impl std::error::Error for NotFollowed {}
