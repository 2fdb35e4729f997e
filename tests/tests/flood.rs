//! Floods from forged sources, as fast as one core can send: real knocks open all the same, no grant and no
//! session is changed, and the service hardly notices.
//!
//! No test here says how fast anything is. Where this machine itself may lose frames, it has another try.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use knockgate_tests::{
    flood::{Aim, Flood, Meter},
    gate_config::{ALICE, Gate},
    lab::{
        CLIENT_MAC, Family, GATE_MAC, Lab,
        Source::{A, B},
        WAN,
    },
    run::{Running, wait_until},
    scenario::{Attach, Scenario},
    wire::Wire,
};
use netlab::packet::{ACK, Packet, SYN};
use serde_json::Value;

/// A configuration whose table of progress is as large as by default, where a flood is to be stood.
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

/// Clients that knock, each one once, and how many of these must succeed.
const CLIENTS: u8 = 100;
const SUCCEED: usize = 99;
const BETWEEN_KNOCKS: Duration = Duration::from_millis(20);
/// A knock can get lost on the way, between two kernels' queues; not in each of three tries one of a hundred.
const TRIES: u8 = 3;

/// Connections that are begun, each from another port.
const HALF_OPEN: u16 = 10_000;

/// Less would be no flood: a frame for each place in the table where it fills one.
const A_FLOOD: u64 = 100_000;

#[test]
fn knocks_open_native_v4() {
    knocks_open(Attach::Native, Family::V4);
}

#[test]
fn knocks_open_generic_v6() {
    knocks_open(Attach::Generic, Family::V6);
}

#[test]
fn nothing_is_changed_native_v6() {
    nothing_is_changed(Attach::Native, Family::V6);
}

#[test]
fn nothing_is_changed_generic_v4() {
    nothing_is_changed(Attach::Generic, Family::V4);
}

#[test]
fn half_open_flows_native_v4() {
    half_open_flows_are_in_nobodys_way(Attach::Native, Family::V4);
}

#[test]
fn half_open_flows_generic_v6() {
    half_open_flows_are_in_nobodys_way(Attach::Generic, Family::V6);
}

#[test]
fn bogus_flows_native_v6() {
    bogus_flows_are_in_nobodys_way(Attach::Native, Family::V6);
}

#[test]
fn bogus_flows_generic_v4() {
    bogus_flows_are_in_nobodys_way(Attach::Generic, Family::V4);
}

#[test]
fn real_connections_native_v4() {
    real_connections_of_one_source_leave_room(Attach::Native, Family::V4);
}

#[test]
fn real_connections_generic_v6() {
    real_connections_of_one_source_leave_room(Attach::Generic, Family::V6);
}

#[test]
fn outcomes_are_bounded_native_v4() {
    outcomes_are_bounded(Attach::Native, Family::V4);
}

#[test]
fn a_full_table_is_reported_native_v6() {
    a_full_table_is_reported(Attach::Native, Family::V6);
}

#[test]
fn a_full_table_is_reported_generic_v4() {
    a_full_table_is_reported(Attach::Generic, Family::V4);
}

#[test]
fn the_service_hardly_notices() {
    let Some((scenario, _turn)) = scenario(Attach::Native, Family::V4) else {
        return;
    };
    let mut command = scenario.lab.knockgate_command(&["run"]);
    let mut service = Running::start(&mut command, scenario.lab.folder());
    wait_until("the gate is up", || {
        assert!(service.goes_on(), "the service has ended by itself");
        scenario.knockgate("status").code == Some(0)
    });
    let mut reader = scenario
        .lab
        .knockgate_command(&["events", "--follow", "--json"]);
    let reader = Running::start(&mut reader, scenario.lab.folder());
    for aim in [PROTECTED, FIRST_KNOCK] {
        let mut flood = Flood::new(&scenario.lab, scenario.family, aim);
        let lost = lost(&reader);
        let before = service.cpu_time();
        let meter = flood.meter();
        let ((), sent) = flood.during(|| meter.wait(Duration::from_secs(3), A_FLOOD));
        let worked = service.cpu_time().saturating_sub(before);
        let flooded = flood.cpu_time();
        eprintln!("{aim:?}: {sent} frames in {flooded:?}, for which the service worked {worked:?}");
        assert!(
            worked < flooded / 10,
            "{aim:?}: for {flooded:?} of flood, the service worked for {worked:?}"
        );
        // Each would have been reported, being the first of its source.
        wait_until("what was left out is counted", || {
            self::lost(&reader) - lost > sent / 100 * 95
        });
    }
}

fn knocks_open(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.knockgate(&["up"]).exits(0);
    for (group, aim) in (10..)
        .step_by(10)
        .zip([FIRST_KNOCK, PROTECTED, Aim::Anywhere])
    {
        let mut flood = Flood::new(&scenario.lab, family, aim);
        let opened = (0..TRIES).map(|round| {
            let begun = Instant::now();
            let meter = flood.meter();
            let (opened, sent) =
                flood.during(|| opened(&scenario.lab, family, group + round, &meter));
            assert!(sent > A_FLOOD, "{aim:?}: {sent} frames are no flood");
            eprintln!(
                "{aim:?}: {opened} of {CLIENTS}, {sent} frames in {:?}",
                begun.elapsed()
            );
            opened
        });
        let opened: Vec<usize> = opened.take_while(|&opened| opened < SUCCEED).collect();
        assert!(
            opened.len() < usize::from(TRIES),
            "{aim:?}: of {CLIENTS} that knocked, the gate opened for {opened:?}"
        );
    }
}

/// Has a group of clients knock, and says for how many of them the gate opened.
fn opened(lab: &Lab, family: Family, group: u8, flood: &Meter) -> usize {
    let wire = Wire::open(lab);
    let clients: Vec<[Vec<u8>; 3]> = (1..=CLIENTS)
        .map(|number| knocks(family, client(family, group, number)))
        .collect();
    // Each begins one step behind the one before it.
    let steps = clients.len() + 2;
    for now in 0..steps {
        for step in 0..3 {
            let client = now.checked_sub(step).and_then(|begun| clients.get(begun));
            if let Some(knocks) = client {
                wire.send(lab, &[knocks[step].clone()]);
            }
        }
        flood.wait(BETWEEN_KNOCKS, A_FLOOD / u64::from(CLIENTS));
    }
    let grants = lab.knockgate(&["grants", "--json"]).exits(0).json();
    let grants = grants["grants"].as_array().expect("grants is a list");
    let length = if family == Family::V4 { 32 } else { 128 };
    let is_granted = |number| {
        let source = format!("{}/{length}", client(family, group, number));
        grants.iter().any(|grant| grant["source"] == source)
    };
    (1..=CLIENTS).filter(|&number| is_granted(number)).count()
}

fn knocks(family: Family, client: IpAddr) -> [Vec<u8>; 3] {
    let (from, host) = ((client, 40_000), family.host());
    [
        Packet::udp(from, (host, 7000), b""),
        Packet::tcp(from, (host, 8443), SYN),
        Packet::udp(from, (host, 9301), b""),
    ]
    .map(|packet| packet.frame(CLIENT_MAC, GATE_MAC))
}

fn client(family: Family, group: u8, number: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 77, group, number].into(),
        Family::V6 => [0xfd77, 0, 0, u16::from(group), 0, 0, 0, u16::from(number)].into(),
    }
}

/// With a grant by hand, one by knocking, and a connection that stands.
fn nothing_is_changed(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.knockgate(&["up"]).exits(0);
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    scenario.knock(A, ALICE);
    let connection = scenario.connected(A, 22);
    let state = || {
        ["grants", "sessions"].map(|what| {
            let mut state = scenario
                .knockgate(&format!("{what} --json"))
                .exits(0)
                .json();
            for row in state[what].as_array_mut().expect("a list") {
                for time in ["expires_in_ms", "idle_ms"] {
                    row.as_object_mut().expect("an object").remove(time);
                }
            }
            state
        })
    };
    let before = state();
    assert_eq!(before[0]["grants"].as_array().map(Vec::len), Some(2));
    assert_eq!(before[1]["sessions"].as_array().map(Vec::len), Some(1));
    for aim in [PROTECTED, FIRST_KNOCK, Aim::Anywhere] {
        let mut flood = Flood::new(&scenario.lab, family, aim);
        let meter = flood.meter();
        flood.during(|| meter.wait(Duration::from_secs(2), A_FLOOD));
        assert_eq!(state(), before, "{aim:?}");
    }
    drop(connection);
    scenario.open(B, "22/tcp");
}

/// A source with a grant, which never answers, begins ten times as many connections as the table has room for;
/// then another one's outlives its grant.
fn half_open_flows_are_in_nobodys_way(attach: Attach, family: Family) {
    forged_flows_are_in_nobodys_way(attach, family, &[SYN]);
}

/// The same, with what looks like the end of a handshake and data behind it, to whoever believes it.
fn bogus_flows_are_in_nobodys_way(attach: Attach, family: Family) {
    forged_flows_are_in_nobodys_way(attach, family, &[SYN, ACK, ACK]);
}

fn forged_flows_are_in_nobodys_way(attach: Attach, family: Family, packets: &[u8]) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.configure(&config(attach, 1024));
    scenario.lab.knockgate(&["up"]).exits(0);
    let source = client(family, 200, 1);
    let granted = source.to_string();
    let arguments = ["allow", &granted, "--gate", "ssh", "--for", "1h"];
    scenario.lab.knockgate(&arguments).exits(0);
    let flow = |number| packets.iter().map(move |flags| (number, *flags));
    let syns: Vec<Vec<u8>> = (0..HALF_OPEN)
        .flat_map(flow)
        .map(|(number, flags)| Packet::tcp((source, 10_000 + number), (family.host(), 22), flags))
        .map(|packet| packet.frame(CLIENT_MAC, GATE_MAC))
        .collect();
    let wire = Wire::open(&scenario.lab);
    for syns in syns.chunks(200) {
        wire.send(&scenario.lab, syns);
    }
    let half_open = sessions(&scenario).len();
    assert!(
        half_open > 900,
        "only {half_open} flows: the table was to be filled"
    );

    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    let mut connection = scenario.connected(B, 22);
    echo(&mut connection);
    for syns in syns.chunks(200) {
        wire.send(&scenario.lab, syns);
    }
    scenario.ends(B);
    echo(&mut connection);
    let other = family.address(B).to_string();
    let stays = sessions(&scenario)
        .into_iter()
        .any(|flow| flow.contains(&other));
    assert!(stays, "the connection goes on, and is no session");
}

/// A source with a grant makes more connections than there is room for, all of them real; then another one's
/// outlives its grant.
fn real_connections_of_one_source_leave_room(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.configure(&config(attach, 64));
    scenario.lab.knockgate(&["up"]).exits(0);
    scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
    let mut connections: Vec<TcpStream> = (0..100).map(|_| scenario.connected(A, 22)).collect();
    for connection in &mut connections {
        echo(connection);
    }
    assert_eq!(sessions(&scenario).len(), 64, "the table is full");
    scenario.knockgate("allow {B} --gate ssh --for 3s").exits(0);
    let mut other = scenario.connected(B, 22);
    echo(&mut other);
    connections.extend((0..100).map(|_| scenario.connected(A, 22)));
    scenario.closes(B, "22/tcp");
    echo(&mut other);
}

/// Sources by the thousand that all know the sequence: what is reported of them is bounded, what is not is
/// counted, and what was there before is still to be read.
fn outcomes_are_bounded(attach: Attach, family: Family) {
    const SOURCES: u8 = 50;
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    let mut command = scenario.lab.knockgate_command(&["run"]);
    let mut service = Running::start(&mut command, scenario.lab.folder());
    wait_until("the gate is up", || {
        assert!(service.goes_on(), "the service has ended by itself");
        scenario.knockgate("status").code == Some(0)
    });
    scenario.closed(A, "22/tcp");
    let events = || -> Vec<Value> {
        let text = scenario.knockgate("events --json").exits(0).stdout.clone();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a line is one object"))
            .collect()
    };
    let denied = |event: &Value| event["event"] == "packet.denied";
    wait_until("the denial is reported", || events().iter().any(denied));
    let mut reader = scenario
        .lab
        .knockgate_command(&["events", "--follow", "--json"]);
    let reader = Running::start(&mut reader, scenario.lab.folder());
    wait_until("it reads", || reader.stdout().lines().count() > 0);

    let wire = Wire::open(&scenario.lab);
    let begun = Instant::now();
    let mut sent = 0_u64;
    for group in 100..200 {
        let knocks: Vec<Vec<u8>> = (1..=SOURCES)
            .flat_map(|number| knocks(family, client(family, group, number)))
            .collect();
        wire.send(&scenario.lab, &knocks);
        sent += u64::from(SOURCES);
    }
    wait_until("all have been counted", || {
        let stats = scenario.knockgate("stats --json").exits(0).json();
        let rows = stats["knocks"].as_array().expect("a list");
        let outcomes = rows.iter().filter(|row| {
            ["opened", "table_full"]
                .iter()
                .any(|result| row["result"] == *result)
        });
        let count: u64 = outcomes.filter_map(|row| row["count"].as_u64()).sum();
        // Some get lost on the way.
        count > sent / 2
    });
    let seconds = begun.elapsed().as_secs() + 2;
    wait_until("what was left out is counted", || lost(&reader) > 0);
    let said = reader.stdout();
    let outcomes = said
        .lines()
        .filter(|line| line.contains("\"gate.opened\"") || line.contains("\"gate.refused\""));
    let outcomes = outcomes.count() as u64;
    let cpus = thread::available_parallelism().expect("the kernel knows its CPUs");
    let most = 2 * 64 * seconds * cpus.get() as u64;
    eprintln!("{outcomes} of {sent} outcomes in {seconds} s; {most} is the most");
    assert!(outcomes <= most, "{outcomes} of {sent}, {most} at most");
    assert!(outcomes > 0, "nothing at all is reported");
    assert!(
        events().iter().any(denied),
        "what came before has been flushed"
    );
}

/// Who comes last to a full table gets in as long as the grant lives, and no longer; and that is said.
fn a_full_table_is_reported(attach: Attach, family: Family) {
    let Some((scenario, _turn)) = scenario(attach, family) else {
        return;
    };
    scenario.lab.configure(&config(attach, 1));
    scenario.lab.knockgate(&["up"]).exits(0);
    scenario.knockgate("allow {A} --gate ssh --for 1h").exits(0);
    let mut first = scenario.connected(A, 22);
    echo(&mut first);
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    let mut second = scenario.connected(B, 22);
    echo(&mut second);
    let events = scenario.knockgate("events --json").exits(0).stdout.clone();
    let refused: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is one object"))
        .filter(|event: &Value| event["event"] == "session.refused")
        .collect();
    let [refused] = refused.as_slice() else {
        panic!("one flow was refused a session: {events}");
    };
    assert_eq!(refused["reason"], "table_full");
    assert_eq!(refused["gate"], "ssh");
    assert_eq!(refused["source"], family.address(B).to_string());
    scenario.ends(B);
    second
        .write_all(b"anyone?")
        .expect("the local stack takes it");
    second
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a live socket");
    let answer = second.read(&mut [0; 16]);
    assert!(answer.is_err(), "it outlived its grant: {answer:?}");
    echo(&mut first);
}

/// Says something and expects to hear it.
#[track_caller]
fn echo(connection: &mut TcpStream) {
    connection
        .set_read_timeout(Some(Duration::from_mins(1)))
        .expect("a live socket takes a timeout");
    connection.write_all(b"hello").expect("it can be sent");
    let mut heard = [0; 5];
    connection.read_exact(&mut heard).expect("it is answered");
    assert_eq!(&heard, b"hello");
}

/// Sources of the flows that the gate remembers.
fn sessions(scenario: &Scenario) -> Vec<String> {
    let sessions = scenario.knockgate("sessions --json").exits(0).json();
    let sessions = sessions["sessions"].as_array().expect("sessions is a list");
    let source = |flow: &Value| flow["source"].as_str().map(str::to_owned);
    sessions.iter().filter_map(source).collect()
}

/// A scenario whose gate is configured and not up, and the turn to flood it.
fn scenario(attach: Attach, family: Family) -> Option<(Scenario, Turn)> {
    let turn = Turn::wait();
    let scenario = Scenario::new(attach, family, Lab::build(&[])?);
    scenario.lab.configure(&config(attach, 4096));
    Some((scenario, turn))
}

/// One of as many floods as there are CPUs: each takes all of one.
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

/// How many events the service has said that were left out.
fn lost(reader: &Running) -> u64 {
    let said = reader.stdout();
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == "events.lost")
        .filter_map(|event| event["lost"].as_u64())
        .sum()
}
