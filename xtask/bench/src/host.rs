//! The network that the bench measures on: a sender and a host in network namespaces of their own, joined by any
//! number of veth pairs. All of it goes with the processes in it, whatever ends them.

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

/// The address of the host, to which everything is sent.
pub const HOST: [u8; 4] = [192, 0, 2, 1];
/// MAC addresses of every wire's two ends.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Files that the bench alone sees: covers the machine's own folder for the bench's processes.
const FOLDER: &str = "/run";

/// A host. The sender is wherever this process is.
pub struct Host {
    netns: Netns,
    /// A folder for files of the bench's own.
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
    /// Builds the network. This process must already be in a mount and a network namespace other than those
    /// of `outside`, as `/proc/PID/ns` names them: the machine's own are not touched.
    pub fn create(outside: &[String]) -> Result<Self> {
        ensure_outside(outside).context("start the bench with `cargo xtask bench`")?;
        mount("tmpfs", FOLDER)?;
        mount("bpf", BPFFS)?;
        ip("link set lo up")?;
        Self::named("host")
    }

    /// Adds another host, whose packet filters are none of the others' business.
    pub fn another(name: &str) -> Result<Self> {
        Self::named(name)
    }

    fn named(name: &str) -> Result<Self> {
        let netns = Netns::create(name)?.with_kill_at_exit();
        let [a, b, c, d] = HOST;
        netns.ip(&format!("address add {a}.{b}.{c}.{d}/32 dev lo"))?;
        // Packets come from sources that no route of the host's leads to.
        for scope in ["all", "default"] {
            netns.set(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        Ok(Self {
            netns,
            folder: Path::new(FOLDER),
            bpffs: Path::new(BPFFS),
        })
    }

    /// Where something called `name` can be pinned.
    pub fn pins(&self, name: &str) -> PathBuf {
        self.bpffs.join(name)
    }

    /// Returns a command that will run on the host and end no later than this process.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.netns.command(program)
    }

    /// Runs `work` on a thread of the host's. Sockets that it makes stay the host's.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work)
    }

    /// Joins sender and host by one more wire, both ends up.
    pub fn wire(&self, name: &str) -> Result<Wire> {
        let host = self.netns.name();
        let (sender_mac, host_mac) = (mac(SENDER_MAC), mac(HOST_MAC));
        ip(&format!(
            "link add to-{name} address {sender_mac} type veth peer {name} address {host_mac} netns {host}\n\
             link set to-{name} up"
        ))?;
        self.netns.ip(&format!("link set {name} up"))?;
        // Without it, or a native program, a veth end takes no frames that come by redirection.
        offload::set(&self.netns, name, &[Offload::Gro], true)?;
        Ok(Wire {
            name: name.to_owned(),
            sender: netns::index_of(&format!("to-{name}"))?,
            host: self.netns.index_of(name)?,
        })
    }

    /// Has the host answer whatever comes by this wire, out of the same wire.
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

    /// Binds UDP ports of the host that nobody will read: what reaches them is counted and forgotten.
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

    /// How many IPv4 packets have reached the host's transport layers.
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
        // At the latest it goes with the namespaces.
        let _ = ip(&format!("link del to-{}", self.name));
    }
}

/// Gives a socket the smallest buffer that there is.
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

/// A counter of `/proc/net/snmp`, where a line of names comes before one of values.
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
