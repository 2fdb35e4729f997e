use super::*;
use ipnet::IpNet;

use crate::config::{Config, fwknop::HmacDigest};

fn imported(text: &str) -> Imported {
    let drawn = ["7431/udp", "2214/tcp", "9120/udp"];
    import(text, || {
        Ok(drawn.map(|port| port.parse().expect("a port")).to_vec())
    })
    .expect("the sequence was given")
}

const KEYS: &str = "KEY_BASE64 c2VjcmV0LWtleS1vZi1hbi1leGFtcGxlLW9ubHktMDE=\n\
    HMAC_KEY_BASE64: c2VjcmV0LWhtYWMtb2YtYW4tZXhhbXBsZS1vbmx5LTA=;\nHMAC_DIGEST_TYPE SHA3_256\n";

fn gates(imported: &Imported) -> Vec<crate::config::Gate> {
    let text = imported.configuration.as_deref().expect("a gate");
    let (config, _) = Config::parse(text, "imported").expect("it passes check");
    config.gates
}

#[test]
fn a_stanza_is_a_client_at_a_gate_for_each_port() {
    let imported = imported(&format!(
        "SOURCE: 10.1.2.3/8, 192.0.2.7, 198.51.100.9/255.255.255.0;\nOPEN_PORTS tcp/22, udp/1194\n{KEYS}\
         FW_ACCESS_TIMEOUT 60\nREQUIRE_SOURCE_ADDRESS y\n"
    ));
    let gates = gates(&imported);
    let names: Vec<_> = gates.iter().map(|gate| gate.name.as_str()).collect();
    assert_eq!(names, ["tcp-22", "udp-1194"]);
    for gate in &gates {
        assert_eq!(gate.open_for.as_secs(), 60);
        assert!(gate.knocks.is_empty() && gate.sources.is_empty());
        let [key] = gate.fwknop.as_slice() else {
            panic!("{gate:?}");
        };
        let source: Vec<_> = key.source.iter().map(IpNet::to_string).collect();
        assert_eq!(source, ["10.0.0.0/8", "192.0.2.7/32", "198.51.100.0/24"]);
        assert_eq!(*key.secrets.key, *b"secret-key-of-an-example-only-01");
        assert_eq!(key.hmac_digest_type, HmacDigest::Sha3_256);
        assert!(key.require_source_address);
    }
    assert!(!imported.report.is_weaker(), "{:?}", imported.report);
    for remark in &imported.report.remarks {
        assert!(!remark.text.contains("c2VjcmV0"), "{remark:?}");
    }
}

#[test]
fn stanzas_of_the_same_port_are_clients_of_one_gate() {
    let other = KEYS.replace("c2VjcmV0LWtleS", "b2VjcmV0LWtleS");
    let imported = imported(&format!(
        "SOURCE 10.0.0.0/8\nOPEN_PORTS tcp/22\nREQUIRE_USERNAME alice\n{KEYS}\
         SOURCE ANY\nOPEN_PORTS tcp/22\nREQUIRE_USERNAME alice\nFW_ACCESS_TIMEOUT 10\n{other}"
    ));
    let gates = gates(&imported);
    let [gate] = gates.as_slice() else {
        panic!("{gates:?}");
    };
    let clients: Vec<_> = gate
        .fwknop
        .iter()
        .map(|key| (&*key.user, key.source.len()))
        .collect();
    assert_eq!(clients, [("alice", 1), ("alice-2", 0)]);
    assert_eq!(gate.open_for.as_secs(), 10);
}

#[test]
fn without_keys_that_can_be_used_there_is_no_client() {
    let hmac = "HMAC_KEY something-that-is-long-enough\n";
    for (lines, weaker) in [
        ("KEY secret\n".to_owned(), false),
        (hmac.to_owned(), false),
        (format!("KEY secret\n{hmac}ENCRYPTION_MODE CTR\n"), false),
        (format!("KEY __CHANGEME__\n{hmac}"), false),
        (
            format!("KEY secret\n{hmac}ACCESS_EXPIRE 12/31/2030\n"),
            true,
        ),
        ("GPG_DECRYPT_ID ABCD1234\n".to_owned(), false),
        (
            format!("KEY secret\n{hmac}CMD_CYCLE_OPEN /bin/open\n"),
            true,
        ),
        (
            format!("KEY secret\n{hmac}FORCE_NAT 192.168.10.3 22\n"),
            true,
        ),
        (format!("KEY secret\n{hmac}FORWARD_ALL Y\n"), true),
    ] {
        let imported = imported(&format!("SOURCE ANY\nOPEN_PORTS tcp/22\n{lines}"));
        let text = imported.configuration.as_deref().unwrap_or_default();
        assert!(text.contains("# sequence = [\"7431/udp\""), "{text}");
        assert!(gates(&imported)[0].fwknop.is_empty(), "{lines}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(imported.report.is_weaker(), weaker, "{lines}");
        for remark in &imported.report.remarks {
            let carried = remark.fate == Fate::Carried;
            assert!(!carried || !remark.key.contains("KEY"), "{remark:?}");
        }
    }
}

/// In Latin-1: what stands for its letters is another passphrase.
#[test]
fn a_key_that_is_not_utf_8_is_not_carried_over() {
    let text =
        "SOURCE ANY\nOPEN_PORTS tcp/22\nKEY p\u{fffd}ssword\nHMAC_KEY long enough for a key\n";
    let imported = imported(text);
    assert!(gates(&imported).iter().all(|gate| gate.fwknop.is_empty()));
    let mut remarks = imported.report.remarks.iter();
    assert!(remarks.any(|remark| remark.key == "KEY" && remark.fate == Fate::Invalid));
    assert!(imported.report.is_weaker());
}

#[test]
fn what_cannot_be_a_gate_is_left_out() {
    for (text, weaker) in [
        ("SOURCE ANY\nKEY x\n", false),
        (
            "SOURCE ANY\nOPEN_PORTS tcp/22\nRESTRICT_PORTS tcp/22\n",
            false,
        ),
        ("SOURCE ANY\nOPEN_PORTS tcp/22\nRESTRICT_PORTS 22\n", true),
        ("SOURCE ::ffff:192.0.2.0/120\nOPEN_PORTS tcp/22\n", true),
        ("SOURCE 2001:db8::1\nOPEN_PORTS tcp/22\n", true),
        (
            "SOURCE ANY\nOPEN_PORTS tcp/22\nDESTINATION 10.0.0.1\n",
            true,
        ),
        ("%include /etc/fwknop/more.conf\n", true),
        ("SOURCE nonsense\nOPEN_PORTS tcp/22\n", true),
    ] {
        let imported = imported(text);
        assert!(imported.configuration.is_none(), "{text}");
        assert_eq!(imported.report.is_weaker(), weaker, "{text}");
    }
}

#[test]
fn a_restricted_port_has_no_gate() {
    let imported = imported(&format!(
        "SOURCE ANY\nOPEN_PORTS tcp/22, tcp/3306\nRESTRICT_PORTS tcp/3306\n{KEYS}"
    ));
    let names: Vec<_> = gates(&imported).into_iter().map(|gate| gate.name).collect();
    assert_eq!(names, ["tcp-22"]);
    let mut remarks = imported.report.remarks.iter();
    let open = remarks.find(|remark| remark.key == "OPEN_PORTS");
    assert!(open.is_some_and(|remark| !remark.text.contains("3306")));
}

#[test]
fn a_stanza_without_a_client_is_not_taken_for_another() {
    let imported = imported(&format!(
        "SOURCE ANY\nOPEN_PORTS tcp/22\n{KEYS}SOURCE ANY\nOPEN_PORTS tcp/22\nKEY secret\n"
    ));
    assert_eq!(gates(&imported)[0].fwknop.len(), 1);
    let remarks = imported.report.remarks.iter();
    let said: Vec<_> = remarks
        .filter(|remark| remark.key == "stanza")
        .map(|remark| remark.text.as_str())
        .collect();
    assert_eq!(
        said,
        [
            "as client \"stanza-1\" of gate \"tcp-22\"",
            "as gate \"tcp-22\", which others open, without a client of its own"
        ]
    );
}

#[test]
fn keys_and_values_are_read_as_fwknopd_reads_them() {
    // Names in small letters are none, and every word that begins so is a yes.
    let imported = imported(&format!(
        "SOURCE ANY\nOPEN_PORTS tcp/22\nfw_access_timeout 3600\nREQUIRE_SOURCE_ADDRESS Yes, always\n{KEYS}"
    ));
    let gate = &gates(&imported)[0];
    assert_eq!(gate.open_for.as_secs(), 30);
    assert!(gate.fwknop[0].require_source_address);
}
