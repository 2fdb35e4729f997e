//! The cost of commands, and of what stays; and what replacing a configuration does to packets.

mod keys;
mod replacing;
mod service;

use std::{
    cell::Cell,
    io, mem,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use netlab::host::output;

use self::keys::Keys;
use crate::{
    Plan,
    clock::{self, number},
    figures::{Against, Part, Row, over, times},
    host::{Host, Wire},
    instance::{Instance, MOST_GATES, Setup},
    instances::Instances,
    programs::Programs,
};

const UP: &str = "up, one user";
const RELOAD: &str = "reload, one user";
const CHECK: &str = "check, one user";
const GRANTS: &str = "grants --json, one grant";
const METRICS: &str = "metrics, one grant";

/// Few rounds: commands take seconds, over which disturbances average out.
const ROUNDS: usize = 3;

/// Measures commands, the service, and replacing a configuration. Replacing needs a second CPU.
pub fn measure(
    host: &Host,
    programs: &mut Programs,
    binary: &Path,
    instances: &Instances,
    plan: &Plan,
) -> Result<Vec<Part>> {
    let crowd = Setup {
        gates: 10,
        users: 1_000,
        ..Setup::default()
    };
    let wire = host.wire("commands")?;
    let desk = Desk {
        host,
        binary,
        wire: &wire,
    };
    let wires = [host.wire("key")?, host.wire("keys")?];
    let keys = Keys::new(&desk, programs, wires.each_ref())?;
    let keyed = keys.many().clone();
    let mut parts = commands(&desk, programs, instances, &crowd, &keys, plan)?;
    drop(keys);
    // Commands and services must not use the flood's CPU; threads and children of this thread do not.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            clock::stay_away()?;
            let watched = [&instances.one, &instances.full];
            let service = service::measure(&desk, programs, [&crowd, &keyed], watched, plan)?;
            parts.extend(service);
            parts.extend(replacing::measure(&desk, programs, plan)?);
            anyhow::Ok(())
        });
        measuring
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(parts)
}

/// Measures CPU time and elapsed time of commands.
fn commands(
    desk: &Desk<'_>,
    programs: &mut Programs,
    instances: &Instances,
    crowd: &Setup,
    keys: &Keys,
    plan: &Plan,
) -> Result<Vec<Part>> {
    let one = Setup::default();
    let thousand = Setup {
        users: 1_000,
        ..Setup::default()
    };
    let widest = Setup {
        gates: MOST_GATES,
        ..Setup::default()
    };
    let wires = ["reloaded", "crowded", "widest"].map(|name| desk.host.wire(name));
    let [few, many, wide] = wires;
    let (few, many, wide) = (few?, many?, wide?);
    let up = |wire, setup: &Setup| Instance::up(desk.host, desk.binary, wire, setup);
    let reloaded = Reloaded::new(up(&few, &one)?, &one);
    let crowd_reloaded = Reloaded::new(up(&many, crowd)?, crowd);
    let wide = up(&wide, &widest)?;
    wide.grant(programs, widest.grants)?;
    wide.fill(programs, &widest)?;
    let rows: Vec<(&str, Vec<Against>, Measure<'_>)> = vec![
        (UP, Vec::new(), Box::new(|| desk.up(&one))),
        (
            "up, 1,000 users",
            second(UP),
            Box::new(|| desk.up(&thousand)),
        ),
        (
            "up, 10,000 sequences",
            vec![over(UP), times(UP)],
            Box::new(|| desk.up(crowd)),
        ),
        (RELOAD, Vec::new(), Box::new(|| reloaded.reload(desk))),
        (
            "reload, 10,000 sequences",
            second(RELOAD),
            Box::new(|| crowd_reloaded.reload(desk)),
        ),
        (CHECK, Vec::new(), Box::new(|| desk.check(&one))),
        (
            "check, 10,000 sequences",
            vec![over(CHECK), times(CHECK)],
            Box::new(|| desk.check(crowd)),
        ),
        (GRANTS, Vec::new(), Box::new(|| grants(&instances.one, 1))),
        (
            "grants --json, 1,000,000 grants",
            vec![over(GRANTS)],
            Box::new(|| grants(&instances.million, 1_000_000)),
        ),
        (METRICS, Vec::new(), Box::new(|| metrics(&instances.one))),
        (
            "metrics, 65,536 grants, 262,144 sessions, 262,144 sources",
            vec![over(METRICS).at_most(50.0)],
            Box::new(|| metrics(&instances.full)),
        ),
        (
            "the same with 4,096 gates",
            vec![over(METRICS).at_most(50.0)],
            Box::new(|| metrics(&wide)),
        ),
    ];
    let rows = rows
        .into_iter()
        .map(|(name, against, measure)| (name.to_owned(), against, measure));
    let rows: Vec<Measured<'_>> = rows.chain(keys.rows(desk)).collect();
    let mut costs: Vec<Vec<Cost>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds.min(ROUNDS) {
        for ((name, _, measure), costs) in rows.iter().zip(&mut costs) {
            costs.push(measure().with_context(|| name.clone())?);
        }
    }
    let part = |id, title, of: fn(&Cost) -> f64| Part {
        id,
        title,
        unit: "ms, median (min–max)",
        notes: Vec::new(),
        rows: rows
            .iter()
            .zip(&costs)
            .map(|((name, against, _), costs)| {
                Row::new(name, costs.iter().map(of).collect(), against.clone())
            })
            .collect(),
    };
    Ok(vec![
        part("commands_cpu", "Commands, CPU time", |cost| cost.cpu),
        part("commands_elapsed", "Commands, elapsed", |cost| cost.elapsed),
    ])
}

/// Returns the comparison of a command with a smaller one, than which it may take a second more.
fn second(floor: &str) -> Vec<Against> {
    vec![over(floor).at_most(1_000.0), times(floor)]
}

/// A row: its name, what it is compared with, and how it is measured.
type Measured<'m> = (String, Vec<Against>, Measure<'m>);

/// Runs a command once.
type Measure<'m> = Box<dyn Fn() -> Result<Cost> + 'm>;

/// The times that a command took, ms.
struct Cost {
    cpu: f64,
    elapsed: f64,
}

/// The place to run commands: an interface that is not guarded, for `up` and `down`.
struct Desk<'d> {
    host: &'d Host,
    binary: &'d Path,
    wire: &'d Wire,
}

impl Desk<'_> {
    fn up(&self, setup: &Setup) -> Result<Cost> {
        let mut instance = None;
        let cost = timed(|| {
            instance = Some(Instance::up(self.host, self.binary, self.wire, setup)?);
            Ok(())
        })?;
        drop(instance);
        Ok(cost)
    }

    fn check(&self, setup: &Setup) -> Result<Cost> {
        let path = self.host.folder.join("check.toml");
        setup.write(&path, &self.wire.name)?;
        let mut command = Command::new(self.binary);
        command.arg("check").arg(&path).stdin(Stdio::null());
        timed(|| finish(&mut command))
    }
}

/// An instance whose configuration is replaced by another one each time.
struct Reloaded {
    instance: Instance,
    setup: Setup,
    times: Cell<u32>,
}

impl Reloaded {
    fn new(instance: Instance, setup: &Setup) -> Self {
        Self {
            instance,
            setup: setup.clone(),
            times: Cell::new(0),
        }
    }

    fn reload(&self, desk: &Desk<'_>) -> Result<Cost> {
        let times = self.times.get();
        self.times.set(times + 1);
        self.instance.configure(&Setup {
            open_for: if times.is_multiple_of(2) { "3h" } else { "2h" },
            ..self.setup.clone()
        })?;
        timed(|| finish(self.instance.on(desk.host).arg("reload")))
    }
}

fn grants(instance: &Instance, count: usize) -> Result<Cost> {
    let mut printed = String::new();
    let cost = timed(|| {
        printed = output(instance.knockgate().args(["grants", "--json"]))?;
        Ok(())
    })?;
    let rows = printed.matches("\"expires_in_ms\"").count();
    ensure!(
        rows == count,
        "`knockgate grants --json` printed {rows} of {count} grants"
    );
    Ok(cost)
}

/// What a scrape takes, and starting a process for it.
fn metrics(instance: &Instance) -> Result<Cost> {
    let mut printed = String::new();
    let cost = timed(|| {
        printed = output(instance.knockgate().arg("metrics"))?;
        Ok(())
    })?;
    ensure!(
        printed.contains("\nknockgate_table_entries{"),
        "`knockgate metrics` printed no table: {printed}"
    );
    Ok(cost)
}

fn finish(command: &mut Command) -> Result<()> {
    output(command)?;
    Ok(())
}

/// Measures `work`, including the processes that it starts and waits for.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let (cpu, begun) = (children()?, Instant::now());
    work()?;
    let elapsed = begun.elapsed().as_secs_f64() * 1e3;
    Ok(Cost {
        cpu: children()? - cpu,
        elapsed,
    })
}

/// Returns the CPU time of all children that have been waited for, ms.
fn children() -> Result<f64> {
    // SAFETY: all zeroes is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the call fills the structure or fails.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the CPU time of children");
    }
    let ms = |time: libc::timeval| {
        number(time.tv_sec.unsigned_abs()) * 1e3 + number(time.tv_usec.unsigned_abs()) / 1e3
    };
    Ok(ms(usage.ru_utime) + ms(usage.ru_stime))
}
