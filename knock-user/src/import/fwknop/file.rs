//! Stanzas and their lines, as fwknopd tells them apart.

use crate::import::{Fate, Report};

/// `SOURCE` and the lines up to the next.
pub(super) struct Stanza {
    pub(super) line: usize,
    pub(super) values: Vec<Value>,
}

pub(super) struct Value {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: String,
}

/// Takes the file apart. A stanza begins with SOURCE.
pub(super) fn read(text: &str, report: &mut Report) -> Vec<Stanza> {
    let mut stanzas: Vec<Stanza> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if key.starts_with('%') {
            let text = "other files are not followed: import each by itself";
            report.add(number, key, Fate::Invalid, text);
            continue;
        }
        // In small letters, fwknopd ignores it.
        let key = key.trim_end_matches(':').to_owned();
        let value = value.split(';').next().unwrap_or_default().trim();
        if key == "SOURCE" {
            stanzas.push(Stanza {
                line: number,
                values: Vec::new(),
            });
        }
        if key.contains("KEY") && value.contains(char::REPLACEMENT_CHARACTER) {
            let text = "it is not UTF-8: write the key in base64";
            report.add(number, &key, Fate::Invalid, text);
            continue;
        }
        match stanzas.last_mut() {
            Some(stanza) => stanza.values.push(Value {
                line: number,
                key,
                value: value.to_owned(),
            }),
            None => report.add(
                number,
                "the line",
                Fate::Invalid,
                "it stands before any SOURCE",
            ),
        }
    }
    stanzas
}
