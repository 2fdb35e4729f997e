//! docs/configuration.md describes every key of the file, with its default.

use std::collections::BTreeSet;

#[cfg(feature = "fleet")]
use knock_user::config::Config;
use knock_user::config::{Describe, Presence, SECTIONS};

use super::{rows, section};

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// The heading under which the page describes the keys of a section.
fn heading(section: &dyn Describe) -> &'static str {
    let begins = format!("## `{}`", section.title());
    PAGE.lines()
        .find(|line| line.starts_with(&begins))
        .unwrap_or("## The host")
}

#[test]
fn every_key_has_a_row_with_its_default() {
    for described in SECTIONS {
        let heading = heading(described);
        let stated: BTreeSet<_> = rows(section(PAGE, heading))
            .into_iter()
            .map(|cells| (cells[0].to_owned(), cells[1].to_owned()))
            .collect();
        let keys = described.keys().into_iter();
        let expected: BTreeSet<_> = keys
            .filter_map(|key| {
                let default = match key.presence {
                    Presence::Required(_) => "required".to_owned(),
                    Presence::OneOf(_) => "one of them".to_owned(),
                    Presence::Alternative(_, other) => format!("required, or `{other}`"),
                    Presence::Optional(default) => format!("`{default}`"),
                    Presence::Nested(_) => return None,
                };
                Some((format!("`{}`", key.name), default))
            })
            .collect();
        assert_eq!(stated, expected, "keys and defaults under {heading:?}");
    }
}

/// The example has a fleet.
#[cfg(feature = "fleet")]
#[test]
fn the_example_has_every_key() {
    let example = PAGE.split("```").nth(1).expect("there is an example");
    let example = example.strip_prefix("toml\n").expect("it is TOML");
    Config::parse(example, "the example").expect("valid");
    for described in SECTIONS {
        for key in described.keys() {
            let is_there = match key.presence {
                Presence::Required(_)
                | Presence::OneOf(_)
                | Presence::Alternative(..)
                | Presence::Optional(_) => example
                    .lines()
                    .any(|line| line.split(" =").next().map(str::trim) == Some(key.name)),
                Presence::Nested(_) => true,
            };
            let title = described.title();
            assert!(is_there, "no `{}` of {title} in the example", key.name);
        }
    }
}
