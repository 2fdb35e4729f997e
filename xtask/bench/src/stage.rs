//! Where the bench plays: a sender and a host in network namespaces of their own, joined by any number of
//! veth pairs. All of it goes with the processes in it, whatever ends them.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io, mem,
    net::UdpSocket,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

/// The address of the host, to which everything is sent.
pub const HOST: [u8; 4] = [192, 0, 2, 1];
/// MAC addresses of every wire's two ends.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Files that the bench alone sees: covers the machine's own folder for the bench's processes.
const FOLDER: &str = "/run";
const BPFFS: &str = "/sys/fs/bpf";

/// A host's namespace. The sender is wherever this process is.
pub struct Stage {
    name: String,
    host: File,
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

impl Stage {
    /// Builds the stage. This process must already be in a mount and a network namespace other than those
    /// of `outside`, as `/proc/PID/ns` names them: the machine's own are not touched.
    pub fn create(outside: &[String]) -> Result<Self> {
        for path in ["/proc/self/ns/mnt", "/proc/self/ns/net"] {
            let own = fs::read_link(path).with_context(|| format!("can't read {path}"))?;
            ensure!(
                !outside
                    .iter()
                    .any(|name| OsStr::new(name) == own.as_os_str()),
                "the bench has no namespaces of its own here: start it with `cargo xtask bench`"
            );
        }
        mount("tmpfs", FOLDER)?;
        mount("bpf", BPFFS)?;
        ip("link set lo up")?;
        Self::host("host", Path::new(FOLDER), Path::new(BPFFS))
    }

    /// Another host, whose packet filters are none of the others' business.
    pub fn beside(&self, name: &str) -> Result<Self> {
        Self::host(name, self.folder, self.bpffs)
    }

    fn host(name: &str, folder: &'static Path, bpffs: &'static Path) -> Result<Self> {
        ip(&format!("netns add {name}"))?;
        let path = namespace(name);
        let host = File::open(&path).with_context(|| format!("can't open {path}"))?;
        let stage = Self {
            name: name.to_owned(),
            host,
            folder,
            bpffs,
        };
        let [a, b, c, d] = HOST;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} address add {a}.{b}.{c}.{d}/32 dev lo"))?;
        // Packets come from sources that no route of the host's leads to.
        stage.inside(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter");
                fs::write(&path, "0").with_context(|| format!("can't write {path}"))?;
            }
            anyhow::Ok(())
        })?;
        Ok(stage)
    }

    /// Where something called `name` can be pinned.
    pub fn pins(&self, name: &str) -> PathBuf {
        self.bpffs.join(name)
    }

    /// A command that will run on the host and end no later than this process.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", namespace(&self.name)))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Runs `work` on a thread of the host's. Sockets that it makes stay the host's.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let host = self.host.as_raw_fd();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: takes no pointers, and the descriptor is open.
                if unsafe { libc::setns(host, libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error())
                        .context("can't enter the host's network");
                }
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Joins sender and host by one more wire, both ends up.
    pub fn wire(&self, name: &str) -> Result<Wire> {
        let host = &self.name;
        ip(&format!(
            "link add to-{name} address {} type veth peer name {name} address {} netns {host}",
            mac(SENDER_MAC),
            mac(HOST_MAC)
        ))?;
        ip(&format!("link set to-{name} up"))?;
        ip(&format!("-n {host} link set {name} up"))?;
        let host = self.inside(|| {
            // Without it, or a native program, a veth end takes no frames that come by redirection.
            enable_gro(name).with_context(|| format!("can't switch GRO on for {name}"))?;
            index(name)
        })?;
        Ok(Wire {
            name: name.to_owned(),
            sender: index(&format!("to-{name}"))?,
            host,
        })
    }

    /// Has the host answer whoever sends to it by this wire, out of the same wire.
    pub fn answer_by(&self, wire: &Wire) -> Result<()> {
        let Self { name: host, .. } = self;
        let name = &wire.name;
        let [a, b, c, d] = HOST;
        let next = format!("{a}.{b}.{c}.{}", d + 1);
        ip(&format!(
            "-n {host} address add {a}.{b}.{c}.{d}/24 dev {name}"
        ))?;
        ip(&format!(
            "-n {host} neighbour add {next} lladdr {} dev {name} nud permanent",
            mac(SENDER_MAC)
        ))?;
        ip(&format!(
            "-n {host} route add default via {next} dev {name}"
        ))
    }

    /// Binds UDP ports of the host that nobody will read: what reaches them is counted and forgotten.
    pub fn sinks(&self, ports: &[u16]) -> Result<Vec<UdpSocket>> {
        self.inside(|| {
            ports
                .iter()
                .map(|port| {
                    let socket = UdpSocket::bind(("0.0.0.0", *port))
                        .with_context(|| format!("can't bind the host's port {port}/udp"))?;
                    shrink(&socket).context("can't make a socket's buffer smaller")?;
                    Ok(socket)
                })
                .collect()
        })
    }

    /// How many IPv4 packets have reached the host's transport layers.
    pub fn reached(&self) -> Result<u64> {
        let path = "/proc/thread-self/net/snmp";
        let snmp =
            self.inside(|| fs::read_to_string(path).with_context(|| format!("can't read {path}")))?;
        snmp_counter(&snmp, "Ip:", "InDelivers")
            .with_context(|| format!("{path} has no InDelivers of Ip"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // At the latest it goes with the bench's own namespaces.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // At the latest it goes with the namespaces.
        let _ = ip(&format!("link del to-{}", self.name));
    }
}

/// Runs a command to its end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command
        .output()
        .with_context(|| format!("can't start {command:?}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?} failed ({}): {}", done.status, said.trim());
    }
    String::from_utf8(done.stdout).with_context(|| format!("{command:?} printed no text"))
}

/// Where `ip netns` keeps a namespace.
fn namespace(name: &str) -> String {
    format!("{FOLDER}/netns/{name}")
}

fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(arguments: &str) -> Result<()> {
    output(Command::new("ip").args(arguments.split(' '))).map(drop)
}

fn mount(kind: &str, place: &str) -> Result<()> {
    output(Command::new("mount").args(["-t", kind, kind, place]))
        .map(drop)
        .with_context(|| format!("the bench needs a {kind} file system of its own"))
}

fn index(name: &str) -> Result<u32> {
    let c_name = CString::new(name).context("an interface's name has no zero byte")?;
    // SAFETY: the name ends with a zero byte; the call only reads it.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()).with_context(|| format!("no interface {name}")),
        index => Ok(index),
    }
}

/// What `ethtool -K NAME gro on` does, on a machine that may lack ethtool.
fn enable_gro(name: &str) -> io::Result<()> {
    /// `struct ethtool_value` of `linux/ethtool.h`.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    const ETHTOOL_SGRO: u32 = 0x2c;
    const SIOCETHTOOL: libc::Ioctl = 0x8946;

    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    let mut value = Value {
        command: ETHTOOL_SGRO,
        data: 1,
    };
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (place, byte) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names an interface by a string that ends with a zero byte, and points to the
    // value that this command reads.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
