//! Keys for authenticated knocks: made on the host, used by a client.

use std::{
    fs::{self, Permissions},
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use knock_common::testing::knock::Knock;
use knock_user::keys::PersonKey;

use crate::{gate_config::Gate, lab::Source, need, run::Run, scenario::Scenario};

/// The port that takes authenticated knocks.
pub const PORT: u16 = 41_641;

/// Writes a configuration with a port for authenticated knocks, and `knock`, further keys of `[knock]`.
pub fn configure(scenario: &Scenario, knock: &str, gate: &Gate) {
    let keys = scenario.lab.folder().join("keys");
    let keys = keys.display();
    scenario.configure(format!(
        "[knock]\nports = [\"{PORT}/udp\"]\nkeys = \"{keys}\"\n{knock}\n{gate}"
    ));
}

/// Makes a key, and returns the file of its owner.
pub fn new_key(scenario: &Scenario, arguments: &str) -> PathBuf {
    let made = scenario.knockgate(&format!("key new {arguments}"));
    let text = made.exits(0).stdout.clone();
    owners_file(scenario, "owner.toml", &text)
}

/// Writes what `key new` or `key rotate` has printed into a file that nobody else can read.
pub fn owners_file(scenario: &Scenario, name: &str, text: &str) -> PathBuf {
    let file = scenario.lab.folder().join(name);
    fs::write(&file, text).expect("the temporary folder is writable");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("it is ours");
    file
}

/// Knocks by knockgate's own client.
pub fn knock(scenario: &Scenario, key: &Path, options: &str) -> Run {
    let host = scenario.family.host().to_string();
    let key = key.to_string_lossy();
    let mut arguments = vec!["knock", &*host, "--key", &*key];
    arguments.extend(options.split_whitespace());
    scenario.lab.client(need::knockgate(), &arguments)
}

/// Returns a knock that was made at this time, Unix ns: for the first gate of the key and the address that it comes from.
pub fn sealed(key: &Path, time: u64) -> [u8; 64] {
    made(key, time).sealed()
}

/// As [`sealed`], to be changed.
pub fn made(key: &Path, time: u64) -> Knock {
    let key = PersonKey::load(key).expect("the file of a key");
    Knock {
        host: *key.host_secret.bytes(),
        key: *key.key().bytes(),
        slot: key.slot,
        ..Knock::at(time)
    }
}

/// Returns the time of a knock that is made now.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_nanos();
    now.try_into().expect("before 2554")
}

/// Sends a knock, whoever has made it.
pub fn send(scenario: &Scenario, who: Source, packet: &[u8]) {
    let from = scenario.source(who);
    let to = (scenario.family.host(), PORT);
    let sent = scenario
        .lab
        .client
        .run(|| UdpSocket::bind(from).and_then(|socket| socket.send_to(packet, to)));
    assert_eq!(sent.expect("it can be sent"), packet.len());
}

/// Returns how many datagrams have had this outcome.
pub fn outcome(scenario: &Scenario, name: &str) -> u64 {
    let stats = scenario.knockgate("stats --json").exits(0).json();
    let rows = stats["authenticated"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["outcome"] == name);
    row.and_then(|row| row["count"].as_u64())
        .expect("it is counted")
}
