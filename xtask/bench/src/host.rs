//! The network of the bench: a sender and a host in their own network namespaces, joined by any number of veth pairs.
//! The kernel removes it with the last process in it.

use std::{
    fs, io,
    net::UdpSocket,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use netlab::{
    Netns,
    host::{BPFFS, ensure_outside, mount},
    ip, netns,
    offload::{self, Offload},
    packet::mac,
};

/// The host's address, to which everything is sent.
pub const HOST: [u8; 4] = [192, 0, 2, 1];
/// MAC addresses of every wire's two ends.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A private mount over this folder holds the bench's files.
const FOLDER: &str = "/run";

/// The variable that names the folder in which knockgate keeps what outlives its processes: one of the bench's own.
pub const STATE: (&str, &str) = ("STATE_DIRECTORY", "/run/state");

/// A host. The sender is in this process's namespace.
pub struct Host {
    netns: Netns,
    /// A folder for the bench's files.
    pub folder: &'static Path,
    bpffs: &'static Path,
}

/// A veth pair between sender and host.
pub struct Wire {
    /// Name of the host's end.
    pub name: String,
    /// Index of the sender's end.
    pub sender: u32,
    /// Index of the host's end, in its namespace.
    pub host: u32,
}

impl Host {
    /// Builds the network. This process must already have left the mount and network namespaces `outside`, named as in
    /// `/proc/PID/ns`, so that it does not change the machine's own.
    pub fn create(outside: &[String]) -> Result<Self> {
        ensure_outside(outside).context("start the bench with `cargo xtask bench`")?;
        mount("tmpfs", FOLDER)?;
        mount("bpf", BPFFS)?;
        ip("link set lo up")?;
        Self::named("host")
    }

    /// Adds another host, whose packet filters do not affect the others.
    pub fn another(name: &str) -> Result<Self> {
        Self::named(name)
    }

    fn named(name: &str) -> Result<Self> {
        let netns = Netns::create(name)?.with_kill_at_exit();
        let [a, b, c, d] = HOST;
        netns.ip(&format!("address add {a}.{b}.{c}.{d}/32 dev lo"))?;
        // The host has no routes to the sources of packets.
        for scope in ["all", "default"] {
            netns.set(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        Ok(Self {
            netns,
            folder: Path::new(FOLDER),
            bpffs: Path::new(BPFFS),
        })
    }

    /// Returns the path at which something called `name` can be pinned.
    pub fn pins(&self, name: &str) -> PathBuf {
        self.bpffs.join(name)
    }

    /// Returns a command that runs on the host, and is killed when this process ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.netns.command(program);
        command.env(STATE.0, STATE.1);
        command
    }

    /// Runs `work` on a thread in the host's namespace. Sockets that it opens stay in that namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work)
    }

    /// Adds a wire between sender and host, with both ends up.
    pub fn wire(&self, name: &str) -> Result<Wire> {
        let host = self.netns.name();
        let (sender_mac, host_mac) = (mac(SENDER_MAC), mac(HOST_MAC));
        ip(&format!(
            "link add to-{name} address {sender_mac} type veth peer {name} address {host_mac} netns {host}\n\
             link set to-{name} up"
        ))?;
        self.netns.ip(&format!("link set {name} up"))?;
        // A veth accepts redirected frames only with GRO or a native program.
        offload::set(&self.netns, name, &[Offload::Gro], true)?;
        Ok(Wire {
            name: name.to_owned(),
            sender: netns::index_of(&format!("to-{name}"))?,
            host: self.netns.index_of(name)?,
        })
    }

    /// Routes the host's answers through this wire.
    pub fn answer_by(&self, wire: &Wire) -> Result<()> {
        let name = &wire.name;
        let [a, b, c, d] = HOST;
        let next = format!("{a}.{b}.{c}.{}", d + 1);
        let mac = mac(SENDER_MAC);
        self.netns.ip(&format!(
            "address add {a}.{b}.{c}.{d}/24 dev {name}\n\
             neighbour add {next} lladdr {mac} dev {name} nud permanent\n\
             route add default via {next} dev {name}"
        ))?;
        Ok(())
    }

    /// Binds UDP ports of the host that nothing reads, so that packets to them are counted and dropped.
    pub fn sinks(&self, ports: &[u16]) -> Result<Vec<UdpSocket>> {
        self.inside(|| {
            ports
                .iter()
                .map(|port| {
                    let socket = UdpSocket::bind(("0.0.0.0", *port))
                        .with_context(|| format!("cannot bind the host's port {port}/udp"))?;
                    shrink(&socket).context("cannot make a socket's buffer smaller")?;
                    Ok(socket)
                })
                .collect()
        })
    }

    /// Returns how many IPv4 packets have reached the host's transport layers.
    pub fn reached(&self) -> Result<u64> {
        let path = "/proc/thread-self/net/snmp";
        let snmp = self
            .inside(|| fs::read_to_string(path).with_context(|| format!("cannot read {path}")))?;
        snmp_counter(&snmp, "Ip:", "InDelivers")
            .with_context(|| format!("{path} has no InDelivers of Ip"))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // At the latest, it is removed with the namespaces.
        let _ = ip(&format!("link del to-{}", self.name));
    }
}

/// Sets the smallest receive buffer.
fn shrink(socket: &UdpSocket) -> io::Result<()> {
    let bytes: libc::c_int = 1;
    // SAFETY: the option's value is an integer of the size given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            4,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns a counter of `/proc/net/snmp`, where each line of values follows a line of names.
fn snmp_counter(snmp: &str, layer: &str, counter: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with(layer));
    let (names, values) = (lines.next()?, lines.next()?);
    let position = names.split_whitespace().position(|name| name == counter)?;
    values.split_whitespace().nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp = "Tcp: InSegs OutSegs\nTcp: 7 8\nUdp: InDatagrams NoPorts\nUdp: 9 10\n";
        assert_eq!(snmp_counter(snmp, "Udp:", "NoPorts"), Some(10));
        assert_eq!(snmp_counter(snmp, "Tcp:", "InSegs"), Some(7));
        assert_eq!(snmp_counter(snmp, "Tcp:", "NoPorts"), None);
    }
}
