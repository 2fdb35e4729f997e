//! fwknop's `access.conf`, by the rules of version 2.6.
//!
//! A stanza admits who sends one packet that is made with its keys. It becomes a client of fwknop at one gate for each of
//! its ports, so that a packet opens the ports that it asks for and no others. Where its keys cannot be used here, the
//! gates are there without a client, opened by `allow` alone: a sequence is in clear and can be sent again by whoever
//! has seen it, so none is put in a key's place.

mod file;
mod keys;
mod stanza;
#[cfg(test)]
mod tests;

use self::{file::read, stanza::parts};
use super::{
    Fate, Imported, Report,
    gates::{Added, Entry, Gates, Refusal},
};
use crate::values::Port;

const INTERFACE: &str = "eth0";

/// Turns the text of an `access.conf` into a configuration. `draw` makes the sequence that each gate has as a comment.
///
/// # Errors
/// Where `draw` fails.
pub fn import(
    text: &str,
    mut draw: impl FnMut() -> anyhow::Result<Vec<Port>>,
) -> anyhow::Result<Imported> {
    let mut report = Report::default();
    let stanzas = read(text, &mut report);
    let mut gates = Gates::default();
    gates.interfaces.push(INTERFACE.to_owned());
    let default = "as fwknopd's default, eth0; PCAP_INTF in fwknopd.conf may name another";
    report.add(0, "interface", Fate::Carried, default);
    let port = "as [fwknop] ports, the client's default, 62201/udp; PCAP_FILTER and UDPSERV_PORT in fwknopd.conf may name another";
    report.add(0, "port", Fate::Carried, port);
    for (nth, stanza) in (1..).zip(stanzas) {
        let line = stanza.line;
        let mut of_stanza = Report::default();
        let mut written = false;
        if let Some(parts) = parts(nth, stanza, &mut of_stanza) {
            for port in &parts.ports {
                written |= write(
                    parts.entry(*port),
                    line,
                    &draw()?,
                    &mut gates,
                    &mut of_stanza,
                );
            }
        }
        report.add_section(of_stanza, line, "stanza", written);
    }
    let configuration = (!gates.is_empty()).then(|| gates.text());
    Ok(Imported {
        configuration,
        report: report.in_order(),
    })
}

/// Adds one port of a stanza to the gates, and returns whether it could be. Where no client opens it, with a sequence as a
/// comment.
fn write(
    mut entry: Entry,
    line: usize,
    sequence: &[Port],
    gates: &mut Gates,
    report: &mut Report,
) -> bool {
    if entry.client.is_none() {
        let sequence: Vec<_> = sequence.iter().map(|port| format!("\"{port}\"")).collect();
        entry.comment = format!(
            "Opened by `knockgate allow SOURCE --gate {}` alone. A sequence is weaker than the key that it would\n\
             stand for: who has seen it can send it again. To accept that:\n\
             [[gate.knock]]\n\
             user     = \"{}\"\n\
             sequence = [{}]",
            entry.name,
            entry.name,
            sequence.join(", ")
        );
    }
    let name = entry.name.clone();
    match gates.add(entry) {
        Ok(added) => {
            let Added { gate, user, joined } = added;
            let text = match (user.is_empty(), joined) {
                (false, _) => format!("as client {user:?} of gate {gate:?}"),
                (true, false) => format!("as gate {gate:?}, without a client"),
                (true, true) => {
                    format!("as gate {gate:?}, which others open, without a client of its own")
                }
            };
            report.add(line, "stanza", Fate::Carried, text);
            return true;
        }
        Err(Refusal::Weaker(why)) => {
            report.add(
                line,
                "stanza",
                Fate::Weaker,
                format!("gate {name:?}: {why}"),
            );
        }
        Err(Refusal::Impossible(why)) => {
            report.add(
                line,
                "stanza",
                Fate::NotCarried,
                format!("gate {name:?}: {why}"),
            );
        }
    }
    false
}
