use super::*;
use crate::config::Config;

/// What is said of a file, without the numbers of lines.
fn said(text: &str) -> Vec<(String, Fate)> {
    let remarks = import(text).report.remarks;
    remarks
        .into_iter()
        .map(|remark| (remark.key, remark.fate))
        .collect()
}

fn written(text: &str) -> Config {
    let configuration = import(text).configuration.expect("a gate");
    Config::parse(&configuration, "imported")
        .expect("it passes check")
        .0
}

const RULE: &str = "command = /sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n";

#[test]
fn keys_take_any_case_and_a_comment_behind_a_value_belongs_to_it() {
    let config = written(&format!(
        "[Options]\nSEQUENCE = 7000 , 8000:UDP,9000:tcp\r\n  {RULE}"
    ));
    let sequence: Vec<_> = config.gates[0].knocks[0]
        .sequence
        .iter()
        .map(Port::to_string)
        .collect();
    assert_eq!(sequence, ["7000/tcp", "8000/udp", "9000/tcp"]);
    assert_eq!(
        config.gates[0].name, "Options",
        "only [options] in small letters is special"
    );
    let said = said(&format!("[a]\nsequence = 7000,8000 # mine\n{RULE}"));
    assert!(
        said.contains(&("sequence".to_owned(), Fate::Invalid)),
        "{said:?}"
    );
}

#[test]
fn defaults_are_knockds() {
    let config = written(&format!(
        "[a]\nsequence = 7000,8000\n{RULE}stop_command = /sbin/iptables -D INPUT x\n"
    ));
    assert_eq!(config.interfaces, ["eth0"]);
    assert_eq!(config.gates[0].knocks[0].within.as_secs(), 25);
    assert_eq!(config.gates[0].open_for.as_secs(), 10);
}

#[test]
fn the_last_of_two_lines_counts() {
    let config = written(&format!(
        "[a]\nsequence = 1,2\nsequence = 7000,8000\n{RULE}"
    ));
    assert_eq!(config.gates[0].knocks[0].sequence[0].number, 7000);
}

#[test]
fn doors_to_the_same_ports_are_users_of_one_gate() {
    let config = written(&format!(
        "[a]\nsequence = 7000,8000\n{RULE}[b]\nsequence = 7001,8001\n{RULE}"
    ));
    assert_eq!(config.gates.len(), 1);
    let users: Vec<_> = config.gates[0]
        .knocks
        .iter()
        .map(|knock| knock.user.as_str())
        .collect();
    assert_eq!(users, ["a", "b"]);
}

#[test]
fn a_sequence_of_two_doors_opens_the_ports_of_both() {
    let other = RULE.replace("22", "443");
    let config = written(&format!(
        "[a]\nsequence = 7000,8000\n{RULE}[b]\nsequence = 7000,8000\n{other}"
    ));
    let protect: Vec<_> = config.gates[0]
        .protect
        .iter()
        .map(Port::to_string)
        .collect();
    assert_eq!(protect, ["22/tcp", "443/tcp"]);
}

#[test]
fn what_would_be_weaker_is_left_out() {
    for door in [
        format!("one_time_sequences = /etc/knockd/list\n{RULE}"),
        "sequence = 7000,8000\ncommand = iptables -A INPUT -d 10.0.0.1 -s %IP% -p tcp --dport 22 -j ACCEPT".into(),
    ] {
        let imported = import(&format!("[a]\n{door}"));
        assert!(imported.configuration.is_none(), "{door}");
        assert!(imported.report.is_weaker(), "{door}");
    }
    // The second would open for the first one's user what only its own may open.
    let wide = RULE.replace("22", "22:23");
    let imported = import(&format!(
        "[a]\nsequence = 7000,8000\n{RULE}[b]\nsequence = 7001,8001\n{wide}"
    ));
    assert!(imported.report.is_weaker());
    assert_eq!(
        imported
            .configuration
            .expect("the first")
            .matches("[[gate]]")
            .count(),
        1
    );
}

#[test]
fn an_empty_command_for_ipv6_keeps_ipv6_out() {
    let config = written(&format!(
        "[a]\nsequence = 7000,8000\n{RULE}start_command_6 =\n"
    ));
    assert_eq!(
        config.gates[0].sources,
        ["0.0.0.0/0".parse().expect("a network")]
    );
}

#[test]
fn a_secret_is_never_in_the_report() {
    let imported = import(&format!(
        "stray 31337\n[a]\nsequence = 31337,41337,x31337\n{RULE}"
    ));
    assert!(
        !format!("{:?}", imported.report).contains("31337"),
        "{:?}",
        imported.report
    );
}

use crate::values::Port;
