//! `[fwknop]` and `[[gate.fwknop]]`.

use super::*;

/// Two clients, in a valid file.
const CLIENTS: &str = r#"interfaces = ["eth0"]
allow = ["192.0.2.0/24"]
[[gate]]
name = "ssh"
protect = ["22/tcp"]
[[gate.fwknop]]
user = "alice"
key_base64 = "c2VjcmV0LWtleS1vZi1hbi1leGFtcGxlLW9ubHktMDE="
hmac_key_base64 = "c2VjcmV0LWhtYWMtb2YtYW4tZXhhbXBsZS1vbmx5LTA="
[[gate.fwknop]]
user = "bob"
key = "sesame, a long passphrase"
hmac_key = "sesame too, and even longer"
"#;

fn finding(text: &str) -> Finding {
    let found = match Config::parse(text, "k.toml") {
        Ok((_, findings)) => findings,
        Err(invalid) => invalid.findings().to_vec(),
    };
    let [finding] = found.as_slice() else {
        panic!("one finding, not {found:?} in {text}");
    };
    finding.clone()
}

#[test]
fn keys_are_read_in_both_ways_and_have_defaults() {
    let (config, findings) = Config::parse(CLIENTS, "k.toml").expect("valid");
    assert_eq!(findings, []);
    let [alice, bob] = config.gates[0].fwknop.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(*alice.secrets.key, *b"secret-key-of-an-example-only-01");
    assert_eq!(
        *alice.secrets.hmac_key,
        *b"secret-hmac-of-an-example-only-0"
    );
    assert_eq!(*bob.secrets.key, *b"sesame, a long passphrase");
    assert_eq!(bob.hmac_digest_type, fwknop::HmacDigest::Sha256);
    assert!(!bob.require_source_address && bob.source.is_empty());
    assert_eq!(config.fwknop.ports, ["62201/udp".parse().expect("a port")]);
    assert_eq!(config.fwknop.refusals, 100_000);
    assert!(config.has_fwknop());
}

#[test]
fn each_error_and_warning_is_found_at_its_place() {
    let long = "a".repeat(33);
    let longer = "a".repeat(129);
    for (replace, with, code, line) in [
        ("user = \"bob\"", "user = \"alice\"", "duplicate-user", 11),
        (
            "key = \"sesame, a long passphrase\"\n",
            "",
            "missing-key",
            10,
        ),
        (
            "hmac_key = \"sesame too, and even longer\"\n",
            "",
            "missing-key",
            10,
        ),
        (
            "hmac_key = ",
            "key_base64 = \"c2VjcmV0\"\nhmac_key = ",
            "two-keys",
            12,
        ),
        ("sesame, a long passphrase", &long, "bad-key", 12),
        ("sesame too, and even longer", &longer, "bad-key", 13),
        (
            "c2VjcmV0LWtleS1vZi1hbi1leGFtcGxlLW9ubHktMDE=",
            "c2VjcmV0LWtleS1vZi1hbi1leGFtcGxlLW9ubHktMDE",
            "bad-key",
            8,
        ),
        (
            "\"sesame, a long passphrase\"",
            "12345678901234567890",
            "bad-key",
            12,
        ),
        (
            "user = \"bob\"",
            "user = \"bob\"\nhmac_digest_type = \"sha\"",
            "bad-choice",
            12,
        ),
        (
            "user = \"bob\"",
            "user = \"bob\"\nrequire_source_address = \"true\"",
            "wrong-type",
            12,
        ),
        (
            "user = \"bob\"",
            "user = \"bob\"\nsource = [\"ANY\"]",
            "bad-network",
            12,
        ),
        (
            "[[gate]]",
            "[fwknop]\nports = []\n[[gate]]",
            "empty-list",
            8,
        ),
        (
            "[[gate]]",
            "[fwknop]\nports = [\"62201/tcp\"]\n[[gate]]",
            "fwknop-port-conflict",
            4,
        ),
        (
            "\"22/tcp\"",
            "\"22/tcp\", \"62201/udp\"",
            "fwknop-port-conflict",
            5,
        ),
        (
            "[[gate]]",
            "[fwknop]\nrefusals = 99\n[[gate]]",
            "out-of-range",
            4,
        ),
        ("sesame, a long passphrase", "sesame", "guessable-key", 12),
        (
            "c2VjcmV0LWtleS1vZi1hbi1leGFtcGxlLW9ubHktMDE=",
            "bm90IGEga2V5LCBidXQgYW4gZXhhbXBsZSBvZiBvbmU=",
            "guessable-key",
            8,
        ),
    ] {
        let finding = finding(&CLIENTS.replacen(replace, with, 1));
        assert_eq!(
            (finding.code, finding.line),
            (code, Some(line)),
            "{with}: {finding}"
        );
    }
    let same = CLIENTS
        .replace(
            "key = \"sesame, a long passphrase\"",
            "key = \"secret-key-of-an-example-only-01\"",
        )
        .replace(
            "hmac_key = \"sesame too, and even longer\"",
            "hmac_key = \"secret-hmac-of-an-example-only-0\"",
        );
    assert_eq!(finding(&same).code, "same-keys");
}

#[test]
fn a_port_of_fwknops_is_no_knock_and_may_be_guarded_over_tcp() {
    let knock = "[[gate.knock]]\nuser = \"carol\"\nsequence = [\"62201/udp\", \"2214/tcp\", \"9120/udp\"]\n";
    let finding = finding(&format!("{CLIENTS}{knock}"));
    assert_eq!(
        (finding.code, finding.line),
        ("fwknop-port-conflict", Some(16))
    );
    let tcp = CLIENTS.replace("\"22/tcp\"", "\"22/tcp\", \"62201/tcp\"");
    assert!(Config::parse(&tcp, "k.toml").is_ok());
    // Without a client the port is like every other.
    let without = CLIENTS.split("[[gate.fwknop]]").next().expect("a part");
    assert!(Config::parse(&format!("{without}{knock}"), "k.toml").is_ok());
}

/// Parts of every secret above; and misspelt keys, wrong types, other sections and broken files.
#[test]
fn no_secret_is_shown_written_down_or_serialised() {
    const SECRETS: [&str; 4] = ["c2VjcmV0", "sesame", "secret-", "314159265"];
    let shows_none = |shown: &str| {
        for secret in SECRETS {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    };
    for (replace, with) in [
        ("hmac_key =", "hmackey ="),
        ("key_base64 =", "kye_base64 ="),
        ("key = ", "passphrase = "),
        ("\"sesame, a long passphrase\"", "314159265"),
        ("\"sesame, a long passphrase\"", "[\"sesame\"]"),
        ("\"sesame, a long passphrase\"", "{ sesame = \"sesame\" }"),
        ("\"sesame, a long passphrase\"", "\"sesame"),
        ("\"sesame, a long passphrase\"", "sesame"),
        (
            "sesame, a long passphrase",
            "sesame, but this is a passphrase that is much too long",
        ),
        (
            "key = \"sesame, a long passphrase\"",
            "key = \"sesame\"\nkey = \"sesame\"",
        ),
        (
            "[[gate.fwknop]]\nuser = \"bob\"",
            "[fwknop]\nuser = \"bob\"",
        ),
        (
            "[[gate.fwknop]]\nuser = \"bob\"",
            "[[gate]]\nuser = \"bob\"",
        ),
        ("=\"\nhmac_key_base64", "\"\nhmac_key_base64"),
        // A line of a client's file, and others that are no assignment of a key.
        ("key = \"sesame", "KEY sesame = \"sesame"),
        ("key = \"sesame", "key: \"sesame"),
        ("key = \"sesame", "key \"sesame"),
        ("key = \"sesame", "key =\n\"sesame"),
        ("key = \"sesame", "user = \"bob\" key = \"sesame"),
        (
            "key = \"sesame, a long passphrase\"",
            "key = \"\"\"\nsesame \\q = \"\"\"",
        ),
        (
            "[[gate.fwknop]]\nuser = \"bob\"",
            "fwknop = [{ user = \"bob\", key = \"sesame\" hmac_key = \"sesame\" }]",
        ),
    ] {
        let text = CLIENTS.replacen(replace, with, 1);
        assert_ne!(text, CLIENTS, "{replace}");
        let invalid = Config::parse(&text, "k.toml").expect_err(with);
        shows_none(&invalid.to_string());
        for finding in invalid.findings() {
            shows_none(&finding.coloured().to_string());
            shows_none(&serde_json::to_string(finding).expect("serialisable"));
        }
    }
    let (config, findings) = Config::parse(
        &CLIENTS.replacen("sesame, a long passphrase", "sesame", 1),
        "k.toml",
    )
    .expect("weak, but valid");
    shows_none(&findings[0].to_string());
    assert!(
        findings[0].to_string().contains("key = ********"),
        "{}",
        findings[0]
    );
    shows_none(&format!("{config:?}"));
    let json = serde_json::to_string(&config).expect("serialisable");
    shows_none(&json);
    let back: Config = serde_json::from_str(&json).expect("and back");
    assert_eq!(back, config);
    assert!(back.gates[0].fwknop[0].secrets.are_missing());
}

#[test]
fn another_key_makes_another_configuration() {
    let (before, _) = Config::parse(CLIENTS, "k.toml").expect("valid");
    for (replace, with) in [
        ("sesame, a", "sesame; a"),
        ("sesame too", "sesame two"),
        ("hmac_key_base64 = \"c2", "hmac_key_base64 = \"d2"),
    ] {
        let text = CLIENTS.replacen(replace, with, 1);
        let (after, _) = Config::parse(&text, "k.toml").expect("valid");
        assert_ne!(before, after, "{with}");
    }
    let (same, _) = Config::parse(CLIENTS, "k.toml").expect("valid");
    assert_eq!(before, same);
}
