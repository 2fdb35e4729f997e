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
    assert_eq!(
        (finding.code, finding.line),
        ("built-without-fleet", Some(12))
    );
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
        assert_eq!(
            serde_json::from_str::<Config>(&json).expect("and back"),
            config
        );
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
            keys: vec![
                "/run/credentials/knockgate.service/new".into(),
                "/c/old".into(),
            ],
            replay: Replay::Strict,
        };
        assert_eq!(fleet, expected);
    }

    /// Edits of [`FLEET`].
    #[rustfmt::skip]
    const ROWS: &[Row] = &[
        Row { what: "no name", replace: "name = \"edge\"\n", with: "",
            code: "missing-key", at: (12, 1), says: &["[fleet] has no `name`"] },
        Row { what: "no members", replace: "endpoints = [\"https://etcd1:2379\"]\n", with: "",
            code: "missing-key", at: (12, 1), says: &["[fleet] has no `endpoints`"] },
        Row { what: "a name with a slash", replace: "\"edge\"", with: "\"edge/fra\"",
            code: "bad-name", at: (13, 8), says: &["only letters A to Z"] },
        Row { what: "no endpoint", replace: "\"https://etcd1:2379\"", with: "",
            code: "empty-list", at: (14, 13), says: &["`endpoints` is empty"] },
        Row { what: "one endpoint without a list", replace: "[\"https://etcd1:2379\"]", with: "\"https://etcd1:2379\"",
            code: "wrong-type", at: (14, 13), says: &["write [\"https://etcd1:2379\"]"] },
        Row { what: "an endpoint in clear", replace: "https://etcd1", with: "http://etcd1",
            code: "bad-endpoint", at: (14, 14), says: &["write \"https://etcd1:2379\""] },
        Row { what: "an endpoint without a scheme", replace: "https://etcd1", with: "etcd1",
            code: "bad-endpoint", at: (14, 14), says: &["write \"https://etcd1:2379\""] },
        Row { what: "an endpoint without a port", replace: "etcd1:2379", with: "etcd1",
            code: "bad-endpoint", at: (14, 14), says: &["write it like \"https://etcd1:2379\""] },
        Row { what: "an endpoint with a path", replace: "etcd1:2379", with: "etcd1:2379/v3",
            code: "bad-endpoint", at: (14, 14), says: &["nothing else"] },
        Row { what: "an endpoint with a password", replace: "etcd1:2379", with: "me:pw@etcd1:2379",
            code: "bad-endpoint", at: (14, 14), says: &["nothing else"] },
        Row { what: "an endpoint with port 0", replace: "etcd1:2379", with: "etcd1:0",
            code: "bad-endpoint", at: (14, 14), says: &["nothing else"] },
        Row { what: "an endpoint with a sign", replace: "etcd1:2379", with: "etcd1:+1",
            code: "bad-endpoint", at: (14, 14), says: &["nothing else"] },
        Row { what: "an endpoint of no address", replace: "etcd1:2379", with: "[etcd1]:2379",
            code: "bad-endpoint", at: (14, 14), says: &["nothing else"] },
        Row { what: "an endpoint twice", replace: "\"https://etcd1:2379\"", with: "\"https://etcd1:2379\", \"https://etcd1:2379\"",
            code: "duplicate-entry", at: (14, 36), says: &["listed already, on line 14"] },
        Row { what: "a host that is no name", replace: "name = \"edge\"\n", with: "name = \"edge\"\nhost = \"a b\"\n",
            code: "bad-name", at: (14, 8), says: &["`host`"] },
        Row { what: "a file that depends on where one is", replace: "name = \"edge\"\n", with: "name = \"edge\"\ncert = \"host.pem\"\n",
            code: "bad-file", at: (14, 8), says: &["absolute path of a file"] },
        Row { what: "no key", replace: "name = \"edge\"\n", with: "name = \"edge\"\nkeys = []\n",
            code: "empty-list", at: (14, 8), says: &["`keys` is empty"] },
        Row { what: "a key twice", replace: "name = \"edge\"\n", with: "name = \"edge\"\nkeys = [\"/k\", \"/k\"]\n",
            code: "duplicate-entry", at: (14, 15), says: &["/k is listed already"] },
        Row { what: "a word that is no choice", replace: "name = \"edge\"\n", with: "name = \"edge\"\nreplay = \"strickt\"\n",
            code: "bad-choice", at: (14, 10), says: &["did you mean \"strict\"?"] },
        Row { what: "a key with a typing error", replace: "name = \"edge\"\n", with: "name = \"edge\"\nendpoint = []\n",
            code: "unknown-key", at: (14, 1), says: &["in [fleet]", "did you mean `endpoints`?"] },
    ];

    #[test]
    fn every_error_is_in_its_place_and_says_what_to_write() {
        for row in ROWS {
            let Row {
                what,
                replace,
                with: by,
                ..
            } = row;
            assert_eq!(FLEET.matches(replace).count(), 1, "{what}");
            let text = with(&FLEET.replace(replace, by));
            let error = Config::parse(&text, "k.toml").expect_err(what);
            row.assert_is(error.findings());
        }
    }

    #[test]
    fn a_key_that_was_pasted_in_place_of_its_file_is_not_shown() {
        for key in [
            "keys = [\"00aa00aa\"]",
            "key = \"00aa00aa\"",
            "keys = \"00aa00aa\"",
        ] {
            let error = Config::parse(&with(&format!("{FLEET}{key}\n")), "k.toml").expect_err(key);
            let [finding] = error.findings() else {
                panic!("{error}")
            };
            let shown = finding.coloured().to_string();
            assert!(
                shown.contains("***") && !shown.contains("00aa"),
                "{finding}"
            );
        }
        let paths = "keys = [\"/a\", \"/a\"]";
        let error = Config::parse(&with(&format!("{FLEET}{paths}\n")), "k.toml").expect_err(paths);
        assert!(error.to_string().contains(paths), "{error}");
    }
}
