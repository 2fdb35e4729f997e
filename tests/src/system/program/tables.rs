//! Changes to whole tables of a loaded program.

use aya::{
    Pod,
    maps::{HashMap, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};

use super::Program;

/// `BPF_EXIST` of `linux/bpf.h`: change an entry, never make one.
const EXIST: u64 = 2;

impl Program {
    pub(super) fn table<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.ebpf.map_mut(name).expect("a table of the program");
        map.try_into().expect("of the type that its layout says")
    }

    pub(super) fn change<K: Pod, V: Pod>(&mut self, name: &str, change: impl Fn(&mut V)) {
        let mut table = self.table::<K, V>(name);
        let rows: Vec<(K, V)> = table
            .iter()
            .map(|row| row.expect("nobody evicts"))
            .collect();
        for (key, mut value) in rows {
            change(&mut value);
            table.insert(key, value, EXIST).expect("it was there");
        }
    }

    /// Removes every entry. Returns their keys.
    pub(super) fn empty<K: Pod, V: Pod>(&mut self, name: &str) -> Vec<K> {
        let mut table = self.table::<K, V>(name);
        let keys: Vec<K> = table
            .keys()
            .map(|key| key.expect("nobody evicts"))
            .collect();
        for key in &keys {
            table.remove(key).expect("it was there");
        }
        keys
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
