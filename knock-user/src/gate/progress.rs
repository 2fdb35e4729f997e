//! The table of sources that knock, as the program keeps it; see [`knock_common::progress`].

use anyhow::Result;
use aya::maps::{Array, MapData};
use knock_common::{
    progress::Pair,
    table::{Progress, ProgressSet, cursor},
};

use super::Mapping;

/// The sets, the ring of places, and the ring's cursor.
pub struct ProgressTable {
    pub sets: Mapping<ProgressSet>,
    pub places: Mapping<Progress>,
    cursor: Array<MapData, u32>,
}

impl ProgressTable {
    pub fn of(
        sets: &Array<MapData, ProgressSet>,
        places: &Array<MapData, Progress>,
        cursor: Array<MapData, u32>,
    ) -> Result<Self> {
        Ok(Self {
            sets: Mapping::of(sets)?,
            places: Mapping::of(places)?,
            cursor,
        })
    }

    /// Indices of the places that have a source.
    pub fn used(&self) -> Result<Vec<usize>> {
        let next = self.cursor.get(&cursor::SOURCES, 0)?;
        let places = u32::try_from(self.places.len())?;
        let pairs = self.sets.iter().flat_map(|set| set.pairs.map(Pair));
        let live = pairs.filter(|pair| pair.is_live(next, places));
        Ok(live.map(|pair| (pair.ticket() % places) as usize).collect())
    }

    /// What is known of each source.
    pub fn rows(&self) -> Result<impl Iterator<Item = Progress>> {
        let used = self.used()?.into_iter();
        Ok(used.map(|index| self.places.get(index)))
    }
}
