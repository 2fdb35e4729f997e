//! An instance of the `knockgate` under test, brought up as a user does.

mod setup;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    maps::{Array, Map, MapData},
    programs::Xdp,
};
use knock_common::grant::{FREE, Grant};
use netlab::host::output;
use serde_json::Value;

use crate::{
    clock,
    frame::{self, Transport},
    host::{Host, STATE, Wire},
    judge::{GRANTED, Judge},
    keys::Key,
    programs::{Programs, Traffic, pinned},
    service::Service,
};

pub use self::setup::{FOREIGN, FWKNOP_PORT, KNOCK_PORT, METRICS, MOST_GATES, OPEN, Setup, Slots};
/// The port that the first gate protects, and the sequence of its first user.
pub use crate::programs::terms::{KNOCKS, PROTECTED};

/// `limits.sessions`, which the bench does not vary.
const SESSIONS: u32 = 262_144;

/// An instance that is up. Dropping it takes it down.
pub struct Instance {
    pub name: String,
    /// None at TCX.
    program: Option<Xdp>,
    binary: PathBuf,
    config: PathBuf,
    pins: PathBuf,
    service: Option<Service>,
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
        up.arg("up");
        if let Some(array) = &setup.into {
            up.arg("--into").arg(array);
        }
        output(&mut up)?;
        Ok(Self {
            program: match setup.attach {
                "tcx" => None,
                _ => Some(pinned(&pins.join(&name).join("program"))?),
            },
            binary: binary.to_owned(),
            config,
            pins,
            name,
            service: None,
        })
    }

    /// Writes another configuration, which is not in force until it is reloaded.
    pub fn configure(&self, setup: &Setup) -> Result<()> {
        setup.write(&self.config, &self.name)
    }

    /// Returns a command that runs `knockgate` with this instance's configuration and pin root.
    pub fn knockgate(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(self.arguments()).env(STATE.0, STATE.1);
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

    /// Starts the service, off the CPU `cpu`, and waits until it has freed the slots of all grants, once these have ended.
    pub fn serve(&mut self, host: &Host, cpu: usize) -> Result<()> {
        let mut command = self.on(host);
        command.arg("run");
        let started = clock::elsewhere(cpu, || Service::start("knockgate run", &mut command))?;
        self.service = Some(started?);
        let grants = self.pins.join(&self.name).join("grant");
        let grants = Map::Array(MapData::from_pin(&grants).context("the table of grants")?);
        let grants: Array<MapData, Grant> = grants.try_into()?;
        let mut tries = 0;
        while !is_free(&grants)? {
            tries += 1;
            ensure!(
                tries < 300,
                "`knockgate run` of {} has not freed all slots in a minute",
                self.name
            );
            thread::sleep(Duration::from_millis(200));
        }
        self.is_served()
    }

    /// Returns the CPU time of the service so far, ms; `None`: none was started.
    pub fn service_time(&self) -> Result<Option<f64>> {
        self.service.as_ref().map(Service::cpu).transpose()
    }

    /// Checks that the service runs, if one was started.
    pub fn is_served(&mut self) -> Result<()> {
        self.service.as_mut().map_or(Ok(()), Service::lives)
    }

    /// Has `count` sources from [`GRANTED`] on knock, so that each has a grant.
    pub fn grant(&self, programs: &mut Programs, count: u32) -> Result<()> {
        let mut traffic = granted_knocks();
        programs.vary(self.program(), &knock_frame(), &mut traffic, 3 * count)?;
        self.has_given(count)
    }

    /// As [`Instance::grant`], by frames on the wire: no program of XDP can call one at TCX.
    pub fn grant_by_wire(&self, programs: &mut Programs, wire: &Wire, count: u32) -> Result<()> {
        let mut traffic = Traffic {
            interface: wire.sender,
            ..granted_knocks()
        };
        programs.send(&knock_frame(), &mut traffic, 3 * count)?;
        self.has_given(count)
    }

    fn has_given(&self, count: u32) -> Result<()> {
        let opened = self.knocks("opened")?;
        ensure!(
            opened == u64::from(count),
            "{count} sources knocked at {} and {opened} grants were given",
            self.name
        );
        Ok(())
    }

    /// Has each of `count` sources that have a grant begin a flow, in the order of addresses, so that those that take turns later
    /// find their flows scattered in memory.
    pub fn begin_flows(&self, programs: &mut Programs, count: u32) -> Result<()> {
        let datagram = frame::ipv4(Transport::Udp, GRANTED, 40000, PROTECTED);
        let mut flows = Traffic {
            first: GRANTED,
            ports: [PROTECTED; 4],
            steps: 1,
            hold: 31,
            ..Traffic::default()
        };
        programs.vary(self.program(), &datagram, &mut flows, count)?;
        let begun = self.used("sessions")?;
        ensure!(
            begun == count,
            "{count} flows began at {} and {begun} are remembered",
            self.name
        );
        Ok(())
    }

    /// Returns how many entries of a table are in use.
    fn used(&self, table: &str) -> Result<u32> {
        let text = output(self.knockgate().arg("metrics"))?;
        let sample = format!("knockgate_table_entries{{table=\"{table}\"}} ");
        let used = text.lines().find_map(|line| line.strip_prefix(&sample));
        Ok(used.context("`knockgate metrics`")?.parse()?)
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
            programs.vary(self.program(), &datagram, &mut flows, setup.grants)?;
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
            self.program(),
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
        for (table, capacity) in [
            ("grants", setup.grants),
            ("sessions", SESSIONS),
            ("sources", setup.sources),
        ] {
            let used = self.used(table)?;
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

    /// Makes a key for the first gate. It is in force at once.
    pub fn key(&self, name: &str) -> Result<Key> {
        let mut command = self.knockgate();
        command.args(["key", "new", name, "--gate", "gate0", "--json"]);
        Key::read(&output(&mut command)?)
    }

    /// Has `count` sources from [`GRANTED`] on knock with a key, so that each has a grant.
    pub fn grant_by(&self, programs: &mut Programs, key: &Key, count: u32) -> Result<()> {
        let mut traffic = Traffic {
            first: GRANTED,
            ports: [KNOCK_PORT; 4],
            steps: 1,
            hold: 31,
            messages: count,
            ..Traffic::default()
        };
        programs.set_messages((0..count).map(|_| key.knock()))?;
        let datagram = frame::datagram(GRANTED, 1024, KNOCK_PORT, &[0; 64]);
        programs.vary(self.program(), &datagram, &mut traffic, count)?;
        let opened = self.authenticated(Some("opened"))?;
        ensure!(
            opened == u64::from(count),
            "{count} sources knocked with a key at {} and {opened} grants were given",
            self.name
        );
        Ok(())
    }

    /// How many knocks have had this result.
    pub fn knocks(&self, result: &str) -> Result<u64> {
        self.sum("knocks", "count", |row| row["result"] == result)
    }

    /// How many datagrams to [`KNOCK_PORT`] had this outcome; `None`: any.
    pub fn authenticated(&self, outcome: Option<&str>) -> Result<u64> {
        self.sum("authenticated", "count", |row| {
            outcome.is_none_or(|outcome| row["outcome"] == outcome)
        })
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
    fn is_ours(&self) -> bool {
        true
    }

    fn program(&self) -> &Xdp {
        let program = self.program.as_ref();
        program.expect("at TCX, an instance is measured on the wire only")
    }

    fn packets(&self, reason: Option<&str>) -> Result<u64> {
        self.sum("packets", "packets", |row| {
            reason.is_none_or(|reason| row["reason"] == reason)
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.service = None;
        // At the latest, its pins are removed with the namespaces.
        let _ = self.knockgate().args(["down", "--all"]).output();
    }
}

/// Returns whether no slot has a grant, live or not.
fn is_free(grants: &Array<MapData, Grant>) -> Result<bool> {
    for grant in grants.iter() {
        if grant?.until != FREE {
            return Ok(false);
        }
    }
    Ok(true)
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

/// Returns the knocks of sources from [`GRANTED`] on, one source after the other.
fn granted_knocks() -> Traffic {
    Traffic {
        first: GRANTED,
        ports: knocks(),
        steps: 3,
        hold: 31,
        ..Traffic::default()
    }
}

/// Returns a frame that the traffic turns into knocks.
pub fn knock_frame() -> Vec<u8> {
    frame::ipv4(Transport::Udp, GRANTED, 1024, KNOCKS[0])
}
