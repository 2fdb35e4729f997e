//! `cargo xtask demo fleet`: three hosts that open their gates together, over three etcd members.

mod members;
mod story;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netlab::{
    Netns,
    host::{BPFFS, ensure_outside, mount},
    ip,
};
use serde_json::Value;

use self::members::{Members, certificate};
pub(super) use self::story::tell;
use crate::{lan::FOLDER, process};

/// The port of the service behind the gates.
const PORT: &str = "2222";
const SEQUENCE: [&str; 3] = ["7000/udp", "4100/tcp", "9301/udp"];
const FLEET_KEY: &str = "fleet.key";
/// How long a step may take that takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The hosts, the client and the members, in namespaces of this process's own.
struct Fleet {
    hosts: [Host; 3],
    client: Netns,
    members: Members,
}

/// A guarded host: one interface to the client, one to the members.
struct Host {
    netns: Netns,
    address: String,
    knockgate: PathBuf,
    /// The service of `knockgate`, and the one behind its gate. They die with this process.
    running: Vec<Child>,
}

impl Fleet {
    /// Builds everything. This process must already be in a mount and a network namespace other than those of `outside`.
    fn create(outside: &[String], knockgate: &Path) -> Result<Self> {
        ensure_outside(outside)
            .context("this part is started by another command of `cargo xtask`")?;
        mount("tmpfs", FOLDER)?;
        mount("bpf", BPFFS)?;
        ip(
            "link add clients type bridge\nlink set clients up\nlink add lan type bridge\nlink set lan up",
        )?;
        let members = Members::start()?;
        let client = node("client")?;
        plug(&client, "eth0", "clients", "10.78.0.9")?;
        let host = |number: u8| Host::build(number, knockgate);
        let hosts = [host(1)?, host(2)?, host(3)?];
        let key = Path::new(FOLDER).join(FLEET_KEY);
        hosts[0].knockgate(&["fleet", "key", "new", &key.to_string_lossy()])?;
        Ok(Self {
            hosts,
            client,
            members,
        })
    }
}

/// Makes a namespace whose processes die with this one.
fn node(name: &str) -> Result<Netns> {
    Ok(Netns::create(name)?.with_kill_at_exit())
}

/// Joins a namespace to a bridge.
fn plug(netns: &Netns, interface: &str, bridge: &str, address: &str) -> Result<()> {
    let name = netns.name();
    ip(&format!(
        "link add {bridge}-{name} type veth peer name {interface} netns {name}\n\
         link set {bridge}-{name} master {bridge} up"
    ))?;
    netns.ip(&format!(
        "address add {address}/24 dev {interface}\nlink set {interface} up"
    ))?;
    Ok(())
}

/// Takes a node out of the members' bridge, which drops what comes from it, or puts it back. Its link stays up.
fn cut(netns: &Netns, is_cut: bool) -> Result<()> {
    let master = if is_cut { "nomaster" } else { "master lan" };
    Ok(ip(&format!("link set lan-{} {master}", netns.name()))?)
}

impl Host {
    fn build(number: u8, knockgate: &Path) -> Result<Self> {
        let name = format!("edge-{number}");
        let netns = node(&name)?;
        let address = format!("10.78.0.{number}");
        plug(&netns, "eth0", "clients", &address)?;
        plug(&netns, "lan0", "lan", &format!("10.79.0.{number}"))?;
        certificate(&name, "extendedKeyUsage=clientAuth")?;
        let host = Self {
            netns,
            address,
            knockgate: knockgate.to_owned(),
            running: Vec::new(),
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(host.file("toml"))?;
        file.write_all(host.configuration().as_bytes())?;
        Ok(host)
    }

    fn name(&self) -> &str {
        self.netns.name()
    }

    fn file(&self, kind: &str) -> PathBuf {
        Path::new(FOLDER).join(format!("{}.{kind}", self.name()))
    }

    fn configuration(&self) -> String {
        let name = self.name();
        let sequence = SEQUENCE.map(|knock| format!("\"{knock}\"")).join(", ");
        format!(
            "interfaces = [\"eth0\"]
allow = [\"192.0.2.0/24\"]

[fleet]
name = \"demo\"
endpoints = {:?}
host = \"{name}\"
ca = \"{FOLDER}/ca.pem\"
cert = \"{FOLDER}/{name}.pem\"
key = \"{FOLDER}/{name}.key\"
keys = [\"{FOLDER}/{FLEET_KEY}\"]

[[gate]]
name = \"greeting\"
protect = [\"{PORT}/tcp\"]
open_for = \"5m\"

[[gate.knock]]
user = \"alice\"
sequence = [{sequence}]
within = \"10s\"
",
            Members::endpoints()
        )
    }

    /// Starts its service, and waits until it is one of the fleet.
    fn serve(&mut self) -> Result<()> {
        let log = fs::File::create(self.file("log"))?;
        let mut command = self.command(&["run"]);
        let service = command.stdout(Stdio::null()).stderr(log).spawn();
        self.running
            .push(service.context("cannot start `knockgate run`")?);
        self.wait_for("it has joined the fleet", || {
            let events = process::stdout(&mut self.command(&["events"])).unwrap_or_default();
            Ok(events.contains("fleet.joined"))
        })
    }

    /// Waits until a condition holds. Returns how long that took.
    fn wait_for(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !holds()? {
            if begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.file("log")).unwrap_or_default();
                bail!(
                    "{}: waited in vain until {what}. Its log:\n{log}",
                    self.name()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until the client has a grant here, or has none. Returns the grant.
    fn wait_for_grant(&self, is_there: bool) -> Result<Option<Value>> {
        let what = if is_there {
            "there is a grant"
        } else {
            "there is no grant"
        };
        let mut last = None;
        self.wait_for(what, || {
            last = self.grant()?;
            Ok(last.is_some() == is_there)
        })?;
        Ok(last)
    }

    fn grant(&self) -> Result<Option<Value>> {
        let said = self.knockgate(&["grants", "--json"])?;
        let document: Value = serde_json::from_str(&said)?;
        let grants = document["grants"].as_array();
        Ok(grants.and_then(|grants| grants.first()).cloned())
    }

    /// Runs `knockgate` here. Returns what it prints.
    fn knockgate(&self, arguments: &[&str]) -> Result<String> {
        process::stdout(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.netns.command(&self.knockgate);
        command
            .current_dir(FOLDER)
            .env("STATE_DIRECTORY", self.file("state"))
            .arg("--config")
            .arg(self.file("toml"))
            .arg("--pin-root")
            .arg(Path::new(BPFFS).join(self.name()))
            .args(arguments);
        command
    }
}

/// Runs a script of the shell in the folder of this network's files.
fn sh(script: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(FOLDER);
    let output = process::output(&mut command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{script}` failed: {said}");
    Ok(())
}
