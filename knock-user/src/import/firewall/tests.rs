use super::*;
use crate::import::shell;

fn of(line: &str) -> Effect {
    let commands = shell::commands(line).expect("a plain command");
    effect(&commands[0])
}

fn ports(list: &str) -> Effect {
    Effect::Opens(
        list.split_whitespace()
            .map(|port| port.parse().expect("a port"))
            .collect(),
    )
}

#[test]
fn rules_that_let_the_source_in_are_ports() {
    for (line, list) in [
        (
            "/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
            "22/tcp",
        ),
        (
            "iptables -I INPUT 1 -w -s %IP%/32 -p udp -m udp --dport 1194 -j ACCEPT",
            "1194/udp",
        ),
        (
            "sudo iptables -I INPUT -p tcp -m multiport --dports 80,443,8000:8002 -s %IP% -m comment \
             --comment 'by knock' -j ACCEPT",
            "80/tcp 443/tcp 8000/tcp 8001/tcp 8002/tcp",
        ),
        (
            "ip6tables -A INPUT -s %IP% -p tcp --dport ssh -m conntrack --ctstate NEW -j ACCEPT",
            "22/tcp",
        ),
        // As knockd's manual has it; iptables itself refuses it.
        (
            "/sbin/iptables -A INPUT -s %IP% --dport 22 -j ACCEPT",
            "22/tcp",
        ),
        (
            "nft add rule inet filter input ip saddr %IP% tcp dport 22 accept",
            "22/tcp",
        ),
        (
            "nft 'insert rule ip filter input ip saddr %IP% tcp dport { 22, 80 } accept'",
            "22/tcp 80/tcp",
        ),
        (
            "nft insert rule filter input ip6 saddr %IP% udp dport 51820 counter accept",
            "51820/udp",
        ),
        ("ufw allow from %IP% to any port 22 proto tcp", "22/tcp"),
        (
            "ufw insert 1 allow from %IP% to any port 22 comment 'knock'",
            "22/tcp 22/udp",
        ),
        ("ufw allow 443/tcp", "443/tcp"),
        (
            "firewall-cmd --zone=public --add-rich-rule='rule family=\"ipv4\" source address=\"%IP%\" \
             port port=\"22\" protocol=\"tcp\" accept'",
            "22/tcp",
        ),
        (
            "firewall-cmd --add-rich-rule='rule family=ipv4 source address=%IP% service name=ssh accept'",
            "22/tcp",
        ),
        ("firewall-cmd --add-port=8080/tcp --timeout=60", "8080/tcp"),
        (
            "/usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%",
            "443/tcp",
        ),
    ] {
        assert_eq!(of(line), ports(list), "{line}");
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
