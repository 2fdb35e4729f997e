//! A throw-away network: a namespace with the guarded host, one with its clients, and a veth pair between them.
//!
//! ```text
//!   client namespace                              host namespace
//!   10.77.1.2  fd77:0:0:1::2  A ─┐
//!   10.77.1.3  fd77:0:0:1::3  B ─┼─ eth0 ──── wan0 ─ 10.77.0.1  fd77::1   the host
//!   10.77.2.2  fd77:0:0:2::2  C ─┘                   10.77.0.9  fd77::9   its other address
//! ```
//!
//! A and B share a /24 and a /64; C has its own.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use netlab::{Netns, host, packet::mac};
use tempfile::TempDir;

use crate::{
    foreign, need,
    network::{self, ip},
    path::{Latency, Path as SlowPath},
    pppoe::Pppoe,
    run::{Run, run},
};

/// The interface of the host that knockgate guards.
pub const WAN: &str = "wan0";
/// The interface of the clients, and the MAC addresses of both ends.
pub const CLIENT_INTERFACE: &str = "eth0";
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What [`Lab::put_on_top`] calls the interface below.
pub const BELOW: &str = "below";
/// The MAC address that it gets, at either end.
const MAC_BELOW: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// An address family. A gate treats both alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

/// A source in the client namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    A,
    B,
    C,
}

/// The network, a configuration and an instance's pins. Dropping it removes all of them.
#[derive(Debug)]
pub struct Lab {
    // Before the namespaces: it carries frames between devices in them.
    _path: Option<SlowPath>,
    pub host: Netns,
    pub client: Netns,
    folder: TempDir,
    pin_root: PathBuf,
}

impl Lab {
    /// Builds the network. Returns `None`, with a message, if this machine cannot (see [`need::met`]). `tools`:
    /// programs that the calling test needs in addition to `ip`.
    pub fn build(tools: &[&str]) -> Option<Self> {
        Self::build_with(tools, None)
    }

    /// As [`Lab::build`], with a path of this latency between host and clients.
    pub fn build_slow(tools: &[&str], latency: Latency) -> Option<Self> {
        Self::build_with(tools, Some(latency))
    }

    fn build_with(tools: &[&str], latency: Option<Latency>) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !need::met(tools) {
            return None;
        }
        // Fails early, with a message of its own, if knockgate has not been built.
        need::knockgate();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", process::id());
        let folder = TempDir::with_prefix("knockgate-").expect("a temporary folder can be made");
        // Tests also run commands as the user nobody.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .expect("one may change what one owns");
        // Each lab uses one CPU, so that its frames stay in order; labs take CPUs in turn.
        let cpus = host::cpus().expect("the kernel says which CPUs there are");
        let cpu = cpus[number as usize % cpus.len()];
        let netns = |end: &str| {
            let netns = Netns::create(&format!("kg{id}-{end}"));
            netns.unwrap_or_else(|error| panic!("{error}")).on_cpu(cpu)
        };
        let host = netns("host");
        let client = netns("client");
        let path = join(&host, &client, latency);
        Some(Self {
            host,
            client,
            folder,
            pin_root: Path::new(host::BPFFS).join(format!("kg-test-{id}")),
            _path: path,
        })
    }

    /// Returns the path of the configuration file, which [`Lab::configure`] writes.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("knockgate.toml")
    }

    /// Returns the configuration that [`Lab::configure`] wrote last.
    pub fn configured(&self) -> Option<String> {
        fs::read_to_string(self.config()).ok()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The directory in which the service leaves what the next one has to know.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn pin_root(&self) -> &Path {
        &self.pin_root
    }

    /// Returns a wrapper that runs a command as the unit does: of the BPF file system, nothing but the directory of the pins
    /// can be written. That directory must be there.
    pub fn unit_sandbox(&self) -> [&str; 7] {
        const SCRIPT: &str = "set -e; mount --bind /sys/fs/bpf /sys/fs/bpf; mount --bind \"$1\" \"$1\"; \
                              mount -o remount,bind,ro /sys/fs/bpf; ! mkdir /sys/fs/bpf/writable 2>/dev/null; shift; exec \"$@\"";
        let root = self.pin_root.to_str().expect("UTF-8");
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", root]
    }

    pub fn configure(&self, text: &str) {
        let path = self.config();
        fs::write(&path, text).expect("the temporary folder is writable");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .expect("one may change what one owns");
    }

    /// Runs `knockgate` in the host's namespace.
    pub fn knockgate(&self, arguments: &[&str]) -> Run {
        run(&mut self.knockgate_command(arguments))
    }

    /// Returns the command that [`Lab::knockgate`] runs, for tests that wrap it or leave it running.
    pub fn knockgate_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(need::knockgate());
        command
            .arg("--config")
            .arg(self.config())
            .arg("--pin-root")
            .arg(&self.pin_root)
            .args(arguments);
        self.plain(&mut command);
        command
    }

    /// Runs a wrapper in the host's namespace, such as `setpriv`, with the command line of `knockgate` after its own
    /// arguments.
    pub fn knockgate_under(&self, wrapper: &[&str], arguments: &[&str]) -> Run {
        run(&mut self.knockgate_command_under(wrapper, arguments))
    }

    /// Returns the command that [`Lab::knockgate_under`] runs, to be left running.
    pub fn knockgate_command_under(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let (program, options) = wrapper.split_first().expect("a wrapper has a name");
        // The user nobody may have no access to the folder of the build.
        let binary = self.folder.path().join("knockgate");
        // By another process: if this one wrote the file, a child that another test forks meanwhile would hold it open
        // for writing, and it could not be executed.
        // In place of one that is there, which may run.
        run(Command::new("cp")
            .arg("-f")
            .arg(need::knockgate())
            .arg(&binary))
        .exits(0);
        let mut command = self.host.command(program);
        command
            .args(options)
            .arg(binary)
            .arg("--config")
            .arg(self.config())
            .arg("--pin-root")
            .arg(&self.pin_root)
            .args(arguments);
        self.plain(&mut command);
        command
    }

    /// Runs a program in the clients' namespace; its packets come from A.
    pub fn client(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Run {
        let mut command = self.client.command(program.as_ref());
        command.args(arguments);
        self.plain(&mut command);
        run(&mut command)
    }

    /// Returns the paths of all pins, relative to the pin root; none if there is no pin root.
    pub fn pins(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.pin_root.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&self.pin_root);
                    found.push(name.expect("it was listed there").to_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// Returns what `ip` prints of the host's interface: flags, XDP program, queueing discipline.
    pub fn interface(&self) -> String {
        let link = run(Command::new("ip").args(["-n", self.host.name(), "link", "show", WAN]));
        link.exits(0).stdout.clone()
    }

    /// Asserts that the interface has no program and that nothing is pinned.
    pub fn assert_untouched(&self) {
        let interface = self.interface();
        assert!(
            !interface.contains("xdp"),
            "an XDP program is on the interface: {interface}"
        );
        let at_tcx = foreign::programs_at_tcx(&self.host, WAN);
        assert!(at_tcx.is_empty(), "programs at TCX: {at_tcx:?}");
        assert!(
            !self.pin_root.exists(),
            "{} exists, with {:?} in it",
            self.pin_root.display(),
            self.pins()
        );
    }

    /// Deletes the host's interface and makes another one with the same name and addresses.
    pub fn make_again(&self) {
        ip(&self.host, &format!("link delete {WAN}"));
        join(&self.host, &self.client, None);
    }

    /// Adds an interface to the host's namespace, whose peer is in the clients' namespace.
    pub fn add_interface(&self, name: &str) {
        let (host, client) = (self.host.name(), self.client.name());
        ip(
            &self.host,
            &format!(
                "link add {name} netns {host} type veth peer {name}-peer netns {client}\n\
                 link set {name} up"
            ),
        );
        ip(&self.client, &format!("link set {name}-peer up"));
    }

    /// Puts a device on top of an end's interface, or of both. It gets the interface's name and addresses; the interface is then
    /// called [`BELOW`]. `commands`: for the host and for the clients, the `ip` commands that make the device, in which
    /// `{name}` and `{mac}` stand for its own; `what` it is. Returns whether the kernel has such devices.
    pub fn put_on_top(&self, what: &str, commands: [Option<&str>; 2]) -> bool {
        let mut on_top = Vec::new();
        for (end, commands) in self.ends().into_iter().zip(commands) {
            let Some(commands) = commands else {
                continue;
            };
            let (interface, mac) = (end.interface, &end.mac);
            end.put_below();
            let commands = commands.replace("{name}", interface).replace("{mac}", mac);
            if !need::kernel_has(what, end.netns, &commands) {
                return false;
            }
            on_top.push(end);
        }
        self.set_up(&on_top);
        true
    }

    /// As [`Lab::put_on_top`], with the ends of a `PPPoE` session, which are there for as long as what is returned. Returns
    /// `None` if the kernel has no `PPPoE`.
    pub fn put_pppoe_on_top(&self) -> Option<[Pppoe; 2]> {
        let ends = self.ends();
        for end in &ends {
            end.put_below();
            ip(end.netns, &format!("link set {BELOW} up"));
        }
        let [host, client] = ends
            .each_ref()
            .map(|end| Pppoe::make(end.netns, end.interface, BELOW, MAC_BELOW));
        let made = [need::has("PPPoE", host)?, need::has("PPPoE", client)?];
        self.set_up(&ends);
        Some(made)
    }

    fn ends(&self) -> [End<'_>; 2] {
        ends(&self.host, &self.client)
    }

    /// Sets these ends up again, after their interfaces have been replaced.
    fn set_up(&self, replaced: &[End<'_>]) {
        for end in replaced {
            for peer in self.ends() {
                if peer.interface != end.interface {
                    end.set_up(&peer);
                }
            }
        }
        for end in replaced {
            network::wait_for_addresses(end.netns, end.interface);
        }
    }

    /// Adds the addresses of another group of sources to the clients' interface.
    pub fn add_sources(&self, group: u8) {
        let mac = mac(CLIENT_MAC);
        let (mut addresses, mut neighbours) = (Vec::new(), Vec::new());
        for who in [Source::A, Source::B, Source::C] {
            // The kernel must not choose an IPv6 address of these by itself.
            for (family, length, lifetime) in
                [(Family::V4, 16, ""), (Family::V6, 48, "preferred_lft 0")]
            {
                let address = family.address_in(group, who);
                let with_length = format!("{address}/{length}");
                let add = network::address_command(CLIENT_INTERFACE, &with_length);
                addresses.push(format!("{add} {lifetime}"));
                neighbours.push(format!(
                    "neighbour add {address} lladdr {mac} dev {WAN} nud permanent"
                ));
            }
        }
        ip(&self.client, &addresses.join("\n"));
        ip(&self.host, &neighbours.join("\n"));
    }

    /// Routes a whole network to the host itself, and the clients to it. Returns an address of it, which no interface has.
    pub fn route_to_host(&self, family: Family) -> IpAddr {
        let (network, address) = match family {
            Family::V4 => ("203.0.113.0/24", "203.0.113.5"),
            Family::V6 => ("2001:db8:113::/64", "2001:db8:113::5"),
        };
        ip(&self.host, &format!("route add local {network} dev lo"));
        let host = family.host();
        ip(&self.client, &format!("route replace {network} via {host}"));
        address.parse().expect("an address")
    }

    /// Renames an interface in the host's namespace.
    pub fn rename(&self, from: &str, to: &str) {
        ip(&self.host, &format!("link set {from} name {to}"));
    }

    /// Removes colours, client profiles and the caller's SSH session from the environment.
    fn plain(&self, command: &mut Command) {
        command
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env("STATE_DIRECTORY", self.state())
            .env_remove("SSH_CONNECTION")
            .env_remove("KNOCKGATE_PIN_ROOT")
            .env_remove("RUST_LOG");
    }
}

/// Returns both ends of the path, that of the host first.
fn ends<'a>(host: &'a Netns, client: &'a Netns) -> [End<'a>; 2] {
    let host = End {
        netns: host,
        interface: WAN,
        mac: mac(HOST_MAC),
        addresses: &["10.77.0.1/16", "10.77.0.9/16", "fd77::1/48", "fd77::9/48"],
    };
    let client = End {
        netns: client,
        interface: CLIENT_INTERFACE,
        mac: mac(CLIENT_MAC),
        addresses: &[
            "10.77.1.2/16",
            "10.77.1.3/16",
            "10.77.2.2/16",
            "fd77:0:0:1::2/48",
            "fd77:0:0:1::3/48",
            "fd77:0:0:2::2/48",
        ],
    };
    [host, client]
}

/// Joins the two namespaces. Returns the path, if it has a latency, which must be kept.
fn join(host: &Netns, client: &Netns, latency: Option<Latency>) -> Option<SlowPath> {
    let [host, client] = ends(host, client);
    let path = latency.map(|latency| {
        let ends = [&host, &client].map(|end| (end.netns, end.interface));
        let path = SlowPath::join(ends, latency);
        for end in [&host, &client] {
            ip(
                end.netns,
                &format!("link set {} address {}", end.interface, end.mac),
            );
        }
        path
    });
    if path.is_none() {
        host.join_by_veth(&client);
    }
    host.set_up(&client);
    client.set_up(&host);
    // A row tries several closed UDP ports at once; by default a host answers only six in a row.
    network::set(
        host.netns,
        &["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"],
        "0",
    );
    path
}

/// One end of the path.
struct End<'a> {
    netns: &'a Netns,
    interface: &'a str,
    mac: String,
    addresses: &'a [&'a str],
}

impl End<'_> {
    /// Renames its interface to [`BELOW`], and takes its addresses away.
    fn put_below(&self) {
        let interface = self.interface;
        // A MAC address of its own, since a bridge and a macvlan must not have that of the interface.
        let mac = mac(MAC_BELOW);
        ip(
            self.netns,
            &format!(
                "link set {interface} down\naddress flush dev {interface}\n\
                 link set {interface} name {BELOW} address {mac}"
            ),
        );
    }

    fn join_by_veth(&self, peer: &Self) {
        let [own, other] = [self, peer].map(|end| {
            let (interface, mac, netns) = (end.interface, &end.mac, end.netns.name());
            format!("{interface} address {mac} netns {netns}")
        });
        ip(
            self.netns,
            &format!("link add {own} type veth peer {other}"),
        );
    }

    fn set_up(&self, peer: &Self) {
        let interface = self.interface;
        let mut commands = Vec::new();
        let mut preferred = true;
        for address in self.addresses {
            let mut command = network::address_command(interface, address);
            if address.contains(':') {
                // Packets of a program that binds no address must come from the first address of a family. For IPv4
                // that is the rule; for IPv6 the others have to be deprecated.
                if !preferred {
                    command.push_str(" preferred_lft 0");
                }
                preferred = false;
            }
            commands.push(command);
        }
        commands.push(format!("link set {interface} up"));
        // In the first second of a link, IPv6 neighbour discovery may fail.
        let mac = &peer.mac;
        for address in peer.addresses {
            let (address, _) = address.split_once('/').expect("each has a prefix length");
            commands.push(format!(
                "neighbour add {address} lladdr {mac} dev {interface} nud permanent"
            ));
        }
        ip(self.netns, &commands.join("\n"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A failure here must not hide that of a test; the rest is removed with the namespaces.
        let _ = self.knockgate_command(&["down", "--all"]).output();
        let _ = fs::remove_dir_all(&self.pin_root);
    }
}

impl Family {
    pub fn host(self) -> IpAddr {
        self.pick("10.77.0.1", "fd77::1")
    }

    pub fn other_host_address(self) -> IpAddr {
        self.pick("10.77.0.9", "fd77::9")
    }

    pub fn address(self, who: Source) -> IpAddr {
        self.address_in(0, who)
    }

    /// Returns the address of a source of a group. All A and B share a network, and so do all C.
    pub fn address_in(self, group: u8, who: Source) -> IpAddr {
        let (network, first) = match who {
            Source::A => (1, 2),
            Source::B => (1, 3),
            Source::C => (2, 2),
        };
        let last = first + 4 * group;
        match self {
            Self::V4 => [10, 77, network, last].into(),
            Self::V6 => [0xfd77, 0, 0, network.into(), 0, 0, 0, last.into()].into(),
        }
    }

    /// Returns the network that contains A and B, but not C.
    pub fn network(self) -> &'static str {
        match self {
            Self::V4 => "10.77.1.0/24",
            Self::V6 => "fd77:0:0:1::/64",
        }
    }

    fn pick(self, v4: &str, v6: &str) -> IpAddr {
        let address = match self {
            Self::V4 => v4,
            Self::V6 => v6,
        };
        address
            .parse()
            .expect("the addresses above are well-formed")
    }
}
