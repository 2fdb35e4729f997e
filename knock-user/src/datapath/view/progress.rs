//! The ring of sources that knock, as the program keeps it; see [`knock_common::knock::ring`].

use anyhow::Result;
use aya::maps::{Array, MapData};
use knock_common::{
    cursor::Cursor,
    knock::progress::{Pair, Progress, ProgressSet},
};

use crate::sys::bpf::mapping::Mapping;

/// The sets, the ring, and its cursor.
pub struct ProgressTable {
    pub sets: Array<MapData, ProgressSet>,
    pub places: Array<MapData, Progress>,
    pub cursor: Array<MapData, Cursor>,
}

/// The same, mapped into memory for as long as it is read: the kernel counts what is mapped as memory of the process.
pub struct MappedProgress {
    pub sets: Mapping<ProgressSet>,
    pub places: Mapping<Progress>,
    /// The next ticket, when it was mapped.
    next: u32,
}

impl ProgressTable {
    /// Maps the tables.
    pub fn map(&self) -> Result<MappedProgress> {
        Ok(MappedProgress {
            sets: Mapping::of(&self.sets)?,
            places: Mapping::of(&self.places)?,
            next: self.cursor.get(&0, 0)?.next,
        })
    }
}

impl MappedProgress {
    /// Returns the indices of the places that have a source.
    pub fn used(&self) -> impl Iterator<Item = usize> {
        let places = self.places.len();
        let pairs = self.sets.iter().flat_map(|set| set.pairs.map(Pair));
        let live = pairs.filter(move |pair| pair.is_live(self.next, places));
        live.map(move |pair| pair.ticket() as usize % places)
    }

    /// Returns the progress of each source.
    pub fn rows(&self) -> impl Iterator<Item = Progress> {
        self.used()
            .map(|index| self.places.get(index))
            .filter(|row| !row.is_unsettled())
    }
}
