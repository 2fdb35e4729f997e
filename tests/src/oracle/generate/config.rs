//! Random configurations.

use std::fmt::Write as _;

use knock_user::config::Config;

use super::{HOST_V4, HOST_V6};
use crate::{
    keyring::{KEYS, Key, SLOTS},
    oracle::random::Random,
};

/// Few ports, so that sequences overlap.
const KNOCKS: [&str; 5] = ["7000/udp", "7000/tcp", "7001/udp", "9000/tcp", "80/udp"];
/// The ports that each gate protects.
const PROTECTED: [&str; 3] = [
    r#""22/tcp", "22/udp""#,
    r#""25/tcp", "51820/udp""#,
    r#""7002/tcp", "65535/udp""#,
];
const OPEN: &str = r#""80/tcp", "53/udp""#;
const ALLOWED: [&str; 3] = ["203.0.113.0/24", "2001:db8:1:1::/64", "198.51.100.2/32"];
/// Of the host's addresses: both, one, those of the other family, none.
const PLACES: [&[&str]; 4] = [
    &["192.0.2.0/28", "2001:db8::/64"],
    &["192.0.2.9/32", "2001:db8::9/128"],
    &["2001:db8::/127"],
    &["10.0.0.0/8"],
];
const MAY_KNOCK: [&str; 3] = ["198.51.100.0/25", "2001:db8:1::/64", "203.0.113.5/32"];

/// Returns the `nth` configuration, as text and as value. It is valid, and contains no time below a second.
pub fn config(random: &mut Random<'_>, nth: usize) -> (String, Config) {
    loop {
        if let Some(valid) = try_config(random, nth) {
            return valid;
        }
    }
}

/// As [`config`], but returns `None` if the configuration is not valid: two sequences may be the same, or one may end
/// with another.
pub fn try_config(random: &mut Random<'_>, nth: usize) -> Option<(String, Config)> {
    let text = config_text(random, nth);
    let (config, _) = Config::parse(&text, "generated").ok()?;
    Some((text, config))
}

fn config_text(random: &mut Random<'_>, nth: usize) -> String {
    let mut text = String::from("interfaces = [\"eth0\"]\n");
    let mode = if nth % 8 == 7 { "monitor" } else { "enforce" };
    let _ = writeln!(text, "mode = {mode:?}\nopen_ports = [{OPEN}]");
    if random.chance(40) {
        let _ = writeln!(text, "allow = [{:?}]", random.pick(&ALLOWED));
    }
    match random.below(16) {
        0..4 => {
            let _ = writeln!(text, "addresses = [{:?}, {:?}]", HOST_V4[0], HOST_V6[0]);
        }
        4..7 => text.push_str("addresses = \"host\"\n"),
        _ => {}
    }
    let grants = random.pick(&[2, 4, 64]);
    let _ = writeln!(
        text,
        "limits = {{ sources = 16384, grants = {grants}, sessions = 1024, keys = {SLOTS} }}"
    );
    let takes = random.chance(75);
    if takes {
        knock_text(random, &mut text);
    }
    for (name, ports) in ["a", "b", "c"]
        .iter()
        .zip(PROTECTED)
        .take(1 + random.below(3))
    {
        gate_text(random, &mut text, (name, ports), takes);
    }
    text
}

/// Writes where authenticated knocks are sent: to a closed, an open and a protected port.
fn knock_text(random: &mut Random<'_>, text: &mut String) {
    let mut ports = vec!["41641/udp"];
    if random.chance(40) {
        ports.push("53/udp");
    }
    if random.chance(60) {
        ports.push("22/udp");
    }
    // Long enough that a stream does not outgrow what it has to wait for.
    let (age, ahead) = (random.pick(&[12, 30, 90]), random.pick(&[3, 15]));
    let _ = writeln!(
        text,
        "[knock]\nports = {ports:?}\nmax_age = \"{age}s\"\nmax_ahead = \"{ahead}s\""
    );
}

fn gate_text(random: &mut Random<'_>, text: &mut String, (name, ports): (&str, &str), takes: bool) {
    let seconds = |random: &mut Random<'_>| random.pick(&[1, 2, 3, 5, 20]);
    let _ = writeln!(
        text,
        "[[gate]]\nname = {name:?}\nprotect = [{ports}]\nopen_for = \"{}s\"\nsession_idle = \"{}s\"",
        seconds(random),
        seconds(random)
    );
    if random.chance(25) {
        let _ = writeln!(text, "protect_at = {:?}", random.pick(&PLACES));
    }
    if random.chance(40) {
        let _ = writeln!(text, "connections = {}", 1 + random.below(3));
    }
    if random.chance(35) {
        let _ = writeln!(text, "grant_to = \"prefix\"");
    }
    if random.chance(25) {
        let _ = writeln!(text, "established = \"cut\"");
    }
    if random.chance(25) {
        let _ = writeln!(text, "sources = [{:?}]", random.pick(&MAY_KNOCK));
    }
    for user in 0..random.below(4) {
        let length = match random.below(10) {
            0 => 12,
            1 => 6,
            _ => 2 + random.below(3),
        };
        let ports = 1 + random.below(KNOCKS.len());
        let sequence: Vec<&str> = (0..length).map(|_| KNOCKS[random.below(ports)]).collect();
        let _ = writeln!(
            text,
            "[[gate.knock]]\nuser = \"u{user}\"\nsequence = {sequence:?}\nwithin = \"{}s\"",
            seconds(random)
        );
    }
    if takes {
        for Key { name, .. } in KEYS {
            if random.chance(30) {
                let (user, _) = name.split_once('/').unwrap_or((name, ""));
                let _ = writeln!(text, "[[gate.knock]]\nuser = {user:?}\nkey = {name:?}");
            }
        }
    }
}
