//! Large packets: jumbo frames, and streams that a sender passes on unsegmented or that the receiving device merges.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use knockgate_tests::{
    attempt,
    lab::{CLIENT_INTERFACE, CLIENT_MAC, Family, HOST_MAC, Source::A, WAN},
    network::ip,
    run::wait_until,
    scenario::Attach,
};
use netlab::offload::{
    self,
    Offload::{Gro, Gso, Tso},
};

use crate::{
    BOTH,
    target::{Probe, TCP_SERVICE, Target, UDP_SERVICE},
};

/// The largest usual frame, with Ethernet header, bytes.
const FRAME: u64 = 1514;
/// Several full frames, but less than the initial window of a connection.
const STREAM: [u8; 9000] = [7; 9000];
/// Much longer than a packet takes over a veth.
const SILENCE: Duration = Duration::from_millis(300);

/// veth takes a native program at MTUs below 3,520 bytes only.
#[test]
fn jumbo_frames_native() {
    no_jumbo_frame_gets_past_the_gate(Attach::Native, 3500);
}

#[test]
fn jumbo_frames_generic() {
    no_jumbo_frame_gets_past_the_gate(Attach::Generic, 9000);
}

#[test]
fn jumbo_frames_at_tcx() {
    if Attach::Tcx.is_there() {
        no_jumbo_frame_gets_past_the_gate(Attach::Tcx, 9000);
    }
}

#[test]
fn uncut_streams_native() {
    no_stream_gets_past_the_gate(Attach::Native, &[]);
}

#[test]
fn uncut_streams_generic() {
    let denied = no_stream_gets_past_the_gate(Attach::Generic, &[]);
    assert_uncut(denied);
}

/// Counted as the packets that they are, with the headers that each has.
#[test]
fn uncut_streams_at_tcx() {
    if Attach::Tcx.is_there() {
        assert_cut(no_stream_gets_past_the_gate(Attach::Tcx, &[]));
    }
}

#[test]
fn merged_streams_native() {
    no_stream_gets_past_the_gate(Attach::Native, &[Tso, Gso]);
}

/// Linux does not merge packets before a generic program sees them, even if it did so before on the same connection.
#[test]
fn merged_streams_generic() {
    no_stream_gets_past_the_gate(Attach::Generic, &[Tso, Gso]);
}

/// The device merges them, and the program sees the result.
#[test]
fn merged_streams_at_tcx() {
    if Attach::Tcx.is_there() {
        assert_cut(no_stream_gets_past_the_gate(Attach::Tcx, &[Tso, Gso]));
    }
}

#[test]
fn uncut_datagrams_native() {
    no_train_of_datagrams_gets_past_the_gate(Attach::Native);
}

#[test]
fn uncut_datagrams_generic() {
    let denied = no_train_of_datagrams_gets_past_the_gate(Attach::Generic);
    assert_uncut(denied);
}

#[test]
fn uncut_datagrams_at_tcx() {
    if Attach::Tcx.is_there() {
        let denied = no_train_of_datagrams_gets_past_the_gate(Attach::Tcx);
        if denied != SKIPPED {
            // Of each family nine of 1,000 bytes, with their headers.
            assert_eq!(denied, (18, 9 * (1000 + 42) + 9 * (1000 + 62)));
        }
    }
}

fn no_jumbo_frame_gets_past_the_gate(attach: Attach, mtu: usize) {
    let Some(target) = Target::build() else {
        return;
    };
    for (netns, interface) in [
        (&target.lab.host, WAN),
        (&target.lab.client, CLIENT_INTERFACE),
    ] {
        ip(netns, &format!("link set {interface} mtu {mtu}"));
    }
    // As one frame of the maximal size, and as two fragments that are larger than a usual frame.
    let shots = |served: bool| {
        for &family in BOTH {
            for probe in [Probe::Datagram, Probe::Syn] {
                let filled = vec![7; mtu - 160];
                let whole = target.reaches(probe, family, |packet| {
                    let packet = packet.with_payload(&filled);
                    vec![packet.frame(CLIENT_MAC, HOST_MAC)]
                });
                let fragments = target.reaches(probe, family, |packet| {
                    let packet = packet.with_payload(&filled);
                    packet.fragments(CLIENT_MAC, HOST_MAC, &[1600])
                });
                let reached = (whole, fragments);
                assert_eq!(reached, (served, served), "{family:?}, {probe:?}, {mtu}");
            }
        }
    };
    shots(true);
    target.up(attach);
    shots(false);
    target.grant();
    shots(true);
}

/// Makes connections before `up`, and continues to send on them afterwards. `without`: offloads to switch off at the
/// client, which then sends frame by frame, so that the host's device merges the frames. Returns the packets and bytes
/// that were denied.
fn no_stream_gets_past_the_gate(attach: Attach, without: &[offload::Offload]) -> (u64, u64) {
    let Some(target) = Target::build() else {
        return SKIPPED;
    };
    let switch = |netns, interface, offloads, on| {
        let switched = offload::set(netns, interface, offloads, on);
        switched.unwrap_or_else(|error| panic!("{error}"));
    };
    switch(&target.lab.client, CLIENT_INTERFACE, without, false);
    switch(&target.lab.host, WAN, &[Gro], !without.is_empty());

    let mut streams = [Family::V4, Family::V6].map(|family| Stream::open(&target, family));
    for stream in &mut streams {
        stream.send();
        wait_until("the stream arrives without a gate", || {
            stream.received() == STREAM.len()
        });
    }
    target.up(attach);
    // The connections were open when the instance came up, so they were made sessions.
    target.lab.knockgate(&["revoke", "--all"]).exits(0);
    for stream in &mut streams {
        stream.send();
    }
    let fewest = match attach {
        Attach::Tcx => 2 * (STREAM.len() as u64).div_ceil(FRAME),
        _ => 2,
    };
    let denied = settled(&target, fewest);
    for stream in &mut streams {
        assert_eq!(
            stream.received(),
            STREAM.len(),
            "{attach:?}: more came past the gate"
        );
    }
    // With a grant, the retransmissions pass.
    target.grant();
    for stream in &mut streams {
        wait_until("the stream goes on under a grant", || {
            stream.received() == 2 * STREAM.len()
        });
    }
    denied
}

fn no_train_of_datagrams_gets_past_the_gate(attach: Attach) -> (u64, u64) {
    let Some(target) = Target::build() else {
        return SKIPPED;
    };
    let sockets = [Family::V4, Family::V6].map(|family| {
        let from = SocketAddr::from((family.address(A), 9999));
        let to = SocketAddr::from((family.host(), UDP_SERVICE));
        let socket = target.lab.client.run(|| UdpSocket::bind(from));
        let socket = socket.expect("no one else is here");
        cut_into(&socket, 1000);
        (socket, to)
    });
    let send = || {
        for (socket, to) in &sockets {
            let sent = target.lab.client.run(|| socket.send_to(&STREAM, to));
            assert_eq!(sent.expect("it can be sent"), STREAM.len());
        }
    };
    let arrive = || {
        let mut count = 0;
        wait_until("the datagrams arrive", || {
            count += target.datagrams();
            count == 2 * STREAM.len() / 1000
        });
    };
    send();
    arrive();
    target.up(attach);
    send();
    let fewest = match attach {
        Attach::Tcx => 2 * STREAM.len() as u64 / 1000,
        _ => 2,
    };
    let denied = settled(&target, fewest);
    assert_eq!(
        target.datagrams(),
        0,
        "{attach:?}: datagrams came past the gate"
    );
    target.grant();
    send();
    arrive();
    denied
}

/// The result of a test that this machine cannot run.
const SKIPPED: (u64, u64) = (0, 0);

/// Asserts that larger packets than usual frames were denied.
#[track_caller]
fn assert_uncut((packets, bytes): (u64, u64)) {
    if (packets, bytes) != SKIPPED {
        assert!(
            bytes > packets * FRAME,
            "{packets} packets of {bytes} bytes: they had been cut before"
        );
    }
}

/// Asserts that no packet counts as larger than a usual frame, and that there were as many as the streams need.
#[track_caller]
fn assert_cut((packets, bytes): (u64, u64)) {
    if (packets, bytes) != SKIPPED {
        let fewest = 2 * (STREAM.len() as u64).div_ceil(FRAME);
        assert!(
            bytes <= packets * FRAME && packets >= fewest,
            "{packets} packets of {bytes} bytes: merged ones count as one"
        );
    }
}

/// Waits until so many packets have been denied, and as long as others may take to come. Returns how many were, and their
/// bytes.
#[track_caller]
fn settled(target: &Target, fewest: u64) -> (u64, u64) {
    wait_until("they are denied", || denied(target).0 >= fewest);
    thread::sleep(SILENCE);
    denied(target)
}

/// Returns the packets that were denied for lack of a grant, and their bytes.
fn denied(target: &Target) -> (u64, u64) {
    let stats = target.lab.stats();
    (stats.packets("no_grant"), stats.bytes("no_grant"))
}

/// Both ends of a connection.
struct Stream {
    client: TcpStream,
    service: TcpStream,
    received: usize,
}

impl Stream {
    fn open(target: &Target, family: Family) -> Self {
        let from = (family.address(A), 9999).into();
        let to = (family.host(), TCP_SERVICE).into();
        let patience = Duration::from_mins(1);
        let client = target
            .lab
            .client
            .run(|| attempt::connect(from, to, patience));
        let service = target.accept(family);
        service
            .set_nonblocking(true)
            .expect("a live socket can be made so");
        Self {
            client: client.expect("it connects without a gate"),
            service,
            received: 0,
        }
    }

    fn send(&mut self) {
        self.client
            .write_all(&STREAM)
            .expect("the socket has room for it");
    }

    /// Reads what has reached the service. Returns how many bytes that were in all.
    fn received(&mut self) -> usize {
        let mut buffer = [0; 4096];
        loop {
            match self.service.read(&mut buffer) {
                Ok(0) => panic!("the connection has ended"),
                Ok(length) => self.received += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.received,
                Err(error) => panic!("the connection is lost: {error}"),
            }
        }
    }
}

/// Makes the kernel, or the device, cut what is sent into datagrams of this many bytes.
fn cut_into(socket: &UdpSocket, bytes: libc::c_int) {
    let length = libc::socklen_t::try_from(size_of_val(&bytes)).expect("four bytes");
    // SAFETY: the option is an int, of which the kernel reads `length` bytes.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const bytes).cast(),
            length,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
