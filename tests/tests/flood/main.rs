//! Floods from forged sources, as fast as one core can send: real knocks still open, grants and sessions do not change,
//! and the service uses little CPU time.
//!
//! No test here measures speed. Tests in which the machine itself may lose frames try several times.
//!
//! [`knocks`] tests knocks during a flood, [`sessions`] a table full of forged and real flows, and [`reports`] that
//! reports are bounded.

mod knocks;
mod reports;
mod sessions;

use std::{
    net::IpAddr,
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

use knockgate_tests::{
    flood::Aim,
    gate_config::Gate,
    lab::{CLIENT_MAC, Family, HOST_MAC, Lab, WAN},
    scenario::{Attach, Scenario},
};
use netlab::packet::{Packet, SYN};

/// Returns a configuration whose table of sources has the default size.
fn config(attach: Attach, sessions: u32) -> String {
    let attach = attach.name();
    let gate = Gate::ssh().open_for("1h").within("10m");
    format!(
        "interfaces = [\"{WAN}\"]\nattach = \"{attach}\"\nopen_ports = []\n\
         limits = {{ sources = 262144, grants = 4096, sessions = {sessions} }}\n{gate}"
    )
}

const FIRST_KNOCK: Aim = Aim::Udp(7000);
const PROTECTED: Aim = Aim::Tcp(22);

/// The fewest frames of a flood: about as many as the table of sources has places.
const A_FLOOD: u64 = 100_000;

fn knocks(family: Family, client: IpAddr) -> [Vec<u8>; 3] {
    let (from, host) = ((client, 40_000), family.host());
    [
        Packet::udp(from, (host, 7000), b""),
        Packet::tcp(from, (host, 8443), SYN),
        Packet::udp(from, (host, 9301), b""),
    ]
    .map(|packet| packet.frame(CLIENT_MAC, HOST_MAC))
}

fn client(family: Family, group: u8, number: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 77, group, number].into(),
        Family::V6 => [0xfd77, 0, 0, u16::from(group), 0, 0, 0, u16::from(number)].into(),
    }
}

/// Returns a scenario that is configured and not up, and a turn to flood it.
fn scenario(attach: Attach, family: Family) -> Option<(Scenario, Turn)> {
    let turn = Turn::wait();
    let scenario = Scenario::new(attach, family, Lab::build(&[])?);
    scenario.lab.configure(&config(attach, 4096));
    Some((scenario, turn))
}

/// Permission for one flood. There are as many as CPUs, since each flood uses a whole one.
struct Turn;

static FLOODS: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let most = thread::available_parallelism().map_or(1, usize::from);
        let floods = FLOODS.lock().unwrap_or_else(PoisonError::into_inner);
        let floods = ENDED.wait_while(floods, |floods| *floods >= most);
        *floods.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FLOODS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
