//! The kernel's hash tables, as decisions use them.

use aya_ebpf::maps::LruHashMap;
use knock_common::HashTable;

/// A hash table that evicts its oldest entries.
#[repr(transparent)]
pub struct LruHash<K, V>(LruHashMap<K, V>);

impl<K, V> LruHash<K, V> {
    pub const fn with_max_entries(entries: u32) -> Self {
        Self(LruHashMap::with_max_entries(entries, 0))
    }
}

impl<K, V> HashTable<K, V> for LruHash<K, V> {
    #[inline(always)]
    fn find(&self, key: &K) -> Option<&mut V> {
        // SAFETY: the entry stays mapped until the program has run (RCU). Other CPUs may write to it:
        // `HashTable` says what follows from that.
        self.0.get_ptr_mut(key).map(|value| unsafe { &mut *value })
    }

    #[inline(always)]
    fn insert(&self, key: &K, value: &V) -> bool {
        self.0.insert(key, value, NO_EXIST).is_ok()
    }

    #[inline(always)]
    fn remove(&self, key: &K) -> bool {
        self.0.remove(key).is_ok()
    }
}

/// `BPF_NOEXIST` of `linux/bpf.h`.
const NO_EXIST: u64 = 1;
