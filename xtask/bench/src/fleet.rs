//! A fleet of three hosts over three real etcd members: how soon what opens at one is open at the others, and what happens when
//! members or hosts go away.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    slice, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use knock_user::{
    config::Config,
    fleet::{
        engine::{Condition, Outcome, Put, Write},
        etcd::Connection,
        keys::Keyring,
        record::{Codec, Grant, Mark, Record, head_key},
    },
};
use knockgate_tests::{
    fleet::{Fleet, Host, NAME},
    gate_config::Gate,
    lab::{CLIENT_MAC, HOST_MAC, WAN},
    run::wait_until,
    wire::Wire,
};
use netlab::packet::{Packet, SYN};

use crate::{
    Plan,
    figures::{Part, Row},
};

/// Knocks of one measurement.
const KNOCKS: u32 = 1_000;
/// Between two knocks of which each is to be reported: the kernel says of sixteen a second that they have opened.
const EVERY: Duration = Duration::from_millis(80);
/// Grants of other hosts that one comes back to, and what is written at a time.
const MANY: u32 = 100_000;
const AT_ONCE: u32 = 100;

/// What was measured, by row.
#[derive(Default)]
struct Figures(Vec<(&'static str, Vec<f64>)>);

impl Figures {
    fn add(&mut self, row: &'static str, value: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == row) {
            Some((_, values)) => values.push(value),
            None => self.0.push((row, vec![value])),
        }
    }

    fn part(self, id: &'static str, title: &'static str, unit: &'static str) -> Part {
        let rows = self.0.into_iter();
        let rows = rows.map(|(name, values)| Row::new(name, values, Vec::new()).of_knockgate(true));
        Part {
            id,
            title,
            unit,
            notes: Vec::new(),
            rows: rows.collect(),
        }
    }
}

/// Measures everything, as often as the plan says.
pub fn measure(plan: &Plan) -> Result<Vec<Part>> {
    let (mut times, mut lost, mut memory) =
        (Figures::default(), Figures::default(), Figures::default());
    let mut failed = None;
    let mut was_run = false;
    Fleet::run(3, |fleet| {
        was_run = true;
        failed = rounds(fleet, plan, [&mut times, &mut lost, &mut memory]).err();
    });
    ensure!(
        was_run,
        "this machine has no fleet; the lines above say what is missing"
    );
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(vec![
        times.part(
            "fleet_times",
            "A fleet of three hosts and three etcd members",
            "ms, median (min–max)",
        ),
        memory.part(
            "fleet_memory",
            "Its service, most resident memory",
            "MiB, median (min–max)",
        ),
        lost.part(
            "fleet_lost",
            "Grants lost or doubled while the leader is killed",
            "grants, median (min–max)",
        ),
    ])
}

fn rounds(fleet: &Fleet, plan: &Plan, [times, lost, memory]: [&mut Figures; 3]) -> Result<()> {
    for host in &fleet.hosts {
        configure(host);
    }
    fleet.start();
    for _ in 0..plan.slow_rounds {
        one_by_one(fleet, times)?;
        all_at_once(fleet, times)?;
        partition(fleet, times)?;
    }
    for _ in 0..plan.killed_leaders {
        kill_leader(fleet, lost)?;
    }
    forget(fleet);
    for _ in 0..plan.slow_rounds {
        come_back(fleet, times, memory)?;
    }
    Ok(())
}

/// Room for many grants, which last long enough.
fn configure(host: &Host) {
    let gate = Gate::ssh().within("1m").open_for("1h");
    host.scenario.lab.configure(&format!(
        "interfaces = [\"{WAN}\"]\nattach = \"generic\"\n\
         limits = {{ sources = 16384, grants = 131072, sessions = 1024 }}\n{}\n{gate}",
        host.section()
    ));
}

fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 0)) + number)
}

/// Returns the frames of a sequence.
fn knock(host: &Host, from: Ipv4Addr) -> [Vec<u8>; 3] {
    let (from, to) = ((IpAddr::from(from), 40_000), host.scenario.family.host());
    [
        Packet::udp(from, (to, 7000), b""),
        Packet::tcp(from, (to, 8443), SYN),
        Packet::udp(from, (to, 9301), b""),
    ]
    .map(|packet| packet.frame(CLIENT_MAC, HOST_MAC))
}

/// Returns when each source has been granted, by the events of a host.
fn opened(host: &Host) -> Result<HashMap<String, Vec<Timestamp>>> {
    let mut opened: HashMap<String, Vec<Timestamp>> = HashMap::new();
    for event in host.events("gate.opened") {
        let text = |key: &str| event[key].as_str().context("an event without a key");
        let source = text("source")?.to_owned();
        opened
            .entry(source)
            .or_default()
            .push(text("time")?.parse()?);
    }
    Ok(opened)
}

/// Ends all grants, everywhere.
fn forget(fleet: &Fleet) {
    fleet.hosts[0].knockgate("revoke --all").exits(0);
    for host in &fleet.hosts {
        wait_until("nothing is granted", || host.live_grants() == 0);
    }
}

/// The time from the grant at the host that was knocked on to that at the later of the others, by the events of each.
fn one_by_one(fleet: &Fleet, times: &mut Figures) -> Result<()> {
    forget(fleet);
    let [first, others @ ..] = fleet.hosts.as_slice() else {
        unreachable!("there are three")
    };
    let before: Vec<_> = fleet.hosts.iter().map(opened).collect::<Result<_>>()?;
    let wire = Wire::open(&first.scenario.lab);
    for number in 0..KNOCKS {
        wire.send(&first.scenario.lab, &knock(first, source(number)));
        thread::sleep(EVERY);
    }
    for host in others {
        wait_until("all are granted", || {
            host.live_grants() == u64::from(KNOCKS)
        });
    }
    let after: Vec<_> = fleet.hosts.iter().map(opened).collect::<Result<_>>()?;
    let new = |nth: usize, source: &str| {
        let known = before[nth].get(source).map_or(0, Vec::len);
        after[nth].get(source)?.get(known).copied()
    };
    let mut took = Vec::new();
    for number in 0..KNOCKS {
        let source = source(number).to_string();
        // The kernel says of a bounded number a second that they have opened.
        let Some(given) = new(0, &source) else {
            continue;
        };
        let heard = (1..=others.len()).map(|nth| new(nth, &source));
        let Some(heard) = heard.collect::<Option<Vec<_>>>() else {
            continue;
        };
        let last = heard.into_iter().max().context("there are others")?;
        took.push(last.duration_since(given).as_secs_f64() * 1e3);
    }
    ensure!(
        took.len() * 10 >= KNOCKS as usize * 9,
        "of {KNOCKS} knocks only {} were reported",
        took.len()
    );
    took.sort_by(f64::total_cmp);
    let at = |hundredths: usize| took[(took.len() - 1) * hundredths / 100];
    times.add(
        "knock at one host to open at both others: p50 of 1,000",
        at(50),
    );
    times.add("the same: p99 (goal: at most 100)", at(99));
    times.add("the same: longest", at(100));
    Ok(())
}

fn all_at_once(fleet: &Fleet, times: &mut Figures) -> Result<()> {
    forget(fleet);
    let [first, others @ ..] = fleet.hosts.as_slice() else {
        unreachable!("there are three")
    };
    let frames: Vec<_> = (0..KNOCKS)
        .flat_map(|number| knock(first, source(number)))
        .collect();
    let begun = Instant::now();
    Wire::open(&first.scenario.lab).send(&first.scenario.lab, &frames);
    ensure!(
        begun.elapsed() < Duration::from_secs(1),
        "the knocks took longer than a second"
    );
    for host in others {
        wait_until("all are granted", || {
            host.live_grants() == u64::from(KNOCKS)
        });
    }
    let took = begun.elapsed().as_secs_f64() * 1e3;
    times.add(
        "1,000 grants at once to all in force at both others (goal: at most 2,000)",
        took,
    );
    Ok(())
}

/// The time from a silent cut to the event that says so, and from its end to the event that all is known again.
fn partition(fleet: &Fleet, times: &mut Figures) -> Result<()> {
    let host = fleet.hosts.last().context("there are three")?;
    for (cut, event, row) in [
        (
            true,
            "fleet.isolated",
            "a host is cut off silently, to its being isolated (goal: at most 2,000)",
        ),
        (
            false,
            "fleet.joined",
            "it is healed, to its having joined again",
        ),
    ] {
        let known = host.events(event).len();
        let at = Timestamp::now();
        if cut {
            fleet.engine.cut(&host.port());
        } else {
            fleet.engine.heal(&host.port());
        }
        let mut said = None;
        wait_until(event, || {
            said = host.events(event).get(known).cloned();
            said.is_some()
        });
        let said = said.context("it was waited for")?;
        let said: Timestamp = said["time"]
            .as_str()
            .context("an event has a time")?
            .parse()?;
        times.add(row, said.duration_since(at).as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Kills the leader while all hosts give grants, and counts what is missing or was given twice.
fn kill_leader(fleet: &Fleet, lost: &mut Figures) -> Result<()> {
    forget(fleet);
    let before: Vec<_> = fleet.hosts.iter().map(opened).collect::<Result<_>>()?;
    let wires: Vec<_> = fleet
        .hosts
        .iter()
        .map(|host| Wire::open(&host.scenario.lab))
        .collect();
    let leader = fleet.engine.leader();
    for number in 0..KNOCKS {
        if number == KNOCKS / 2 {
            fleet.engine.kill(leader);
        }
        let nth = number as usize % fleet.hosts.len();
        let host = &fleet.hosts[nth];
        wires[nth].send(&host.scenario.lab, &knock(host, source(number)));
        thread::sleep(Duration::from_millis(1));
    }
    // As long as it may take: what is missing then is lost.
    let deadline = Instant::now() + Duration::from_mins(1);
    let missing = |host: &Host| u64::from(KNOCKS).saturating_sub(host.live_grants());
    while fleet.hosts.iter().any(|host| missing(host) != 0) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    let missing: u64 = fleet.hosts.iter().map(missing).sum();
    fleet.engine.restart(leader);
    fleet.engine.all_answer();
    for host in &fleet.hosts {
        host.joined();
    }
    let mut doubled = 0;
    for (host, before) in fleet.hosts.iter().zip(&before) {
        for (source, times) in opened(host)? {
            let known = before.get(&source).map_or(0, Vec::len);
            doubled += times.len().saturating_sub(known + 1);
        }
    }
    lost.add(
        "lost, of 1,000 at three hosts (goal: 0)",
        f64::from(u32::try_from(missing)?),
    );
    lost.add(
        "doubled, of those that were reported (goal: 0)",
        f64::from(u32::try_from(doubled)?),
    );
    Ok(())
}

/// Starts the service of a host to which the others have given many grants.
fn come_back(fleet: &Fleet, times: &mut Figures, memory: &mut Figures) -> Result<()> {
    let host = fleet.hosts.last().context("there are three")?;
    host.kill();
    host.knockgate("down").exits(0);
    give_many(fleet)?;
    let begun = Instant::now();
    host.serve();
    let mut most = 0;
    wait_until("all are granted", || {
        most = most.max(host.own_memory());
        host.live_grants() >= u64::from(MANY)
    });
    times.add(
        "start of the service to 100,000 grants of others in force (goal: under 5,000)",
        begun.elapsed().as_secs_f64() * 1e3,
    );
    // The service looks at all of them several times.
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(100));
        most = most.max(host.own_memory());
    }
    for (name, bytes) in [
        (
            "run with 100,000 grants of other hosts (goal: under 60)",
            host.peak_memory(),
        ),
        (
            "the same without the kernel's tables that it maps, sampled",
            most,
        ),
    ] {
        let kib = u32::try_from(bytes >> 10)?;
        memory.add(name, f64::from(kib) / 1024.0);
    }
    Ok(())
}

/// Writes many grants, as a fourth host would that has the fleet's key.
fn give_many(fleet: &Fleet) -> Result<()> {
    let first = &fleet.hosts[0];
    let keyring = Keyring::load(slice::from_ref(&first.file("fleet.key")))?;
    let codec = Codec::new(NAME, keyring);
    let config = Config::load_quietly(&first.scenario.lab.config())?;
    let section = config.fleet.as_ref().context("it has [fleet]")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let head = applied(fleet, &codec)?;
    first.scenario.lab.host.run(|| -> Result<()> {
        runtime.block_on(async {
            let member = section.endpoints.first().context("it has members")?;
            let connection = Connection::open(section, member).await?;
            for batch in 0..MANY / AT_ONCE {
                let puts = (0..AT_ONCE).map(|nth| {
                    let source = IpAddr::from(source(batch * AT_ONCE + nth));
                    put(&codec, source, head)
                });
                let write = Write {
                    id: 0,
                    condition: Condition::Always,
                    puts: puts.collect(),
                };
                let outcome = connection.write(&write).await?;
                ensure!(outcome == Outcome::Done, "etcd takes no grants");
            }
            Ok(())
        })
    })
}

/// Returns the last revocation.
fn applied(fleet: &Fleet, codec: &Codec) -> Result<Mark> {
    let records = fleet
        .engine
        .get(&format!("/knockgate/{NAME}/v1/{}", head_key()));
    let last =
        records.first().and_then(
            |(_, value)| match codec.read(head_key(), value.as_bytes()) {
                Ok(Record::Head(last)) => Some(last),
                _ => None,
            },
        );
    last.context("everything has been revoked before")
}

fn put(codec: &Codec, source: IpAddr, head: Mark) -> Put {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let left = Duration::from_mins(50);
    let grant = Grant {
        user: Some("alice".to_owned()),
        key: None,
        print: None,
        origin: "h9".to_owned(),
        serial: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        given: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
        end: u64::try_from((now + left).as_millis()).unwrap_or(u64::MAX),
        left: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        head,
    };
    let (key, value) = codec.grant("ssh", source.into(), &grant);
    Put {
        key,
        value,
        useful: left,
    }
}
