//! Three hosts on one wire, made of namespaces that nobody else sees.

use std::{
    ffi::OsStr,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::process;

/// The files that belong to the demo alone: covers the machine's `/run` for the demo's processes.
pub(super) const FOLDER: &str = "/run";

/// The interface by which each host is on the wire.
pub(super) const INTERFACE: &str = "eth0";

/// A network of three hosts. It goes with the processes of the namespace that this process runs in.
pub(super) struct Lan {
    pub(super) server: Host,
    pub(super) client: Host,
    pub(super) stranger: Host,
}

/// One host: a network namespace with one interface.
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) address: &'static str,
}

impl Lan {
    /// Builds the network. This process must already be in a mount and a network namespace other than
    /// those of `outside`: the machine's own are not touched.
    pub(super) fn create(outside: &[String]) -> Result<Self> {
        ensure!(
            namespaces()?.iter().all(|own| !outside.contains(own)),
            "the demo has no namespaces of its own here: start it with `cargo xtask demo`"
        );
        let lan = Self {
            server: Host {
                name: "server",
                address: "10.78.0.1",
            },
            client: Host {
                name: "client",
                address: "10.78.0.2",
            },
            stranger: Host {
                name: "stranger",
                address: "10.78.0.3",
            },
        };
        mount("tmpfs", FOLDER)?;
        mount("bpf", "/sys/fs/bpf")?;
        // The namespace that this process is in is the switch between the hosts.
        ip("link add switch type bridge")?;
        ip("link set switch up")?;
        for host in [&lan.server, &lan.client, &lan.stranger] {
            host.plug_in()?;
        }
        Ok(lan)
    }
}

impl Host {
    /// A command that will run on this host and end no later than this process.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program)
            .current_dir(FOLDER)
            .stdin(Stdio::null());
        command
    }

    fn plug_in(&self) -> Result<()> {
        let Self { name, address } = self;
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add to-{name} type veth peer name {INTERFACE} netns {name}"
        ))?;
        ip(&format!("link set to-{name} master switch up"))?;
        ip(&format!(
            "-n {name} address add {address}/24 dev {INTERFACE}"
        ))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set {INTERFACE} up"))
    }
}

/// The mount and network namespaces of this process, as the kernel names them.
pub(crate) fn namespaces() -> Result<[String; 2]> {
    let name = |path: &str| {
        let link = fs::read_link(path).with_context(|| format!("can't read {path}"))?;
        Ok::<_, anyhow::Error>(link.to_string_lossy().into_owned())
    };
    Ok([name("/proc/self/ns/mnt")?, name("/proc/self/ns/net")?])
}

fn mount(kind: &str, place: &str) -> Result<()> {
    process::stdout(Command::new("mount").args(["-t", kind, kind, place]))
        .map(drop)
        .with_context(|| format!("the demo needs a {kind} file system of its own"))
}

fn ip(arguments: &str) -> Result<()> {
    process::stdout(Command::new("ip").args(arguments.split(' '))).map(drop)
}
