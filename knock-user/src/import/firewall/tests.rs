use super::*;
use crate::import::shell;

fn of(line: &str) -> Effect {
    let commands = shell::commands(line).expect("a plain command");
    effect(&commands[0].words)
}

fn opening(list: &str, families: Families) -> Effect {
    Effect::Opens(Opening {
        ports: list
            .split_whitespace()
            .map(|port| port.parse().expect("a port"))
            .collect(),
        families,
        lasts: None,
    })
}

#[test]
fn rules_that_let_the_source_in_are_ports() {
    for (line, list, families) in [
        (
            "/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
            "22/tcp",
            Families::V4,
        ),
        (
            "iptables -I INPUT 1 -w -s %IP%/32 -p udp -m udp --dport 1194 -j ACCEPT",
            "1194/udp",
            Families::V4,
        ),
        (
            "sudo iptables -I INPUT -p tcp -m multiport --dports 80,443,8000:8002 -s %IP% -m comment \
             --comment 'by knock' -j ACCEPT",
            "80/tcp 443/tcp 8000/tcp 8001/tcp 8002/tcp",
            Families::V4,
        ),
        (
            "ip6tables -A INPUT -s %IP% -p tcp --dport ssh -m conntrack --ctstate NEW -j ACCEPT",
            "22/tcp",
            Families::V6,
        ),
        // As knockd's manual has it; iptables itself refuses it.
        (
            "/sbin/iptables -A INPUT -s %IP% --dport 22 -j ACCEPT",
            "22/tcp",
            Families::V4,
        ),
        (
            "nft add rule inet filter input ip saddr %IP% tcp dport 22 accept",
            "22/tcp",
            Families::V4,
        ),
        (
            "nft 'insert rule ip filter input ip saddr %IP% tcp dport { 22, 80 } accept'",
            "22/tcp 80/tcp",
            Families::V4,
        ),
        (
            "nft insert rule inet filter input ip6 saddr %IP% udp dport 51820 ct state new counter accept",
            "51820/udp",
            Families::V6,
        ),
        (
            "nft add rule inet filter input tcp dport 22 accept",
            "22/tcp",
            Families::BOTH,
        ),
        (
            "ufw allow from %IP% to any port 22 proto tcp",
            "22/tcp",
            Families::BOTH,
        ),
        (
            "ufw insert 1 allow from %IP% to any port 22 comment 'knock'",
            "22/tcp 22/udp",
            Families::BOTH,
        ),
        (
            "ufw allow from %IP% to any port ssh",
            "22/tcp",
            Families::BOTH,
        ),
        (
            "ufw allow from %IP% to any port openvpn",
            "1194/tcp 1194/udp",
            Families::BOTH,
        ),
        ("ufw allow 443/tcp", "443/tcp", Families::BOTH),
        (
            "firewall-cmd --zone=public --add-rich-rule='rule family=\"ipv4\" source address=\"%IP%\" \
             port port=\"22\" protocol=\"tcp\" accept'",
            "22/tcp",
            Families::V4,
        ),
        (
            "firewall-cmd --add-rich-rule='rule family=ipv4 source address=%IP% service name=ssh accept'",
            "22/tcp",
            Families::V4,
        ),
        (
            "firewall-cmd --zone public --add-port=8080/tcp",
            "8080/tcp",
            Families::BOTH,
        ),
        (
            "firewall-cmd --add-service=openvpn",
            "1194/udp",
            Families::BOTH,
        ),
        (
            "/usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%",
            "443/tcp",
            Families::V4,
        ),
    ] {
        assert_eq!(of(line), opening(list, families), "{line}");
    }
}

#[test]
fn rules_that_take_back_are_known() {
    for line in [
        "/sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
        "nft delete rule inet filter input handle 7",
        "ufw delete allow from %IP% to any port 22",
        "firewall-cmd --remove-rich-rule='rule family=ipv4 source address=%IP% accept'",
        "/usr/local/sbin/knock_del -c INPUT -p tcp -d 443 -f %IP%",
    ] {
        assert_eq!(of(line), Effect::Closes, "{line}");
    }
}

#[test]
fn a_condition_is_never_dropped() {
    for (line, what) in [
        (
            "iptables -A INPUT -s %IP% -d 10.0.0.5 -p tcp --dport 22 -j ACCEPT",
            "`-d`",
        ),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -m limit --limit 3/min -j ACCEPT",
            "`-m limit`",
        ),
        (
            "iptables -A INPUT ! -s %IP% -p tcp --dport 22 -j ACCEPT",
            "`!`",
        ),
        (
            "iptables -A INPUT -i wlan0 -s %IP% -p tcp --dport 22 -j ACCEPT",
            "`-i`",
        ),
        (
            "nft add rule inet filter input iifname eth1 ip saddr %IP% tcp dport 22 accept",
            "`iifname`",
        ),
        (
            "nft add rule inet filter input ip daddr 10.0.0.5 tcp dport 22 accept",
            "`ip daddr 10.0.0.5`",
        ),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -m mark --mark 7 -j ACCEPT",
            "`-m mark`",
        ),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -m time --timestart 08:00 -j ACCEPT",
            "`-m time`",
        ),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -m set --match-set home src -j ACCEPT",
            "`-m set`",
        ),
        (
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -m state --state RELATED,ESTABLISHED -j ACCEPT",
            "`--state RELATED,ESTABLISHED`",
        ),
        (
            "nft add rule inet filter input ip saddr %IP% ct mark 7 tcp dport 22 accept",
            "`ct mark 7`",
        ),
        (
            "nft add rule inet filter input ip saddr %IP% ct state established tcp dport 22 accept",
            "`ct state established`",
        ),
        (
            "nft add rule inet filter input ip saddr %IP% ct original tcp dport 22 accept",
            "`ct original tcp`",
        ),
        (
            "nft add rule bridge filter input ip saddr %IP% tcp dport 22 accept",
            "`bridge`",
        ),
        (
            "firewall-cmd --add-rich-rule='rule family=ipv4 source address=%IP% port port=22 protocol=tcp accept \
             limit value=3/m'",
            "`limit`",
        ),
        ("firewall-cmd --policy=p --add-port=22/tcp", "`--policy`"),
        ("ufw limit from %IP% to any port 22", "`limit`"),
        ("ufw allow from %IP% to 10.0.0.5 port 22", "`to 10.0.0.5`"),
    ] {
        match of(line) {
            Effect::OnCondition(why) => assert!(why.contains(what), "{line}: {why}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn what_no_gate_stands_for_is_not_guessed() {
    for line in [
        "iptables -A INPUT -s %IP% -j ACCEPT",
        "iptables -A INPUT -s 192.0.2.1 -p tcp --dport 22 -j ACCEPT",
        "iptables -t nat -A PREROUTING -s %IP% -p tcp --dport 80 -j REDIRECT --to-port 8080",
        "iptables -A INPUT -s %IP% -p tcp --dport 1:65535 -j ACCEPT",
        "iptables -A INPUT -s %IP% -p tcp --dport 22 -j DROP",
        "iptables -A INPUT -s %IP% -p sctp --dport 22 -j ACCEPT",
        "iptables -A FORWARD -s %IP% -p tcp --dport 22 -j ACCEPT",
        "nft add rule inet filter forward ip saddr %IP% tcp dport 22 accept",
        "knock_add -i -c FORWARD -p tcp -d 443 -f %IP%",
        "ufw allow out to any port 22",
        "firewall-cmd --add-port=22/tcp --timeout=soon",
        "firewall-cmd --add-service=22",
        "nft add element inet filter knocked { %IP% timeout 30s }",
        "ipset add knocked %IP%",
        "ufw allow from %IP%",
        "ufw enable",
        "firewall-cmd --reload",
    ] {
        assert!(
            matches!(of(line), Effect::Unknown(_)),
            "{line}: {:?}",
            of(line)
        );
    }
    assert_eq!(of("/usr/bin/logger knocked %IP%"), Effect::Other);
}

#[test]
fn a_rule_that_ends_by_itself_says_when() {
    for (time, seconds) in [
        ("--timeout=10", Some(10)),
        ("--timeout 10s", Some(10)),
        ("--timeout=5m", Some(300)),
        ("--timeout=0", None),
    ] {
        match of(&format!("firewall-cmd {time} --add-port=22/tcp")) {
            Effect::Opens(opening) => assert_eq!(opening.lasts, seconds, "{time}"),
            other => panic!("{time}: {other:?}"),
        }
    }
}
