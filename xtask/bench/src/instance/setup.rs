//! The configurations that the bench varies.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    host::Host,
    programs::terms::{KNOCKS, PROTECTED},
};

/// A port that is declared open.
pub const OPEN: u16 = 443;
/// A port that is neither protected, nor a knock port, nor open.
pub const FOREIGN: u16 = 5353;
/// Where the service serves metrics, with [`Setup::serves`].
pub const METRICS: &str = "127.0.0.1:9464";
/// The most gates that a configuration may have.
pub const MOST_GATES: usize = 4_096;
/// The port that takes authenticated knocks, with [`Setup::keys`].
pub const KNOCK_PORT: u16 = 41_641;
/// The port that clients of fwknop send to, with [`Setup::fwknop`].
pub const FWKNOP_PORT: u16 = 62_201;

/// The parts of a configuration that the bench varies.
#[derive(Debug, Clone)]
pub struct Setup {
    pub attach: &'static str,
    pub gates: usize,
    /// Users of each gate, each with a sequence of its own.
    pub users: usize,
    /// Networks on the allow list: 198.18.0.0/24, 198.18.1.0/24 and so on.
    pub allow: usize,
    /// Length of a grant.
    pub open_for: &'static str,
    /// `deny` of the gates.
    pub deny: &'static str,
    /// `established` of the gates.
    pub established: &'static str,
    /// `limits.sources`
    pub sources: u32,
    /// `limits.grants`
    pub grants: u32,
    /// With metrics, alerts, and hooks for all that runs one.
    pub serves: bool,
    /// With a port for authenticated knocks.
    pub keys: Option<Slots>,
    /// With a client of fwknop's for the first gate: its keys for encryption and HMAC, in base64.
    pub fwknop: Option<[&'static str; 2]>,
    /// Where a program is pinned that follows.
    pub next: Option<PathBuf>,
    /// Where the array is pinned that it is put into.
    pub into: Option<PathBuf>,
}

/// Where the keys for authenticated knocks are, and how many there may be.
#[derive(Debug, Clone)]
pub struct Slots {
    pub folder: PathBuf,
    /// `limits.keys`
    pub most: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            attach: "native",
            gates: 1,
            users: 1,
            allow: 0,
            open_for: "2h",
            deny: "drop",
            established: "keep",
            sources: 262_144,
            grants: 65_536,
            serves: false,
            keys: None,
            fwknop: None,
            next: None,
            into: None,
        }
    }
}

impl Setup {
    /// Returns the configuration file for an interface.
    pub fn text(&self, interface: &str) -> String {
        let Self {
            attach,
            gates,
            users,
            allow,
            open_for,
            deny,
            established,
            sources,
            grants,
            serves,
            ref keys,
            fwknop,
            ref next,
            // Of the command.
            into: _,
        } = *self;
        let networks: Vec<String> = (0..allow)
            .map(|network| format!("\"198.18.{network}.0/24\""))
            .collect();
        let mut text = match next {
            None => format!("interfaces = [\"{interface}\"]\n"),
            Some(next) => format!(
                "interface = [{{ name = \"{interface}\", next = \"{}\" }}]\n",
                next.display()
            ),
        };
        let _ = write!(
            text,
            "attach = \"{attach}\"\nallow = [{}]\n\
             open_ports = [\"{OPEN}/tcp\", \"{OPEN}/udp\"]\n\
             [limits]\nsources = {sources}\ngrants = {grants}\n",
            networks.join(", ")
        );
        if let Some(Slots { folder, most }) = keys {
            let _ = write!(
                text,
                "keys = {most}\n[knock]\nports = [\"{KNOCK_PORT}/udp\"]\nkeys = \"{}\"\n",
                folder.display()
            );
        }
        if fwknop.is_some() {
            let _ = write!(text, "[fwknop]\nports = [\"{FWKNOP_PORT}/udp\"]\n");
        }
        if serves {
            let _ = write!(
                text,
                "[metrics]\nlisten = \"{METRICS}\"\n[alert]\nfailures = 3\nwithin = \"1m\"\n"
            );
        }
        for gate in 0..gates {
            let port = guarded(gate);
            let _ = write!(
                text,
                "[[gate]]\nname = \"gate{gate}\"\nprotect = [\"{port}/tcp\", \"{port}/udp\"]\n\
                 open_for = \"{open_for}\"\ndeny = \"{deny}\"\nestablished = \"{established}\"\n"
            );
            for user in 0..users {
                let [a, b, c] = sequence(gate * users + user);
                let _ = write!(
                    text,
                    "[[gate.knock]]\nuser = \"user{user}\"\n\
                     sequence = [\"{a}/udp\", \"{b}/udp\", \"{c}/udp\"]\n"
                );
            }
            if let Some([key, hmac]) = fwknop.filter(|_| gate == 0) {
                let _ = write!(
                    text,
                    "[[gate.fwknop]]\nuser = \"client\"\nkey_base64 = \"{key}\"\nhmac_key_base64 = \"{hmac}\"\n"
                );
            }
            if serves {
                for event in ["opened", "closed", "alert"] {
                    let _ = write!(
                        text,
                        "[[gate.hook]]\non = \"{event}\"\nrun = [\"/bin/true\"]\n"
                    );
                }
            }
        }
        text
    }
}

/// Returns the port of the gate with this number: none is a knock port, and all differ.
fn guarded(gate: usize) -> usize {
    match gate {
        0..10 => usize::from(PROTECTED) + 10 * gate,
        more => 50_000 + more,
    }
}

impl Setup {
    /// Writes the configuration file for an interface, readable by root alone: sequences are passwords.
    pub fn write(&self, path: &Path, interface: &str) -> Result<()> {
        fs::write(path, self.text(interface))
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns why `knockgate check` refuses the configuration; `None` if it does not.
    pub fn refused(&self, host: &Host, binary: &Path) -> Result<Option<String>> {
        let path = host.folder.join("tried.toml");
        self.write(&path, "lo")?;
        let mut check = Command::new(binary);
        let said = check.arg("check").arg(&path).output();
        let said = said.context("cannot start `knockgate check`")?;
        let findings = String::from_utf8_lossy(&said.stdout);
        let first = findings.lines().find_map(|line| line.split_once("error: "));
        let first = first.map_or("`knockgate check` refuses it", |(_, what)| what);
        Ok((!said.status.success()).then(|| first.to_owned()))
    }
}

/// Returns the sequence of the user with this number. All sequences differ, and many share knocks.
fn sequence(number: usize) -> [u16; 3] {
    if number == 0 {
        return KNOCKS;
    }
    // The second knock distinguishes them, since 7919 is a prime.
    let port = |base: usize, step: usize, room: usize| {
        u16::try_from(base + number * step % room).expect("all of these are ports")
    };
    [
        port(10_000, 31, 2_000),
        port(20_000, 7_919, 20_000),
        port(10_000, 101, 6_000),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ten_thousand_sequences_differ_and_spare_guarded_ports() {
        let sequences: HashSet<[u16; 3]> = (0..10_000).map(sequence).collect();
        assert_eq!(sequences.len(), 10_000);
        let mut guarded: HashSet<usize> = (0..MOST_GATES).map(guarded).collect();
        assert_eq!(guarded.len(), MOST_GATES);
        guarded.extend([OPEN, FOREIGN, KNOCK_PORT, FWKNOP_PORT].map(usize::from));
        for knock in sequences.iter().flatten() {
            assert!(!guarded.contains(&usize::from(*knock)));
        }
    }
}
