use std::cell::UnsafeCell;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::testing::TestEnv;

/// Few sets, of a table with this many slots.
struct Few {
    sets: Vec<UnsafeCell<Set>>,
    slots: usize,
}

impl Few {
    fn new(sets: usize, slots: usize) -> Self {
        let sets = (0..sets).map(|_| UnsafeCell::default()).collect();
        Self { sets, slots }
    }

    fn is_clear(&mut self) -> bool {
        let mut sets = self.sets.iter_mut();
        sets.all(|set| *set.get_mut() == Set::default())
    }
}

impl Sets for Few {
    fn set(&self, index: u32) -> Option<&mut Set> {
        let set = &self.sets[index as usize % self.sets.len()];
        // SAFETY: one thread, and no value of a set is used after another reference to the set has been.
        Some(unsafe { &mut *set.get() })
    }

    fn slot_mask(&self) -> u32 {
        slot_mask(self.slots)
    }
}

/// Returns a place in one of few sets, with one of few fingerprints.
fn place() -> impl Strategy<Value = Position> {
    let fingerprints = prop::sample::select(vec![0, 1, 1 << 31, u64::from(u32::MAX)]);
    let place = |(index, fingerprint)| Position::from_bits(index << 32 | fingerprint);
    (0..4_u64, fingerprints).prop_map(place)
}

proptest! {
    /// However many bits an index takes, and however many keys have the same fingerprint: each key that is linked is found,
    /// until it is unlinked, and then no trace is left.
    #[test]
    fn who_is_linked_is_found(
        steps in vec((place(), any::<prop::sample::Index>()), 0..120),
        slots in prop::sample::select(vec![1, 2, 3, 64, 1000, 1 << 16, 1 << 24]),
    ) {
        let env = TestEnv::new(1, 1);
        let mut sets = Few::new(5, slots);
        let mut linked: Vec<(Position, u32)> = Vec::new();
        for (position, which) in steps {
            let slot = which.index(slots) as u32;
            if let Some(at) = linked.iter().position(|(_, taken)| *taken == slot) {
                let (position, _) = linked.swap_remove(at);
                unlink(&sets, &env, position, slot);
            } else if link(&sets, &env, position, slot) {
                linked.push((position, slot));
            }
            for (position, slot) in &linked {
                let found = search(&sets, *position, |found| found == *slot);
                prop_assert_eq!(found, *slot);
            }
        }
        for (position, slot) in linked {
            unlink(&sets, &env, position, slot);
        }
        prop_assert!(sets.is_clear());
    }
}

/// The limits are powers of two by default, and then there are as many slots for each set as there can be.
#[test]
fn a_table_that_is_full_has_room_for_every_key() {
    for (slots, seed) in [
        (64, 1),
        (1 << 10, 2),
        (1 << 16, 3),
        (1 << 16, 4),
        (1 << 16, 5),
    ] {
        let env = TestEnv::new(1, 1);
        let seed = Seed::new(u64::MAX / 7 * seed, u64::MAX / 11 * seed);
        let mut all = Few::new(sets(slots), slots);
        assert_eq!(all.sets.len(), (slots / 8).max(64));
        let mut further = 0;
        for slot in 0..slots as u32 {
            let key = Padded::from_words(slot.wrapping_mul(0x85eb_ca6b).into(), 0);
            let position = Position::of(key, 0, seed);
            assert!(link(&all, &env, position, slot), "{slot} of {slots}");
        }
        for set in &mut all.sets {
            further += set.get_mut().further();
        }
        assert!(further * 100 <= slots as u64, "{further} of {slots}");
    }
}

#[test]
fn sets_and_masks_follow_from_the_slots() {
    for (slots, mask, number) in [
        (1, 0, 64),
        (2, 1, 64),
        (3, 3, 64),
        (512, 511, 64),
        (513, 1023, 128),
        (65_536, 65_535, 8192),
        (16_777_216, 16_777_215, 1 << 21),
    ] {
        assert_eq!((slot_mask(slots), sets(slots)), (mask, number), "{slots}");
    }
}
