//! Errors about several values: they contradict each other, or are too many together.

use std::collections::{HashMap, HashSet};

use knock_common::next;

use super::{
    Attach,
    draft::{Draft, DraftGate, DraftKnock},
    fwknop,
    source::{Findings, Located, Span},
};
use crate::values::Port;

const MOST_GATES: usize = 4_096;
const MOST_KNOCKS: usize = 1_000_000;
const MOST_KNOCK_PORTS: usize = 65_535;

/// Reports every contradiction in the draft, and what exceeds a limit in total.
pub(super) fn contradictions(findings: &mut Findings<'_>, draft: &Draft) {
    interfaces(findings, draft);
    tcx(findings, draft);
    names(findings, draft);
    keys(findings, draft);
    let guarded = guarded_ports(findings, draft);
    guarded_knocks(findings, draft, &guarded);
    open_ports(findings, draft, &guarded);
    overlapping_sequences(findings, draft);
    fwknop::written::contradictions(findings, draft);
    totals(findings, draft);
}

/// Reports interfaces that are named twice, and more programs that follow than there is room for.
fn interfaces(findings: &mut Findings<'_>, draft: &Draft) {
    for section in &draft.sections {
        let Located { value: name, span } = &section.name;
        let mut before = draft.interfaces.iter();
        let before = before.find(|other| other.value == *name && other.span < *span);
        if let Some(before) = before {
            let line = findings.source.line_of(before.span);
            let message = format!(
                "{name} is named already, on line {line}: name an interface in `interfaces` or in one [[interface]]"
            );
            findings.error("duplicate-interface", *span, message);
        }
    }
    let following: Vec<_> = draft
        .sections
        .iter()
        .filter_map(|of| of.next.as_ref())
        .collect();
    let pins: HashSet<_> = following.iter().map(|next| &next.value).collect();
    let is_same = pins.len() < 2 && following.len() == draft.interfaces.len();
    if let Some(next) = following.get(next::MOST).filter(|_| !is_same) {
        let message = format!(
            "programs follow on {} interfaces, and not the same on all: at most {} are possible then",
            following.len(),
            next::MOST
        );
        findings.error("too-many-next", next.span, message);
    }
}

/// Reports what an entry at TCX cannot do.
fn tcx(findings: &mut Findings<'_>, draft: &Draft) {
    if draft.rest.attach != Attach::Tcx {
        return;
    }
    for section in &draft.sections {
        if let Some(next) = &section.next {
            let message = format!(
                "{} has a `next`, which is an XDP program's, and with `attach = \"tcx\"` no XDP program calls it: leave it out, \
                 as packets that pass go on to the next program at TCX by themselves",
                section.name.value
            );
            findings.error("tcx-next", next.span, message);
        }
    }
}

fn names(findings: &mut Findings<'_>, draft: &Draft) {
    let was_read = |name: &&Located<String>| !name.value.is_empty();
    let gates = draft.gates.iter().map(|gate| &gate.name);
    findings.duplicates(gates.filter(was_read), "duplicate-gate", |name, line| {
        format!("there is a gate {name:?} already, on line {line}: give this one another name")
    });
    for gate in &draft.gates {
        // A user may have several keys.
        let users = gate.sequences().map(|knock| &knock.user);
        findings.duplicates(users.filter(was_read), "duplicate-user", |user, line| {
            format!(
                "{} has a user {user:?} already, on line {line}: give this one another name",
                gate.label()
            )
        });
    }
}

/// Reports keys that are nobody's or twice at one gate, and keys and ports that are of no use.
fn keys(findings: &mut Findings<'_>, draft: &Draft) {
    for gate in &draft.gates {
        findings.duplicates(gate.keys(), "duplicate-key", |key, line| {
            format!(
                "key {key} opens {} already, on line {line}: leave one out",
                gate.label()
            )
        });
        for knock in &gate.knocks {
            let Some(Located { value: key, span }) = &knock.key else {
                continue;
            };
            let user = &knock.user.value;
            if !user.is_empty() && *user != key.user {
                let message = format!(
                    "key {key} is that of {}, and this knock that of {user}: write one user in both",
                    key.user
                );
                findings.error("key-of-another-user", *span, message);
            }
            if draft.knock.ports.is_empty() && !findings.has("not-udp") {
                let message = "there is no port for authenticated knocks, so no key opens anything: add `ports` in \
                               [knock], such as ports = [\"41641/udp\"]";
                findings.error("no-knock-port", *span, message.to_owned());
            }
        }
    }
    let knocked = draft
        .gates
        .iter()
        .flat_map(|gate| &gate.knocks)
        .flat_map(|knock| &knock.sequence.items)
        .map(|step| (step.value, step.span))
        .collect::<HashMap<_, _>>();
    for Located { value: port, span } in &draft.knock.ports {
        if let Some(at) = knocked.get(port) {
            let line = findings.source.line_of(*at);
            let message = format!(
                "{port} cannot take authenticated knocks: it is a knock of a sequence, on line {line}; choose another port"
            );
            findings.error("knock-port-in-sequence", *span, message);
        }
    }
}

/// Every protected port, with its gate and place.
type Guarded<'d> = HashMap<Port, (&'d DraftGate, Span)>;

fn guarded_ports<'d>(findings: &mut Findings<'_>, draft: &'d Draft) -> Guarded<'d> {
    let mut guarded = Guarded::new();
    for gate in &draft.gates {
        for Located { value: port, span } in &gate.protect {
            match guarded.get(port) {
                // A port twice in one gate was reported when the list was read.
                Some((first, _)) if std::ptr::eq(*first, gate) => {}
                Some((first, at)) => {
                    let line = findings.source.line_of(*at);
                    let message = format!(
                        "{port} is guarded by {} already, on line {line}: a port belongs to one gate",
                        first.label()
                    );
                    findings.error("port-in-two-gates", *span, message);
                }
                None => {
                    guarded.insert(*port, (gate, *span));
                }
            }
        }
    }
    guarded
}

fn guarded_knocks(findings: &mut Findings<'_>, draft: &Draft, guarded: &Guarded<'_>) {
    for knock in draft.gates.iter().flat_map(|gate| &gate.knocks) {
        for Located { value: port, span } in &knock.sequence.items {
            if let Some((gate, at)) = guarded.get(port) {
                let line = findings.source.line_of(*at);
                let message = format!(
                    "{port} cannot be knocked on: {} guards it, on line {line}; choose another port",
                    gate.label()
                );
                findings.error("knock-on-protected-port", *span, message);
            }
        }
    }
}

fn open_ports(findings: &mut Findings<'_>, draft: &Draft, guarded: &Guarded<'_>) {
    let Some(open) = &draft.open_ports else {
        return;
    };
    let knocked = draft
        .gates
        .iter()
        .flat_map(|gate| &gate.knocks)
        .flat_map(|knock| &knock.sequence.items)
        .map(|step| (step.value, step.span))
        .collect::<HashMap<_, _>>();
    for Located { value: port, span } in open {
        let (why, at) = if let Some((gate, at)) = guarded.get(port) {
            (format!("{} guards it", gate.label()), at)
        } else if let Some(at) = knocked.get(port) {
            ("it is a knock of a sequence".to_owned(), at)
        } else {
            continue;
        };
        let line = findings.source.line_of(*at);
        let message =
            format!("{port} cannot be an open port: {why}, on line {line}; leave it out of one");
        findings.error("open-port-conflict", *span, message);
    }
}

/// Reports each sequence that equals another one or ends with it: the last knock would open both.
///
/// Reversed and sorted, a sequence directly follows those that it ends with, so one pass with a stack finds all
/// of them. Comparing all pairs would take too long for many users.
fn overlapping_sequences(findings: &mut Findings<'_>, draft: &Draft) {
    struct Entry<'d> {
        backwards: Vec<Port>,
        place: Span,
        gate: &'d DraftGate,
        knock: &'d DraftKnock,
    }
    let mut entries = Vec::new();
    for gate in &draft.gates {
        for knock in gate.knocks.iter().filter(|knock| knock.sequence.complete()) {
            let backwards = knock
                .sequence
                .items
                .iter()
                .rev()
                .map(|step| step.value)
                .collect();
            entries.push(Entry {
                backwards,
                place: knock.sequence.span,
                gate,
                knock,
            });
        }
    }
    entries.retain(|entry| !entry.backwards.is_empty());
    entries.sort_by(|a, b| (&a.backwards, a.place).cmp(&(&b.backwards, b.place)));
    let mut endings: Vec<&Entry<'_>> = Vec::new();
    for entry in &entries {
        while endings
            .last()
            .is_some_and(|end| !entry.backwards.starts_with(&end.backwards))
        {
            endings.pop();
        }
        if let Some(end) = endings.last() {
            let line = findings.source.line_of(end.place);
            let other = format!(
                "the sequence of {} in {} on line {line}",
                end.knock.label(),
                end.gate.label()
            );
            let (code, message) = if end.backwards.len() == entry.backwards.len() {
                (
                    "sequence-twice",
                    format!("this is {other}: each needs its own; change a knock"),
                )
            } else {
                let message = format!(
                    "this sequence ends with {other}, so it would open both: change one of its last {} knocks",
                    end.backwards.len()
                );
                ("sequence-overlap", message)
            };
            findings.error(code, entry.place, message);
        }
        endings.push(entry);
    }
}

fn totals(findings: &mut Findings<'_>, draft: &Draft) {
    if let Some(gate) = draft.gates.get(MOST_GATES) {
        let message = format!(
            "there are {} gates: at most {MOST_GATES} are possible",
            draft.gates.len()
        );
        findings.error("too-many-gates", gate.header, message);
    }
    let mut steps = 0;
    let mut ports = HashSet::new();
    let sequences = draft
        .gates
        .iter()
        .flat_map(|gate| &gate.knocks)
        .map(|knock| &knock.sequence);
    let (mut too_many, mut too_varied) = (None, None);
    for sequence in sequences {
        steps += sequence.written;
        ports.extend(sequence.items.iter().map(|step| step.value));
        if steps > MOST_KNOCKS {
            too_many.get_or_insert(sequence.span);
        }
        if ports.len() > MOST_KNOCK_PORTS {
            too_varied.get_or_insert(sequence.span);
        }
    }
    if let Some(span) = too_many {
        let message = format!(
            "all sequences together have {steps} knocks: at most {MOST_KNOCKS} are possible; \
             this sequence is the first beyond"
        );
        findings.error("too-many-knocks", span, message);
    }
    if let Some(span) = too_varied {
        let message = format!(
            "all sequences together knock on {} different ports: at most {MOST_KNOCK_PORTS} are possible; \
             this sequence is the first beyond",
            ports.len()
        );
        findings.error("too-many-knock-ports", span, message);
    }
}
