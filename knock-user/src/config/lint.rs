//! What works but is weaker, or riskier for whoever sets it up, than it needs to be.

use std::time::Duration;

use super::{
    Mode, Port, Protocol,
    draft::{Draft, DraftGate, DraftKnock},
    duration::HumanDuration,
    finding::{Finding, Level, Source, Span},
    reader::Located,
    surroundings::{SshSession, Surroundings},
};

const LONG_WITHIN: Duration = Duration::from_mins(1);
const LONG_GRANT: Duration = Duration::from_mins(10);

/// Port numbers that tutorials and default configurations use, so that everyone tries them first.
const WELL_KNOWN: [[u16; 3]; 5] = [
    [7000, 8000, 9000],
    [1000, 2000, 3000],
    [1111, 2222, 3333],
    [2222, 3333, 4444],
    [1234, 2345, 3456],
];

/// Every warning about a draft without errors, judged in the given surroundings.
pub(super) fn lint(
    draft: &Draft,
    source: &Source<'_>,
    surroundings: &Surroundings,
) -> Vec<Finding> {
    let mut lint = Lint {
        source,
        surroundings,
        findings: Vec::new(),
    };
    if draft.allow.is_empty() {
        let message = "there is no `allow` list: a lost sequence locks everyone out; \
                       list a network that you can always come from, such as allow = [\"192.0.2.0/24\"]";
        lint.about_file("no-allow-list", message.to_owned());
    }
    for gate in &draft.gates {
        lint.gate(gate);
        for knock in &gate.knocks {
            lint.sequence(knock);
            lint.within(knock);
        }
    }
    if draft.open_ports.is_none() {
        lint.listened_on(draft);
    }
    if let Some(session) = &surroundings.ssh {
        lint.ssh_session(draft, session);
    }
    lint.findings
}

/// The warning for a file that others than its owner can read or change; `None` where they can't.
pub(super) fn file_mode(file: &str, mode: u32) -> Option<Finding> {
    let open_to = match mode & 0o066 {
        0 => return None,
        bits if bits & 0o022 == 0 => "read",
        _ => "change",
    };
    let message = format!(
        "others than the owner can {open_to} this file (mode {:04o}), and its sequences are passwords: \
         `chmod 600` it",
        mode & 0o7777
    );
    Some(Finding::about_file(
        Level::Warning,
        "open-to-others",
        file,
        message,
    ))
}

struct Lint<'l> {
    source: &'l Source<'l>,
    surroundings: &'l Surroundings,
    findings: Vec<Finding>,
}

impl Lint<'_> {
    fn warn(&mut self, code: &'static str, span: Span, message: String) {
        self.findings
            .push(self.source.finding(Level::Warning, code, span, message));
    }

    fn about_file(&mut self, code: &'static str, message: String) {
        self.findings.push(Finding::about_file(
            Level::Warning,
            code,
            self.source.name,
            message,
        ));
    }

    fn gate(&mut self, gate: &DraftGate) {
        if gate.knocks.is_empty() {
            let message = format!(
                "{} has no [[gate.knock]]: it opens to the allow list and by `knockgate allow` only",
                gate.label()
            );
            self.warn("gate-without-knocks", gate.header, message);
        }
        if gate.open_for.value > LONG_GRANT {
            let message = format!(
                "a grant of {} leaves the port open to its source for long; flows outlive the grant, \
                 so {} at most will do",
                HumanDuration(gate.open_for.value),
                HumanDuration(LONG_GRANT)
            );
            self.warn("long-grant", gate.open_for.span, message);
        }
        self.ephemeral(
            &gate.protect,
            "replies to this host's own connections would be denied",
        );
    }

    fn sequence(&mut self, knock: &DraftKnock) {
        let items = &knock.sequence.items;
        let span = knock.sequence.span;
        let numbers = items
            .iter()
            .map(|step| step.value.number)
            .collect::<Vec<_>>();
        if numbers.len() < 3 {
            let message = "two knocks are soon guessed: use three or more".to_owned();
            self.warn("short-sequence", span, message);
        } else if let Some(order) = order(&numbers) {
            let message = format!(
                "the ports of this sequence only {order}, as a port scan's do: go up and down between them"
            );
            self.warn("monotonic-sequence", span, message);
        }
        if let Some(pair) = items
            .windows(2)
            .find(|w| w[0].value.number.abs_diff(w[1].value.number) == 1)
        {
            let message = format!(
                "{} and {} are neighbours, which a port scan hits one after the other: choose ports far apart",
                pair[0].value, pair[1].value
            );
            self.warn("neighbouring-ports", pair[1].span, message);
        }
        let known = |three: &&[u16]| {
            WELL_KNOWN
                .iter()
                .any(|known| *three == known || three.iter().eq(known.iter().rev()))
        };
        if let Some([first, second, third, ..]) = numbers.windows(3).find(known) {
            let message = format!(
                "{first}, {second}, {third} is a sequence that everyone tries first: \
                 `knockgate init` makes random ones"
            );
            self.warn("well-known-sequence", span, message);
        }
        self.ephemeral(
            items,
            "this host's own traffic uses it at random, which can blur the knock",
        );
    }

    fn within(&mut self, knock: &DraftKnock) {
        let Located { value, span } = knock.within;
        if value > LONG_WITHIN {
            let message = format!(
                "{} from first to last knock gives a scanner time to hit the sequence by chance: \
                 {} at most will do",
                HumanDuration(value),
                HumanDuration(LONG_WITHIN)
            );
            self.warn("long-window", span, message);
        }
    }

    fn ephemeral(&mut self, ports: &[Located<Port>], consequence: &str) {
        let Some(range) = &self.surroundings.ephemeral_ports else {
            return;
        };
        if let Some(Located { value: port, span }) =
            ports.iter().find(|port| range.contains(&port.value.number))
        {
            let message = format!(
                "{port} lies in this host's ephemeral range {} to {}: {consequence}; choose a port outside it",
                range.start(),
                range.end()
            );
            self.warn("ephemeral-port", *span, message);
        }
    }

    fn listened_on(&mut self, draft: &Draft) {
        let mut listening = self.surroundings.listening.clone();
        for step in draft
            .gates
            .iter()
            .flat_map(|gate| &gate.knocks)
            .flat_map(|knock| &knock.sequence.items)
        {
            // Once for each port is enough, however many sequences share it.
            if listening.remove(&step.value) {
                let message = format!(
                    "something on this host listens on {}: the port stays a knock, so its everyday traffic \
                     counts as knocking; choose another one",
                    step.value
                );
                self.warn("knock-port-in-use", step.span, message);
            }
        }
    }

    fn ssh_session(&mut self, draft: &Draft, session: &SshSession) {
        let SshSession {
            client,
            server,
            port,
        } = session;
        let port = Port {
            number: *port,
            protocol: Protocol::Tcp,
        };
        let spared = draft.mode == Mode::Monitor
            || draft.allow.iter().any(|network| network.contains(client))
            || !(draft.addresses.is_empty() || draft.addresses.contains(server));
        if spared {
            return;
        }
        let guarded = draft
            .gates
            .iter()
            .flat_map(|gate| gate.protect.iter().map(move |p| (gate, p)));
        for (gate, guarded) in guarded {
            if guarded.value == port {
                let message = format!(
                    "the SSH session from {client} that you are in would be cut off: {} guards {port}; \
                     add \"{}\" to `allow`",
                    gate.label(),
                    ipnet::IpNet::from(*client)
                );
                self.warn("ssh-session", guarded.span, message);
            }
        }
    }
}

/// "rise" or "fall" where the numbers do nothing else; repeats change neither.
fn order(numbers: &[u16]) -> Option<&'static str> {
    if numbers.is_sorted() {
        Some("rise")
    } else if numbers.is_sorted_by(|a, b| a >= b) {
        Some("fall")
    } else {
        None
    }
}
