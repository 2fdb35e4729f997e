//! Tables in ordinary memory.

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    collections::HashMap,
    hash::Hash,
};

use bytemuck::Zeroable;

use crate::HashTable;

/// A table of bounded size. Entries stay readable until the table is dropped, as the kernel's do until the program has
/// run.
pub struct Map<K, V> {
    capacity: usize,
    live: RefCell<HashMap<K, *mut V>>,
    /// All entries ever made, for [`Drop`].
    all: RefCell<Vec<*mut V>>,
    /// The value that was inserted last, as it was then.
    pub inserted: Cell<Option<V>>,
}

impl<K: Copy + Eq + Hash, V: Copy> Map<K, V> {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            live: RefCell::default(),
            all: RefCell::default(),
            inserted: Cell::new(None),
        }
    }

    /// Returns the entry; a new one is zeroed.
    pub(super) fn entry(&self, key: K) -> &mut V
    where
        V: Zeroable,
    {
        self.insert(&key, &V::zeroed());
        self.find(&key).expect("it is there now")
    }

    /// Returns a copy of all entries.
    pub fn rows(&self) -> Vec<(K, V)> {
        let live = self.live.borrow();
        // SAFETY: every pointer came from `Box::into_raw` and is freed by `Drop` alone.
        live.iter()
            .map(|(key, value)| (*key, unsafe { **value }))
            .collect()
    }
}

impl<K: Copy + Eq + Hash, V: Copy> HashTable<K, V> for Map<K, V> {
    fn find(&self, key: &K) -> Option<&mut V> {
        let value = self.live.borrow().get(key).copied()?;
        // SAFETY: see `rows`. A second reference to the same entry may be alive, as in the kernel,
        // but every use of one ends before the next is used: there is one thread.
        Some(unsafe { &mut *value })
    }

    fn insert(&self, key: &K, value: &V) -> bool {
        let mut live = self.live.borrow_mut();
        if live.contains_key(key) || live.len() >= self.capacity {
            return false;
        }
        self.inserted.set(Some(*value));
        let value = Box::into_raw(Box::new(*value));
        self.all.borrow_mut().push(value);
        live.insert(*key, value);
        true
    }

    fn remove(&self, key: &K) -> bool {
        self.live.borrow_mut().remove(key).is_some()
    }
}

impl<K, V> Drop for Map<K, V> {
    fn drop(&mut self) {
        for value in self.all.get_mut().drain(..) {
            // SAFETY: from `Box::into_raw` in `insert`, once each; no reference outlives the map.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

/// A ring of slots with its cursor.
pub(super) struct Ring<T> {
    pub(super) slots: Vec<UnsafeCell<T>>,
    cursor: Cell<usize>,
}

pub(super) fn zeroed<T: Zeroable>(size: usize) -> Vec<UnsafeCell<T>> {
    (0..size).map(|_| UnsafeCell::new(T::zeroed())).collect()
}

impl<T: Zeroable> Ring<T> {
    pub(super) fn with_size(size: usize) -> Self {
        Self {
            slots: zeroed(size),
            cursor: Cell::new(0),
        }
    }

    /// Returns the index of the next slot.
    pub(super) fn next(&self) -> Option<u32> {
        let index = self.cursor.get().checked_rem(self.slots.len())?;
        self.cursor.set(self.cursor.get() + 1);
        Some(index as u32)
    }

    #[expect(clippy::mut_from_ref, reason = "see `HashTable::find`")]
    pub(super) fn slot(&self, index: u32) -> Option<&mut T> {
        let slot = self.slots.get(index as usize)?;
        // SAFETY: one thread, and no value of a slot is used after another reference to the slot has been.
        Some(unsafe { &mut *slot.get() })
    }

    /// Returns the slots, as they are now.
    pub(super) fn copy(&self) -> Vec<T>
    where
        T: Copy,
    {
        let slots = self.slots.iter();
        // SAFETY: as above.
        slots.map(|slot| unsafe { *slot.get() }).collect()
    }
}
