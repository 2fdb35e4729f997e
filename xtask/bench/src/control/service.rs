//! What programs that stay cost: the service, idle and during floods, and `top`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netlab::pty::Terminal;

use super::{Desk, ROUNDS};
use crate::{
    Plan,
    figures::{Against, Part, Row, over},
    frame::{self, Transport},
    instance::{FOREIGN, Instance, KNOCKS, METRICS, PROTECTED, Setup},
    knocking::{Junk, Rate, flood},
    programs::Programs,
    service::Service,
};

const IDLE: &str = "run, idle, one user";
const SERVING: &str = "run, idle, with hooks, alerts and metrics";
const TOP: &str = "top, one grant";

/// What a service or `top` costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// CPU time in a second, ms.
    cpu: f64,
    /// The most resident memory so far, MiB.
    memory: f64,
    /// Packets of the flood, thousands a second.
    flood: Option<f64>,
}

/// One quantity of a cost.
type Quantity = fn(&Cost) -> Option<f64>;

/// A program that stays, with its floor and the most that it may cost in addition: CPU time, ms in a second.
struct Case<'c> {
    name: &'static str,
    against: Option<(&'static str, Option<f64>)>,
    measure: Measure<'c>,
    rounds: Vec<Cost>,
}

/// Measures once.
type Measure<'m> = Box<dyn FnMut(&mut Programs) -> Result<Cost> + 'm>;

/// Measures the service and `top`, which must not use the CPU of a flood: the caller keeps off it.
pub(super) fn measure(
    desk: &Desk<'_>,
    programs: &mut Programs,
    [crowd, keyed]: [&Setup; 2],
    [one, full]: [&Instance; 2],
    plan: &Plan,
) -> Result<Vec<Part>> {
    let unvaried = Setup::default();
    let serving = Setup {
        serves: true,
        ..Setup::default()
    };
    let case = |name, against, measure| Case {
        name,
        against,
        measure,
        rounds: Vec::new(),
    };
    let mut cases = [
        case(IDLE, None, Box::new(|_| desk.service(&unvaried, plan))),
        case(
            "run, idle, 10,000 sequences",
            Some((IDLE, None)),
            Box::new(|_| desk.service(crowd, plan)),
        ),
        case(
            "run, idle, 10,000 keys",
            Some((IDLE, Some(10.0))),
            Box::new(|_| desk.service(keyed, plan)),
        ),
        case(
            SERVING,
            Some((IDLE, None)),
            Box::new(|_| desk.service(&serving, plan)),
        ),
        case(
            "the same, fastest flood of denied packets",
            Some((SERVING, Some(50.0))),
            Box::new(|programs| desk.flooded(programs, &serving, &denied(), plan)),
        ),
        case(
            "the same, fastest flood of failing knocks of 1,024 sources",
            Some((SERVING, Some(50.0))),
            Box::new(|programs| desk.flooded(programs, &serving, &failing(1 << 10), plan)),
        ),
        case(
            "the same, fastest flood of failing knocks of 4,194,304 sources",
            Some((SERVING, Some(50.0))),
            Box::new(|programs| desk.flooded(programs, &serving, &failing(1 << 22), plan)),
        ),
        case(TOP, None, Box::new(|_| desk.top(one, plan))),
        case(
            "top, 65,536 grants, 262,144 sessions, 262,144 sources",
            Some((TOP, Some(30.0))),
            Box::new(|_| desk.top(full, plan)),
        ),
    ];
    for _ in 0..plan.slow_rounds.min(ROUNDS) {
        for case in &mut cases {
            let cost = (case.measure)(programs).with_context(|| case.name)?;
            case.rounds.push(cost);
        }
    }
    let part = |id, title, unit, notes, of: Quantity, limited| Part {
        id,
        title,
        unit,
        notes,
        rows: cases
            .iter()
            .filter_map(|case| case.row(of, limited))
            .collect(),
    };
    Ok(vec![
        part(
            "service_memory",
            "Service and `top`, most resident memory",
            "MiB, median (min–max)",
            Vec::new(),
            |cost| Some(cost.memory),
            false,
        ),
        part(
            "service_cpu",
            "Service and `top`, CPU time",
            "ms in a second, median (min–max)",
            vec![
                "hooks: /bin/true for each event that runs one; their own time is not counted",
                "during a flood, metrics are scraped once a second",
                "10 ms in a second are 1 % of a core",
            ],
            |cost| Some(cost.cpu),
            true,
        ),
        part(
            "service_flood",
            "Rate of these floods",
            "thousand packets a second, median (min–max)",
            Vec::new(),
            |cost| cost.flood,
            false,
        ),
    ])
}

/// Packets to the protected port, from ever other sources.
fn denied() -> Junk {
    Junk::to(frame::ipv4(Transport::Udp, 0, 40000, PROTECTED), PROTECTED)
}

/// First knocks of this many sources in turn, each followed by a probe that breaks the run.
fn failing(sources: u32) -> Junk {
    let [first, ..] = KNOCKS;
    Junk {
        sources,
        steps: 2,
        ports: [first, FOREIGN, first, FOREIGN],
        ..Junk::to(frame::ipv4(Transport::Udp, 0, 40000, first), first)
    }
}

impl Case<'_> {
    fn row(&self, of: Quantity, limited: bool) -> Option<Row> {
        let rounds: Vec<f64> = self.rounds.iter().filter_map(of).collect();
        let measured = !rounds.is_empty();
        let against = self.against.iter().map(|(floor, most)| match most {
            Some(most) if limited => over(*floor).at_most(*most),
            _ => over(*floor),
        });
        let against: Vec<Against> = against.collect();
        measured.then(|| Row::new(self.name, rounds, against))
    }
}

impl Desk<'_> {
    /// Starts the service.
    fn serve(&self, setup: &Setup) -> Result<Service> {
        let path = self.host.folder.join("run.toml");
        setup.write(&path, &self.wire.name)?;
        let mut command = self.host.command(self.binary);
        command
            .arg("--config")
            .arg(&path)
            .arg("--pin-root")
            .arg(self.host.pins("run"))
            .args(["run", "--down-on-exit"]);
        let service = Service::start("knockgate run", &mut command)?;
        let mut tries = 0;
        while !self.is_served()? {
            tries += 1;
            ensure!(tries < 600, "`knockgate run` did not come up in a minute");
            thread::sleep(Duration::from_millis(100));
        }
        // What it does once only, when it has come up.
        thread::sleep(Duration::from_secs(1));
        Ok(service)
    }

    fn is_served(&self) -> Result<bool> {
        let mut command = self.host.command(self.binary);
        command
            .arg("--pin-root")
            .arg(self.host.pins("run"))
            .arg("metrics");
        let said = command
            .output()
            .context("cannot start `knockgate metrics`")?;
        Ok(String::from_utf8_lossy(&said.stdout).contains("\nknockgate_service_running 1\n"))
    }

    fn service(&self, setup: &Setup, plan: &Plan) -> Result<Cost> {
        let mut service = self.serve(setup)?;
        let cost = spent(&service, plan.idle, || Ok(()))?;
        service.end()?;
        Ok(cost)
    }

    /// Measures the service during a flood, while its metrics are scraped.
    fn flooded(
        &self,
        programs: &mut Programs,
        setup: &Setup,
        junk: &Junk,
        plan: &Plan,
    ) -> Result<Cost> {
        let mut service = self.serve(setup)?;
        let stop = AtomicBool::new(false);
        let cost = thread::scope(|scope| {
            let flooding = scope.spawn(|| flood(programs, self.wire, junk, Rate::Fastest, &stop));
            let cost = spent(&service, plan.flooded, || self.scrape());
            stop.store(true, Ordering::Relaxed);
            let sent = flooding
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            anyhow::Ok(Cost {
                flood: Some(sent / 1e3),
                ..cost?
            })
        })?;
        service.lives()?;
        service.end()?;
        Ok(cost)
    }

    /// Scrapes the service's metrics.
    fn scrape(&self) -> Result<()> {
        let connected = self.host.inside(|| TcpStream::connect(METRICS));
        let mut stream = connected.with_context(|| format!("cannot connect to {METRICS}"))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(
            text.contains("\nknockgate_table_entries{"),
            "{METRICS} answered no metrics: {text}"
        );
        Ok(())
    }

    /// Measures `top` on a terminal, from its second reading of all lists on.
    fn top(&self, instance: &Instance, plan: &Plan) -> Result<Cost> {
        let terminal = Terminal::open()?;
        let mut command = instance.on(self.host);
        command
            .arg("top")
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8");
        terminal.attach(&mut command)?;
        let top = Service::attached("knockgate top", &mut command)?;
        thread::sleep(Duration::from_secs(3));
        let cost = spent(&top, plan.watched, || Ok(()))?;
        let printed = terminal.printed();
        ensure!(
            printed.contains("GRANTS") && !printed.contains("NOTHING IS UP"),
            "`knockgate top` did not show the instance: {printed}"
        );
        Ok(cost)
    }
}

/// Returns what a program costs during `time`. Each second of it begins with `work`.
fn spent(program: &Service, time: Duration, work: impl Fn() -> Result<()>) -> Result<Cost> {
    let (before, begun) = (program.cpu()?, Instant::now());
    while begun.elapsed() < time {
        let next = Instant::now() + Duration::from_secs(1);
        work()?;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let elapsed = begun.elapsed().as_secs_f64();
    Ok(Cost {
        cpu: (program.cpu()? - before) / elapsed,
        memory: program.most_memory()?,
        flood: None,
    })
}
