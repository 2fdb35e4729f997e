//! An instance of the `knockgate` under test, brought up as a user does.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::Xdp;
use netlab::host::output;
use serde_json::Value;

use crate::{
    frame::{self, Transport},
    host::{Host, Wire},
    judge::{GRANTED, Judge},
    programs::{Programs, Traffic, pinned},
};

/// The port that the first gate protects, and the sequence of its first user.
pub use crate::programs::terms::{KNOCKS, PROTECTED};

/// `limits.sessions`, which the bench does not vary.
const SESSIONS: u32 = 262_144;
/// A port that is declared open.
pub const OPEN: u16 = 443;
/// A port that is neither protected, nor a knock port, nor open.
pub const FOREIGN: u16 = 5353;
/// Where the service serves metrics, with [`Setup::serves`].
pub const METRICS: &str = "127.0.0.1:9464";
/// The most gates that a configuration may have.
pub const MOST_GATES: usize = 4_096;

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
    /// `limits.sources`
    pub sources: u32,
    /// `limits.grants`
    pub grants: u32,
    /// With metrics, alerts, and hooks for all that runs one.
    pub serves: bool,
}

/// An instance that is up. Dropping it takes it down.
pub struct Instance {
    pub name: String,
    pub program: Xdp,
    binary: PathBuf,
    config: PathBuf,
    pins: PathBuf,
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
            sources: 262_144,
            grants: 65_536,
            serves: false,
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
            sources,
            grants,
            serves,
        } = *self;
        let networks: Vec<String> = (0..allow)
            .map(|network| format!("\"198.18.{network}.0/24\""))
            .collect();
        let mut text = format!(
            "interfaces = [\"{interface}\"]\nattach = \"{attach}\"\nallow = [{}]\n\
             open_ports = [\"{OPEN}/tcp\", \"{OPEN}/udp\"]\n\
             [limits]\nsources = {sources}\ngrants = {grants}\n",
            networks.join(", ")
        );
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
                 open_for = \"{open_for}\"\ndeny = \"{deny}\"\n"
            );
            for user in 0..users {
                let [a, b, c] = sequence(gate * users + user);
                let _ = write!(
                    text,
                    "[[gate.knock]]\nuser = \"user{user}\"\n\
                     sequence = [\"{a}/udp\", \"{b}/udp\", \"{c}/udp\"]\n"
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

impl Instance {
    /// Brings an instance up on the host's end of a wire.
    pub fn up(host: &Host, binary: &Path, wire: &Wire, setup: &Setup) -> Result<Self> {
        let name = wire.name.clone();
        let config = host.folder.join(format!("{name}.toml"));
        setup.write(&config, &name)?;
        let pins = host.pins(&name);
        let mut up = host.command(binary);
        up.arg("--config").arg(&config).arg("--pin-root").arg(&pins);
        output(up.arg("up"))?;
        Ok(Self {
            program: pinned(&pins.join(&name).join("program"))?,
            binary: binary.to_owned(),
            config,
            pins,
            name,
        })
    }

    /// Writes another configuration, which is not in force until it is reloaded.
    pub fn configure(&self, setup: &Setup) -> Result<()> {
        setup.write(&self.config, &self.name)
    }

    /// Returns a command that runs `knockgate` with this instance's configuration and pin root.
    pub fn knockgate(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(self.arguments());
        command
    }

    /// Returns the same on the host, for what looks at its interfaces.
    pub fn on(&self, host: &Host) -> Command {
        let mut command = host.command(&self.binary);
        command.args(self.arguments());
        command
    }

    /// Returns the arguments for this instance's configuration and pin root.
    pub fn arguments(&self) -> [&OsStr; 4] {
        [
            "--config".as_ref(),
            self.config.as_ref(),
            "--pin-root".as_ref(),
            self.pins.as_ref(),
        ]
    }

    /// Has `count` sources from [`GRANTED`] on knock, so that each has a grant.
    pub fn grant(&self, programs: &mut Programs, count: u32) -> Result<()> {
        let mut traffic = Traffic {
            first: GRANTED,
            ports: knocks(),
            steps: 3,
            hold: 31,
            ..Traffic::default()
        };
        programs.vary(&self.program, &knock_frame(), &mut traffic, 3 * count)?;
        let opened = self.knocks("opened")?;
        ensure!(
            opened == u64::from(count),
            "{count} sources knocked at {} and {opened} grants were given",
            self.name
        );
        Ok(())
    }

    /// Fills the tables of sessions and of sources of an instance whose table of grants is full.
    pub fn fill(&self, programs: &mut Programs, setup: &Setup) -> Result<()> {
        let datagram = frame::ipv4(Transport::Udp, GRANTED, 1024, PROTECTED);
        for round in 0..SESSIONS / setup.grants {
            let mut flows = Traffic {
                first: GRANTED,
                ports: [PROTECTED; 4],
                steps: 1,
                // Each round of the sources has a source port of its own.
                hold: setup.grants.ilog2(),
                packet: round * setup.grants,
                ..Traffic::default()
            };
            programs.vary(&self.program, &datagram, &mut flows, setup.grants)?;
        }
        let mut first_knocks = Traffic {
            // Behind those that have knocked already.
            first: GRANTED + 2 * setup.grants,
            ports: [KNOCKS[0]; 4],
            steps: 1,
            hold: 31,
            ..Traffic::default()
        };
        programs.vary(
            &self.program,
            &knock_frame(),
            &mut first_knocks,
            setup.sources,
        )?;
        match self.lacking(setup)? {
            None => Ok(()),
            Some(lacking) => bail!("{lacking}, so it is no full table that would be measured"),
        }
    }

    /// Returns which table is not full.
    fn lacking(&self, setup: &Setup) -> Result<Option<String>> {
        let text = output(self.knockgate().arg("metrics"))?;
        for (table, capacity) in [
            ("grants", setup.grants),
            ("sessions", SESSIONS),
            ("sources", setup.sources),
        ] {
            let sample = format!("knockgate_table_entries{{table=\"{table}\"}} ");
            let used = text.lines().find_map(|line| line.strip_prefix(&sample));
            let used: u32 = used.context("`knockgate metrics`")?.parse()?;
            // A set of sources that is full makes room while others are not.
            if used / 98 < capacity / 100 {
                let name = &self.name;
                return Ok(Some(format!(
                    "{used} of {capacity} {table} of {name} are in use"
                )));
            }
        }
        Ok(None)
    }

    /// How many knocks have had this result.
    pub fn knocks(&self, result: &str) -> Result<u64> {
        self.sum("knocks", "count", |row| row["result"] == result)
    }

    fn sum(&self, rows: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<u64> {
        let text = output(self.knockgate().args(["stats", "--json"]))?;
        let stats: Value = serde_json::from_str(&text).context("`knockgate stats --json`")?;
        let Some(rows) = stats[rows].as_array() else {
            bail!("`knockgate stats --json` has no list of {rows}");
        };
        Ok(rows
            .iter()
            .filter(|row| wanted(row))
            .filter_map(|row| row[what].as_u64())
            .sum())
    }
}

impl Judge for Instance {
    fn program(&self) -> &Xdp {
        &self.program
    }

    fn packets(&self, reason: Option<&str>) -> Result<u64> {
        self.sum("packets", "packets", |row| {
            reason.is_none_or(|reason| row["reason"] == reason)
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // At the latest, its pins are removed with the namespaces.
        let _ = self.knockgate().args(["down", "--all"]).output();
    }
}

/// Returns a number of grants in words.
pub fn counted(grants: u32) -> String {
    match grants {
        1 => "1 grant".into(),
        1_000 => "1,000 grants".into(),
        100_000 => "100,000 grants".into(),
        1_000_000 => "1,000,000 grants".into(),
        _ => format!("{grants} grants"),
    }
}

/// Returns [`KNOCKS`] in the form of [`Traffic::ports`](crate::programs::Traffic::ports).
pub fn knocks() -> [u16; 4] {
    let [a, b, c] = KNOCKS;
    [a, b, c, a]
}

/// Returns a frame that the traffic turns into knocks.
pub fn knock_frame() -> Vec<u8> {
    frame::ipv4(Transport::Udp, GRANTED, 1024, KNOCKS[0])
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
        guarded.extend([OPEN, FOREIGN].map(usize::from));
        for knock in sequences.iter().flatten() {
            assert!(!guarded.contains(&usize::from(*knock)));
        }
    }
}
