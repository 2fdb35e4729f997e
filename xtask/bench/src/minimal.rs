//! The bench's minimal gate (`bench/ebpf/src/minimal.rs`), loaded: its cost is the lower limit for a gate of this kind
//! on the same processor.

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray},
    programs::Xdp,
};

use crate::{
    judge::{GRANTED, Judge},
    programs::{Programs, pinned, terms::count},
};

/// A minimal gate with tables of its own.
pub struct Minimal {
    pub program: Xdp,
    counts: PerCpuArray<MapData, u64>,
}

/// The sizes of its tables.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Sources that have begun to knock.
    pub candidates: u32,
    /// Sources that are admitted.
    pub admitted: u32,
    /// Whether each of these places has the ended admission of a source, which makes room for a new one. If not, all are free, and
    /// none is used twice.
    pub ended: bool,
}

/// The end of an admission that has ended, ns of `CLOCK_MONOTONIC`.
const ENDED: u64 = 1;

impl Minimal {
    /// Loads one from the object of `programs`. It admits `granted` sources, from [`GRANTED`] on, without end. If all places have
    /// ended admissions, there is no room for these.
    pub fn load(programs: &Programs, room: Room, granted: u32) -> Result<Self> {
        const NAME: &str = "minimal_gate";
        let Room {
            candidates,
            admitted,
            ended,
        } = room;
        ensure!(!ended || granted == 0, "no place is free for a grant");
        let (table_of_admitted, other) = if ended {
            ("ADMITTED_LRU", "ADMITTED")
        } else {
            ("ADMITTED", "ADMITTED_LRU")
        };
        let evicts = u32::from(ended);
        let (object, pin) = (
            &programs.object,
            programs.folder.join("another_minimal_gate"),
        );
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("CANDIDATES", candidates)
            .map_max_entries(table_of_admitted, admitted)
            .map_max_entries(other, 1)
            .override_global("EVICTS", &evicts, true)
            .load_file(object)
            .with_context(|| format!("cannot load {}", object.display()))?;
        let program: &mut Xdp = ebpf
            .program_mut(NAME)
            .with_context(|| format!("no program {NAME}"))?
            .try_into()?;
        program.load()?;
        // A pin serves to take the program out of its object, and is removed at once.
        let _ = std::fs::remove_file(&pin);
        program.pin(&pin)?;
        let program = pinned(&pin)?;
        std::fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
        let (sources, until) = if ended {
            (admitted, ENDED)
        } else {
            (granted, u64::MAX)
        };
        let mut admitted: HashMap<_, u32, u64> = table(&mut ebpf, table_of_admitted)?.try_into()?;
        for source in GRANTED..GRANTED + sources {
            admitted.insert(source.to_be(), until, 0)?;
        }
        Ok(Self {
            program,
            counts: table(&mut ebpf, "COUNTS")?.try_into()?,
        })
    }

    /// Checks that no source was refused for lack of room.
    pub fn had_room(&self) -> Result<()> {
        let refused = self.count(count::FULL)?;
        ensure!(
            refused == 0,
            "the minimal gate had no room for {refused} grants"
        );
        Ok(())
    }

    /// Returns how many knocks were out of turn, or found no room.
    pub fn amiss(&self) -> Result<u64> {
        Ok(self.count(count::ASTRAY)? + self.count(count::FULL)?)
    }

    fn count(&self, which: u32) -> Result<u64> {
        Ok(self.counts.get(&which, 0)?.iter().sum())
    }
}

impl Judge for Minimal {
    fn is_ours(&self) -> bool {
        false
    }

    fn program(&self) -> &Xdp {
        &self.program
    }

    /// It counts packets to its port and knocks only.
    fn packets(&self, reason: Option<&str>) -> Result<u64> {
        let mut counts = match reason {
            Some("no_grant") => vec![count::DENIED],
            Some("grant") => vec![count::ADMITTED],
            Some("knock") => vec![count::STEP, count::OPENED],
            Some(reason) => bail!("the minimal gate counts nothing as `{reason}`"),
            None => (0..count::ALL).collect(),
        }
        .into_iter();
        counts.try_fold(0, |sum, which| Ok(sum + self.count(which)?))
    }
}

fn table(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    ebpf.take_map(name)
        .with_context(|| format!("no table {name}"))
}
