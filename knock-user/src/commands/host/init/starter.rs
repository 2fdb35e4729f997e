//! The text of a starter file.

use anyhow::Context as _;

use super::{GateArg, draw::Draw};
use crate::{
    config::{Describe, Key, Presence, SECTIONS},
    values::Port,
};

/// Returns the text of a starter file: one user with a fresh sequence for each gate.
///
/// What a file must say is filled in; every other key is there too, commented out, with its default.
pub(super) fn starter(
    interfaces: &[String],
    gates: &[GateArg],
    user: &str,
    draw: &mut Draw,
) -> anyhow::Result<String> {
    let mut named: Vec<(&str, Vec<Port>)> = Vec::new();
    for GateArg { name, port } in gates {
        match named.iter_mut().find(|(known, _)| known == name) {
            Some((_, ports)) => ports.push(*port),
            None => named.push((name, vec![*port])),
        }
    }
    draw.avoid(gates.iter().map(|gate| gate.port.number));
    let [
        file,
        interface,
        limits,
        metrics,
        alert,
        authenticated,
        fleet,
        gate,
        knock,
        hook,
        fwknop,
        keys,
    ] = SECTIONS;
    let mut text = HEAD.to_owned();
    let given = [("interfaces", quoted(interfaces))];
    section(&mut text, file, &given, Comments::Yes);
    section(&mut text, interface, &[], Comments::Yes);
    section(&mut text, limits, &[], Comments::Yes);
    section(&mut text, metrics, &[], Comments::Yes);
    section(&mut text, alert, &[], Comments::Yes);
    let port = draw.datagram_port().context("drawing a random port")?;
    let given = [("ports", quoted(&[port]))];
    section(&mut text, authenticated, &given, Comments::Yes);
    section(&mut text, fleet, &[], Comments::Yes);
    section(&mut text, fwknop, &[], Comments::Yes);
    for (number, (name, ports)) in named.into_iter().enumerate() {
        let comments = if number == 0 {
            Comments::Yes
        } else {
            Comments::No
        };
        let sequence = draw.sequence().context("drawing a random sequence")?;
        let given = [("name", quoted_word(name)), ("protect", quoted(&ports))];
        section(&mut text, gate, &given, comments);
        let given = [("user", quoted_word(user)), ("sequence", quoted(&sequence))];
        section(&mut text, knock, &given, comments);
        if comments == Comments::Yes {
            section(&mut text, hook, &[], comments);
            section(&mut text, keys, &[], comments);
        }
    }
    Ok(text)
}

const HEAD: &str = "\
# The configuration of knockgate, which keeps ports closed until a client sends packets to a secret
# sequence of other ports. The sequences below are passwords: keep this file readable by its owner alone.
#
# `knockgate check` reports errors and weaknesses; `knockgate up` puts the file into force. A key that is
# commented out has the value shown.
";

/// Whether sections and keys are explained. Only the first gate of a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comments {
    Yes,
    No,
}

/// Adds a section with the values `given` of some keys; commented out where it is given none of those that it needs.
fn section(text: &mut String, section: &dyn Describe, given: &[(&str, String)], explain: Comments) {
    if section.title().starts_with('[') {
        text.push('\n');
        if explain == Comments::Yes {
            comment(text, section.about());
        }
        let needs = |key: &Key| matches!(key.presence, Presence::Required(_));
        let is_left_out = given.is_empty() && section.keys().iter().any(needs);
        text.extend([if is_left_out { "#" } else { "" }, section.title(), "\n"]);
    }
    for Key {
        name,
        presence,
        about,
    } in section.keys()
    {
        let value = given.iter().find(|(key, _)| *key == name);
        let (mark, value) = match (value, presence) {
            (Some((_, value)), _) => ("", value.as_str()),
            (
                None,
                Presence::Required(value)
                | Presence::Alternative(value, _)
                | Presence::Optional(value),
            ) => ("#", value),
            // Beside another one that is given, it is an example.
            (None, Presence::OneOf(value)) => ("# ", value),
            (None, Presence::Nested(_)) => continue,
        };
        if explain == Comments::Yes {
            text.push('\n');
            comment(text, about);
        }
        text.extend([mark, name, " = ", value, "\n"]);
    }
}

fn comment(text: &mut String, about: &str) {
    for line in about.lines() {
        text.extend(["# ", line, "\n"]);
    }
}

/// Returns a TOML list of strings.
fn quoted<T: ToString>(items: &[T]) -> String {
    let items = items.iter().map(|item| quoted_word(&item.to_string()));
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn quoted_word(word: &str) -> String {
    toml::Value::from(word).to_string()
}
