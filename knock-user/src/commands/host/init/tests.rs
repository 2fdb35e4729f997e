use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::config::{Finding, HostFacts, Presence, SECTIONS};

fn gates(texts: &[&str]) -> Vec<GateArg> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

fn draw() -> Draw {
    Draw::new(Some(32_768..=60_999), &BTreeSet::new())
}

#[test]
fn a_thousand_files_parse_and_lack_an_allow_list_alone() {
    let host = HostFacts {
        ephemeral_ports: Some(32_768..=60_999),
        ..HostFacts::default()
    };
    let interfaces = ["eth0".to_owned(), "wlan0".to_owned()];
    let args = gates(&["ssh=22/tcp", "web=443/tcp", "web=443/udp", "vpn=1194/udp"]);
    let fresh = draw();
    let mut sequences = BTreeSet::new();
    for _ in 0..1_000 {
        let text = starter(&interfaces, &args, "alice", &mut fresh.clone()).expect("a full pool");
        let (config, findings) = Config::parse_on(&text, "new.toml", &host)
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        let codes = findings
            .iter()
            .map(|finding: &Finding| finding.code)
            .collect::<Vec<_>>();
        assert_eq!(codes, ["no-allow-list"], "{text}");
        assert_eq!(config.interfaces, interfaces);
        let protect = config
            .gates
            .iter()
            .map(|gate| (gate.name.as_str(), spaced(&gate.protect)));
        assert_eq!(
            protect.collect::<Vec<_>>(),
            [
                ("ssh", "22/tcp".to_owned()),
                ("web", "443/tcp 443/udp".to_owned()),
                ("vpn", "1194/udp".to_owned())
            ]
        );
        sequences.extend(
            config
                .gates
                .into_iter()
                .flat_map(|gate| gate.knocks)
                .map(|knock| knock.sequence),
        );
    }
    assert_eq!(sequences.len(), 3_000, "the same sequence was drawn twice");
}

#[test]
fn every_optional_key_is_there_with_its_default() {
    let args = gates(&["ssh=22/tcp"]);
    let text = starter(&["eth0".to_owned()], &args, "alice", &mut draw()).expect("drawn");
    for section in SECTIONS {
        for key in section.keys() {
            let Presence::Optional(default) = key.presence else {
                continue;
            };
            let line = format!("\n#{} = {default}\n", key.name);
            let given = format!("\n{} = ", key.name);
            let is_there = text.contains(&line) || text.contains(&given);
            assert!(
                is_there,
                "no `{}` of {} in {text}",
                key.name,
                section.title()
            );
        }
    }
    // A comment begins with "# ", a key that is commented out with "#" and a letter.
    let all = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => line,
    });
    let all = all.collect::<Vec<_>>().join("\n");
    assert_ne!(all, text);
    let (mut shown, _) = Config::parse(&all, "all.toml").expect("valid");
    let (written, _) = Config::parse(&text, "new.toml").expect("valid");
    // A gate needs no hook, so the one that is shown is an example.
    assert_eq!(shown.gates[0].hooks.len(), 1);
    shown.gates[0].hooks.clear();
    // So are a client of fwknop and its keys.
    assert_eq!(shown.gates[0].fwknop.len(), 1);
    shown.gates[0].fwknop.clear();
    // So is a fleet.
    assert!(shown.fleet.take().is_some());
    // And an interface that needs more than its name.
    assert_eq!(shown.interfaces.pop().as_deref(), Some("eth1"));
    assert_eq!(shown, written);
}

#[test]
fn the_file_is_private_and_its_directory_too_and_it_is_never_overwritten() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("new/deeper/knockgate.toml");
    let args = Args {
        interfaces: vec!["eth0".to_owned()],
        gates: gates(&["ssh=22/tcp"]),
    };
    init(&args, &path).expect("a new file");
    let mode = |path: &Path| path.metadata().expect("it was made").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("a parent")), 0o700);

    let before = fs::read(&path).expect("readable");
    let error = init(&args, &path).expect_err("the file exists");
    assert!(
        error
            .to_string()
            .contains("exists and is never overwritten"),
        "{error}"
    );
    let error = new_file::create(&path, "other").expect_err("the file exists");
    assert!(
        error
            .to_string()
            .contains("exists and is never overwritten"),
        "{error}"
    );
    assert_eq!(fs::read(&path).expect("readable"), before);
}

#[test]
fn the_next_steps_are_commands_with_the_very_sequence() {
    let text = starter(
        &["eth0".to_owned()],
        &gates(&["ssh=22/tcp", "vpn=1194/udp"]),
        "alice",
        &mut draw(),
    )
    .expect("drawn");
    let (config, _) = Config::parse(&text, "new.toml").expect("valid");
    let [ssh, vpn] = [0, 1].map(|n| spaced(&config.gates[n].knocks[0].sequence));

    let shown = next_steps(&config, Path::new(DEFAULT_PATH));
    for line in [
        "knockgate check ".to_owned(),
        "knockgate up ".to_owned(),
        format!("knockgate knock HOST {ssh} --then 22/tcp\n"),
        format!("knockgate knock HOST {vpn}\n"),
    ] {
        assert!(shown.contains(&line), "{line:?} is missing:\n{shown}");
    }
    let elsewhere = next_steps(&config, Path::new("/tmp/it's here.toml"));
    assert!(
        elsewhere.contains(r"knockgate --config '/tmp/it'\''s here.toml' up "),
        "{elsewhere}"
    );
}

#[test]
fn gates_are_refused_with_what_to_write() {
    for (text, says) in [
        ("ssh", "such as ssh=22/tcp"),
        ("ssh=22", "write 22/tcp or 22/udp"),
        ("=22/tcp", "1 to 64 characters"),
        ("my gate=22/tcp", "letters A to Z"),
    ] {
        let error = text.parse::<GateArg>().expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
    let twice = starter(
        &["eth0".to_owned()],
        &gates(&["a=22/tcp", "b=22/tcp"]),
        "alice",
        &mut draw(),
    )
    .expect("drawn");
    let error = Config::parse(&twice, "the new file").expect_err("one port in two gates");
    assert_eq!(error.findings()[0].code, "port-in-two-gates");
}
