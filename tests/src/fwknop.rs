//! The client of fwknop and its keys.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::Duration,
};

use netlab::host::find_program;
use serde_json::Value;

use crate::{
    lab::Source,
    run::{Run, wait_for_value},
    scenario::Scenario,
};

/// The port that the client sends to.
pub const PORT: u16 = 62_201;

/// Keys, as both ends have them: the client by its own names.
#[derive(Clone, Copy)]
pub struct Keys {
    /// Lines of the client's file.
    client: &'static str,
    /// Lines of `[[gate.fwknop]]`.
    gate: &'static str,
}

/// Drawn by `fwknop --key-gen` for this test.
pub const DRAWN: Keys = Keys {
    client: "KEY_BASE64 csE9sRJ5Eq8JoVbU+WZzZjPWfoPkGZQ/FFov/MiLqnc=\n\
        HMAC_KEY_BASE64 OJ2UjvFG1nbrXLvvho7UkTjuUWoCqNTW8H9GHcFkNrfAW1va/ZRd9CtT5lD6vioJ9+6XbAA25BTDCqlzImMYSw==\n",
    gate: "key_base64 = 'csE9sRJ5Eq8JoVbU+WZzZjPWfoPkGZQ/FFov/MiLqnc='\n\
        hmac_key_base64 = 'OJ2UjvFG1nbrXLvvho7UkTjuUWoCqNTW8H9GHcFkNrfAW1va/ZRd9CtT5lD6vioJ9+6XbAA25BTDCqlzImMYSw=='\n",
};
pub const OTHER: Keys = Keys {
    client: "KEY_BASE64 bm90IGEga2V5LCBidXQgYW4gZXhhbXBsZSBvZiBvbmU=\n\
        HMAC_KEY_BASE64 bm90IGEga2V5IGVpdGhlciwgYW5kIG5vdCB0byBiZSB1c2Vk\n",
    gate: "key_base64 = 'bm90IGEga2V5LCBidXQgYW4gZXhhbXBsZSBvZiBvbmU='\n\
        hmac_key_base64 = 'bm90IGEga2V5IGVpdGhlciwgYW5kIG5vdCB0byBiZSB1c2Vk'\n",
};
pub const PASSPHRASES: Keys = Keys {
    client: "KEY a-passphrase-of-28-characters\nHMAC_KEY another-one-for-the-hmac-longer\n",
    gate: "key = 'a-passphrase-of-28-characters'\nhmac_key = 'another-one-for-the-hmac-longer'\n",
};

/// The cipher's key of [`DRAWN`], without an HMAC.
pub const WITHOUT_HMAC: Keys = Keys {
    client: "KEY_BASE64 csE9sRJ5Eq8JoVbU+WZzZjPWfoPkGZQ/FFov/MiLqnc=\n",
    gate: "",
};
/// One that the legacy mode fills up, with an HMAC for the gate alone.
pub const SHORT: Keys = Keys {
    client: "KEY short\n",
    gate: "key = 'short'\nhmac_key = 'that-the-client-does-not-have'\n",
};

impl Keys {
    /// Returns a `[[gate.fwknop]]` with these keys and lines.
    pub fn section(self, user: &str, lines: &str) -> String {
        format!("[[gate.fwknop]]\nuser = '{user}'\n{}{lines}\n", self.gate)
    }
}

/// Returns the gate `ssh` with these sections.
pub fn ssh(sections: &str) -> String {
    format!("[[gate]]\nname = 'ssh'\nprotect = ['22/tcp']\nopen_for = '10m'\n{sections}")
}

/// Runs the client in the clients' namespace, with these keys and further lines of its file. It asks for tcp/22 unless the
/// options say something else.
pub fn fwknop(scenario: &Scenario, keys: Keys, lines: &str, options: &[&str]) -> Run {
    let file = scenario.lab.folder().join("fwknoprc");
    let host = scenario.family.host();
    let hmac = if keys.client.contains("HMAC") {
        "USE_HMAC Y\n"
    } else {
        ""
    };
    let keys = keys.client;
    let text = format!("[default]\n[knock]\nSPA_SERVER {host}\n{hmac}{keys}{lines}\n");
    fs::write(&file, text).expect("the temporary folder is writable");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let file = file.to_str().expect("a plain path");
    let mut arguments = vec!["--rc-file", file, "--no-save-args", "-n", "knock"];
    if !options.contains(&"-A") && !options.contains(&"-C") {
        arguments.extend(["-A", "tcp/22"]);
    }
    arguments.extend(options);
    let client = find_program("fwknop").expect("the row needs it");
    let run = scenario.lab.client(client, &arguments);
    run.exits(0);
    run
}

/// As [`fwknop`], but returns the packet, and with `-T` among the options does not send it.
pub fn packet(scenario: &Scenario, keys: Keys, lines: &str, options: &[&str]) -> Vec<u8> {
    let file = scenario.lab.folder().join("packet");
    let _ = fs::remove_file(&file);
    let path = file.to_str().expect("a plain path");
    fwknop(scenario, keys, lines, &[options, &["-B", path]].concat());
    saved(file)
}

fn saved(file: PathBuf) -> Vec<u8> {
    let mut packet = fs::read(file).expect("the client has saved it");
    // The file ends in a line feed, the packet does not.
    while packet.last() == Some(&b'\n') {
        packet.pop();
    }
    packet
}

/// Sends a payload to the port, from the address of `who` in this scenario's family.
pub fn send(scenario: &Scenario, who: Source, payload: &[u8]) {
    let from = scenario.source(who);
    send_to(scenario, from, scenario.family.host(), payload);
}

fn send_to(scenario: &Scenario, from: SocketAddr, host: IpAddr, payload: &[u8]) {
    scenario.lab.client.run(|| {
        let socket = UdpSocket::bind(from).expect("an own address");
        socket
            .send_to(payload, (host, PORT))
            .expect("a datagram can be sent");
    });
}

/// Sends a payload, and returns whether the host answers that nothing listens there.
pub fn is_refused(scenario: &Scenario, who: Source, payload: &[u8]) -> bool {
    let from = scenario.source(who);
    let host = scenario.family.host();
    scenario.lab.client.run(|| {
        let socket = UdpSocket::bind(from).expect("an own address");
        socket.connect((host, PORT)).expect("a route");
        socket
            .set_read_timeout(Some(Duration::from_mins(1)))
            .expect("a live socket takes a timeout");
        socket.send(payload).expect("a datagram can be sent");
        let answer = socket.recv(&mut [0; 64]);
        answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    })
}

/// Returns how many packets had an outcome.
pub fn count(scenario: &Scenario, outcome: &str) -> u64 {
    number(&counts(scenario), outcome)
}

/// Waits until so many packets have had an outcome.
#[track_caller]
pub fn counted(scenario: &Scenario, outcome: &str, packets: u64) {
    let document = wait_for_value(
        &format!("{packets} packets are {outcome}"),
        || counts(scenario),
        |counts| number(counts, outcome) >= packets,
    );
    assert_eq!(number(&document, outcome), packets, "{document}");
}

/// Returns the rows of the table of outcomes.
fn counts(scenario: &Scenario) -> Value {
    scenario.knockgate("stats --json").exits(0).json()["fwknop"].take()
}

fn number(counts: &Value, outcome: &str) -> u64 {
    let rows = counts.as_array().expect("a list");
    let row = rows.iter().find(|row| row["outcome"] == outcome);
    let row = row.unwrap_or_else(|| panic!("no {outcome} in {counts}"));
    row["count"].as_u64().expect("a number")
}
