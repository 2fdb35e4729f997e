//! The target of the rows: a lab with a UDP and a TCP service, which are observed.

use std::{
    cell::Cell,
    fs,
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
};

use knockgate_tests::{
    gate_config::{ALICE, Gate},
    lab::{
        CLIENT_INTERFACE, CLIENT_MAC, Family, HOST_MAC, Lab,
        Source::{self, A},
        WAN,
    },
    network::ip,
    run::{run, wait_until},
    scenario::Attach,
    tap::Tap,
    tun::Tun,
    wire::Wire,
};
use netlab::packet::{self, Extension, Packet};

/// The services' ports, which the gate protects.
pub const UDP_SERVICE: u16 = 5182;
pub const TCP_SERVICE: u16 = 22;

/// The kind of packet that is sent to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Has reached the service if the service has read it.
    Datagram,
    /// Has reached the service if the host has answered it.
    Syn,
}

/// The link between clients and host.
enum Line {
    Ethernet {
        wire: Wire,
        replies: Tap,
    },
    /// A tun device. Link headers are removed from frames sent, and added to packets received.
    BareIp(Tun),
}

/// The interface of a target without link headers.
pub const TUN: &str = "tun0";

/// A lab to exchange frames in.
pub struct Target {
    pub lab: Lab,
    /// Sockets of [`UDP_SERVICE`], one for each family: an IPv6 socket would not receive IPv4 multicasts.
    datagrams: [UdpSocket; 2],
    /// Listeners of [`TCP_SERVICE`], for which the kernel answers.
    listeners: [TcpListener; 2],
    line: Line,
    /// An extension header for the echo request at the end of each shot.
    before_request: Cell<Option<Extension>>,
    /// Number of shots so far, which makes each one unique.
    count: Cell<u16>,
}

impl Target {
    /// Builds a lab in which knockgate is not up. Returns `None` if this machine cannot build one.
    pub fn build() -> Option<Self> {
        let lab = Lab::build(&[])?;
        let line = Line::Ethernet {
            wire: Wire::open(&lab),
            replies: Tap::open(&lab.client, CLIENT_INTERFACE),
        };
        Some(Self::of(lab, line))
    }

    /// As [`Target::build`], with nothing but the Ethernet header in the first piece of a frame's memory.
    pub fn build_in_pieces() -> Option<Self> {
        let lab = Lab::build(&[])?;
        let line = Line::Ethernet {
            wire: Wire::open_in_pieces(&lab),
            replies: Tap::open(&lab.client, CLIENT_INTERFACE),
        };
        Some(Self::of(lab, line))
    }

    /// As [`Target::build`], but the host has its addresses on a device without link headers.
    pub fn build_without_link_headers() -> Option<Self> {
        let lab = Lab::build(&[])?;
        ip(&lab.host, &format!("address flush dev {WAN}"));
        let addresses = ["10.77.0.1/16", "10.77.0.9/16", "fd77::1/48", "fd77::9/48"];
        let line = Line::BareIp(Tun::create(&lab.host, TUN, &addresses));
        Some(Self::of(lab, line))
    }

    fn of(lab: Lab, line: Line) -> Self {
        let interface = line.interface();
        let (datagrams, listeners) = lab.host.run(|| {
            // Source routing is off by default; then the host would drop these packets, and knockgate would not be
            // tested.
            for setting in [
                "ipv4/conf/all/accept_source_route".to_owned(),
                format!("ipv4/conf/{interface}/accept_source_route"),
                "ipv6/bindv6only".to_owned(),
            ] {
                fs::write(format!("/proc/sys/net/{setting}"), "1")
                    .unwrap_or_else(|error| panic!("cannot set {setting}: {error}"));
            }
            let any: [IpAddr; 2] = [[0; 4].into(), [0; 16].into()];
            let datagrams = any.map(|any| {
                let socket = UdpSocket::bind((any, UDP_SERVICE)).expect("no one else is here");
                socket
                    .set_nonblocking(true)
                    .expect("a live socket can be made so");
                socket
            });
            let listener = |any| TcpListener::bind((any, TCP_SERVICE));
            (
                datagrams,
                any.map(|any| listener(any).expect("no one else is here")),
            )
        });
        // Its link-local address is valid only after duplicate address detection.
        wait_until("the host has all of its addresses", || {
            let name = lab.host.name();
            let mut tentative = Command::new("ip");
            tentative.args(["-n", name, "-6", "address", "show", "dev", WAN, "tentative"]);
            run(&mut tentative).exits(0).stdout.is_empty()
        });
        Self {
            datagrams,
            listeners,
            line,
            lab,
            before_request: Cell::new(None),
            count: Cell::new(0),
        }
    }

    /// Returns the interface to guard.
    pub fn interface(&self) -> &'static str {
        self.line.interface()
    }

    /// Adds this header to the echo request at the end of each shot: the host processes packets that have it in order,
    /// but later than others.
    pub fn wait_for_all_with(&self, header: Extension) {
        self.before_request.set(Some(header));
    }

    /// Brings knockgate up, with a gate for both services.
    pub fn up(&self, attach: Attach) {
        let (interface, attach) = (self.interface(), attach.name());
        let gate = Gate::new("services", &format!("{TCP_SERVICE}/tcp {UDP_SERVICE}/udp"))
            .user("alice", ALICE)
            .within("10m");
        self.lab.configure(&format!(
            "interfaces = [\"{interface}\"]\nattach = \"{attach}\"\n\
             limits = {{ sources = 16384, grants = 1024, sessions = 4096 }}\n{gate}"
        ));
        self.lab.knockgate(&["up"]).exits(0);
    }

    /// Gives a grant to every source of both families.
    pub fn grant(&self) {
        for half in ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"] {
            let arguments = ["allow", half, "--gate", "services", "--for", "10m"];
            self.lab.knockgate(&arguments).exits(0);
        }
    }

    /// Sends the frames that a row makes of a plain packet from [`A`] to the service. Returns whether they reach the
    /// service.
    pub fn reaches(
        &self,
        probe: Probe,
        family: Family,
        frames: impl Fn(Packet) -> Vec<Vec<u8>>,
    ) -> bool {
        let shot = self.next();
        let from = (family.address(A), 10_000 + shot);
        let packet = match probe {
            Probe::Datagram => Packet::udp(from, (family.host(), UDP_SERVICE), &payload(shot)),
            Probe::Syn => Packet::tcp(from, (family.host(), TCP_SERVICE), packet::SYN)
                .with_payload(&payload(shot)),
        };
        let replies = self.exchange(frames(packet.identified(u32::from(shot))));
        match probe {
            Probe::Datagram => {
                let received = self.received();
                received
                    .iter()
                    .any(|datagram| datagram.starts_with(&payload(shot)))
            }
            Probe::Syn => answered(&replies, TCP_SERVICE, from.1),
        }
    }

    /// Sends a segment to the TCP service. Returns whether it was answered.
    pub fn answers(&self, family: Family, flags: u8) -> bool {
        let from = (family.address(A), 10_000 + self.next());
        let segment = Packet::tcp(from, (family.host(), TCP_SERVICE), flags);
        let replies = self.exchange(vec![segment.frame(CLIENT_MAC, HOST_MAC)]);
        answered(&replies, TCP_SERVICE, from.1)
    }

    /// Accepts the next connection of the TCP service.
    pub fn accept(&self, family: Family) -> TcpStream {
        let [v4, v6] = &self.listeners;
        let listener = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        listener.accept().expect("a client has connected").0
    }

    /// Empties the sockets of the UDP service. Returns how many datagrams they contained.
    pub fn datagrams(&self) -> usize {
        self.received().len()
    }

    /// Sends frames and then an echo request. Returns all frames up to the echo reply: since the host processes frames
    /// in order and no gate denies ICMP, all frames have been processed by then.
    fn exchange(&self, mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let [high, low] = self.next().to_be_bytes();
        let mut request = [8, 0, 0, 0, high, low, 0, 0];
        let sum = packet::checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&sum);
        let (client, host) = (Family::V4.address(Source::B), Family::V4.host());
        let header = self.before_request.get();
        let request = header.into_iter().fold(
            Packet::other(client, host, 1, &request),
            Packet::with_extension,
        );
        frames.push(request.frame(CLIENT_MAC, HOST_MAC));
        let is_reply = |reply: &[u8]| {
            reply.get(23) == Some(&1)
                && reply.get(34) == Some(&0)
                && reply.get(38..40) == Some(&[high, low])
        };
        match &self.line {
            Line::Ethernet { wire, replies } => {
                wire.send(&self.lab, &frames);
                replies.until(is_reply)
            }
            Line::BareIp(tun) => {
                tun.send(frames.iter().map(|frame| unframed(frame)));
                let seen = tun.until(|packet| is_reply(&framed(packet)));
                seen.iter().map(|packet| framed(packet)).collect()
            }
        }
    }

    /// Empties the sockets of the UDP service. Returns the datagrams.
    fn received(&self) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        for socket in &self.datagrams {
            while let Ok(length) = socket.recv(&mut buffer) {
                received.push(buffer[..length].to_vec());
            }
        }
        received
    }

    fn next(&self) -> u16 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }
}

impl Line {
    fn interface(&self) -> &'static str {
        match self {
            Self::Ethernet { .. } => WAN,
            Self::BareIp(_) => TUN,
        }
    }
}

/// Returns a frame without link header and tags.
pub fn unframed(frame: &[u8]) -> &[u8] {
    let mut network = 14;
    while matches!(frame[network - 2..network], [0x81, 0] | [0x88, 0xa8]) {
        network += 4;
    }
    &frame[network..]
}

/// Returns a packet as a frame.
fn framed(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    };
    [&[0; 12], &kind[..], packet].concat()
}

/// Returns a payload of forty bytes, so that there is something to fragment.
fn payload(shot: u16) -> Vec<u8> {
    format!("shot {shot:05} that should not reach anyone").into_bytes()
}

/// Returns whether there is a segment from this port of the host to that port of the client.
fn answered(replies: &[Vec<u8>], from: u16, to: u16) -> bool {
    let [from, to] = [from, to].map(u16::to_be_bytes);
    let ports = [from, to].concat();
    replies.iter().any(|reply| {
        let transport = match reply.get(12..15) {
            Some([0x08, 0x00, first]) if reply[23] == 6 => 14 + 4 * usize::from(first & 15),
            Some([0x86, 0xdd, _]) if reply[20] == 6 => 54,
            _ => return false,
        };
        reply.get(transport..transport + 4) == Some(&ports)
    })
}
