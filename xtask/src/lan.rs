//! Three hosts on one network, made of private namespaces, for `demo` and for the trial of packages.

use std::{ffi::OsStr, process::Command};

use anyhow::{Context as _, Result};
use netlab::{
    Netns,
    host::{BPFFS, ensure_outside, mount},
    ip,
};

/// The files that belong to this network alone: covers the machine's `/run` for its processes.
pub(crate) const FOLDER: &str = "/run";

/// The interface of each host.
pub(crate) const INTERFACE: &str = "eth0";

/// A network of three hosts. The kernel removes it with the last process in this process's namespaces.
pub(crate) struct Lan {
    pub(crate) server: Host,
    pub(crate) client: Host,
    pub(crate) stranger: Host,
}

/// One host: a network namespace with one interface.
pub(crate) struct Host {
    netns: Netns,
    pub(crate) address: &'static str,
}

impl Lan {
    /// Builds the network. This process must already be in a mount and a network namespace other than
    /// those of `outside`: the machine's own are not touched.
    pub(crate) fn create(outside: &[String]) -> Result<Self> {
        ensure_outside(outside)
            .context("this part is started by another command of `cargo xtask`")?;
        mount("tmpfs", FOLDER)?;
        mount("bpf", BPFFS)?;
        // This process's namespace is the switch between the hosts.
        ip("link add switch type bridge\nlink set switch up")?;
        Ok(Self {
            server: Host::plug_in("server", "10.78.0.1")?,
            client: Host::plug_in("client", "10.78.0.2")?,
            stranger: Host::plug_in("stranger", "10.78.0.3")?,
        })
    }
}

impl Host {
    fn plug_in(name: &str, address: &'static str) -> Result<Self> {
        let netns = Netns::create(name)?.with_kill_at_exit();
        ip(&format!(
            "link add to-{name} type veth peer name {INTERFACE} netns {name}\n\
             link set to-{name} master switch up"
        ))?;
        netns.ip(&format!(
            "address add {address}/24 dev {INTERFACE}\n\
             link set {INTERFACE} up"
        ))?;
        Ok(Self { netns, address })
    }

    pub(crate) fn name(&self) -> &str {
        self.netns.name()
    }

    /// Returns a command that runs on this host, and is killed when this process ends.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.netns.command(program);
        command.current_dir(FOLDER);
        command
    }
}
