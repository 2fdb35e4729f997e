//! What the service does besides logging when something happens: alerts, and programs that it runs.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// When a source that keeps failing is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Failed knocks that cause an alert; 0: none does.
    pub failures: u32,
    /// The time in which they happen.
    pub within: Duration,
    pub per: Per,
}

/// Whose failures are counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Those of one address.
    #[default]
    Source,
    /// Those of a /24 (IPv4) or /64 (IPv6).
    Prefix,
}

/// A program that is run when something happens at a gate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hook {
    pub on: Trigger,
    /// The absolute path of the program, and its arguments. In an argument `{key}` stands for a value of the event.
    pub run: Vec<String>,
}

/// What a hook waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// A grant is given or renewed.
    #[default]
    Opened,
    /// A grant has ended.
    Closed,
    /// A source keeps failing at this gate.
    Alert,
}

/// The keys of events, for which arguments may have placeholders.
pub const EVENT_KEYS: [&str; 16] = [
    "time",
    "event",
    "interface",
    "gate",
    "user",
    "key",
    "source",
    "port",
    "step",
    "of",
    "reason",
    "until",
    "lost",
    "failures",
    "hook",
    "origin",
];

/// A part of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'t> {
    Text(&'t str),
    /// The name between braces.
    Placeholder(&'t str),
}

/// Returns the parts of an argument. A placeholder is a word of lower-case letters and `_` between braces; other braces,
/// such as those of JSON, are text.
pub fn pieces(argument: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut text, mut from) = (0, 0);
    while let Some(at) = argument[from..].find('{') {
        let open = from + at;
        from = open + 1;
        let word = &argument[from..];
        let length = word.bytes().take_while(|&byte| is_of_name(byte)).count();
        if length == 0 || !word[length..].starts_with('}') {
            continue;
        }
        if text < open {
            pieces.push(Piece::Text(&argument[text..open]));
        }
        pieces.push(Piece::Placeholder(&word[..length]));
        from += length + 1;
        text = from;
    }
    if text < argument.len() {
        pieces.push(Piece::Text(&argument[text..]));
    }
    pieces
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::{Piece::*, *};

    #[test]
    fn placeholders_are_words_between_braces() {
        for (argument, expected) in [
            ("", vec![]),
            ("plain", vec![Text("plain")]),
            ("{gate}", vec![Placeholder("gate")]),
            (
                "{gate}{source}!",
                vec![Placeholder("gate"), Placeholder("source"), Text("!")],
            ),
            (
                r#"{"text": "{user} at {{gate}}"}"#,
                vec![
                    Text(r#"{"text": ""#),
                    Placeholder("user"),
                    Text(" at {"),
                    Placeholder("gate"),
                    Text(r#"}"}"#),
                ],
            ),
            (
                "{} {Gate} { gate } {gate",
                vec![Text("{} {Gate} { gate } {gate")],
            ),
            ("ü{gate}ü", vec![Text("ü"), Placeholder("gate"), Text("ü")]),
        ] {
            assert_eq!(pieces(argument), expected, "{argument}");
        }
    }
}
