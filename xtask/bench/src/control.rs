//! The cost of commands.

use std::{
    fs, io, mem,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netlab::host::output;

use crate::{
    Plan,
    clock::number,
    figures::{Against, Part, Row, over, times},
    host::{Host, Wire},
    instance::{Instance, Setup},
    instances::Instances,
    service::Service,
};

const UP: &str = "up, one user";
const CHECK: &str = "check, one user";
const GRANTS: &str = "grants --json, one grant";
const METRICS: &str = "metrics, one grant";
const RUN: &str = "run, idle, one user";

/// Few rounds: commands take seconds, over which disturbances average out.
const ROUNDS: usize = 3;

/// Measures CPU time and elapsed time of commands, and the memory of the service.
pub fn measure(
    host: &Host,
    binary: &Path,
    instances: &Instances,
    plan: &Plan,
) -> Result<Vec<Part>> {
    let one = Setup::default();
    let thousand = Setup {
        users: 1_000,
        ..Setup::default()
    };
    let crowd = Setup {
        gates: 10,
        ..thousand.clone()
    };
    let wire = host.wire("commands")?;
    let desk = Desk {
        host,
        binary,
        wire: &wire,
    };
    let second = |floor| vec![over(floor).at_most(1_000.0), times(floor)];
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
            Box::new(|| desk.up(&crowd)),
        ),
        (CHECK, Vec::new(), Box::new(|| desk.check(&one))),
        (
            "check, 10,000 sequences",
            vec![over(CHECK), times(CHECK)],
            Box::new(|| desk.check(&crowd)),
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
    ];
    let mut costs: Vec<Vec<Cost>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds.min(ROUNDS) {
        for ((_, _, measure), costs) in rows.iter().zip(&mut costs) {
            costs.push(measure()?);
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
                Row::new(*name, costs.iter().map(of).collect(), against.clone())
            })
            .collect(),
    };
    let [memory, cpu] = service(&desk, &one, &crowd, plan)?;
    Ok(vec![
        part("commands_cpu", "Commands, CPU time", |cost| cost.cpu),
        part("commands_elapsed", "Commands, elapsed", |cost| cost.elapsed),
        memory,
        cpu,
    ])
}

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
        fs::write(&path, setup.text(&self.wire.name))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(self.binary);
        command.arg("check").arg(&path).stdin(Stdio::null());
        timed(|| finish(&mut command))
    }

    /// Returns the resident memory of the idle service, MiB, and its CPU time in a second, ms.
    fn idle_service(&self, setup: &Setup) -> Result<(f64, f64)> {
        let path = self.host.folder.join("run.toml");
        fs::write(&path, setup.text(&self.wire.name))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = self.host.command(self.binary);
        command
            .arg("--config")
            .arg(&path)
            .arg("--pin-root")
            .arg(self.host.pins("run"))
            .args(["run", "--down-on-exit"]);
        let mut service = Service::start("knockgate run", &mut command)?;
        thread::sleep(Duration::from_secs(2));
        let before = service.cpu()?;
        thread::sleep(Duration::from_secs(1));
        let spent = service.cpu()? - before;
        let memory = service.memory()?;
        service.end()?;
        Ok((memory, spent))
    }
}

/// Measures memory and CPU time of the idle service.
fn service(desk: &Desk<'_>, one: &Setup, crowd: &Setup, plan: &Plan) -> Result<[Part; 2]> {
    let rows = [
        (RUN, one, Vec::new()),
        ("run, idle, 10,000 sequences", crowd, vec![over(RUN)]),
    ];
    let mut memory = Vec::new();
    let mut cpu = Vec::new();
    for (name, setup, against) in rows {
        let rounds = (0..plan.slow_rounds.min(ROUNDS))
            .map(|_| desk.idle_service(setup))
            .collect::<Result<Vec<_>>>()?;
        let row = |rounds| Row::new(name, rounds, against.clone());
        memory.push(row(rounds.iter().map(|(memory, _)| *memory).collect()));
        cpu.push(row(rounds.iter().map(|(_, cpu)| *cpu).collect()));
    }
    let part = |id, title, unit, rows| Part {
        id,
        title,
        unit,
        notes: Vec::new(),
        rows,
    };
    Ok([
        part(
            "service_memory",
            "Service, resident memory",
            "MiB, median (min–max)",
            memory,
        ),
        part(
            "service_cpu",
            "Service, CPU time",
            "ms in a second, median (min–max)",
            cpu,
        ),
    ])
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
