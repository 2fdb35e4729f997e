use std::collections::BTreeSet;

use super::*;

const TWO_GATES: &str = r#"
    interfaces = ["eth0"]
    allow = ["192.0.2.0/24", "2001:db8::/32"]
    addresses = ["198.51.100.1"]
    limits = { sources = 16384, grants = 64, sessions = 64 }
    [[gate]]
    name = "ssh"
    protect = ["22/tcp"]
    open_for = "30s"
    sources = ["203.0.113.0/24"]
    [[gate.knock]]
    user = "alice"
    sequence = ["7000/udp", "8000/tcp"]
    [[gate]]
    name = "mail"
    protect = ["993/tcp", "7000/tcp"]
    deny = "reject"
    grant_to = "prefix"
    connections = 3
    [[gate.knock]]
    user = "alice"
    sequence = ["8000/tcp", "9000/udp"]
"#;

fn config(text: &str) -> Config {
    Config::parse(text, "test").expect("valid").0
}

fn port(number: u16, protocol: Protocol) -> Port {
    Port { number, protocol }
}

#[test]
fn a_configuration_becomes_rows() {
    let contents = compile(&config(TWO_GATES), None).expect("few sequences");
    let [ssh, mail] = contents.gates[..] else {
        panic!("two gates");
    };
    assert_eq!(
        (ssh.open_for, ssh.restricted, ssh.reject),
        (30_000_000_000, 1, 0)
    );
    assert_eq!((mail.connections, mail.to_prefix, mail.reject), (3, 1, 1));
    assert_eq!(contents.grant_lengths, [24, 64]);
    assert_eq!(contents.allow.len(), 2);
    let [knocker] = contents.knockers[..] else {
        panic!("one network");
    };
    assert_eq!(knocker.length, 64 + 24);
    assert_eq!(
        contents.guarded_addresses,
        [address_key([198, 51, 100, 1].into())]
    );
    assert!(contents.settings.has_allow && contents.settings.rejects);
    assert!(!contents.settings.monitor);
    let sequences = &contents.automaton.sequences;
    assert_eq!((sequences[0].gate, sequences[1].gate), (0, 1));
    let applied = Applied::from_json(&contents.config).expect("as it was written");
    assert_eq!(applied.config, contents.applied.config);
    assert_eq!(applied.ids, contents.applied.ids);
}

#[test]
fn protected_and_knock_ports_are_never_open() {
    let contents = compile(&config(TWO_GATES), None).expect("few sequences");
    let all = [
        port(22, Protocol::Tcp),
        port(8000, Protocol::Tcp),
        port(80, Protocol::Tcp),
    ];
    let roles = contents.roles(&BTreeSet::from(all));
    let role = |port| roles.get(&role_index(port)).copied().map(Role::unpack);
    assert_eq!(role(all[0]), Some(Role::Protected { gate: 0 }));
    assert!(matches!(
        role(all[1]),
        Some(Role::Knock { starts: true, .. })
    ));
    assert_eq!(role(all[2]), Some(Role::Open));
    assert_eq!(role(port(9000, Protocol::Tcp)), None);
    assert!(matches!(
        role(port(9000, Protocol::Udp)),
        Some(Role::Knock { starts: false, .. })
    ));
}

#[test]
fn ports_say_whether_flows_are_cut_and_the_program_knows_the_shortest_session_idle() {
    let text = TWO_GATES
        .replace(
            "open_for = \"30s\"",
            "established = \"cut\"\nsession_idle = \"2h\"",
        )
        .replace("deny = \"reject\"", "session_idle = \"90s\"");
    let contents = compile(&config(&text), None).expect("few sequences");
    assert_eq!(contents.settings.least_idle, 90_000_000_000);
    let roles = contents.roles(&BTreeSet::new());
    let is_cut = |number| {
        let role = roles[&role_index(port(number, Protocol::Tcp))];
        PortRole::unpack(role).is_cut()
    };
    assert_eq!([22, 993, 8000].map(is_cut), [true, false, false]);
}

/// Where a configuration replaces another, all rows refer to a gate and its users by the ids that they had.
#[test]
fn rows_follow_ids_through_a_reordered_file() {
    let before = compile(&config(TWO_GATES), None).expect("few sequences");
    let gates = TWO_GATES.find("[[gate]]").expect("there are gates");
    let (head, gates) = TWO_GATES.split_at(gates);
    let mail = gates.rfind("[[gate]]").expect("there are two");
    let (ssh, mail) = gates.split_at(mail);
    let third = "\n[[gate]]\nname = \"dns\"\nprotect = [\"53/udp\"]\n";
    let reordered = config(&format!("{head}{third}{mail}{ssh}"));
    let after = compile(&reordered, Some(&before.applied.ids)).expect("few sequences");

    assert_eq!(after.gates[..2], before.gates[..]);
    assert_eq!(after.knockers, before.knockers);
    assert_eq!(after.automaton.sequences, before.automaton.sequences);
    let completed = |contents: &Contents| -> BTreeSet<u32> {
        let states = contents.automaton.states.iter();
        states.map(|state| state.completes).collect()
    };
    assert_eq!(completed(&after), completed(&before));
    let open = BTreeSet::new();
    let mut roles = after.roles(&open);
    let dns = roles.remove(&role_index(port(53, Protocol::Udp)));
    assert_eq!(dns, Some(Role::Protected { gate: 2 }.pack()));
    assert_eq!(roles, before.roles(&open));
    assert_eq!(after.counts().gates, 3);
}

#[test]
fn ids_that_nothing_has_leave_empty_rows() {
    let before = compile(&config(TWO_GATES), None).expect("few sequences");
    let gates = TWO_GATES.find("[[gate]]").expect("there are gates");
    let mail = TWO_GATES.rfind("[[gate]]").expect("there are two");
    let alone = config(&format!("{}{}", &TWO_GATES[..gates], &TWO_GATES[mail..]));
    let after = compile(&alone, Some(&before.applied.ids)).expect("few sequences");
    assert_eq!(after.gates.len(), 2);
    assert_eq!(after.gates[0], bytemuck::Zeroable::zeroed());
    assert_eq!(after.gates[1], before.gates[1]);
    assert_eq!(after.automaton.sequences[0].length, 0);
    assert_eq!(after.automaton.sequences[1], before.automaton.sequences[1]);
    assert_eq!(after.applied.gate_name(0), None);
    assert_eq!(after.applied.gate_name(1), Some("mail"));
    assert_eq!(after.applied.user_name(1), Some("alice"));
}
