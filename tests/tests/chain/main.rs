//! Programs beside ours: one that gets what ours passes (`next`), and one that calls ours by an array (`up --into`).
//!
//! [`next`] and [`into`] test the two, [`bare_ip`] a link without a header, [`bond`] one of several interfaces, [`refusals`]
//! what does not fit, [`replacing`] either side replaced under a stream of packets, [`killing`] commands that are killed
//! half-way, [`unpinned`] a slot that no pin leads to any more, [`shadowed`] programs that may keep packets from ours, [`unfit`]
//! neighbours that do not go with ours when that is to come into force without anybody there, and [`kept`] that ports stay closed
//! whatever else changes.

mod bare_ip;
mod bond;
mod into;
mod kept;
mod killing;
mod next;
mod refusals;
mod replacing;
mod shadowed;
mod unfit;
mod unpinned;

use std::{
    fmt::Display,
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use knockgate_tests::{
    gate_config::Gate,
    lab::{Family, Source, WAN},
    neighbour::Array,
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
};
use netlab::host::BPFFS;
use serde_json::Value;

/// A guarded UDP port, and one that is not.
const PROTECTED: u16 = 2200;
const OTHER: u16 = 3300;

/// Runs `row` with both attach modes, each with a place for pins of others.
fn in_both_modes(row: impl Fn(&Scenario, &Pins)) {
    for attach in Attach::BOTH {
        in_mode(attach, &row);
    }
}

/// Runs `row` in one attach mode.
fn in_mode(attach: Attach, row: impl FnOnce(&Scenario, &Pins)) {
    Scenario::run(attach, Family::V4, &[], |scenario| {
        row(scenario, &Pins::beside(scenario));
    });
}

/// A directory of pins that are not knockgate's. It is removed with this value.
struct Pins(PathBuf);

impl Pins {
    fn beside(scenario: &Scenario) -> Self {
        let name = format!("{}-others", scenario.lab.host.name());
        let path = Path::new(BPFFS).join(name);
        fs::create_dir(&path).expect("a BPF file system is mounted");
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes an array of programs and pins it.
    fn array(&self, slots: u32) -> Array {
        Array::pinned(slots, self.at("array"))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // A failure here must not hide that of a test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts a command as the unit does.
fn in_its_unit(scenario: &Scenario, arguments: &[&str]) -> Running {
    let lab = &scenario.lab;
    fs::create_dir(lab.pin_root()).expect("the unit makes it");
    let mut command = lab.knockgate_command_under(&lab.unit_sandbox(), arguments);
    Running::start(&mut command, lab.folder())
}

/// Starts a command that goes on. Returns it, and what reads what it has said so far.
fn logged(scenario: &Scenario, arguments: &[&str]) -> (Running, impl Fn() -> String + use<>) {
    let log = scenario.lab.folder().join("log");
    let mut command = scenario.lab.knockgate_command(arguments);
    command.stderr(fs::File::create(&log).expect("the temporary folder is writable"));
    let running = Running::start(&mut command, scenario.lab.folder());
    (running, move || {
        fs::read_to_string(&log).expect("it was created above")
    })
}

/// Returns a gate for a TCP and a UDP port.
fn gate() -> Gate {
    Gate::ssh().protect("22/tcp 2200/udp").within("1m")
}

/// Writes a configuration. `interfaces`: the sections or the list that name them.
fn configure(scenario: &Scenario, interfaces: impl Display, gate: impl Display) {
    let attach = scenario.attach.name();
    scenario.lab.configure(&format!(
        "attach = \"{attach}\"\nlimits = {{ sources = 16384, grants = 1024, sessions = 1024 }}\n{interfaces}\n{gate}"
    ));
}

/// Returns the section of the interface, on which the program pinned there follows.
fn followed_by(pin: &Path) -> String {
    section(WAN, pin)
}

fn section(interface: &str, pin: &Path) -> String {
    format!(
        "[[interface]]\nname = {interface:?}\nnext = {:?}\n",
        pin.display().to_string()
    )
}

fn alone() -> String {
    format!("interfaces = [{WAN:?}]\n")
}

/// Returns what `status` says of the interface. Asserts the exit status.
#[track_caller]
fn status(scenario: &Scenario, code: i32) -> Value {
    let run = scenario.knockgate("status --json");
    run.exits(code).json()["interfaces"][0].clone()
}

/// A UDP service on the host, and what a client sends to it.
struct Udp {
    port: u16,
    service: UdpSocket,
}

impl Udp {
    fn bind(scenario: &Scenario, port: u16) -> Self {
        Self::bind_to(scenario, scenario.family.host(), port)
    }

    /// As [`Udp::bind`], at every address of the host.
    fn bind_any(scenario: &Scenario, port: u16) -> Self {
        Self::bind_to(scenario, Ipv4Addr::UNSPECIFIED.into(), port)
    }

    fn bind_to(scenario: &Scenario, host: IpAddr, port: u16) -> Self {
        let service = scenario.lab.host.run(|| UdpSocket::bind((host, port)));
        let service = service.expect("a free port");
        service.set_nonblocking(true).expect("a socket");
        Self { port, service }
    }

    /// Sends so many datagrams.
    fn send(&self, scenario: &Scenario, who: Source, count: u64) {
        let from = scenario.source(who);
        let socket = scenario.lab.client.run(|| UdpSocket::bind(from));
        let socket = socket.expect("a free port");
        for _ in 0..count {
            socket
                .send_to(b"datagram", (scenario.family.host(), self.port))
                .expect("sent");
        }
    }

    /// Waits until so many have arrived, then a moment for more. Asserts that there are none.
    #[track_caller]
    fn receives(&self, count: u64) {
        let mut received = 0;
        let mut read = || {
            while self.service.recv(&mut [0; 64]).is_ok() {
                received += 1;
            }
            received
        };
        wait_until("the datagrams arrive", || read() >= count);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(read(), count, "datagrams to port {}", self.port);
    }
}
