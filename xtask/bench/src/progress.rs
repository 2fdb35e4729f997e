//! Measures how many sources a full table forgets when new ones arrive, and the cost of a new source: in knockgate's
//! table, and for comparison in both kinds of the kernel's LRU tables.

use std::{path::Path, thread};

use anyhow::{Context as _, Result};
use aya::{maps::MapError, programs::Xdp};

use crate::{
    Plan, clock,
    figures::{Part, Row, over},
    host::Host,
    instance::{Instance, KNOCKS, Setup, knock_frame},
    judge::Judge as _,
    programs::{Floor, Lists, Memory, Programs, Traffic, slope},
};

const SIZES: [u32; 3] = [16_384, 65_536, 262_144];
/// Entries of the LRU tables.
const MODELLED: u32 = 262_144;
/// Number of other sources that arrive, in eighths of the table's places.
const OTHERS: [u32; 6] = [2, 4, 6, 7, 8, 9];
/// The fewest sources to observe.
const WATCHED: u32 = 4_096;
/// The first source.
const FIRST: u32 = 0x1000_0000;
const FLOOR: &str = "bare XDP_DROP, varied";

/// One table.
struct Case {
    name: String,
    places: u32,
    table: Table,
    /// The next new source.
    fresh: u32,
    known: [Vec<f64>; OTHERS.len()],
    cost: Vec<f64>,
}

enum Table {
    Instance(Instance),
    Model(Xdp, Memory),
}

/// Measures tables of several sizes, and both LRU tables.
pub fn measure(
    host: &Host,
    programs: &mut Programs,
    binary: &Path,
    plan: &Plan,
) -> Result<Vec<Part>> {
    let mut wires = Vec::new();
    let mut cases = Vec::new();
    for sources in SIZES {
        let wire = host.wire(&format!("ring{sources}"))?;
        let setup = Setup {
            sources,
            ..Setup::default()
        };
        let instance = Instance::up(host, binary, &wire, &setup)?;
        // Dropped after the instance that guards it.
        wires.push(wire);
        cases.push(Case::new("knockgate", sources, Table::Instance(instance)));
    }
    for (lists, name) in [
        (Lists::Shared, "kernel's LRU, shared lists"),
        (Lists::Apart, "kernel's LRU, lists of each CPU"),
    ] {
        let (program, memory) = programs.memory(lists, MODELLED)?;
        cases.push(Case::new(name, MODELLED, Table::Model(program, memory)));
    }
    let drop = programs.floor(Floor::Drop)?;
    let mut floor = Vec::new();
    // On a thread of its own, since CPU time is measured by thread and CPU.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            clock::stay()?;
            for _ in 0..plan.slow_rounds {
                floor.push(cheapest(plan, |count| {
                    programs.vary(&drop, &knock_frame(), &mut knock(FIRST, 0), count)
                })?);
                for case in &mut cases {
                    case.once(programs, plan)?;
                }
            }
            anyhow::Ok(())
        });
        measuring
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(parts(&cases, floor))
}

impl Case {
    fn new(name: &str, places: u32, table: Table) -> Self {
        Self {
            name: format!("{name}, {places} sources"),
            places,
            table,
            fresh: FIRST,
            known: Default::default(),
            cost: Vec::new(),
        }
    }

    fn once(&mut self, programs: &mut Programs, plan: &Plan) -> Result<()> {
        // Fills the table.
        self.come(programs, self.places + self.places / 4)?;
        for (place, eighths) in OTHERS.into_iter().enumerate() {
            let known = self.share(programs, self.places / 8 * eighths)?;
            self.known[place].push(known);
        }
        let cost = cheapest(plan, |count| self.come(programs, count))?;
        self.cost.push(cost);
        Ok(())
    }

    /// Returns how many sources are still known after this many others, per cent.
    fn share(&mut self, programs: &mut Programs, others: u32) -> Result<f64> {
        // Few at a time, since they also displace each other.
        let group = self.places / 64;
        let (mut watched, mut known) = (0, 0);
        while watched < WATCHED {
            let first = self.fresh;
            self.come(programs, group)?;
            self.come(programs, others)?;
            known += self.table.known(programs, first, group)?;
            watched += group;
        }
        Ok(100.0 * clock::number(known) / f64::from(watched))
    }

    /// Sends the first knock of this many new sources. Returns the CPU time, ns.
    fn come(&mut self, programs: &mut Programs, count: u32) -> Result<u64> {
        let mut traffic = knock(self.fresh, 0);
        self.fresh += count;
        programs.vary(self.table.program(), &knock_frame(), &mut traffic, count)
    }
}

impl Table {
    fn program(&self) -> &Xdp {
        match self {
            Self::Instance(instance) => instance.program(),
            Self::Model(program, _) => program,
        }
    }

    /// Returns how many of these sources it knows. For knockgate, sends their second knocks.
    fn known(&self, programs: &mut Programs, first: u32, count: u32) -> Result<u64> {
        match self {
            Self::Instance(instance) => {
                let before = instance.knocks("step")?;
                programs.vary(
                    instance.program(),
                    &knock_frame(),
                    &mut knock(first, 1),
                    count,
                )?;
                Ok(instance.knocks("step")? - before)
            }
            Self::Model(_, memory) => {
                let mut known = 0;
                for source in first..first + count {
                    // A look-up from user space does not count as a use of the entry.
                    match memory.get(&[u64::from(source.to_be()), 0, 4], 0) {
                        Ok(_) => known += 1,
                        Err(MapError::KeyNotFound) => {}
                        Err(error) => return Err(error).context("cannot look a source up"),
                    }
                }
                Ok(known)
            }
        }
    }
}

/// Returns one knock from each of constantly new sources, from `first` on.
fn knock(first: u32, step: usize) -> Traffic {
    Traffic {
        first,
        steps: 1,
        ports: [KNOCKS[step]; 4],
        hold: 31,
        ..Traffic::default()
    }
}

/// Returns the time of one run, ns, in the cheapest of several samples.
fn cheapest(plan: &Plan, mut measure: impl FnMut(u32) -> Result<u64>) -> Result<f64> {
    let mut cheapest = f64::INFINITY;
    for _ in 0..plan.samples {
        cheapest = cheapest.min(slope(plan.repeat, &mut measure)?);
    }
    Ok(cheapest)
}

fn parts(cases: &[Case], floor: Vec<f64>) -> Vec<Part> {
    let mut known = Vec::new();
    let mut cost = vec![Row::new(FLOOR, floor, Vec::new())];
    for case in cases {
        for (eighths, rounds) in OTHERS.into_iter().zip(&case.known) {
            let others = 12.5 * f64::from(eighths);
            let name = format!("{}, after {others} % others", case.name);
            let row = Row::new(name, rounds.clone(), Vec::new());
            known.push(row.on_curve(&case.name, others));
        }
        cost.push(Row::new(&case.name, case.cost.clone(), vec![over(FLOOR)]));
    }
    vec![
        Part {
            id: "progress_known",
            title: "Sources still known after others have come to a full table",
            unit: "per cent, median (min–max)",
            notes: vec![
                "others: all new, on the same CPU, in per cent of the table's places",
                "known: whose second knock is a step; with the kernel's tables, who is in them",
            ],
            rows: known,
        },
        Part {
            id: "progress_cost",
            title: "A new source in a full table",
            unit: "ns of CPU, median (min–max)",
            notes: vec![
                "knockgate: a whole first knock; the kernel's tables: nothing but what remembers it",
            ],
            rows: cost,
        },
    ]
}
