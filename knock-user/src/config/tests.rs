//! Whole files and their results. The tables of single findings are in `errors` and `warnings`.

mod errors;
mod fleet;
mod fwknop_keys;
mod keys;
mod warnings;

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt};

use super::*;

/// A file without a finding. Rows of the tables are edits of it.
const GOOD: &str = r#"interfaces = ["eth0"]
allow = ["192.0.2.0/24"]

[[gate]]
name = "ssh"
protect = ["22/tcp"]

[[gate.knock]]
user = "alice"
sequence = ["7431/udp", "2214/tcp", "9120/udp"]
"#;

/// One edit of [`GOOD`] and the one finding that it must lead to.
struct Row {
    what: &'static str,
    /// This piece of `GOOD` ...
    replace: &'static str,
    /// ... becomes this.
    with: &'static str,
    code: &'static str,
    /// Line and column.
    at: (usize, usize),
    /// Every one of these must be in the message.
    says: &'static [&'static str],
}

impl Row {
    fn text(&self) -> String {
        assert_eq!(
            GOOD.matches(self.replace).count(),
            1,
            "{}: the edit must be unambiguous",
            self.what
        );
        GOOD.replace(self.replace, self.with)
    }

    fn assert_is(&self, findings: &[Finding]) {
        let Self {
            what,
            code,
            at,
            says,
            ..
        } = self;
        let [finding] = findings else {
            panic!("{what}: expected one finding, got {findings:#?}");
        };
        assert_eq!(finding.code, *code, "{what}: {finding}");
        assert_eq!(
            (finding.line, finding.column),
            (Some(at.0), Some(at.1)),
            "{what}: {finding}"
        );
        for part in *says {
            assert!(
                finding.message.contains(part),
                "{what}: {part:?} is missing in: {}",
                finding.message
            );
        }
    }
}

#[test]
fn everything_that_can_be_written_is_read() {
    let text = r#"
interfaces = ["eth0", "wlan0"]
attach     = "native"
order      = "last"
mode       = "monitor"
allow      = ["192.0.2.0/24", "2001:db8::/32"]
addresses  = ["192.0.2.1", "2001:db8::1"]
open_ports = ["443/tcp", "443/udp"]
[[interface]]
name = "ppp0"
[[interface]]
name = "eth1"
next = "/sys/fs/bpf/balancer/program"
[limits]
sources  = 16_384
grants   = 1
sessions = 0x100_0000
keys     = 65535
[alert]
failures = 3
within = "5m"
per = "prefix"
[metrics]
listen = "[::1]:9464"
[knock]
ports = ["41641/udp", "22/udp"]
max_age = "1h"
max_ahead = "1s"
keys = "/srv/keys"
[fwknop]
ports = ["5000/udp"]
refusals = 100
[[gate]]
name = "ssh"
protect = ["22/tcp", "2222/tcp"]
protect_at = ["10.0.0.0/24", "2001:db8:1::/48"]
open_for = "1m30s"
deny = "reject"
established = "cut"
session_idle = "2h"
connections = 3
grant_to = "prefix"
sources = ["198.51.100.0/24"]
[[gate.knock]]
user = "alice"
sequence = ["7431/udp", "2214/tcp"]
within = "500ms"
[[gate.knock]]
user = "alice"
key = "alice/laptop"
[[gate.knock]]
user = "alice"
key = "alice"
[[gate.hook]]
on = "opened"
run = ["/usr/bin/logger", "{user} at {gate}"]
[[gate.hook]]
on = "alert"
run = ["/bin/true"]
[[gate.fwknop]]
user = "bob"
source = ["198.51.100.0/25"]
key = "a passphrase, which is long"
hmac_key_base64 = "bm90IGEga2V5IGVpdGhlciwgYW5kIG5vdCB0byBiZSB1c2Vk"
hmac_digest_type = "sha3_512"
require_source_address = true
[[gate]]
name = "hand-opened_1.0"
protect = ["5432/tcp"]
"#;
    let port = |text: &str| text.parse::<Port>().expect(text);
    let net = |text: &str| text.parse::<IpNet>().expect(text);
    let expected = Config {
        interfaces: ["eth0", "wlan0", "ppp0", "eth1"].map(str::to_owned).into(),
        next: [("eth1".to_owned(), "/sys/fs/bpf/balancer/program".into())].into(),
        attach: Attach::Native,
        order: Order::Last,
        mode: Mode::Monitor,
        allow: vec![net("192.0.2.0/24"), net("2001:db8::/32")],
        addresses: Addresses::Listed(vec![
            net("192.0.2.1/32").addr(),
            net("2001:db8::1/128").addr(),
        ]),
        open_ports: OpenPorts::List(vec![port("443/tcp"), port("443/udp")]),
        limits: Limits {
            sources: 16_384,
            grants: 1,
            sessions: 16_777_216,
            keys: 65_535,
        },
        alert: Alert {
            failures: 3,
            within: Duration::from_mins(5),
            per: Per::Prefix,
        },
        metrics: Metrics {
            listen: Some("[::1]:9464".parse().expect("valid")),
        },
        knock: Authenticated {
            ports: vec![port("41641/udp"), port("22/udp")],
            max_age: Duration::from_hours(1),
            max_ahead: Duration::from_secs(1),
            keys: "/srv/keys".into(),
        },
        fleet: None,
        fwknop: fwknop::Fwknop {
            ports: vec![port("5000/udp")],
            refusals: 100,
        },
        gates: vec![
            Gate {
                name: "ssh".into(),
                protect: vec![port("22/tcp"), port("2222/tcp")],
                protect_at: vec![net("10.0.0.0/24"), net("2001:db8:1::/48")],
                open_for: Duration::from_secs(90),
                session_idle: Duration::from_hours(2),
                established: Established::Cut,
                connections: 3,
                grant_to: GrantTo::Prefix,
                deny: Deny::Reject,
                sources: vec![net("198.51.100.0/24")],
                knocks: vec![Knock {
                    user: "alice".into(),
                    sequence: vec![port("7431/udp"), port("2214/tcp")],
                    within: Duration::from_millis(500),
                }],
                keys: vec![
                    "alice/laptop".parse().expect("a name"),
                    "alice".parse().expect("a name"),
                ],
                hooks: vec![
                    Hook {
                        on: Trigger::Opened,
                        run: vec!["/usr/bin/logger".into(), "{user} at {gate}".into()],
                    },
                    Hook {
                        on: Trigger::Alert,
                        run: vec!["/bin/true".into()],
                    },
                ],
                fwknop: vec![fwknop::Key {
                    user: "bob".into(),
                    source: vec![net("198.51.100.0/25")],
                    secrets: fwknop::Secrets::default(),
                    tag: 0,
                    hmac_digest_type: fwknop::HmacDigest::Sha3_512,
                    require_source_address: true,
                }],
            },
            Gate {
                name: "hand-opened_1.0".into(),
                protect: vec![port("5432/tcp")],
                protect_at: vec![],
                open_for: Duration::from_secs(30),
                session_idle: Duration::from_hours(3),
                established: Established::default(),
                connections: 0,
                grant_to: GrantTo::Address,
                deny: Deny::Drop,
                sources: vec![],
                knocks: vec![],
                keys: vec![],
                hooks: vec![],
                fwknop: vec![],
            },
        ],
    };
    let (config, _) = Config::parse(text, "k.toml").expect("valid");
    let mut expected = expected;
    // It follows from the keys, whose own tests are in `fwknop_keys`.
    expected.gates[0].fwknop[0].tag = config.gates[0].fwknop[0].tag;
    assert_eq!(config, expected);
    let json = serde_json::to_string(&config).expect("a configuration serialises");
    assert_eq!(
        serde_json::from_str::<Config>(&json).expect("and back"),
        config
    );
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let (config, findings) = Config::parse(GOOD, "k.toml").expect("valid");
    assert_eq!(findings, []);
    assert_eq!((config.attach, config.mode), (Attach::Auto, Mode::Enforce));
    assert_eq!(config.order, Order::First);
    assert_eq!(config.open_ports, OpenPorts::Auto);
    assert_eq!(
        config.limits,
        Limits {
            sources: 262_144,
            grants: 65_536,
            sessions: 262_144,
            keys: 256
        }
    );
    assert_eq!(
        config.knock,
        Authenticated {
            ports: vec![],
            max_age: Duration::from_secs(90),
            max_ahead: Duration::from_secs(15),
            keys: "/etc/knockgate/keys".into(),
        }
    );
    assert_eq!(
        config.alert,
        Alert {
            failures: 10,
            within: Duration::from_mins(1),
            per: Per::Source
        }
    );
    let gate = &config.gates[0];
    assert_eq!(
        (gate.open_for, gate.session_idle),
        (Duration::from_secs(30), Duration::from_hours(3))
    );
    assert_eq!((gate.connections, gate.grant_to), (0, GrantTo::Address));
    assert_eq!(gate.deny, Deny::Drop);
    assert_eq!(gate.knocks[0].within, Duration::from_secs(10));

    let (config, _) =
        Config::parse(&GOOD.replace("interfaces = [\"eth0\"]\n", ""), "k.toml").expect("valid");
    assert_eq!(config.interfaces, [] as [&str; 0]);
}

#[test]
fn the_page_describes_every_code() {
    const PAGE: &str = include_str!("../../../docs/configuration.md");
    // Codes without a row in the tables.
    let others = [
        "unreadable",
        "no-gate",
        "too-many-gates",
        "too-many-knocks",
        "too-many-knock-ports",
        "no-allow-list",
        "open-to-others",
        "no-native-xdp",
        "interface-taken",
        "missing-program",
        "missing-key-file",
        "ending-key",
        "key-for-unknown-gate",
        "unusable-keys",
        "clock-not-synchronised",
        "program-open-to-others",
    ];
    let rows = errors::ROWS.iter().chain(warnings::ROWS);
    for code in rows.map(|row| row.code).chain(others) {
        let described = PAGE
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
            .any(|cell| cell.contains(&format!("`{code}`")));
        assert!(described, "no `{code}` on the page");
    }
}

#[test]
fn one_run_shows_every_error_with_its_line_and_a_caret() {
    let text = "mode = \"enforc\"\n\n[[gate]]\nprotct = [\"22/tcp\"]\tname = 1\n";
    let error = Config::parse(text, "k.toml").expect_err("not even TOML");
    assert_eq!(
        error.findings().len(),
        1,
        "a syntax error is alone: {error}"
    );
    assert_eq!(error.findings()[0].code, "syntax");

    let text = text.replace('\t', "\n");
    let error = Config::parse(&text, "k.toml").expect_err("four errors");
    assert_eq!(
        error.to_string(),
        "\
k.toml:1:8: error: `mode` must be \"enforce\" or \"monitor\", not \"enforc\"; did you mean \"enforce\"?
  |
1 | mode = \"enforc\"
  |        ^^^^^^^^

k.toml:3:1: error: [[gate]] has no `protect`: add one, such as protect = [\"22/tcp\"]
  |
3 | [[gate]]
  | ^^^^^^^^

k.toml:4:1: error: unknown key `protct` in [[gate]]; did you mean `protect`?
  |
4 | protct = [\"22/tcp\"]
  | ^^^^^^

k.toml:5:8: error: `name` must be a name such as \"ssh\", not the number 1: write \"1\"
  |
5 | name = 1
  |        ^

k.toml: 4 errors; nothing was applied"
    );
    assert_eq!(
        error.findings()[3].headline().to_string(),
        "k.toml:5:8: `name` must be a name such as \"ssh\", not the number 1: write \"1\""
    );
}

#[test]
fn what_a_file_holds_cannot_steer_the_terminal() {
    for text in [
        "a = \u{1b}[31m",
        "\"\\u001b[31m\" = 1",
        "mode = \"\\u001b[31m\"",
        "attach\t= \"x\" # \u{9b}31m",
    ] {
        let error = Config::parse(text, "k\u{1b}[0m.toml").expect_err(text);
        let shown = error.to_string();
        assert!(
            !shown.contains(|c: char| c.is_control() && c != '\n'),
            "{shown:?}"
        );
    }
}

#[test]
fn a_long_line_is_cut_around_the_caret() {
    let entries = (0..200)
        .map(|n| format!("\"192.0.{n}.0/24\""))
        .collect::<Vec<_>>()
        .join(", ");
    let text = GOOD.replace(
        "\"192.0.2.0/24\"",
        &entries.replace("192.0.150.0/24", "192.0.150.1/24"),
    );
    let error = Config::parse(&text, "k.toml").expect_err("host bits");
    let shown = error.to_string();
    let lines = shown.lines().collect::<Vec<_>>();
    assert!(lines[2].chars().count() < 130, "{shown}");
    let caret = lines[3].find('^').expect("a caret");
    assert!(
        lines[2][caret..].starts_with("\"192.0.150.1/24\""),
        "{shown}"
    );
}

#[test]
fn a_file_is_read_with_its_mode_and_its_troubles() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("k.toml");

    let error = Config::load(&path).expect_err("missing");
    assert!(error.to_string().contains("`knockgate init"), "{error}");
    assert!(!error.not_permitted());
    let error = Config::load(Path::new("/nonexistent/knockgate.toml")).expect_err("missing");
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/knockgate.toml: error: there is no"),
        "{error}"
    );

    fs::write(&path, GOOD).expect("writable");
    let without_secrets = GOOD.split("[[gate.knock]]").next().expect("a part");
    let of_code = |findings: &[Finding]| {
        let mut found = findings
            .iter()
            .filter(|finding| finding.code == "open-to-others");
        found.next().cloned()
    };
    for (mode, says, without) in [
        (0o600, None, Level::Warning),
        (0o640, Some("can read"), Level::Warning),
        (0o604, Some("can read"), Level::Warning),
        (0o620, Some("can change"), Level::Error),
        (0o602, Some("can change"), Level::Error),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own file");
        for (text, level) in [(without_secrets, without), (GOOD, Level::Error)] {
            fs::write(&path, text).expect("writable");
            let finding = match Config::load(&path) {
                Ok((_, findings)) => of_code(&findings),
                Err(invalid) => of_code(invalid.findings()),
            };
            assert_eq!(finding.is_some(), says.is_some(), "{mode:o}");
            if let (Some(finding), Some(says)) = (finding, says) {
                assert_eq!(finding.level, level, "{mode:o}");
                assert!(finding.message.contains(says), "{mode:o}: {finding}");
                let remedy = format!("`chmod 600 {}`", path.display());
                assert!(finding.message.contains(&remedy), "{mode:o}: {finding}");
            }
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    // Root may give it away; whoever gets it could change what root enforces.
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
        let invalid = Config::load(&path).expect_err("another user's");
        let finding = of_code(invalid.findings()).expect("this alone");
        assert!(
            finding.message.contains("another user (uid 65534)"),
            "{finding}"
        );
    }

    fs::write(&path, b"name = \"\xff\"").expect("writable");
    let error = Config::load(&path).expect_err("not UTF-8");
    assert!(error.to_string().contains("save it as UTF-8"), "{error}");
    let error = Config::load(folder.path()).expect_err("a directory");
    assert!(error.to_string().contains("this is a directory"), "{error}");
}

/// Many users in one gate, each with a sequence of its own.
fn crowd(users: u32) -> String {
    let mut text = GOOD.to_owned();
    for user in 0..users {
        let [a, b, c] = [user / 100, user % 100, user % 7].map(|n| 20_000 - 30 * n);
        let _ = write!(
            text,
            "[[gate.knock]]\nuser = \"u{user}\"\nsequence = [\"{a}/udp\", \"{}/tcp\", \"{c}/udp\"]\n",
            b - 10
        );
    }
    text
}

/// Returns a configuration and the CPU time that it took to read it.
fn parsed(text: &str) -> (Config, Duration) {
    let begin = thread_cpu_time();
    let (config, _) = Config::parse(text, "k.toml").expect("valid");
    (config, thread_cpu_time().saturating_sub(begin))
}

fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; each thread has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = Duration::from_secs(time.tv_sec.cast_unsigned());
    seconds + Duration::from_nanos(time.tv_nsec.cast_unsigned())
}

#[test]
fn overlaps_among_many_users_are_found_without_comparing_all_pairs() {
    let text = crowd(10_000);
    let (config, all) = parsed(&text);
    assert_eq!(config.gates[0].knocks.len(), 10_001);
    // Comparing all pairs would take a hundred times as long for ten times as many.
    let (_, tenth) = parsed(&crowd(1_000));
    assert!(all < tenth * 40, "{tenth:?} for a tenth, {all:?} for all");
    // Alice gets the sequence of user 103.
    let twice = text.replacen(
        "\"7431/udp\", \"2214/tcp\", \"9120/udp\"",
        "\"19970/udp\", \"19900/tcp\", \"19850/udp\"",
        1,
    );
    let error = Config::parse(&twice, "k.toml")
        .map(drop)
        .expect_err("u103 again");
    let codes = error
        .findings()
        .iter()
        .map(|finding| finding.code)
        .collect::<Vec<_>>();
    assert_eq!(codes, ["sequence-twice"], "{error}");
}

#[test]
fn the_largest_configurations_are_taken_and_larger_ones_refused() {
    let gates = |number: usize| {
        let gate = |n| format!("[[gate]]\nname = \"g{n}\"\nprotect = [\"{}/tcp\"]\n", n + 1);
        (0..number).map(gate).collect::<String>()
    };
    assert_eq!(
        Config::parse(&gates(4_096), "k.toml")
            .expect("valid")
            .0
            .gates
            .len(),
        4_096
    );
    let error = Config::parse(&gates(4_097), "k.toml").expect_err("one too many");
    assert_eq!(error.findings()[0].code, "too-many-gates");
    assert_eq!(error.findings()[0].line, Some(4_096 * 3 + 1));

    // 65,536 knock ports, four in each sequence.
    let mut text = GOOD
        .replace("9120/udp", "9120/tcp")
        .replace("7431/udp", "7431/tcp");
    let port = |n: u32| {
        let (number, protocol) = if n < 65_535 {
            (n + 1, "udp")
        } else {
            (n - 65_535 + 1000, "tcp")
        };
        format!("\"{number}/{protocol}\"")
    };
    let user = |first: u32, text: &mut String| {
        let sequence = [0, 1, 2, 3].map(|n| port(first + n)).join(", ");
        let _ = write!(
            text,
            "[[gate.knock]]\nuser = \"u{first}\"\nsequence = [{sequence}]\n"
        );
    };
    // Three TCP ports are there already.
    (0..16_383).for_each(|n| user(n * 4, &mut text));
    assert!(Config::parse(&text, "k.toml").is_ok());
    user(16_383 * 4, &mut text);
    let error = Config::parse(&text, "k.toml").expect_err("too many ports");
    let codes = error
        .findings()
        .iter()
        .map(|finding| finding.code)
        .collect::<Vec<_>>();
    assert_eq!(codes, ["too-many-knock-ports"], "{error}");
}

/// The same program on every interface has one slot; others have a slot each.
#[test]
fn what_follows_is_found_by_slot() {
    let section =
        |name: &str, next: &str| format!("[[interface]]\nname = {name:?}\nnext = {next:?}\n");
    // Sections come after the keys of the file.
    let with = |list: &str, sections: &[String]| {
        let text = GOOD.replace("interfaces = [\"eth0\"]", list) + &sections.concat();
        Config::parse(&text, "k.toml").expect("valid").0
    };
    let none = with("interfaces = [\"eth0\"]", &[]);
    assert_eq!(
        (none.following(), none.next_of("eth0")),
        (Following::None, None)
    );

    let same = with("", &[section("eth0", "/b/one"), section("eth1", "/b/one")]);
    assert_eq!(same.following(), Following::Same);
    assert_eq!(same.next_of("eth1"), Some((0, Path::new("/b/one"))));

    let sections = [section("eth0", "/b/one"), section("eth1", "/b/two")];
    let mut various = with("interfaces = [\"eth2\"]", &sections);
    assert_eq!(various.following(), Following::Various);
    assert_eq!(various.next_of("eth1"), Some((1, Path::new("/b/two"))));
    assert_eq!(various.next_of("eth2"), None);
    various.guard_only(&["eth1".to_owned()]);
    assert_eq!(various.following(), Following::Same);
    assert_eq!(various.next_of("eth0"), None);
}

#[test]
fn there_is_room_for_so_many_that_follow() {
    let sections = |count: u32, next: &dyn Fn(u32) -> String| {
        let sections = (0..count).map(|number| {
            format!(
                "[[interface]]\nname = \"w{number}\"\nnext = \"/b/{}\"\n",
                next(number)
            )
        });
        GOOD.replace("interfaces = [\"eth0\"]", "") + &sections.collect::<String>()
    };
    let codes = |text: &str| match Config::parse(text, "k.toml") {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid
            .findings()
            .iter()
            .map(|finding| finding.code)
            .collect(),
    };
    assert!(codes(&sections(16, &|number| number.to_string())).is_empty());
    assert_eq!(
        codes(&sections(17, &|number| number.to_string())),
        ["too-many-next"]
    );
    assert!(codes(&sections(17, &|_| "same".to_owned())).is_empty());
}
