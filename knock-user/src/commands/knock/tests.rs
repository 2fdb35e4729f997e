use std::fs::{self, Permissions};

use clap::Parser;
use clap::error::ErrorKind;

use super::*;
use crate::{
    client::{ByKey, Family, Pace, profile::Invalid},
    keys::{PersonKey, Secret},
};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: KnockArgs,
}

fn parse(line: &str) -> Result<KnockArgs, clap::Error> {
    let words = std::iter::once("knock").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.args)
}

fn ports(line: &str) -> Vec<Port> {
    line.split_whitespace()
        .map(|step| step.parse().expect("a port"))
        .collect()
}

fn plan(args: KnockArgs, profile: Option<Profile>) -> Result<Plan, Invalid> {
    Plan::new(args, profile.map(|profile| ("home".to_owned(), profile)))
}

fn profile() -> Profile {
    Profile {
        host: Some("home.example".to_owned()),
        sequence: Some(ports("1001/udp 1002/tcp")),
        delay: Some(Duration::from_millis(5)),
        retries: Some(7),
        timeout: Some(Duration::from_secs(9)),
        connect: Some(2222),
        ..Profile::default()
    }
}

/// A file of a key, and the folder in which it is.
fn key_file(host: Option<&str>) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("alice.key");
    let key = PersonKey {
        name: "alice".parse().expect("a name"),
        host: host.map(ToOwned::to_owned),
        root: Secret::new([1; 32]),
        host_id: [2; 16],
        host_secret: Secret::new([3; 16]),
        slot: 4,
        port: 41_641,
        gates: vec!["ssh".to_owned()],
    };
    fs::write(&path, key.to_toml()).expect("writable");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("own file");
    let path = path.display().to_string();
    (folder, path)
}

fn by_key(plan: &Plan) -> &ByKey {
    match &plan.by {
        By::Key(by) => by,
        By::Sequence(_) => panic!("a sequence: {plan:?}"),
    }
}

#[test]
fn a_key_says_what_a_sequence_cannot() {
    let (_folder, path) = key_file(Some("of.key.example"));
    let line = format!("--key {path}");
    let planned = plan(parse(&line).expect("valid arguments"), None).expect("a plan");
    assert_eq!(
        (planned.host.as_str(), &planned.goal),
        ("of.key.example", &Goal::Send)
    );
    let by = by_key(&planned);
    assert_eq!(
        (by.gate.as_deref(), by.seconds, by.address),
        (None, 0, AddressRule::Auto)
    );
    assert!(!by.both && !by.close && !by.exact);

    let line = format!(
        "h.example --key {path} --gate web --for 5m --address observed --both --exact --then 22/tcp"
    );
    let planned = plan(parse(&line).expect("valid arguments"), None).expect("a plan");
    assert_eq!(
        (planned.host.as_str(), &planned.goal),
        ("h.example", &Goal::Check(22))
    );
    let by = by_key(&planned);
    assert_eq!(
        (by.gate.as_deref(), by.seconds, by.address),
        (Some("web"), 300, AddressRule::Observed)
    );
    assert!(by.both && !by.close && by.exact);
}

#[test]
fn a_profile_may_have_a_key() {
    let (_folder, path) = key_file(None);
    let of_key = Profile {
        sequence: None,
        key: Some(path.into()),
        gate: Some("web".to_owned()),
        seconds: Some(60),
        address: Some(AddressRule::Observed),
        ..profile()
    };
    let args = parse("--profile home --gate ssh").expect("valid arguments");
    let planned = plan(args, Some(of_key.clone())).expect("a plan");
    let by = by_key(&planned);
    assert_eq!(
        (by.gate.as_deref(), by.seconds, by.address),
        (Some("ssh"), 60, AddressRule::Observed)
    );
    assert_eq!(planned.goal, Goal::Connect(2222));
    // To close is no reason to connect.
    let args = parse("--profile home --close").expect("valid arguments");
    assert_eq!(
        plan(args, Some(of_key.clone())).expect("a plan").goal,
        Goal::Send
    );
    // Steps on the command line replace the key.
    let args = parse("--profile home h.example 7/tcp 8/tcp").expect("valid arguments");
    let planned = plan(args, Some(of_key)).expect("a plan");
    assert_eq!(planned.by, By::Sequence(ports("7/tcp 8/tcp")));
}

#[test]
fn what_needs_a_key_is_refused_without_one() {
    let (_folder, path) = key_file(None);
    for (line, profile, says) in [
        (
            "--profile home --both".to_owned(),
            Some(profile()),
            "need a key",
        ),
        (format!("--key {path}"), None, "names no host"),
        (
            format!("h.example --key {path} --exact"),
            None,
            "--then or --connect",
        ),
        (
            "h.example --key /nonexistent".to_owned(),
            None,
            "`knockgate key new`",
        ),
    ] {
        let error = plan(parse(&line).expect("valid arguments"), profile).expect_err(&line);
        assert!(error.to_string().contains(says), "{line}: {error}");
    }
}

#[test]
fn the_command_line_alone_is_enough() {
    let args = parse("host.example 7000/udp 8443/tcp").expect("valid arguments");
    assert_eq!(
        plan(args, None),
        Ok(Plan {
            host: "host.example".to_owned(),
            family: Family::Any,
            by: By::Sequence(ports("7000/udp 8443/tcp")),
            pace: Pace::default(),
            goal: Goal::Send,
            profile: None,
        })
    );
}

#[test]
fn a_profile_alone_is_enough() {
    let args = parse("--profile home").expect("valid arguments");
    assert_eq!(
        plan(args, Some(profile())),
        Ok(Plan {
            host: "home.example".to_owned(),
            family: Family::Any,
            by: By::Sequence(ports("1001/udp 1002/tcp")),
            pace: Pace {
                delay: Duration::from_millis(5),
                retries: 7,
                timeout: Duration::from_secs(9),
            },
            goal: Goal::Connect(2222),
            profile: Some("home".to_owned()),
        })
    );
}

#[test]
fn the_command_line_wins_over_the_profile() {
    let line =
        "-6 --profile home h.example 7/tcp 8/tcp --delay 1s --retries 0 --timeout 2s --then 80/tcp";
    let args = parse(line).expect("valid arguments");
    assert_eq!(
        plan(args, Some(profile())),
        Ok(Plan {
            host: "h.example".to_owned(),
            family: Family::V6,
            by: By::Sequence(ports("7/tcp 8/tcp")),
            pace: Pace {
                delay: Duration::from_secs(1),
                retries: 0,
                timeout: Duration::from_secs(2),
            },
            goal: Goal::Check(80),
            profile: Some("home".to_owned()),
        })
    );
}

#[test]
fn several_profiles_are_knocked_in_turn() {
    let line = "--profile mail --profile home h.example --connect 22/tcp --retries 1";
    let args = parse(line).expect("valid arguments");
    assert_eq!(args.profile, ["mail", "home"]);
    let profiles = ["mail", "home"].map(|name| (name.to_owned(), profile()));
    let plans = Plan::all(args, profiles.to_vec()).expect("two plans");
    let shown: Vec<_> = plans
        .iter()
        .map(|plan| (plan.profile.as_deref(), plan.host.as_str(), &plan.goal))
        .collect();
    assert_eq!(
        shown,
        [
            (Some("mail"), "home.example", &Goal::Check(2222)),
            (Some("home"), "h.example", &Goal::Connect(22)),
        ]
    );
    assert!(plans.iter().all(|plan| plan.pace.retries == 1), "{plans:?}");
}

#[test]
fn what_neither_gives_is_named() {
    for (profile, messages) in [
        (
            Profile {
                host: None,
                ..profile()
            },
            ["[profile.home] has no `host`", "the host as an argument"],
        ),
        (
            Profile {
                sequence: None,
                ..profile()
            },
            ["[profile.home] has no `sequence`", "after the host"],
        ),
    ] {
        let args = parse("--profile home").expect("valid arguments");
        let error = plan(args, Some(profile))
            .expect_err("an incomplete plan")
            .to_string();
        for message in messages {
            assert!(error.contains(message), "{error}");
        }
    }
}

#[test]
fn wrong_usage_is_refused() {
    for (line, kind, message) in [
        ("", ErrorKind::MissingRequiredArgument, "<HOST>"),
        ("host.example", ErrorKind::MissingRequiredArgument, "<STEP>"),
        (
            "7000/udp 8443/tcp",
            ErrorKind::ValueValidation,
            "the host comes first",
        ),
        (
            "--profile home 7000/udp",
            ErrorKind::ValueValidation,
            "the host comes first",
        ),
        ("host.example 7000", ErrorKind::ValueValidation, "7000/tcp"),
        (
            "host.example 7000/udp --then 53/udp",
            ErrorKind::ValueValidation,
            "an open UDP port need not answer",
        ),
        (
            "host.example 7000/udp --connect 53/udp",
            ErrorKind::ValueValidation,
            "give a TCP port",
        ),
        (
            "host.example 7000/udp --timeout 0s",
            ErrorKind::ValueValidation,
            "leaves no time",
        ),
        (
            "host.example 7000/udp --delay 20",
            ErrorKind::ValueValidation,
            "no unit",
        ),
        (
            "host.example 7000/udp --retries -1",
            ErrorKind::UnknownArgument,
            "-1",
        ),
        (
            "host.example 7000/udp --key alice.key",
            ErrorKind::ArgumentConflict,
            "--key",
        ),
        (
            "host.example 7000/udp --gate ssh",
            ErrorKind::ArgumentConflict,
            "--gate",
        ),
        (
            "host.example --key alice.key --close --then 22/tcp",
            ErrorKind::ArgumentConflict,
            "--close",
        ),
        (
            "host.example --key alice.key --for 0s",
            ErrorKind::ValueValidation,
            "at least 1s",
        ),
        (
            "host.example --key alice.key --address nat",
            ErrorKind::ValueValidation,
            "auto, observed or an address",
        ),
        (
            "host.example 7000/udp -4 -6",
            ErrorKind::ArgumentConflict,
            "--ipv6",
        ),
        (
            "host.example 7000/udp --then 22/tcp --connect 22/tcp",
            ErrorKind::ArgumentConflict,
            "--connect",
        ),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert!(error.to_string().contains(message), "{line}: {error}");
    }
}
