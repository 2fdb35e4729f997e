//! Counts the instructions that the program takes for a packet, which do not depend on the load of the machine. None
//! may grow far beyond its figure in `docs/development/instructions.md`.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, net::IpAddr, path::Path};

use knock_common::reject::{ReplySettings, SIGNATURE_LENGTH, labels};
use knock_user::config::Config;
use knockgate_tests::{
    fixtures::{self, Fixture},
    lab::Family,
    system::{Counted, SystemUnderTest as _},
};
use netlab::packet::{Packet, SYN, Tag};

const PAGE: &str = "../docs/development/instructions.md";

/// The variable by which `cargo xtask instructions --update` has this suite rewrite the page.
const UPDATE: &str = "KNOCKGATE_UPDATE_INSTRUCTIONS";

/// A gate that rejects.
const REJECTING: &str = r#"
    interfaces = ["none"]
    open_ports = []
    limits = { sources = 16384, grants = 16, sessions = 64 }
    [[gate]]
    name = "ssh"
    protect = ["22/tcp", "22/udp"]
    session_idle = "30s"
    deny = "reject"
"#;

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Its host replies to one source with six ICMP errors at once, and with hardly any later.
const SETTINGS: ReplySettings = ReplySettings {
    interval4: 9_000_000_000,
    interval6: 9_000_000_000,
    per_second: 1000,
    burst: 50,
    tick: 4_000_000,
    secret: 7,
    ttl: 64,
    labels: labels::AUTO | labels::STATELESS,
    limited: 3,
    known: 1,
    strict: 1,
    least_options: SIGNATURE_LENGTH,
    zero: [0; 2],
};

/// By verdict and knock outcome: the most instructions for IPv4 and for IPv6. `None`: no fixture of that family has
/// it.
type Figures = BTreeMap<String, [Option<u64>; 2]>;

/// Also checks every fixture on the interpreted program.
#[test]
fn no_verdict_takes_far_more_instructions_than_stored() {
    let Some(figures) = measured() else {
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).expect("the page is there");
    let (before, rows) = page.split_once("| verdict").expect("a table ends the page");
    println!("\n{}", table(&figures));
    if env::var_os(UPDATE).is_some() {
        fs::write(&path, format!("{before}{}", table(&figures))).expect("the page can be written");
        return;
    }
    let stored = stored(rows);
    let names = |figures: &Figures| figures.keys().cloned().collect::<Vec<_>>();
    let how = "`cargo xtask instructions --update` rewrites docs/development/instructions.md";
    assert_eq!(names(&figures), names(&stored), "{how}");
    for (what, now) in &figures {
        for (now, then) in now.iter().zip(stored[what]) {
            let (now, then) = (now.unwrap_or(0), then.unwrap_or(0));
            assert!(
                now * 4 <= then * 5,
                "{what}: {now} instructions, more than a quarter above the {then} written down. Where that is \
                 worth its cost, {how}"
            );
        }
    }
}

/// Each packet is asked whether it is for that port, and pays for nothing else.
#[test]
fn a_port_for_authenticated_knocks_costs_other_packets_next_to_nothing() {
    const MOST: u64 = 12;
    const PORT: &str = "\n[knock]\nports = [\"41641/udp\"]\n";
    let is_other = |row: &Fixture| !row.config.contains("[knock]");
    let with = |more: &str| {
        let loaded = loaded(is_other, &|row, family| row.config_with(more, family))?;
        Some(figures(&loaded))
    };
    let (Some(without), Some(with)) = (with(""), with(PORT)) else {
        return;
    };
    assert_eq!(
        without.keys().collect::<Vec<_>>(),
        with.keys().collect::<Vec<_>>()
    );
    for (what, figures) in &with {
        for (with, without) in figures.iter().zip(without[what]) {
            let (with, without) = (with.unwrap_or(0), without.unwrap_or(0));
            assert!(
                with <= without + MOST,
                "{what}: {with} instructions, and {without} without the port"
            );
        }
    }
}

/// Programs that have judged rows, by their configuration and family.
type Loaded<'r> = BTreeMap<(&'r str, usize), Counted>;

/// Runs rows. Those with the same configuration share a program, since loading takes longest. Returns `None` if no program can
/// be loaded.
fn loaded<'r>(
    wanted: impl Fn(&Fixture) -> bool,
    config: &dyn Fn(&Fixture, Family) -> Config,
) -> Option<Loaded<'r>> {
    let mut loaded = Loaded::new();
    for row in fixtures::all().filter(|row| wanted(row)) {
        for &family in row.families {
            let key = (row.config, usize::from(family == Family::V6));
            let mut counted = match loaded.remove(&key) {
                Some(counted) => counted,
                None => Counted::load(&config(row, family))?,
            };
            row.run(family, &mut counted);
            loaded.insert(key, counted);
        }
    }
    Some(loaded)
}

/// Returns the figures; `None` if no program can be loaded.
fn measured() -> Option<Figures> {
    let mut loaded = loaded(|_| true, &Fixture::config)?;
    let (config, _) = Config::parse(REJECTING, "reject").expect("a valid configuration");
    for family in [Family::V4, Family::V6] {
        let mut counted = Counted::load(&config)?;
        reject(family, &mut counted);
        loaded.insert((REJECTING, usize::from(family == Family::V6)), counted);
    }
    Some(figures(&loaded))
}

fn figures(loaded: &Loaded<'_>) -> Figures {
    let mut figures = Figures::new();
    for ((_, family), counted) in loaded {
        for (what, &instructions) in counted.longest() {
            let most = &mut figures.entry(what.clone()).or_default()[*family];
            *most = (*most).max(Some(instructions));
        }
    }
    figures
}

/// Has the program judge packets to a gate that rejects.
fn reject(family: Family, counted: &mut Counted) {
    let (source, host) = match family {
        Family::V4 => ("192.0.2.7", "192.0.2.1"),
        Family::V6 => ("2001:db8::7", "2001:db8::1"),
    };
    let [source, host]: [IpAddr; 2] = [source, host].map(|ip| ip.parse().expect("well-formed"));
    let (from, to) = ((source, 4000), (host, 22));
    let program = counted.program();
    program.lives_at(host);
    program.listens_at([0, 0], HOST);
    program.listens_at([5, 7], HOST);
    program.answers_by(SETTINGS);

    // The longest packets of Ethernet, since the checksum covers the whole packet.
    let header = if source.is_ipv4() { 20 } else { 40 };
    let options = [1; 40];
    let full = |transport: usize| vec![0x5a; 1500 - header - transport];
    let segment = Packet::tcp(from, to, SYN)
        .with_payload(&full(60))
        .with_tcp_options(&options);
    let datagram = Packet::udp(from, to, &full(8));
    for packet in [segment, datagram.clone()] {
        let tagged = packet.clone().tagged(Tag::service(5)).tagged(Tag::vlan(7));
        for packet in [packet, tagged] {
            let frame = packet.frame(CLIENT, HOST);
            assert!(!counted.judge(&frame));
            let answer = counted.answer().map(unidentified);
            let program = counted.program();
            assert!(!program.judge(&frame));
            let kernels = program.answer().map(unidentified);
            assert!(answer.is_some(), "{packet:?} is answered");
            assert_eq!(answer, kernels, "to {packet:?}, here and in the kernel");
        }
    }
    // Limited like the host's own errors.
    let answered = |counted: &mut Counted| {
        counted.judge(&datagram.frame(CLIENT, HOST));
        counted.answer().is_some()
    };
    let more = (0..8).take_while(|_| answered(counted)).count();
    assert_eq!(more, 2, "of six to one source, four are gone");
}

/// Clears the random fields of a reply: the identification of an IPv4 packet, and the checksum over it.
fn unidentified(answer: &[u8]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    let network = if answer[12..14] == [0x88, 0xa8] {
        22
    } else {
        14
    };
    if answer[network] == 0x45 {
        answer[network + 4..network + 6].fill(0);
        answer[network + 10..network + 12].fill(0);
    }
    answer
}

/// Returns the table in Markdown.
fn table(figures: &Figures) -> String {
    let mut table =
        String::from("| verdict, and outcome as a knock | IPv4 | IPv6 |\n|---|---:|---:|\n");
    let cell = |figure: Option<u64>| figure.map_or("–".to_owned(), |figure| figure.to_string());
    for (what, [v4, v6]) in figures {
        // Writing to a string does not fail.
        let _ = writeln!(table, "| {what} | {} | {} |", cell(*v4), cell(*v6));
    }
    table
}

/// Reads a table that [`table`] has written.
fn stored(rows: &str) -> Figures {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, v4, v6] = cells[..] else {
            return None;
        };
        Some((what.to_owned(), [v4.parse().ok(), v6.parse().ok()]))
    };
    rows.lines().skip(2).filter_map(row).collect()
}
