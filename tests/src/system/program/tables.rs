//! Changes to whole tables of a loaded program.

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use knock_common::{
    knock::authenticated::key::{Key, state},
    session::recent::Recent,
};
use knock_user::datapath::Mapping;

use super::{Program, SLOWED};
use crate::keyring::{self, EPOCH};

impl Program {
    pub(super) fn table<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.ebpf.map_mut(name).expect("a table of the program");
        map.try_into().expect("of the type that its layout says")
    }

    /// Puts the keys of the [`keyring`] into force, as if none had been used since the [`EPOCH`].
    pub(super) fn begin_keys(&mut self) {
        if self.datapath.config().knock.ports.is_empty() {
            return;
        }
        for newest in [None, Some(EPOCH)] {
            let map = self.ebpf.map_mut("KEY").expect("a table of the program");
            let mut keys: Array<_, Key> = map.try_into().expect("of the type that its layout says");
            for slot in 0..keys.len() {
                let key = keys.get(&slot, 0).expect("within the table");
                let none = Key {
                    state: state::NONE,
                    ..key
                };
                let key = newest.map_or(none, |newest| Key { newest, ..key });
                keys.set(slot, key, 0).expect("within the table");
            }
            // Those that are in use already would keep the newest times that they have.
            if newest.is_none() {
                let set = keyring::key_set(SLOWED);
                self.datapath.apply_keys(&set, &[]).expect("they fit");
            }
        }
    }

    /// Makes every CPU forget which flows have just passed, as a timer tick does.
    pub(super) fn forget_recent(&self) {
        let map = self.ebpf.map("RECENT").expect("a table of the program");
        let recent: Array<_, Recent> = map.try_into().expect("of the type that its layout says");
        let recent = Mapping::of(&recent).expect("an array that can be mapped");
        for index in 0..recent.len() {
            recent.set(index, Recent::default());
        }
    }

    pub(super) fn zero<V: Pod + Default>(&mut self, name: &str) {
        let map = self.ebpf.map_mut(name).expect("a table of the program");
        let mut counters: PerCpuArray<_, V> =
            map.try_into().expect("of the type that its layout says");
        let cpus = nr_cpus().expect("the kernel knows its CPUs");
        for index in 0..counters.len() {
            let zeroes = PerCpuValues::try_from(vec![V::default(); cpus]).expect("one for each");
            counters.set(index, zeroes, 0).expect("within the table");
        }
    }
}
