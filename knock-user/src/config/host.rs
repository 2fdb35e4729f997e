//! What the warnings depend on: facts about this host and the session in which the command runs.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    env, fs, io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use crate::{
    client::clock_is_free,
    datapath,
    sys::{
        links::{self, Link},
        sock_diag::{States, Transport, sockets},
    },
    values::{Port, Protocol},
};

/// Facts about a host, for warnings. With the default nothing is known, and so nothing is warned of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The ports that the kernel assigns to outgoing connections.
    pub ephemeral_ports: Option<RangeInclusive<u16>>,
    /// The first port on which a process without `CAP_NET_BIND_SERVICE` may listen.
    pub first_unprivileged_port: Option<u16>,
    /// The ports on which something listens that other hosts can reach.
    pub listening: BTreeSet<Port>,
    /// The UDP ports from which a socket of this host may send to others.
    pub udp_sockets: BTreeSet<u16>,
    /// The network devices; `None` where they cannot be read.
    pub devices: Option<Vec<Link>>,
    /// By device, the settings that are on and let a packet change its destination after it was judged: paths
    /// below `/proc/sys`.
    pub source_routing: BTreeMap<String, Vec<String>>,
    /// The interfaces by which the kernel forwards IPv6, though their own setting says that they do not.
    pub forwarding_unsaid: BTreeSet<String>,
    /// The SSH session in which the command runs.
    pub ssh: Option<SshSession>,
    /// The interfaces whose packets no entry of the kernel program can read, or is shown, and why.
    pub unreadable: BTreeMap<String, String>,
    /// The programs of hooks are to be found in the file system.
    pub has_programs: bool,
    /// Keys and certificates are to be found in the file system.
    pub has_keys: bool,
    /// Nothing keeps the clock right.
    pub clock_is_free: bool,
}

/// The two ends of an SSH session, from `SSH_CONNECTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSession {
    pub client: IpAddr,
    pub client_port: u16,
    pub server: IpAddr,
    /// The server's TCP port.
    pub port: u16,
}

impl HostFacts {
    /// Reads the facts about this host and process. What cannot be read stays unknown: a warning must not fail.
    pub fn of_this_host() -> Self {
        let devices = links::with_addresses().ok();
        Self {
            ephemeral_ports: ephemeral_ports(),
            first_unprivileged_port: first_unprivileged_port(),
            listening: listening_ports().unwrap_or_default(),
            udp_sockets: udp_sockets().unwrap_or_default(),
            source_routing: source_routing(devices.as_deref().unwrap_or_default()),
            forwarding_unsaid: forwarding_unsaid(devices.as_deref().unwrap_or_default()),
            devices,
            ssh: SshSession::of_this_process(),
            unreadable: datapath::unreadable().unwrap_or_default(),
            has_programs: true,
            has_keys: true,
            clock_is_free: clock_is_free(),
        }
    }
}

impl SshSession {
    /// Returns the session in which this process runs.
    pub fn of_this_process() -> Option<Self> {
        ssh_connection().and_then(|text| Self::parse(&text))
    }

    /// Reads `198.51.100.7 50022 192.0.2.1 22`; `None` for anything else.
    pub fn parse(ssh_connection: &str) -> Option<Self> {
        let mut words = ssh_connection.split_whitespace();
        // A link-local address has a zone here, which is not part of a packet.
        let address = |word: &str| word.split('%').next()?.parse::<IpAddr>().ok();
        let client = address(words.next()?)?;
        let client_port = words.next()?.parse().ok()?;
        let server = address(words.next()?)?;
        let port = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self {
            client,
            client_port,
            server,
            port,
        })
    }
}

/// Returns the ports from which the kernel chooses one for an outgoing connection of this network namespace.
pub fn ephemeral_ports() -> Option<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    let (low, high) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(low..=high)
}

fn first_unprivileged_port() -> Option<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    text.trim().parse().ok()
}

/// Returns every port of this network namespace with a listening TCP socket or an unconnected UDP socket that other
/// hosts can reach.
pub fn listening_ports() -> io::Result<BTreeSet<Port>> {
    let mut ports = BTreeSet::new();
    // The kernel reports a UDP socket without a peer in TCP's state CLOSE.
    for (protocol, transport, states) in [
        (Protocol::Tcp, Transport::Tcp, States::LISTEN),
        (Protocol::Udp, Transport::Udp, States::CLOSE),
    ] {
        for socket in sockets(transport, &states)? {
            let number = socket.local.port();
            if socket.is_reachable() && number != 0 {
                ports.insert(Port { number, protocol });
            }
        }
    }
    Ok(ports)
}

fn udp_sockets() -> io::Result<BTreeSet<u16>> {
    let sockets = sockets(Transport::Udp, &States::all())?;
    let outward = sockets.iter().filter(|socket| socket.is_reachable());
    Ok(outward.map(|socket| socket.local.port()).collect())
}

/// Returns both ends, local then remote, of every TCP connection of this network namespace, without those in
/// `TIME_WAIT`.
pub fn connections() -> io::Result<HashSet<(SocketAddr, SocketAddr)>> {
    let over = States::TIME_WAIT | States::CLOSE | States::LISTEN;
    let sockets = sockets(Transport::Tcp, &States::all().difference(over))?;
    let ends = sockets.iter().map(|socket| (socket.local, socket.remote));
    Ok(ends.collect())
}

/// Returns the settings of source routing that are on, by device.
fn source_routing(devices: &[Link]) -> BTreeMap<String, Vec<String>> {
    let mut on = BTreeMap::<String, Vec<String>>::new();
    for (family, setting) in [
        ("ipv4", "accept_source_route"),
        ("ipv6", "accept_source_route"),
        ("ipv6", "seg6_enabled"),
        ("ipv6", "rpl_seg_enabled"),
    ] {
        let of = |device: &str| format!("net/{family}/conf/{device}/{setting}");
        let is_on = |device: &str| {
            fs::read_to_string(format!("/proc/sys/{}", of(device)))
                .is_ok_and(|value| value.trim().parse::<i32>().is_ok_and(|value| value > 0))
        };
        // The kernel uses the lower value of `all` and the device.
        if !is_on("all") {
            continue;
        }
        for device in devices.iter().filter(|device| is_on(&device.name)) {
            on.entry(device.name.clone())
                .or_default()
                .push(of(&device.name));
        }
    }
    on
}

/// Returns the interfaces by which the kernel forwards IPv6 (`ip6_forward`) though its routes tell programs that they forward nothing
/// (`bpf_ipv6_fib_lookup`).
fn forwarding_unsaid(devices: &[Link]) -> BTreeSet<String> {
    let is_on = |device: &str, setting: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{device}/{setting}");
        let value = fs::read_to_string(path).ok()?;
        Some(value.trim() != "0")
    };
    let all = is_on("all", "forwarding") == Some(true);
    let is_unsaid = |device: &&Link| {
        // Older kernels have no setting for one interface.
        let forced = || is_on(&device.name, "force_forwarding") == Some(true);
        // What is for other hosts passes a bridge all the same.
        is_on(&device.name, "forwarding") == Some(false)
            && (all || forced())
            && !datapath::is_bridged(&[device.index], devices)
    };
    let unsaid = devices.iter().filter(is_unsaid);
    unsaid.map(|device| device.name.clone()).collect()
}

/// Returns `SSH_CONNECTION` of this process or of an ancestor, since sudo removes the variable.
fn ssh_connection() -> Option<String> {
    if let Ok(value) = env::var("SSH_CONNECTION") {
        return Some(value);
    }
    let mut process = "self".to_owned();
    // A limit, since processes change while they are read; shells are not nested this deep.
    for _ in 0..64 {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let parent = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))?
            .trim();
        if parent == "0" {
            return None;
        }
        parent.clone_into(&mut process);
        // The environment of another user's process cannot be read, but an ancestor may be this user's own.
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let found = environment
            .split(|b| *b == 0)
            .find_map(|pair| pair.strip_prefix(b"SSH_CONNECTION="));
        if let Some(value) = found {
            return String::from_utf8(value.to_vec()).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_connections_are_read_whole_or_not_at_all() {
        let session =
            SshSession::parse("fe80::1%eth0 50022 2001:db8::1 2222").expect("well-formed");
        assert_eq!(
            session.client,
            "fe80::1".parse::<IpAddr>().expect("an address")
        );
        assert_eq!(
            session.server,
            "2001:db8::1".parse::<IpAddr>().expect("an address")
        );
        assert_eq!((session.client_port, session.port), (50022, 2222));
        for bad in [
            "",
            "198.51.100.7 50022 192.0.2.1",
            "a 1 b 2",
            "198.51.100.7 1 192.0.2.1 99999",
            "::1 1 ::1 2 3",
        ] {
            assert_eq!(SshSession::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_connection_is_found_while_it_lives() {
        for listen in ["127.0.0.1:0", "[::]:0"] {
            let listener = std::net::TcpListener::bind(listen).expect("a free port");
            let port = listener.local_addr().expect("a bound socket").port();
            let client = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            let (server, _) = listener.accept().expect("someone connects");
            let local: SocketAddr = ([127, 0, 0, 1], port).into();
            let ends = (local, client.local_addr().expect("a connected socket"));
            assert!(connections().expect("tables").contains(&ends), "{listen}");
            // The side that closes first stays in TIME_WAIT.
            drop(server);
            drop(client);
            while connections().expect("tables").contains(&ends) {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn what_other_hosts_can_reach_is_listening() {
        for (bind, listening) in [
            ("0.0.0.0:0", true),
            ("[::]:0", true),
            ("127.0.0.1:0", false),
        ] {
            let tcp = std::net::TcpListener::bind(bind).expect("a free port");
            let udp = std::net::UdpSocket::bind(bind).expect("a free port");
            let ports = listening_ports().expect("the kernel answers");
            let sending = udp_sockets().expect("the kernel answers");
            for (address, protocol) in [
                (tcp.local_addr(), Protocol::Tcp),
                (udp.local_addr(), Protocol::Udp),
            ] {
                let number = address.expect("a bound socket").port();
                let port = Port { number, protocol };
                assert_eq!(ports.contains(&port), listening, "{bind} {port}");
                if protocol == Protocol::Udp {
                    assert_eq!(sending.contains(&number), listening, "{bind} {port}");
                }
            }
        }
    }
}
