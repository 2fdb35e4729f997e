//! Real traffic of other protocols while a gate is closed: SCTP, GRE, ESP and AH. The suite `untouched` sends a frame
//! of every protocol; here the kernels of both ends exchange packets.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use knockgate_tests::{
    attempt::{self, Outcome},
    gate_config::{ALICE, Gate},
    ipsec::{
        Mode,
        Protocol::{Ah, Esp},
        agree,
    },
    lab::{
        Family, Lab,
        Source::{A, B, C},
    },
    need::kernel_has,
    network::{add_address, ip},
    scenario::{Attach, Scenario},
};
use netlab::Netns;
use socket2::{Domain, Protocol, Socket, Type};

/// The number of the protected TCP port.
const SCTP_PORT: u16 = 22;
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn native() {
    other_protocols_go_on(Attach::Native);
}

#[test]
fn generic() {
    other_protocols_go_on(Attach::Generic);
}

#[test]
fn tcx() {
    if Attach::Tcx.is_there() {
        other_protocols_go_on(Attach::Tcx);
    }
}

fn other_protocols_go_on(attach: Attach) {
    let Some(lab) = Lab::build(&[]) else {
        return;
    };
    if !has_sctp(&lab)
        || !tunnel(&lab)
        || !agree(&lab, B, Esp, Mode::Transport)
        || !agree(&lab, C, Ah, Mode::Transport)
    {
        return;
    }
    let v4 = Scenario::new(attach, Family::V4, lab);
    let v6 = v4.over(Family::V6);
    let scenarios = [&v4, &v6];
    for scenario in scenarios {
        sctp(scenario);
        gre(scenario);
        esp(scenario);
        ah(scenario);
    }
    v4.up(Gate::ssh().within("10m"));
    for scenario in scenarios {
        passes_as_other_protocol(scenario, sctp);
        passes_as_other_protocol(scenario, gre);
        passes_as_other_protocol(scenario, esp);
        match scenario.family {
            Family::V4 => passes_as_other_protocol(scenario, ah),
            Family::V6 => ah_goes_by_its_ports(scenario),
        }
        // From a source without tunnel and IPsec.
        scenario.closed(A, "22/tcp");
    }
}

/// Both ends send and receive data, between [`A`] and the host.
fn sctp(scenario: &Scenario) {
    let host = SocketAddr::from((scenario.family.host(), SCTP_PORT));
    let socket = |netns: &Netns| {
        netns.run(|| {
            let socket = Socket::new(
                Domain::for_address(host),
                Type::STREAM,
                Some(sctp_protocol()),
            )?;
            socket.set_reuse_address(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            std::io::Result::Ok(socket)
        })
    };
    let listener = socket(&scenario.lab.host).expect("the kernel has SCTP");
    let client = socket(&scenario.lab.client).expect("the kernel has SCTP");
    listener.bind(&host.into()).expect("no one else is here");
    listener.listen(1).expect("it is bound");
    let listener: TcpListener = listener.into();
    thread::scope(|scope| {
        let service = scope.spawn(move || {
            let (mut association, _) = listener.accept()?;
            let mut heard = [0; 5];
            association.read_exact(&mut heard)?;
            association.write_all(&heard)?;
            std::io::Result::Ok(())
        });
        client
            .bind(&SocketAddr::from((scenario.family.address(A), 0)).into())
            .expect("its own address");
        client.connect(&host.into()).expect("they associate");
        let mut client: TcpStream = client.into();
        client.write_all(b"hello").expect("it can be sent");
        let mut heard = [0; 5];
        client.read_exact(&mut heard).expect("it is answered");
        assert_eq!(&heard, b"hello");
        let served = service.join().expect("the service does not panic");
        served.expect("it was served");
    });
}

/// knockgate does not look into a tunnel, so even the protected port is open inside.
fn gre(scenario: &Scenario) {
    let (from, to) = within_tunnel(scenario.family);
    let asked = scenario
        .lab
        .client
        .run(|| attempt::ask((from, 0).into(), (to, 53).into(), PATIENCE));
    assert_eq!(asked, Outcome::Open, "{from} within a tunnel");
    let connected = scenario
        .lab
        .client
        .run(|| attempt::connect((from, 0).into(), (to, 22).into(), PATIENCE));
    connected.expect("the port is open within a tunnel");
}

fn ah(scenario: &Scenario) {
    scenario.open(C, "53/udp");
    scenario.open(C, "22/tcp");
}

/// In IPv6, AH is one of the extension headers, and the packet is judged by its ports.
fn ah_goes_by_its_ports(scenario: &Scenario) {
    scenario.open(C, "80/tcp");
    scenario.open(C, "53/udp");
    scenario.closed(C, "22/tcp");
    scenario.knock(C, ALICE);
    scenario.open(C, "22/tcp");
}

/// Encrypted packets pass.
fn esp(scenario: &Scenario) {
    scenario.open(B, "53/udp");
    scenario.open(B, "22/tcp");
}

#[track_caller]
fn passes_as_other_protocol(scenario: &Scenario, traffic: fn(&Scenario)) {
    let passed = || scenario.lab.stats().packets("other_protocol");
    let before = passed();
    traffic(scenario);
    // A connection with data takes at least two packets in this direction.
    assert!(passed() >= before + 2, "it did not go as what it is");
}

/// Returns SCTP's IANA number, which std and socket2 do not name.
fn sctp_protocol() -> Protocol {
    Protocol::from(libc::IPPROTO_SCTP)
}

fn has_sctp(lab: &Lab) -> bool {
    let made = lab
        .host
        .run(|| Socket::new(Domain::IPV4, Type::STREAM, Some(sctp_protocol())));
    if let Err(error) = &made {
        eprintln!("skipped; missing here: SCTP, which this kernel lacks: {error}");
    }
    made.is_ok()
}

/// Makes tunnels between [`A`] and the host. Returns whether the kernel has them.
fn tunnel(lab: &Lab) -> bool {
    [(Family::V4, "gre"), (Family::V6, "ip6gre")]
        .into_iter()
        .all(|(family, kind)| {
            let (client, host) = (family.address(A).to_string(), family.host().to_string());
            let (from, to) = within_tunnel(family);
            let ends = [
                (&lab.host, &host, &client, to),
                (&lab.client, &client, &host, from),
            ];
            ends.into_iter().all(|(netns, local, remote, address)| {
                let name = format!("to{kind}");
                let link = format!("link add {name} type {kind} local {local} remote {remote}");
                if !kernel_has("GRE", netns, &link) {
                    return false;
                }
                let length = if family == Family::V4 { 24 } else { 64 };
                add_address(netns, &name, &format!("{address}/{length}"));
                ip(netns, &format!("link set {name} up"));
                true
            })
        })
}

/// Returns the inner addresses of client and host.
fn within_tunnel(family: Family) -> (IpAddr, IpAddr) {
    let addresses = match family {
        Family::V4 => ["10.81.0.2", "10.81.0.1"],
        Family::V6 => ["fd81::2", "fd81::1"],
    };
    let [from, to] = addresses.map(|address| address.parse().expect("well-formed"));
    (from, to)
}
