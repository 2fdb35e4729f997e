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
        format!("sequence = 7000,8000\ntarget = 192.0.2.1\n{RULE}"),
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
fn doors_of_one_sequence_for_each_family_are_one_gate() {
    let only_6 = "sequence = 7000,8000\nstart_command_6 = ip6tables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n";
    let text = format!("[a]\nsequence = 7000,8000\n{RULE}[b]\n{only_6}");
    let config = written(&text);
    assert_eq!(config.gates.len(), 1);
    assert_eq!(config.gates[0].sources, []);
    let report = import(&text).report;
    let mut remarks = report.remarks.iter();
    assert!(
        !remarks.any(|remark| remark.text.contains("sources")),
        "{report:?}"
    );
}

#[test]
fn who_could_open_is_who_can_open() {
    let only_6 = "sequence = 7000,8000\nstart_command_6 = ip6tables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n";
    let ufw = "sequence = 7000,8000\ncommand = ufw allow from %IP% to any port 22 proto tcp\n";
    for (door, sources) in [
        (format!("sequence = 7000,8000\n{RULE}"), "0.0.0.0/0"),
        (only_6.to_owned(), "::/0"),
        (format!("{only_6}start_command =\n"), "::/0"),
        (format!("{only_6}{RULE}"), ""),
        (ufw.to_owned(), ""),
        (ufw.replace("command", "start_command_6"), "::/0"),
        (format!("{ufw}start_command_6 =\n"), "0.0.0.0/0"),
    ] {
        let config = written(&format!("[a]\n{door}"));
        let found: Vec<_> = config.gates[0]
            .sources
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.join(" "), sources, "{door}");
    }
    let other = only_6.replace("22", "23");
    let imported = import(&format!("[a]\n{other}{RULE}"));
    assert!(imported.configuration.is_none() && imported.report.is_weaker());
}

#[test]
fn a_rule_that_is_taken_back_sooner_ends_sooner() {
    let rule = RULE.trim_end();
    let timed = "command = firewall-cmd --add-rich-rule='rule family=ipv4 source address=%IP% port port=22 protocol=tcp accept'";
    for (door, open_for) in [
        (format!("{timed} --timeout=10"), 10),
        (
            format!("{timed} --timeout=5m\nstop_command = /bin/true\ncmd_timeout = 20"),
            20,
        ),
        (
            format!("{rule}; sleep 10; iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT"),
            10,
        ),
        (
            format!(
                "{rule} && /bin/sleep 1m && iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT"
            ),
            60,
        ),
    ] {
        let text = format!("[a]\nsequence = 7000,8000\n{door}\n");
        assert_eq!(
            written(&text).gates[0].open_for.as_secs(),
            open_for,
            "{door}"
        );
        let report = import(&text).report;
        let stays = |remark: &crate::import::Remark| remark.text.contains("leaves the port open");
        assert!(!report.remarks.iter().any(stays), "{report:?}");
    }
}

#[test]
fn a_command_that_may_not_have_run_opens_nothing() {
    let rule = RULE.trim_end().trim_start_matches("command = ");
    for line in [
        format!("/usr/local/bin/may-enter %IP% && {rule}"),
        format!("[ -e /run/open ] && {rule}"),
        format!("{rule}; /usr/local/bin/wait; iptables -D INPUT -s %IP% -j ACCEPT"),
    ] {
        let imported = import(&format!("[a]\nsequence = 7000,8000\ncommand = {line}\n"));
        assert!(imported.configuration.is_none(), "{line}");
        assert!(imported.report.is_weaker(), "{line}");
    }
    // What opens only when the time is up was no door.
    let imported = import(&format!(
        "[a]\nsequence = 7000,8000\ncommand = iptables -D INPUT -s %IP% -j DROP\nstop_command = {rule}\n"
    ));
    assert!(imported.configuration.is_none(), "{imported:?}");
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
