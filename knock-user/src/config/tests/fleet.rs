//! `[fleet]`: whole sections, and one row for each kind of error.

use super::*;

/// A section that says no more than it must. It begins on line 12 of a file.
const FLEET: &str = r#"
[fleet]
name = "edge"
endpoints = ["https://etcd1:2379"]
"#;

fn with(section: &str) -> String {
    format!("{GOOD}{section}")
}

#[cfg(not(feature = "fleet"))]
#[test]
fn a_build_without_fleets_refuses_the_section() {
    let error = Config::parse(&with(FLEET), "k.toml").expect_err("built without");
    let [finding] = error.findings() else {
        panic!("{error}")
    };
    assert_eq!((finding.code, finding.line), ("built-without-fleet", Some(12)));
    assert!(finding.message.contains("the feature `fleet`"), "{finding}");
}

#[cfg(feature = "fleet")]
mod read {
    use super::*;

    #[test]
    fn a_short_section_has_the_documented_defaults() {
        let (config, findings) = Config::parse(&with(FLEET), "k.toml").expect("valid");
        assert_eq!(findings, []);
        let expected = Fleet {
            name: "edge".into(),
            endpoints: vec!["https://etcd1:2379".into()],
            host: None,
            ca: "/etc/knockgate/fleet/ca.pem".into(),
            cert: "/etc/knockgate/fleet/host.pem".into(),
            key: "/etc/knockgate/fleet/host.key".into(),
            keys: vec!["/etc/knockgate/fleet/fleet.key".into()],
            replay: Replay::Fast,
        };
        assert_eq!(config.fleet, Some(expected));
        let json = serde_json::to_string(&config).expect("serialisable");
        assert_eq!(serde_json::from_str::<Config>(&json).expect("and back"), config);
        let (alone, _) = Config::parse(GOOD, "k.toml").expect("valid");
        assert_eq!(alone.fleet, None);
        let name = config.fleet.and_then(|fleet| fleet.host_name().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/hostname").expect("readable");
        assert_eq!(name.as_deref(), Some(kernel.trim_end()));
    }

    #[test]
    fn everything_of_a_section_is_read() {
        let text = with(
            r#"
[fleet]
name = "edge-fra"
endpoints = ["https://192.0.2.7:2379", "https://[2001:db8::7]:12379", "https://etcd-3.example_net:1"]
host = "edge-01"
ca = "/c/ca.pem"
cert = "/c/host.pem"
key = "/c/host.key"
keys = ["/run/credentials/knockgate.service/new", "/c/old"]
replay = "strict"
"#,
        );
        let (config, _) = Config::parse(&text, "k.toml").expect("valid");
        let fleet = config.fleet.expect("a fleet");
        assert_eq!(fleet.host_name().expect("it is written"), "edge-01");
        let expected = Fleet {
            name: "edge-fra".into(),
            endpoints: vec![
                "https://192.0.2.7:2379".into(),
                "https://[2001:db8::7]:12379".into(),
                "https://etcd-3.example_net:1".into(),
            ],
            host: Some("edge-01".into()),
            ca: "/c/ca.pem".into(),
            cert: "/c/host.pem".into(),
            key: "/c/host.key".into(),
            keys: vec!["/run/credentials/knockgate.service/new".into(), "/c/old".into()],
            replay: Replay::Strict,
        };
        assert_eq!(fleet, expected);
    }

    /// Edits of [`FLEET`], with the line and column of the one finding.
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, &str, &str, (usize, usize), &[&str])] = &[
        ("no name", "name = \"edge\"\n", "", "missing-key", (12, 1), &["[fleet] has no `name`"]),
        ("no members", "endpoints = [\"https://etcd1:2379\"]\n", "", "missing-key", (12, 1), &["[fleet] has no `endpoints`"]),
        ("a name with a slash", "\"edge\"", "\"edge/fra\"", "bad-name", (13, 8), &["only letters A to Z"]),
        ("no endpoint", "\"https://etcd1:2379\"", "", "empty-list", (14, 13), &["`endpoints` is empty"]),
        ("one endpoint without a list", "[\"https://etcd1:2379\"]", "\"https://etcd1:2379\"", "wrong-type", (14, 13),
            &["write [\"https://etcd1:2379\"]"]),
        ("an endpoint in clear", "https://etcd1", "http://etcd1", "bad-endpoint", (14, 14), &["write \"https://etcd1:2379\""]),
        ("an endpoint without a scheme", "https://etcd1", "etcd1", "bad-endpoint", (14, 14), &["write \"https://etcd1:2379\""]),
        ("an endpoint without a port", "etcd1:2379", "etcd1", "bad-endpoint", (14, 14), &["write it like \"https://etcd1:2379\""]),
        ("an endpoint with a path", "etcd1:2379", "etcd1:2379/v3", "bad-endpoint", (14, 14), &["nothing else"]),
        ("an endpoint with a password", "etcd1:2379", "me:pw@etcd1:2379", "bad-endpoint", (14, 14), &["nothing else"]),
        ("an endpoint with port 0", "etcd1:2379", "etcd1:0", "bad-endpoint", (14, 14), &["nothing else"]),
        ("an endpoint with a sign", "etcd1:2379", "etcd1:+1", "bad-endpoint", (14, 14), &["nothing else"]),
        ("an endpoint of no address", "etcd1:2379", "[etcd1]:2379", "bad-endpoint", (14, 14), &["nothing else"]),
        ("an endpoint twice", "\"https://etcd1:2379\"", "\"https://etcd1:2379\", \"https://etcd1:2379\"", "duplicate-entry", (14, 36),
            &["listed already, on line 14"]),
        ("a host that is no name", "name = \"edge\"\n", "name = \"edge\"\nhost = \"a b\"\n", "bad-name", (14, 8), &["`host`"]),
        ("a file that depends on where one is", "name = \"edge\"\n", "name = \"edge\"\ncert = \"host.pem\"\n", "bad-file", (14, 8),
            &["absolute path of a file"]),
        ("no key", "name = \"edge\"\n", "name = \"edge\"\nkeys = []\n", "empty-list", (14, 8), &["`keys` is empty"]),
        ("a key twice", "name = \"edge\"\n", "name = \"edge\"\nkeys = [\"/k\", \"/k\"]\n", "duplicate-entry", (14, 15),
            &["/k is listed already"]),
        ("a word that is no choice", "name = \"edge\"\n", "name = \"edge\"\nreplay = \"strickt\"\n", "bad-choice", (14, 10),
            &["did you mean \"strict\"?"]),
        ("a key with a typing error", "endpoints", "endpoint", "unknown-key", (14, 1), &["in [fleet]", "did you mean `endpoints`?"]),
    ];

    #[test]
    fn every_error_is_in_its_place_and_says_what_to_write() {
        for (what, replace, by, code, at, says) in ROWS {
            assert_eq!(FLEET.matches(replace).count(), 1, "{what}");
            let text = with(&FLEET.replace(replace, by));
            let error = Config::parse(&text, "k.toml").expect_err(what);
            let finding = error.findings().iter().find(|finding| finding.code == *code);
            let finding = finding.unwrap_or_else(|| panic!("{what}: {error}"));
            assert_eq!((finding.line, finding.column), (Some(at.0), Some(at.1)), "{what}: {finding}");
            for part in *says {
                assert!(finding.message.contains(part), "{what}: {part:?} is missing in {finding}");
            }
            // A misspelt key is missing besides.
            let expected = if *code == "unknown-key" { 2 } else { 1 };
            assert_eq!(error.findings().len(), expected, "{what}: {error}");
        }
    }

    #[test]
    fn a_key_that_was_pasted_in_place_of_its_file_is_not_shown() {
        for key in ["keys = [\"00aa00aa\"]", "key = \"00aa00aa\"", "keys = \"00aa00aa\""] {
            let error = Config::parse(&with(&format!("{FLEET}{key}\n")), "k.toml").expect_err(key);
            let [finding] = error.findings() else {
                panic!("{error}")
            };
            let shown = finding.coloured().to_string();
            assert!(shown.contains("***") && !shown.contains("00aa"), "{finding}");
        }
        let paths = "keys = [\"/a\", \"/a\"]";
        let error = Config::parse(&with(&format!("{FLEET}{paths}\n")), "k.toml").expect_err(paths);
        assert!(error.to_string().contains(paths), "{error}");
    }
}
