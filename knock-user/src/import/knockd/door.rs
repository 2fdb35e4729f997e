//! A door: a sequence and what it opens.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    commands::{Commands, When},
    file::{Directive, Section},
};
use crate::{
    config::count,
    import::{
        Fate, Report,
        firewall::Families,
        gates::{Entry, Knock},
        name_of,
    },
    values::{Port, Protocol},
};

/// knockd's own, in seconds, where the file gives none.
const SEQUENCE_TIMEOUT: u64 = 25;
const COMMAND_TIMEOUT: u64 = 10;

/// Seconds of the longest `within` and `open_for`.
const LONGEST_WITHIN: u64 = 24 * 3600;
const LONGEST_GRANT: u64 = 366 * 24 * 3600;

/// The last directive of each kind, which is what knockd goes by.
#[derive(Default)]
struct Directives {
    sequence: Option<Directive>,
    one_time: Option<Directive>,
    sequence_timeout: Option<Directive>,
    flags: Option<Directive>,
    target: Option<Directive>,
    start: Option<Directive>,
    start_6: Option<Directive>,
    stop: Option<Directive>,
    stop_6: Option<Directive>,
    command_timeout: Option<Directive>,
}

/// Turns a door into an entry, and says of each line what became of it. `None`: nothing of it can be written.
pub(super) fn entry(section: Section, report: &mut Report) -> Option<Entry> {
    let Section {
        line,
        name,
        directives,
    } = section;
    let title = format!("[{name}]");
    let Directives {
        sequence,
        one_time,
        sequence_timeout,
        flags,
        target,
        start,
        start_6,
        stop,
        stop_6,
        command_timeout,
    } = sorted(directives, report);

    let mut commands = Commands::default();
    let stops = stop.is_some() || stop_6.is_some();
    // Also where it is empty: a knock over IPv6 then runs nothing.
    let of_start = if start_6.is_some() {
        Families::V4
    } else {
        Families::BOTH
    };
    for (when, directive) in [
        (When::Opened(of_start), start),
        (When::Opened(Families::V6), start_6),
        (When::Closed, stop),
        (When::Closed, stop_6),
    ] {
        if let Some(Directive { line, key, value }) = directive {
            commands.add((line, &key), when, &value, report);
        }
    }
    let within = sequence_timeout.map_or(Some(SEQUENCE_TIMEOUT), |directive| {
        seconds(&directive, "within", LONGEST_WITHIN, report)
    });
    let stopped_after = match command_timeout {
        Some(directive) if stops => Some(seconds(&directive, "open_for", LONGEST_GRANT, report)?),
        Some(Directive { line, key, .. }) => {
            report.add(
                line,
                &key,
                Fate::NotCarried,
                "without a stop_command it has no effect",
            );
            None
        }
        None => stops.then_some(COMMAND_TIMEOUT),
    };
    let lasts = commands.lasts.map(|lasts| lasts.min(LONGEST_GRANT));
    let open_for = stopped_after.into_iter().chain(lasts).min();
    if let Some(Directive { line, key, value }) = flags {
        report.add(line, &key, Fate::NotCarried, tcp_flags(&value));
    }
    if let Some(Directive { line, key, .. }) = target {
        let text = "knocks would count at every guarded address; write the gate by hand, and that address under \
                    `addresses` if no other is to be guarded";
        report.add(line, &key, Fate::Weaker, text);
        return None;
    }
    if let Some(Directive { line, key, .. }) = one_time {
        let text = "one-time sequences withstand replay, and sequences do not; this is for authenticated knocks";
        report.add(line, &key, Fate::Weaker, text);
        return None;
    }
    let sequence = ports(sequence, report)?;

    if commands.conditional {
        report.add(line, &title, Fate::Weaker, "see its commands");
        return None;
    }
    let (protect, sources) = match (commands.v4, commands.v6) {
        (v4, v6) if v4.is_empty() && v6.is_empty() => {
            let text = if commands.closes {
                "it only closes, and a grant ends by itself"
            } else {
                "no port to protect was found in its commands; a gate opens ports, and runs commands beside"
            };
            report.add(line, &title, Fate::NotCarried, text);
            return None;
        }
        (v4, v6) if v4 == v6 => (v4, Vec::new()),
        (v4, v6) if v6.is_empty() => (v4, vec![IpNet::from(Ipv4Net::default())]),
        (v4, v6) if v4.is_empty() => (v6, vec![IpNet::from(Ipv6Net::default())]),
        _ => {
            let text = "a knock over IPv4 and one over IPv6 open different ports, and a gate has the same for both";
            report.add(line, &title, Fate::Weaker, text);
            return None;
        }
    };
    let name = name_of(&name);
    Some(Entry {
        origin: format!("{title}, line {line}"),
        knock: Some(Knock {
            user: name.clone(),
            sequence,
            within: within?,
        }),
        name,
        protect,
        open_for,
        sources,
        hooks: commands.hooks,
        client: None,
        comment: String::new(),
    })
}

fn sorted(directives: Vec<Directive>, report: &mut Report) -> Directives {
    let mut found = Directives::default();
    for directive in directives {
        let place = match directive.key.as_str() {
            "sequence" => &mut found.sequence,
            "one_time_sequences" => &mut found.one_time,
            "seq_timeout" | "timeout" => &mut found.sequence_timeout,
            "tcpflags" => &mut found.flags,
            "target" => &mut found.target,
            "start_command" | "command" => &mut found.start,
            "start_command_6" | "command_6" => &mut found.start_6,
            "stop_command" => &mut found.stop,
            "stop_command_6" => &mut found.stop_6,
            "cmd_timeout" => &mut found.command_timeout,
            _ => {
                let text = "knockd has no such directive";
                report.add(directive.line, &directive.key, Fate::Invalid, text);
                continue;
            }
        };
        if let Some(before) = place.replace(directive) {
            let text = "knockd goes by a later line of this section";
            report.add(before.line, &before.key, Fate::NotCarried, text);
        }
    }
    found
}

/// Returns the ports, as knockd reads them: TCP where no protocol is named.
fn ports(directive: Option<Directive>, report: &mut Report) -> Option<Vec<Port>> {
    let Directive { line, key, value } = directive?;
    let mut found = Vec::new();
    for part in value.split(',') {
        let (number, protocol) = part.split_once(':').unwrap_or((part, "tcp"));
        // A further colon and what follows it are ignored by knockd.
        let protocol = protocol.split(':').next().unwrap_or(protocol).trim();
        let protocol: Result<Protocol, _> = protocol.to_ascii_lowercase().parse();
        let number = number.trim();
        match (number.parse(), protocol) {
            (Ok(number), Ok(protocol)) if number > 0 => found.push(Port { number, protocol }),
            (_, Err(why)) => {
                report.add(line, &key, Fate::Invalid, why);
                return None;
            }
            _ => {
                let nth = found.len() + 1;
                let text = format!(
                    "knock {nth} is no number from 1 to 65535; knockd reads the digits that it begins with"
                );
                report.add(line, &key, Fate::Invalid, text);
                return None;
            }
        }
    }
    match found.len() {
        2..=12 => {
            let text = format!("as a sequence of {} knocks", found.len());
            report.add(line, &key, Fate::Carried, text);
            Some(found)
        }
        length => {
            let text = format!(
                "it has {}, and a sequence has 2 to 12",
                count(length, "knock")
            );
            report.add(line, &key, Fate::NotCarried, text);
            None
        }
    }
}

/// Returns a number of seconds, at most as long as knockgate allows.
fn seconds(directive: &Directive, becomes: &str, most: u64, report: &mut Report) -> Option<u64> {
    let Directive { line, key, value } = directive;
    // knockd ignores what follows the digits.
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<u64>() {
        Ok(seconds) if seconds > 0 => {
            let seconds = seconds.min(most);
            report.add(
                *line,
                key,
                Fate::Carried,
                format!("as {becomes} = \"{seconds}s\""),
            );
            Some(seconds)
        }
        _ => {
            report.add(
                *line,
                key,
                Fate::Invalid,
                "it is no number of seconds above 0",
            );
            None
        }
    }
}

/// Returns what the change from these flags to knockgate's rule means.
fn tcp_flags(value: &str) -> String {
    let flags: Vec<String> = value
        .split(',')
        .map(|flag| flag.trim().to_ascii_lowercase())
        .collect();
    let syn = flags
        .iter()
        .all(|flag| ["syn", "!ack", "!rst", "!fin"].contains(&flag.as_str()));
    if syn && flags.iter().any(|flag| flag == "syn") {
        "a knock over TCP is a SYN (without ACK, RST or FIN) in any case".to_owned()
    } else {
        "a knock over TCP is a SYN (without ACK, RST or FIN): clients have to send these in place of other flags"
            .to_owned()
    }
}
