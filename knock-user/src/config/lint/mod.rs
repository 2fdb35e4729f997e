//! Warnings: what works, but is weaker or riskier than it needs to be.

#[cfg(feature = "fleet")]
mod fleet;
mod hook;
mod keys;
mod metrics;
mod network;
mod sequence;

use std::time::Duration;

use ipnet::IpNet;

use super::{
    Established, Mode,
    draft::{Draft, DraftGate},
    finding::Level,
    fwknop,
    host::{HostFacts, SshSession},
    source::{Findings, Located},
};
use crate::values::{HumanDuration, Port, Protocol};

const LONG_GRANT: Duration = Duration::from_mins(10);

/// Warns of every weakness of a draft without errors, on this host. Errors are about the keys that it has.
pub(super) fn lint(findings: &mut Findings<'_>, draft: &Draft, host: &HostFacts) {
    if draft.allow.is_empty() {
        let message = "there is no `allow` list: a lost sequence locks everyone out; \
                       list a network from which you can always connect, such as allow = [\"192.0.2.0/24\"]";
        findings.about_file(Level::Warning, "no-allow-list", message.to_owned());
    }
    allowed(findings, &draft.allow);
    network::lint(findings, draft, host);
    metrics::lint(findings, draft, host);
    keys::lint(findings, draft, host);
    #[cfg(feature = "fleet")]
    if host.has_keys {
        fleet::lint(findings, draft);
    }
    fwknop::written::lint(findings, draft);
    for gate in &draft.gates {
        lint_gate(findings, host, gate);
        for knock in gate.sequences() {
            sequence::lint(findings, host, knock);
        }
    }
    if draft.open_ports.is_none() {
        listened_on(findings, host, draft);
    }
    if host.has_programs {
        hook::lint(findings, draft);
    }
    if let Some(session) = &host.ssh {
        ssh_session(findings, draft, session);
    }
}

/// Warns of networks that together contain every address of a family.
fn allowed(findings: &mut Findings<'_>, allow: &[Located<IpNet>]) {
    let networks: Vec<IpNet> = allow.iter().map(|network| network.value).collect();
    for everyone in IpNet::aggregate(&networks) {
        let within = |network: &&Located<IpNet>| everyone.contains(&network.value);
        let widest = allow
            .iter()
            .filter(within)
            .min_by_key(|network| network.value.prefix_len());
        let Some(network) = widest else {
            continue;
        };
        if everyone.prefix_len() == 0 {
            let family = if everyone.addr().is_ipv4() { 4 } else { 6 };
            let message = format!(
                "`allow` holds every IPv{family} address, so nothing is guarded over IPv{family}; list only networks \
                 that are yours"
            );
            findings.warning("allow-everyone", network.span, message);
        }
    }
}

fn lint_gate(findings: &mut Findings<'_>, host: &HostFacts, gate: &DraftGate) {
    if gate.open_for.value > LONG_GRANT {
        let message = format!(
            "a grant of {} leaves the port open to its source for a long time; flows outlive the grant, \
             so {} at most is enough",
            HumanDuration(gate.open_for.value),
            HumanDuration(LONG_GRANT)
        );
        findings.warning("long-grant", gate.open_for.span, message);
    }
    ephemeral(
        findings,
        host,
        &gate.protect,
        "replies to this host's own connections would be denied",
    );
    for Located { value: port, span } in &gate.protect {
        let sockets = &host.udp_sockets;
        if port.protocol == Protocol::Udp && sockets.contains(&port.number) {
            let message = format!(
                "a socket of this host is bound to {port}: where it sends first, as NTP and DNS clients do, the \
                 replies are denied; guard the port only if it does nothing but answer"
            );
            findings.warning("guarded-udp-socket", *span, message);
        }
    }
}

/// Warns of a port that the kernel may assign to an outgoing connection of this host.
fn ephemeral(
    findings: &mut Findings<'_>,
    host: &HostFacts,
    ports: &[Located<Port>],
    consequence: &str,
) {
    let Some(range) = &host.ephemeral_ports else {
        return;
    };
    if let Some(Located { value: port, span }) =
        ports.iter().find(|port| range.contains(&port.value.number))
    {
        let message = format!(
            "{port} is in this host's ephemeral range {} to {}: {consequence}; choose a port outside it",
            range.start(),
            range.end()
        );
        findings.warning("ephemeral-port", *span, message);
    }
}

/// Warns of knock ports on which something listens.
fn listened_on(findings: &mut Findings<'_>, host: &HostFacts, draft: &Draft) {
    let mut listening = host.listening.clone();
    for step in draft
        .gates
        .iter()
        .flat_map(|gate| &gate.knocks)
        .flat_map(|knock| &knock.sequence.items)
    {
        // One warning for each port, however many sequences share it.
        if listening.remove(&step.value) {
            let message = format!(
                "something on this host listens on {}: the port stays a knock, so its ordinary traffic \
                 counts as knocking; choose another one",
                step.value
            );
            findings.warning("knock-port-in-use", step.span, message);
        }
    }
}

/// Warns where `up` would cut off the SSH session in which the command runs.
fn ssh_session(findings: &mut Findings<'_>, draft: &Draft, session: &SshSession) {
    let SshSession {
        client,
        client_port: _,
        server,
        port,
    } = session;
    let port = Port {
        number: *port,
        protocol: Protocol::Tcp,
    };
    let spared = draft.rest.mode == Mode::Monitor
        || draft
            .allow
            .iter()
            .any(|network| network.value.contains(client));
    if spared {
        return;
    }
    // Elsewhere `up` makes a session of the connection, or refuses.
    let cutting = |gate: &&DraftGate| gate.rest.established == Established::Cut;
    let guarding = draft.gates.iter().filter(cutting);
    let guarding = guarding.filter(|gate| gate.guards_own(*server, &draft.addresses));
    let guarded = guarding.flat_map(|gate| gate.protect.iter().map(move |port| (gate, port)));
    for (gate, guarded) in guarded {
        if guarded.value == port {
            let message = format!(
                "the SSH session from {client} that you are in would be cut off: {} guards {port}; \
                 add \"{}\" to `allow`",
                gate.label(),
                IpNet::from(*client)
            );
            findings.warning("ssh-session", guarded.span, message);
        }
    }
}
