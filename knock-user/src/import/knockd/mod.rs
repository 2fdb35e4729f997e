//! knockd's configuration, by the rules of version 0.8.

mod commands;
mod door;
mod file;

use super::{
    Fate, Imported, Report,
    gates::{Added, Gates, Refusal},
};
use crate::config::parse_interface;

/// knockd's own, where its file names none.
const INTERFACE: &str = "eth0";

/// Turns the text of a `knockd.conf` into a configuration.
pub fn import(text: &str) -> Imported {
    let mut report = Report::default();
    let sections = file::read(text, &mut report);
    let mut gates = Gates::default();
    let (options, doors): (Vec<_>, Vec<_>) = sections
        .into_iter()
        .partition(|section| section.name == "options");
    for directive in options.iter().flat_map(|section| &section.directives) {
        option(directive, &mut gates, &mut report);
    }
    if gates.interfaces.is_empty() {
        gates.interfaces.push(INTERFACE.to_owned());
        report.add(
            0,
            "interface",
            Fate::Carried,
            "as knockd's default, eth0; Debian's /etc/default/knockd may name another with -i",
        );
    }
    let mut written = Vec::new();
    for door in doors {
        let (line, title) = (door.line, format!("[{}]", door.name));
        let mut of_door = Report::default();
        let gate = write(door, &title, &mut gates, &mut of_door);
        report.add_section(of_door, line, &title, gate.is_some());
        written.extend(gate.map(|gate| (line, title, gate)));
    }
    // Another door of the same sequence may have let in the others.
    for (line, title, gate) in written {
        if let [network] = gates.sources(&gate) {
            let text = format!("as sources = [\"{network}\"]: its commands let in no others");
            report.add(line, &title, Fate::Carried, text);
        }
    }
    let configuration = (!gates.is_empty()).then(|| gates.text());
    Imported {
        configuration,
        report: report.in_order(),
    }
}

/// Adds a door to the gates, and returns the name of its gate if it could be.
fn write(
    door: file::Section,
    title: &str,
    gates: &mut Gates,
    report: &mut Report,
) -> Option<String> {
    let line = door.line;
    let entry = door::entry(door, report)?;
    let stays_open = entry.open_for.is_none();
    match gates.add(entry) {
        Ok(Added { gate, user, joined }) => {
            let with = if joined {
                ", which other doors open, too"
            } else {
                ""
            };
            let text = format!("as user {user:?} of gate {gate:?}{with}");
            report.add(line, title, Fate::Carried, text);
            if stays_open {
                let text = "knockd leaves the port open; a grant ends after open_for (30s), and connections that \
                            began under it go on";
                report.add(line, title, Fate::NotCarried, text);
            }
            return Some(gate);
        }
        Err(Refusal::Weaker(why)) => report.add(line, title, Fate::Weaker, why),
        Err(Refusal::Impossible(why)) => report.add(line, title, Fate::NotCarried, why),
    }
    None
}

fn option(directive: &file::Directive, gates: &mut Gates, report: &mut Report) {
    let file::Directive { line, key, value } = directive;
    let (fate, text) = match key.as_str() {
        "interface" => match parse_interface(value) {
            Ok(name) => {
                let text = format!("as interfaces = [{name:?}]");
                // knockd takes the first.
                if gates.interfaces.is_empty() {
                    gates.interfaces.push(name);
                    (Fate::Carried, text)
                } else {
                    (Fate::NotCarried, "knockd uses the first one".to_owned())
                }
            }
            Err(why) => (Fate::Invalid, why),
        },
        "usesyslog" | "logfile" => (
            Fate::NotCarried,
            "the service logs to standard error, which systemd keeps in its journal".to_owned(),
        ),
        "pidfile" => (Fate::NotCarried, "systemd knows the process".to_owned()),
        _ => (Fate::Invalid, "knockd has no such option".to_owned()),
    };
    report.add(*line, key, fate, text);
}

#[cfg(test)]
mod tests;
