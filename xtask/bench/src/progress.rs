//! How a table of sources behaves when forged ones have filled it: what it forgets, when, and at what
//! price. By a model of knockgate's, since the kind of the real one is fixed: its keys, its values, its
//! sizes, and the kernel's two ways to tell what was used least recently.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::MapError,
    programs::{Xdp, XdpMode},
};

use crate::{
    Plan, clock,
    figures::{Part, Row, over},
    frame::{self, Transport},
    gate::KNOCKS,
    knocking::{Junk, Rate, flood},
    programs::{Floor, Lists, Memory, Programs, Traffic, slope},
    raw::Raw,
    stage::{Stage, Wire},
};

const SIZES: [u32; 4] = [16_384, 65_536, 262_144, 1_048_576];
const KINDS: [Lists; 2] = [Lists::Shared, Lists::Apart];
/// Where sources begin that are watched, and those that push them out.
const WATCHED: u32 = 0x0a01_0000;
const FORGED: u32 = 0x1000_0000;
/// After how long a real knock's next step comes.
const LATER: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];
const FLOOR: &str = "bare XDP_DROP, varied";

/// One table.
struct Case {
    lists: Lists,
    entries: u32,
    program: Xdp,
    memory: Memory,
    /// The next source that nobody has seen.
    fresh: u32,
    outlived: Vec<f64>,
    cost: Vec<f64>,
    survived: [Vec<f64>; 2],
    sent: Vec<f64>,
}

/// What becomes of sources in tables of both kinds and several sizes.
pub fn measure(stage: &Stage, programs: &mut Programs, plan: &Plan) -> Result<Vec<Part>> {
    let drop = programs.floor(Floor::Drop)?;
    let mut floor = Vec::new();
    let mut cases = Vec::new();
    for entries in SIZES {
        for lists in KINDS {
            cases.push(Case::new(programs, lists, entries)?);
        }
    }
    for _ in 0..plan.trials {
        // In a thread of its own, as clocks are read by thread and CPU.
        thread::scope(|scope| {
            let measuring = scope.spawn(|| {
                clock::stay()?;
                let mut forged = forged(FORGED);
                floor.push(slope(plan.repeat, |count| {
                    programs.vary(&drop, &knock(), &mut forged, count)
                })?);
                for case in &mut cases {
                    case.fill(programs)?;
                    case.outlive(programs)?;
                    case.price(programs, plan)?;
                }
                anyhow::Ok(())
            });
            joined(measuring)
        })?;
        for case in &mut cases {
            case.survive(stage, programs, plan)?;
        }
    }
    let freed = KINDS
        .into_iter()
        .map(|lists| freed(programs, lists))
        .collect::<Result<_>>()?;
    Ok(parts(&cases, floor, freed))
}

impl Case {
    fn new(programs: &Programs, lists: Lists, entries: u32) -> Result<Self> {
        let (program, memory) = programs.memory(lists, entries)?;
        Ok(Self {
            lists,
            entries,
            program,
            memory,
            fresh: FORGED,
            outlived: Vec::new(),
            cost: Vec::new(),
            survived: [Vec::new(), Vec::new()],
            sent: Vec::new(),
        })
    }

    /// Has so many sources be seen that were not seen before. Returns the CPU time, ns.
    fn forge(&mut self, programs: &mut Programs, count: u32) -> Result<u64> {
        let mut traffic = forged(self.fresh);
        self.fresh = self.fresh.wrapping_add(count);
        programs.vary(&self.program, &knock(), &mut traffic, count)
    }

    fn see(&self, programs: &mut Programs, source: u32) -> Result<()> {
        programs.vary(&self.program, &knock(), &mut forged(source), 1)?;
        ensure!(
            remembers(&self.memory, source)?,
            "a source was forgotten at once"
        );
        Ok(())
    }

    fn fill(&mut self, programs: &mut Programs) -> Result<()> {
        self.forge(programs, self.entries + self.entries / 4)?;
        Ok(())
    }

    /// How many forged sources a real one outlives, per cent of the table's entries; of the least lucky of
    /// several.
    fn outlive(&mut self, programs: &mut Programs) -> Result<()> {
        const WATCHED_AT_ONCE: u32 = 16;
        /// Parts of the table that are forged between two looks.
        const GRAIN: u32 = 32;
        let mut watched: Vec<(u32, u32)> = Vec::new();
        let mut least = f64::INFINITY;
        for look in 0.. {
            if look < WATCHED_AT_ONCE {
                self.see(programs, WATCHED + look)?;
                watched.push((WATCHED + look, look));
            }
            self.forge(programs, self.entries / GRAIN)?;
            let mut left = Vec::new();
            for (source, since) in watched {
                if remembers(&self.memory, source)? {
                    left.push((source, since));
                } else {
                    // It was there at the look before.
                    least = least.min(f64::from(look - since) / f64::from(GRAIN));
                }
            }
            watched = left;
            if watched.is_empty() {
                break;
            }
        }
        self.outlived.push(100.0 * least);
        Ok(())
    }

    /// What a source costs that pushes another out.
    fn price(&mut self, programs: &mut Programs, plan: &Plan) -> Result<()> {
        let mut cheapest = f64::INFINITY;
        for _ in 0..plan.samples {
            let cost = slope(plan.repeat, |count| self.forge(programs, count))?;
            cheapest = cheapest.min(cost);
        }
        self.cost.push(cheapest);
        Ok(())
    }

    /// Whether real sources are still known after a while, with the fastest flood going on.
    fn survive(&mut self, stage: &Stage, programs: &mut Programs, plan: &Plan) -> Result<()> {
        let wire = stage.wire("memory")?;
        stage.inside(|| {
            self.program
                .attach_to_if_index(wire.host, XdpMode::Driver)
                .map(drop)
                .context("can't attach a model of the table of sources")
        })?;
        let junk = Junk {
            frame: knock(),
            port: KNOCKS[0],
        };
        let stop = AtomicBool::new(false);
        let (sent, survived) = thread::scope(|scope| {
            let flooding = scope.spawn(|| flood(programs, &wire, &junk, Rate::Fastest, &stop));
            let watching = scope.spawn(|| {
                clock::stay_away()?;
                // Until the table is full, even where the machine is slow.
                thread::sleep(Duration::from_millis(1_500));
                watch(&wire, &self.memory, plan.knocks)
            });
            let survived = joined(watching);
            stop.store(true, Ordering::Relaxed);
            anyhow::Ok((joined(flooding)?, survived?))
        })?;
        self.sent.push(sent / 1e3);
        for (survivals, survived) in self.survived.iter_mut().zip(survived) {
            survivals.push(survived);
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("{}, {} entries", self.lists.name(), self.entries)
    }
}

impl Lists {
    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared lists",
            Self::Apart => "lists of each CPU",
        }
    }
}

/// Sends from so many sources, and looks whether each is known a while later. Returns how many were, per
/// cent, after each of [`LATER`].
fn watch(wire: &Wire, memory: &Memory, sources: u32) -> Result<[f64; 2]> {
    const EVERY: Duration = Duration::from_millis(7);
    let socket = Raw::sending(wire.sender)?;
    let mut known = [0_u32; 2];
    let begun = Instant::now();
    let mut due = Vec::new();
    for turn in 0..sources {
        let source = WATCHED + 0x1000 + turn;
        due.push((EVERY * turn, source, None));
        for (place, later) in LATER.into_iter().enumerate() {
            due.push((EVERY * turn + later, source, Some(place)));
        }
    }
    due.sort();
    for (when, source, look) in due {
        thread::sleep(when.saturating_sub(begun.elapsed()));
        match look {
            None => {
                socket.send(&frame::ipv4(Transport::Udp, source, 40000, KNOCKS[0]))?;
            }
            Some(place) => known[place] += u32::from(remembers(memory, source)?),
        }
    }
    Ok(known.map(|known| 100.0 * f64::from(known) / f64::from(sources)))
}

/// How many places a full table frees at a time.
fn freed(programs: &mut Programs, lists: Lists) -> Result<Row> {
    let [entries, ..] = SIZES;
    let mut case = Case::new(programs, lists, entries)?;
    thread::scope(|scope| {
        joined(scope.spawn(|| {
            clock::stay()?;
            case.fill(programs)?;
            let mut before = case.memory.keys().count();
            let mut most = 0;
            for _ in 0..300 {
                case.forge(programs, 1)?;
                let now = case.memory.keys().count();
                // One came, too.
                most = most.max((before + 1).saturating_sub(now));
                before = now;
            }
            let most = u32::try_from(most).context("more than there are")?;
            Ok(Row::new(case.name(), vec![f64::from(most)], Vec::new()))
        }))
    })
}

/// Looks without being counted as a use of the entry.
fn remembers(memory: &Memory, source: u32) -> Result<bool> {
    match memory.get(&[u64::from(source.to_be()), 0, 4], 0) {
        Ok(_) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(error).context("can't look a source up"),
    }
}

fn knock() -> Vec<u8> {
    frame::ipv4(Transport::Udp, FORGED, 1024, KNOCKS[0])
}

/// Ever new sources from this one on.
fn forged(first: u32) -> Traffic {
    Traffic {
        first,
        steps: 1,
        ports: [KNOCKS[0]; 4],
        hold: 31,
        ..Traffic::default()
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn parts(cases: &[Case], floor: Vec<f64>, freed: Vec<Row>) -> Vec<Part> {
    let rows = |of: &dyn Fn(&Case) -> &Vec<f64>| -> Vec<Row> {
        cases
            .iter()
            .map(|case| Row::new(case.name(), of(case).clone(), Vec::new()))
            .collect()
    };
    let mut cost = vec![Row::new(FLOOR, floor, Vec::new())];
    cost.extend(rows(&|case| &case.cost).into_iter().map(|row| Row {
        against: vec![over(FLOOR)],
        ..row
    }));
    let part = |id, title, unit, notes, rows| Part {
        id,
        title,
        unit,
        notes,
        rows,
    };
    vec![
        part(
            "progress_outlived",
            "Forged sources that a real one outlives in a full table of sources",
            "per cent of its entries, the least of 16, median (min–max)",
            vec!["all of them seen on one CPU"],
            rows(&|case| &case.outlived),
        ),
        part(
            "progress_20",
            "Real sources still known after 20 ms of the fastest flood",
            "per cent, median (min–max)",
            Vec::new(),
            rows(&|case| &case.survived[0]),
        ),
        part(
            "progress_200",
            "Real sources still known after 200 ms of the fastest flood",
            "per cent, median (min–max)",
            Vec::new(),
            rows(&|case| &case.survived[1]),
        ),
        part(
            "progress_sent",
            "What that flood came to",
            "thousand packets a second, median (min–max)",
            Vec::new(),
            rows(&|case| &case.sent),
        ),
        part(
            "progress_cost",
            "A new source in a full table",
            "ns of CPU, median (min–max)",
            Vec::new(),
            cost,
        ),
        part(
            "progress_freed",
            "Entries that a full table forgets at a time",
            "at most, of 300 new sources",
            Vec::new(),
            freed,
        ),
    ]
}
