//! Reads the tables into the state.
//!
//! Counters and interfaces are read each time. Lists of a full table take tens of milliseconds, so they are read as often
//! as a fixed share of the time allows: at every interval where there are few rows.

use std::{
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    rates::Totals,
    state::{GateRow, GrantRow, Instance, InterfaceRow, SourceRow, State},
};
use crate::{
    datapath::{Attachment, Datapath, Interface, NothingUp, PinRoot, Who},
    service,
    sys::clock::monotonic_now,
};

/// Lists may take a fiftieth of the time.
const SHARE: u32 = 50;

/// Reads what is up under a pin root.
pub struct Sampler {
    root: PinRoot,
    every: Duration,
    /// The instance of the last reading, and when that was.
    last: Option<(u64, Instant)>,
    lists: [ReadAt; LISTS.len()],
    /// Live grants by the id of the gate, when they were last read.
    grants: HashMap<u16, usize>,
    /// When the time that lists have taken is paid for.
    next_list: Instant,
}

/// What takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    Grants,
    Sources,
    Tables,
}

const LISTS: [Slow; 3] = [Slow::Grants, Slow::Sources, Slow::Tables];

/// When a list was read; `None`: not yet.
type ReadAt = Option<Instant>;

impl Sampler {
    pub fn new(root: &PinRoot, every: Duration) -> Self {
        Self {
            root: root.clone(),
            every,
            last: None,
            lists: [None; LISTS.len()],
            grants: HashMap::new(),
            next_list: Instant::now(),
        }
    }

    /// Reads everything again. That nothing is up, or cannot be read, becomes a part of the state.
    pub fn sample(&mut self, state: &mut State) {
        state.fault = None;
        match self.read(state) {
            Ok(()) => {}
            Err(error) if error.is::<NothingUp>() => self.show_nothing(state),
            // It may have been taken down meanwhile; the next reading tells.
            Err(error) => state.fault = Some(format!("{error:#}")),
        }
    }

    /// As [`Sampler::sample`], and fails where nothing is up.
    pub fn read(&mut self, state: &mut State) -> Result<()> {
        // Opened anew each time, since another instance may have come up.
        let datapath = Datapath::look_at_once(&self.root)?;
        let now = Instant::now();
        let is_other = self.last.is_none_or(|(since, _)| since != datapath.since);
        if is_other {
            state.rates.restart();
            self.lists = [None; LISTS.len()];
            self.grants.clear();
        }
        let totals = Totals::of(&datapath.counters()?);
        let elapsed = self.last.map_or(Duration::ZERO, |(_, last)| now - last);
        state.rates.add(totals, elapsed);
        self.last = Some((datapath.since, now));
        state.now = monotonic_now();
        let (interfaces, attachments) = datapath.interfaces()?;
        let interfaces = interfaces.iter().zip(&attachments);
        state.instance = Some(Instance {
            interfaces: interfaces
                .map(|(row, attachment)| interface(row, attachment))
                .collect(),
            gates: gates(&datapath, &self.grants),
            up_for: datapath.up_for(),
            is_served: service::is_served(&self.root),
        });
        state
            .denied_rows
            .set(state.denied.rows(state.now), &state.filter);
        self.read_lists(&datapath, state)
    }

    /// Reads the lists that are due, those that were read longest ago first.
    fn read_lists(&mut self, datapath: &Datapath, state: &mut State) -> Result<()> {
        let started = Instant::now();
        let mut order: [usize; LISTS.len()] = std::array::from_fn(|index| index);
        order.sort_by_key(|index| self.lists[*index]);
        for index in order {
            // What is owed by now must be paid before the next reading.
            if self.lists[index].is_some() && self.next_list > started + self.every {
                break;
            }
            let begun = Instant::now();
            match LISTS[index] {
                Slow::Grants => {
                    let rows = grants(datapath)?;
                    self.grants.clear();
                    for row in &rows {
                        *self.grants.entry(row.gate_id).or_default() += 1;
                    }
                    if let Some(instance) = &mut state.instance {
                        instance.gates = gates(datapath, &self.grants);
                    }
                    state.grants.set(rows, &state.filter);
                }
                Slow::Sources => state
                    .sources
                    .set(sources(datapath, state.now)?, &state.filter),
                Slow::Tables => state.tables = datapath.status()?.tables,
            }
            self.lists[index] = Some(begun);
            self.next_list = self.next_list.max(begun) + begun.elapsed() * SHARE;
        }
        let oldest = self.lists.iter().flatten().min();
        let age = oldest.map_or(Duration::ZERO, Instant::elapsed);
        state.stale = (age > self.every * 3 / 2).then_some(age);
        Ok(())
    }

    fn show_nothing(&mut self, state: &mut State) {
        self.last = None;
        state.now = monotonic_now();
        state.instance = None;
        state.stale = None;
        state.rates.add_nothing();
        state.tables.clear();
        state.grants.set(Vec::new(), &state.filter);
        state.sources.set(Vec::new(), &state.filter);
        state
            .denied_rows
            .set(state.denied.rows(state.now), &state.filter);
    }
}

fn interface(row: &Interface, attachment: &Attachment) -> InterfaceRow {
    InterfaceRow {
        name: match &row.renamed_from {
            Some(before) => format!("{} (was {before})", row.name),
            None => row.name.clone(),
        },
        attach: match &attachment.state {
            Ok(attached) => Ok(attached.name()),
            Err(lack) => Err(lack.to_string()),
        },
        mode: row.mode,
        try_left: row.try_left_ms.map(Duration::from_millis),
    }
}

fn gates(datapath: &Datapath, grants: &HashMap<u16, usize>) -> Vec<GateRow> {
    let rows = datapath.applied.gates().map(|(id, gate)| {
        let ports: Vec<String> = gate.protect.iter().map(ToString::to_string).collect();
        GateRow {
            name: gate.name.clone(),
            protect: ports.join(" "),
            grants: grants.get(&id).copied().unwrap_or_default(),
        }
    });
    rows.collect()
}

fn grants(datapath: &Datapath) -> Result<Vec<GrantRow>> {
    let mut names = Names::of(datapath);
    let rows = datapath.grants()?.into_iter();
    let rows = rows.map(|row| GrantRow {
        gate_id: row.gate,
        gate: names.gates(&[row.gate]),
        user: row.user.map(|number| names.holder(number)),
        source: row.source,
        until: row.until,
        connections: row.connections,
    });
    Ok(rows.collect())
}

fn sources(datapath: &Datapath, now: u64) -> Result<Vec<SourceRow>> {
    let mut names = Names::of(datapath);
    let rows = datapath.sources()?.into_iter();
    let rows = rows.map(|row| SourceRow {
        source: row.source,
        step: row.step,
        of: row.of,
        gates: names.gates(&row.gates),
        latest: now.saturating_sub(row.age.as_nanos().try_into().unwrap_or(u64::MAX)),
    });
    Ok(rows.collect())
}

/// Names of gates and of holders of grants, each kept once however many rows have it.
struct Names<'d> {
    datapath: &'d Datapath,
    gates: HashMap<Vec<u16>, Rc<str>>,
    holders: HashMap<u32, Rc<str>>,
}

impl<'d> Names<'d> {
    fn of(datapath: &'d Datapath) -> Self {
        Self {
            datapath,
            gates: HashMap::new(),
            holders: HashMap::new(),
        }
    }

    /// Returns the names of gates, in one text.
    fn gates(&mut self, ids: &[u16]) -> Rc<str> {
        if let Some(names) = self.gates.get(ids) {
            return Rc::clone(names);
        }
        let name = |id: &u16| self.datapath.applied.gate_name(*id).unwrap_or_default();
        let names: Vec<&str> = ids.iter().map(name).collect();
        let names: Rc<str> = names.join(" ").into();
        self.gates.insert(ids.to_vec(), Rc::clone(&names));
        names
    }

    /// Returns the key that has earned a grant, whose name has the user's, or else the user.
    fn holder(&mut self, number: u32) -> Rc<str> {
        let name = || {
            let Who { user, key, origin } = self.datapath.who(number);
            let name = key.or(user).unwrap_or_default();
            match origin {
                None => name.into(),
                Some(origin) => format!("{name} @{origin}").trim_start().into(),
            }
        };
        Rc::clone(self.holders.entry(number).or_insert_with(name))
    }
}
