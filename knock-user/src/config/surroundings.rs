//! What the lint needs to know of the host and of the person at the keyboard.

use std::{
    collections::{BTreeSet, HashSet},
    env, fs, io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
};

use super::{Port, Protocol};

/// The host as the lint sees it. The default knows nothing and so warns of nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The ports that the kernel gives to outgoing connections.
    pub ephemeral_ports: Option<RangeInclusive<u16>>,
    /// The ports that something listens on.
    pub listening: BTreeSet<Port>,
    /// The SSH session in which the command runs.
    pub ssh: Option<SshSession>,
}

/// The two ends of an SSH session, as sshd puts them into `SSH_CONNECTION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSession {
    pub client: IpAddr,
    pub server: IpAddr,
    /// The server's TCP port.
    pub port: u16,
}

impl Surroundings {
    /// What this host and process say. What can't be read is left unknown: a lint must not fail.
    pub fn of_this_host() -> Self {
        Self {
            ephemeral_ports: ephemeral_ports(),
            listening: listening_ports().unwrap_or_default(),
            ssh: ssh_connection().and_then(|text| SshSession::parse(&text)),
        }
    }
}

impl SshSession {
    /// Reads `198.51.100.7 50022 192.0.2.1 22`; `None` for anything else.
    pub fn parse(ssh_connection: &str) -> Option<Self> {
        let mut words = ssh_connection.split_whitespace();
        // A link-local address comes with its zone, which no packet carries.
        let address = |word: &str| word.split('%').next()?.parse::<IpAddr>().ok();
        let client = address(words.next()?)?;
        let _client_port = words.next()?;
        let server = address(words.next()?)?;
        let port = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self {
            client,
            server,
            port,
        })
    }
}

/// The local ports that the kernel chooses from for this network namespace's outgoing connections.
pub fn ephemeral_ports() -> Option<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    let (low, high) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(low..=high)
}

/// Every port of this network namespace with a listening TCP or an unconnected UDP socket.
pub fn listening_ports() -> io::Result<BTreeSet<Port>> {
    // The states of include/net/tcp_states.h: TCP_LISTEN is 10; a UDP socket without a peer is in
    // TCP_CLOSE, 7.
    let tables = [
        ("tcp", Protocol::Tcp, "0A"),
        ("tcp6", Protocol::Tcp, "0A"),
        ("udp", Protocol::Udp, "07"),
        ("udp6", Protocol::Udp, "07"),
    ];
    let mut ports = BTreeSet::new();
    for (table, protocol, state) in tables {
        match fs::read_to_string(Path::new("/proc/self/net").join(table)) {
            Ok(text) => ports.extend(sockets_in(&text, protocol, state)),
            // Without IPv6 in the kernel there is no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ports)
}

/// Both ends, local then remote, of every TCP connection of this network namespace that has anything left
/// to say: not of those in `TIME_WAIT`.
pub fn connections() -> io::Result<HashSet<(SocketAddr, SocketAddr)>> {
    let mut connections = HashSet::new();
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(Path::new("/proc/self/net").join(table)) {
            Ok(text) => connections.extend(connections_in(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(connections)
}

fn connections_in(table: &str) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
    /// `TCP_TIME_WAIT`, `TCP_CLOSE` and `TCP_LISTEN`.
    const OVER: [&str; 3] = ["06", "07", "0A"];
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let ends = (
            socket_address(words.next()?)?,
            socket_address(words.next()?)?,
        );
        (!OVER.contains(&words.next()?)).then_some(ends)
    })
}

/// Reads `0100007F:0016`: words of the address as the machine's own integers, then the port. An IPv4
/// address of an IPv6 socket is one of IPv4.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let mut bytes = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match *bytes.as_slice() {
        [a, b, c, d] => IpAddr::from([a, b, c, d]),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?).into())
}

fn sockets_in(table: &str, protocol: Protocol, state: &str) -> impl Iterator<Item = Port> {
    table.lines().skip(1).filter_map(move |line| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let number = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (words.nth(1)? == state && number != 0).then_some(Port { number, protocol })
    })
}

/// `SSH_CONNECTION` of this process or of one that started it: sudo takes the variable away, and it
/// is under sudo that people cut themselves off.
fn ssh_connection() -> Option<String> {
    if let Ok(value) = env::var("SSH_CONNECTION") {
        return Some(value);
    }
    let mut process = "self".to_owned();
    // Deeper than anyone's nest of shells; a bound, since processes change while they are read.
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
        // Another user's process can't be read, but one above it may be this user's own.
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
        assert_eq!(session.port, 2222);
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
    fn socket_tables_give_up_their_listeners() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            \x20  0: 0100007F:0016 00000000:0000 0A 00000000:00000000\n\
            \x20  1: 0100007F:1F90 0100007F:C350 01 00000000:00000000\n\
            \x20  2: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0\n\
            garbage\n";
        let ports = sockets_in(table, Protocol::Tcp, "0A")
            .map(|port| port.number)
            .collect::<Vec<_>>();
        assert_eq!(ports, [22, 443]);
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
            // The side that closes first stays behind in TIME_WAIT.
            drop(server);
            drop(client);
            while connections().expect("tables").contains(&ends) {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let ports = listening_ports().expect("readable tables");
        for (address, protocol) in [
            (tcp.local_addr(), Protocol::Tcp),
            (udp.local_addr(), Protocol::Udp),
        ] {
            let number = address.expect("a bound socket").port();
            assert!(
                ports.contains(&Port { number, protocol }),
                "{number}/{protocol} is missing"
            );
        }
    }
}
