//! What works but is weaker, or riskier for whoever sets it up, than it needs to be.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Mode, Port, Protocol,
    draft::{Draft, DraftGate, DraftKnock},
    duration::HumanDuration,
    finding::{Finding, Level, Source, Span},
    nearest::nearest,
    reader::Located,
    surroundings::{SshSession, Surroundings},
};
use crate::sys::links::Link;

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

/// How many devices a message names.
const MOST_SHOWN: usize = 5;

/// Groups that each host is in by itself (RFC 1112, RFC 4291).
const ALL_HOSTS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_HOSTS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

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
    lint.allowed(&draft.allow);
    if let Some(devices) = &surroundings.devices {
        lint.interfaces(draft, devices);
        lint.tunnels(draft, devices);
        lint.addresses(draft, devices);
    }
    lint.source_routing(draft);
    for gate in &draft.gates {
        lint.gate(gate);
        for knock in &gate.knocks {
            lint.sequence(knock);
            lint.within(knock);
        }
    }
    lint.unreadable(draft);
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

    /// Networks that together hold every address of a family.
    fn allowed(&mut self, allow: &[Located<IpNet>]) {
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
                    "`allow` holds every IPv{family} address, and no gate ever closes on these: nothing is guarded \
                     over IPv{family}; list only networks that are yours"
                );
                self.warn("allow-everyone", network.span, message);
            }
        }
    }

    fn interfaces(&mut self, draft: &Draft, devices: &[Link]) {
        let names = || devices.iter().map(|device| device.name.as_str());
        for Located { value: name, span } in &draft.interfaces {
            if names().any(|present| present == name) {
                continue;
            }
            let near = nearest(name, names().filter(|present| *present != "lo"));
            let advice = near.map_or_else(
                || "`ip -brief link` lists those that there are".to_owned(),
                |near| format!("did you mean \"{near}\"?"),
            );
            let message = format!(
                "this host has no interface {name} at present, so nothing is guarded there; {advice}"
            );
            self.warn("absent-interface", *span, message);
        }
    }

    /// Devices that unwrap what came by a guarded interface, after the gate has seen it.
    fn tunnels(&mut self, draft: &Draft, devices: &[Link]) {
        let Some(first) = draft.interfaces.first() else {
            return;
        };
        let guarded = |name: &str| draft.interfaces.iter().any(|of| of.value == name);
        let unwraps = |device: &&Link| {
            device.is_up
                && device.kind.as_deref().is_some_and(is_plain_tunnel)
                && !guarded(&device.name)
        };
        let tunnels: Vec<&Link> = devices.iter().filter(unwraps).collect();
        let shown = tunnels.iter().take(MOST_SHOWN).map(|device| {
            let kind = device.kind.as_deref().unwrap_or_default();
            format!("{} ({kind})", device.name)
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        let more = match tunnels.len().saturating_sub(MOST_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if let Some(device) = tunnels.first() {
            let message = format!(
                "these tunnels unwrap packets behind the gate, and anyone can send such: {shown}{more}; guard them \
                 too: add \"{}\" to `interfaces`",
                device.name
            );
            self.warn("unguarded-tunnel", first.span, message);
        }
    }

    /// Addresses of guarded interfaces that nobody thinks of.
    fn addresses(&mut self, draft: &Draft, devices: &[Link]) {
        let (Some(first), Some(last)) = (draft.addresses.first(), draft.addresses.last()) else {
            return;
        };
        let guarded = |ip: &IpAddr| draft.addresses.iter().any(|address| address.value == *ip);
        let protected = || draft.gates.iter().flat_map(|gate| &gate.protect);
        // A TCP connection is to one host.
        let to_all = protected().any(|port| port.value.protocol == Protocol::Udp);
        let mut open = BTreeMap::new();
        for device in devices {
            if draft
                .interfaces
                .iter()
                .all(|name| name.value != device.name)
            {
                continue;
            }
            for address in &device.addresses {
                let is_local = match address.ip {
                    IpAddr::V4(ip) => ip.is_link_local(),
                    IpAddr::V6(ip) => ip.is_unicast_link_local(),
                };
                if is_local {
                    open.insert(address.ip, "link-local");
                } else if address.is_temporary {
                    open.insert(address.ip, "temporary");
                }
                if let Some(broadcast) = address.broadcast.filter(|_| to_all) {
                    open.insert(broadcast.into(), "broadcast");
                }
            }
        }
        if to_all {
            open.insert(Ipv4Addr::BROADCAST.into(), "broadcast");
            open.insert(ALL_HOSTS_V4.into(), "every host");
            open.insert(ALL_HOSTS_V6.into(), "every host");
        }
        let left: Vec<String> = open
            .iter()
            .filter(|(ip, _)| !guarded(ip))
            .map(|(ip, what)| format!("{ip} ({what})"))
            .collect();
        if !left.is_empty() {
            let span = Span {
                start: first.span.start,
                end: last.span.end,
            };
            let message = format!(
                "the guarded ports stay open at addresses of this host that `addresses` does not list: {}; list them \
                 too, or guard every address with `addresses = []`",
                left.join(", ")
            );
            self.warn("addresses-left-open", span, message);
        }
    }

    fn source_routing(&mut self, draft: &Draft) {
        for Located { value: name, span } in &draft.interfaces {
            let on = self.surroundings.source_routing.get(name);
            for setting in on.into_iter().flatten() {
                let message = format!(
                    "{setting} is on: a packet by {name} may get another destination, or be unwrapped, behind the \
                     gate; where nothing needs it, switch it off: `sysctl -w {setting}=0`"
                );
                self.warn("source-routing", *span, message);
            }
        }
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
        for Located { value: port, span } in &gate.protect {
            let sockets = &self.surroundings.udp_sockets;
            if port.protocol == Protocol::Udp && sockets.contains(&port.number) {
                let message = format!(
                    "a socket of this host is bound to {port}: where it sends first, as clients for time (NTP) or \
                     names (DNS) do, the replies are denied; guard the port only if it does nothing but answer"
                );
                self.warn("guarded-udp-socket", *span, message);
            }
        }
    }

    /// Interfaces on which the gate would not come up.
    fn unreadable(&mut self, draft: &Draft) {
        for Located { value: name, span } in &draft.interfaces {
            if let Some(why) = self.surroundings.unreadable.get(name) {
                self.warn("unreadable-interface", *span, why.clone());
            }
        }
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
            || draft
                .allow
                .iter()
                .any(|network| network.value.contains(client))
            || !(draft.addresses.is_empty()
                || draft
                    .addresses
                    .iter()
                    .any(|address| address.value == *server));
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
                    IpNet::from(*client)
                );
                self.warn("ssh-session", guarded.span, message);
            }
        }
    }
}

/// Kinds of device that unwrap packets that anyone can make. Packets of `WireGuard` and `IPsec` are authenticated.
const PLAIN_TUNNELS: &[&str] = &[
    "ipip",
    "ip6tnl",
    "sit",
    "gre",
    "ip6gre",
    "gretap",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "vxlan",
    "geneve",
    "bareudp",
    "gtp",
    "amt",
];

fn is_plain_tunnel(kind: &str) -> bool {
    PLAIN_TUNNELS.contains(&kind)
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
