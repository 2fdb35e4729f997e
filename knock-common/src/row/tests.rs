use std::cell::UnsafeCell;

use super::*;
use crate::testing::TestEnv;

/// Rows that are no table's.
struct Words(Vec<UnsafeCell<u64>>);

impl Rows for Words {
    fn rows(&self) -> u32 {
        self.0.len() as u32
    }

    fn row(&self, index: u32) -> Option<&mut u64> {
        // SAFETY: one thread, and no value of a cell is used after another reference to the cell has been.
        self.get(index).map(|word| unsafe { &mut *word.get() })
    }
}

impl Words {
    fn new(rows: usize) -> Self {
        Self((0..rows).map(|_| UnsafeCell::new(0)).collect())
    }

    fn get(&self, index: u32) -> Option<&UnsafeCell<u64>> {
        self.0.get(index as usize)
    }

    fn words(&self) -> Vec<u64> {
        (0..self.rows()).filter_map(|row| word(self, row)).collect()
    }
}

/// Returns positions that are spread as a hash spreads them.
fn positions() -> impl Iterator<Item = Position> {
    (1..).map(|number: u64| {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Position::from_bits((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    })
}

#[test]
fn the_first_slot_with_a_byte_is_found_among_all_words() {
    // Bytes that differ by little, since a borrow or a carry would show there.
    let bytes = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];
    let mut words = vec![0_u64];
    for place in 0..8 {
        let with = |word: &u64| bytes.map(|byte: u64| word | byte << (8 * place));
        words = words.iter().flat_map(with).collect();
        words.dedup();
        // Some of them, at each place.
        let some = words.len().div_ceil(4_096);
        words = words.into_iter().step_by(some).collect();
    }
    assert!(words.len() > 1_000, "{}", words.len());
    for word in words {
        for fingerprint in bytes {
            let is_it = |place: &u32| word >> (8 * place) & 0xff == fingerprint;
            let expected = (0..SLOTS).find(is_it).map_or(NO_SLOT, |place| 35 + place);
            assert_eq!(
                first(word, 5, fingerprint),
                expected,
                "{fingerprint:#x} in {word:#018x}"
            );
        }
    }
}

#[test]
fn a_key_is_found_by_its_fingerprint_until_it_is_unlinked() {
    let env = TestEnv::new(1, 1);
    let rows = Words::new(16);
    let mut positions = positions();
    for row in 0..16 {
        let at_home = |position: &Position| home(*position, 16) == row;
        let slots = row * SLOTS..(row + 1) * SLOTS;
        let keys: Vec<_> = slots
            .clone()
            .zip(positions.by_ref().filter(at_home))
            .collect();
        for (slot, key) in &keys {
            assert!(is_home(*key, *slot, 16) && link(&rows, &env, *key, *slot));
        }
        let of_row = word(&rows, row).expect("there are 16");
        assert_eq!(first(of_row, row, FREE), NO_SLOT);
        for (slot, key) in &keys {
            assert!(find(of_row, row, *key).is_some_and(|slot| slots.contains(&slot)));
            assert_eq!(search(of_row, row, *key, |wanted| wanted == *slot), *slot);
        }
        for (slot, _) in keys {
            unlink(&rows, &env, slot);
            let of_row = word(&rows, row).expect("as above");
            assert_eq!(first(of_row, row, FREE), row * SLOTS);
        }
    }
    assert_eq!(rows.words(), [0; 16]);
}

/// Also those of keys that are alike in row and fingerprint: an eighth of the fingerprints, of one row.
#[test]
fn first_choices_are_spread_over_a_row() {
    let mut seen = [0_u32; SLOTS as usize];
    let alike = |position: &Position| home(*position, 16) == 3 && fingerprint(*position) % 8 == 5;
    for position in positions().filter(alike).take(70_000) {
        let choice = first_choice(position, 16);
        assert!(is_home(position, choice, 16));
        seen[(choice % SLOTS) as usize] += 1;
    }
    assert!(
        seen.iter().all(|count| (9_500..10_500).contains(count)),
        "{seen:?}"
    );
}

/// Also where a slot before it has the same fingerprint.
#[test]
fn a_key_is_looked_for_in_its_first_choice_before_the_others() {
    for position in positions().take(1_000) {
        let (row, choice) = (home(position, 16), first_choice(position, 16));
        let everywhere = fingerprint(position) * EACH;
        assert_eq!(find(everywhere, row, position), Some(choice));
        let elsewhere = everywhere ^ 0xff << (8 * (choice % SLOTS));
        let next = if choice % SLOTS == 0 {
            choice + 1
        } else {
            row * SLOTS
        };
        assert_eq!(find(elsewhere, row, position), Some(next));
        assert_eq!(find(0, row, position), None);
        assert_eq!(find(1 << COUNT_SHIFT, row, position), Some(NO_SLOT));
    }
}

/// Fingerprints are neither that of a free slot nor that of a stranger, and differ from key to key.
#[test]
fn fingerprints_are_spread() {
    let mut seen = [0_u32; 256];
    for position in positions().take(254_000) {
        seen[fingerprint(position) as usize] += 1;
    }
    assert_eq!((seen[FREE as usize], seen[STRANGER as usize]), (0, 0));
    assert!(
        seen[1..255]
            .iter()
            .all(|count| (800..1_200).contains(count))
    );
}

#[test]
fn keys_elsewhere_are_counted_and_too_many_for_good() {
    let env = TestEnv::new(1, 1);
    let rows = Words::new(1);
    let position = Position::from_bits(1);
    let others = || has_others(word(&rows, 0).expect("there is one"));
    lend(&rows, &env, 3);
    assert!(!others());
    assert!(count_in(&rows, &env, position) && count_in(&rows, &env, position));
    count_out(&rows, &env, position);
    assert!(others());
    count_out(&rows, &env, position);
    assert!(!others());
    count_out(&rows, &env, position);
    assert!(!others(), "the count stays at 0");
    for _ in 0..300 {
        assert!(count_in(&rows, &env, position));
    }
    for _ in 0..300 {
        count_out(&rows, &env, position);
    }
    assert!(others(), "nobody knows any more how many there are");
    assert_eq!(
        word(&rows, 0).map(|word| word & !(MOST << COUNT_SHIFT)),
        Some(STRANGER << 24)
    );
}

#[test]
fn each_slot_is_in_a_row() {
    for slots in [1, 6, 7, 8, 64, 262_144, 1 << 24] {
        let rows = rows(slots) as u32;
        let last = slots as u32 - 1;
        assert_eq!(last / SLOTS, rows - 1);
        for position in positions().take(1_000) {
            assert!(home(position, rows) < rows);
        }
    }
}
