use super::*;

fn ports(steps: &[&str]) -> Vec<Port> {
    steps
        .iter()
        .map(|step| step.parse().expect("a port"))
        .collect()
}

#[test]
fn the_example_is_a_profile() {
    let profile = Profile::parse(EXAMPLE, "client.toml", "home").expect("a valid example");
    assert_eq!(
        profile,
        Profile {
            host: Some("host.example".to_owned()),
            sequence: Some(ports(&["7000/udp", "8443/tcp", "9301/udp"])),
            delay: Some(Duration::from_millis(20)),
            retries: Some(3),
            timeout: Some(Duration::from_secs(1)),
            connect: Some(22),
            ..Profile::default()
        }
    );
    let profile = Profile::parse(EXAMPLE, "client.toml", "work").expect("a valid example");
    assert_eq!(
        profile,
        Profile {
            host: Some("host.example".to_owned()),
            key: Some("work.key".into()),
            gate: Some("ssh".to_owned()),
            ..Profile::default()
        }
    );
}

#[test]
fn everything_may_be_left_to_the_command_line() {
    let profile =
        Profile::parse("[profile.bare]\n", "client.toml", "bare").expect("a valid profile");
    assert_eq!(profile, Profile::default());
}

#[test]
fn each_error_says_what_where_and_what_instead() {
    for (what, text, messages) in [
        (
            "an unknown key",
            "[profile.home]\nsequense = []\n",
            &["client.toml:2:1: ", "`sequense`", "`sequence`"][..],
        ),
        (
            "an unknown table",
            "[profiles.home]\n",
            &["client.toml:1:2: ", "`profiles`", "`profile`"],
        ),
        ("no TOML", "[profile.home\n", &["client.toml:1:14: "]),
        (
            "no such protocol",
            "[profile.home]\nsequence = [\"7000/udp\", \"8443/tpc\"]\n",
            &["client.toml:2:12: ", "8443/tpc", "tcp"],
        ),
        (
            "no knock",
            "[profile.home]\nsequence = []\n",
            &["client.toml:2:12: ", "the sequence is empty"],
        ),
        (
            "a number for a duration",
            "[profile.home]\ndelay = 20\n",
            &["client.toml:2:9: ", "\"20ms\""],
        ),
        (
            "no unit",
            "[profile.home]\ndelay = \"20\"\n",
            &["client.toml:2:9: ", "20"],
        ),
        (
            "no time at all",
            "[profile.home]\ntimeout = \"0s\"\n",
            &["client.toml:2:11: ", "leaves no time"],
        ),
        (
            "a negative count",
            "[profile.home]\nretries = -1\n",
            &["client.toml:2:11: ", "-1"],
        ),
        (
            "a UDP port to check",
            "[profile.home]\nthen = \"53/udp\"\n",
            &["client.toml:2:8: ", "UDP", "22/tcp"],
        ),
        (
            "a UDP port to connect to",
            "[profile.home]\nconnect = \"53/udp\"\n",
            &["client.toml:2:11: ", "UDP"],
        ),
        (
            "no host",
            "[profile.home]\nhost = \"\"\n",
            &["client.toml:2:8: ", "the host is empty"],
        ),
        (
            "both outcomes",
            "[profile.home]\nthen = \"22/tcp\"\nconnect = \"22/tcp\"\n",
            &["client.toml: ", "[profile.home]", "leave `then` out"],
        ),
        (
            "two ways",
            "[profile.home]\nsequence = [\"7/udp\"]\nkey = \"a.key\"\n",
            &["client.toml: ", "both `sequence` and `key`"],
        ),
        (
            "what a sequence cannot say",
            "[profile.home]\ngate = \"ssh\"\n",
            &["client.toml: ", "need a `key`"],
        ),
        (
            "no whole seconds",
            "[profile.home]\nfor = \"5ms\"\n",
            &["client.toml:2:7: ", "whole seconds"],
        ),
        (
            "no address",
            "[profile.home]\naddress = \"nat\"\n",
            &["client.toml:2:11: ", "auto, observed"],
        ),
        (
            "a misspelt name",
            "[profile.hone]\n[profile.vpn]\n",
            &["did you mean \"hone\"?", "\"vpn\""],
        ),
        (
            "another name",
            "[profile.vpn]\n",
            &["client.toml has no profile \"home\"; it has \"vpn\""],
        ),
        (
            "no profile",
            "",
            &["client.toml has no profile at all", EXAMPLE],
        ),
    ] {
        let error = Profile::parse(text, "client.toml", "home")
            .expect_err(what)
            .to_string();
        for message in messages {
            assert!(
                error.contains(message),
                "{what}: expected {message:?} in\n{error}"
            );
        }
    }
}

/// In a log it would open the gate to whoever reads it.
#[test]
fn a_sequence_is_not_repeated_whatever_its_name() {
    for name in [
        "Sequence",
        "sequense",
        "steps",
        "\"sequence\"",
        "connect.sequence",
    ] {
        for text in [
            format!("[profile.home]\n{name} = [\"7000/udp\", \"8443/tcp\"]\n"),
            format!("[profile]\nhome = {{ {name} = [\"7000/udp\", \"8443/tcp\"] }}\n"),
            // Line breaks that are missing.
            format!("[profile.home] {name} = [\"7000/udp\", \"8443/tcp\"]\n"),
            format!("[profile.home] {name} [\"7000/udp\", \"8443/tcp\"]\n"),
            format!("[profile.home]\nhost = \"h\" {name} = [\"7000/udp\", \"8443/tcp\"]\n"),
            format!("[profile.home]\nkey = \"h\" # {name} 7000/udp, 8443/tcp\nx = 1 2\n"),
            format!("[profile.home]\n{name} = [7000, 8443]\n"),
        ] {
            let refused = Profile::parse(&text, "client.toml", "home");
            let message = refused.err().map(|error| error.to_string());
            assert!(
                message.is_none_or(|message| !message.contains("8443")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_file_that_others_can_read_is_warned_of() {
    let path = Path::new("/home/alice/client.toml");
    for mode in [0o600, 0o400, 0o100_700] {
        assert_eq!(exposed(path, mode), None, "{mode:o}");
    }
    for mode in [0o644, 0o640] {
        let warning = exposed(path, mode).expect("a warning");
        assert!(warning.contains("can read /home"), "{warning}");
        assert!(
            warning.contains("`chmod 600 /home/alice/client.toml`"),
            "{warning}"
        );
    }
}

#[test]
fn a_file_that_others_can_change_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("client.toml");
    fs::write(
        &path,
        "[profile.home]\nsequence = [\"7000/udp\", \"8443/tcp\"]\n",
    )
    .expect("a file");
    for (mode, refused) in [(0o600, false), (0o644, false), (0o620, true), (0o602, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        match Profile::load_from(&path, "home") {
            Ok(_) => assert!(!refused, "{mode:o}"),
            Err(error) => {
                assert!(refused, "{mode:o}: {error}");
                assert!(error.to_string().contains("can change"), "{error}");
            }
        }
    }
}

#[test]
fn a_missing_file_is_shown_by_example() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("client.toml");
    let error = Profile::load_from(&path, "home")
        .expect_err("no file")
        .to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(error.contains(EXAMPLE), "{error}");

    fs::write(&path, EXAMPLE).expect("a file");
    Profile::load_from(&path, "home").expect("the example in a file");
}
