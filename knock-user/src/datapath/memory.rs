//! How much kernel memory the tables of a configuration take, which the documentation states.
//!
//! All of it is taken when a configuration is applied: no packet makes a table grow. The sums are the
//! kernel's own (`htab_map_mem_usage` and its siblings, which came with Linux 6.4), for 64-bit
//! machines, without the few hundred bytes of each table's head.

use super::{
    compile::compile,
    tables::{self, Counts, Definition, TableKind},
};
use crate::config::{Config, Limits};

impl Definition {
    /// Returns the bytes of kernel memory.
    fn bytes(&self, counts: &Counts) -> usize {
        let (key, value) = (self.key.next_multiple_of(8), self.value.next_multiple_of(8));
        let (entries, cpus) = (self.entries(counts), counts.cpus);
        match self.kind {
            TableKind::Array => entries * value,
            TableKind::MappedArray => (entries * value).next_multiple_of(PAGE_BYTES),
            TableKind::PerCpuArray => entries * (POINTER + cpus * value),
            TableKind::LruHash => buckets(entries) + entries * (HASH_ELEMENT + key + value),
            // Each CPU has a spare element, so that an update needs no second look at the free ones.
            TableKind::Hash => {
                buckets(entries) + (entries + cpus) * (HASH_ELEMENT + key + value) + cpus * POINTER
            }
            // An empty one: each gate of a key takes an element more.
            TableKind::SparseHash => buckets(entries),
            TableKind::Trie => entries * (TRIE_NODE + key + value),
            TableKind::Programs => entries * POINTER,
            // Its pages are mapped twice in a row, so that no record is cut in two.
            TableKind::Ring => {
                let pages = entries / PAGE_BYTES;
                (RING_HEAD + pages) * PAGE_BYTES + (RING_HEAD + 2 * pages) * POINTER
            }
        }
    }
}

/// `sizeof(struct htab_elem)`: `kernel/bpf/hashtab.c`.
const HASH_ELEMENT: usize = 48;
/// `sizeof(struct bucket)`, in the same file.
const BUCKET: usize = 16;
/// The most that `sizeof(struct lpm_trie_node)` has been; since Linux 6.18 it is 24: `kernel/bpf/lpm_trie.c`.
const TRIE_NODE: usize = 40;
/// `RINGBUF_NR_META_PAGES`: `kernel/bpf/ringbuf.c`.
const RING_HEAD: usize = 3;
const PAGE_BYTES: usize = 4096;
const POINTER: usize = 8;

fn buckets(entries: usize) -> usize {
    entries.next_power_of_two() * BUCKET
}

/// Two gates and three sequences, and all else as it is by default.
fn usual() -> Config {
    let text = r#"
        interfaces = ["eth0"]
        allow      = ["192.0.2.0/24", "2001:db8::/32"]
        [[gate]]
        name    = "ssh"
        protect = ["22/tcp"]
        sources = ["198.51.100.0/24"]
        [[gate.knock]]
        user     = "alice"
        sequence = ["7431/udp", "2214/tcp", "9120/udp"]
        [[gate.knock]]
        user     = "bob"
        sequence = ["2214/tcp", "7431/udp", "3344/tcp"]
        [[gate]]
        name    = "mail"
        protect = ["993/tcp"]
        deny    = "reject"
        [[gate.knock]]
        user     = "alice"
        sequence = ["7431/udp", "4410/tcp"]
    "#;
    let (config, _) = Config::parse(text, "usual.toml").expect("valid");
    config
}

fn mebibytes(bytes: usize) -> String {
    // Tenths, rounded to the nearest.
    let tenths = (bytes * 10 + (1 << 19)) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

const PAGE: &str = include_str!("../../../docs/how-it-works.md");
const README: &str = include_str!("../../../README.md");

/// Of a machine with this many possible CPUs.
fn counts(config: &Config, cpus: usize) -> Counts {
    let counts = compile(config, None).expect("few sequences").counts();
    Counts { cpus, ..counts }
}

fn sum(counts: &Counts) -> usize {
    let tables = tables::ALL.iter();
    tables.map(|table| table.bytes(counts)).sum()
}

#[test]
fn the_documentation_states_the_memory_at_default_limits() {
    let [two, three] = [2, 3].map(|cpus| counts(&usual(), cpus));
    for table in tables::ALL {
        let name = format!("| `{}` |", table.pin_name());
        let row = PAGE.lines().find(|line| line.starts_with(&name));
        let row = row.unwrap_or_else(|| panic!("the page has no row for {}", table.name));
        let stated = match mebibytes(table.bytes(&two)).as_str() {
            "0.0 MiB" => "| little |".to_owned(),
            size => format!("| {size} |"),
        };
        assert!(row.ends_with(&stated), "{row:?} should end with {stated:?}");
    }
    let each = (sum(&three) - sum(&two)) / 1024;
    let stated = format!("each CPU adds {each} to {} KiB", each + 1);
    assert!(PAGE.contains(&stated), "the page should state {stated:?}");
    let stated = format!("**{}**", mebibytes(sum(&two)));
    assert!(PAGE.contains(&stated), "the page should state {stated}");
    assert!(README.contains(&stated), "the README should state {stated}");
}

#[test]
fn the_documentation_states_what_one_more_entry_costs() {
    let bytes = |change: fn(&mut Limits)| -> usize {
        let mut config = usual();
        change(&mut config.limits);
        sum(&counts(&config, 2))
    };
    let total = bytes(|_| {});
    let costs = |limit: &str, double: fn(&mut Limits), entries: u32| {
        // All defaults are powers of two, so buckets double with the entries.
        let one = (bytes(double) - total) / entries as usize;
        let stated = format!("`{limit}` {one} bytes");
        assert!(PAGE.contains(&stated), "the page should state {stated}");
    };
    let Limits {
        sources,
        grants,
        sessions,
        keys: _,
    } = usual().limits;
    costs("sources", |limits| limits.sources *= 2, sources);
    costs("grants", |limits| limits.grants *= 2, grants);
    costs("sessions", |limits| limits.sessions *= 2, sessions);
}

/// The kernel says the same, table by table. Needs root, and nothing is attached to anything.
#[cfg(kernel_program)]
#[test]
fn the_kernel_reports_the_same_memory() {
    use std::{
        collections::BTreeMap,
        fs,
        os::fd::{AsFd as _, AsRawFd as _},
    };

    use aya::maps::Map;

    use super::{ENTRIES, load_entry};

    /// A table's head, and what kernels before 6.15 keep beside a hash table for each CPU.
    const HEAD: usize = 4096;
    /// Of `linux/bpf.h`.
    const BPF_F_NO_PREALLOC: u32 = 1;
    const BPF_F_MMAPABLE: u32 = 1 << 10;

    let config = usual();
    let ebpf = match load_entry(&config, ENTRIES[0], None) {
        Ok(ebpf) => ebpf,
        Err(error) if error.is::<super::NotPermitted>() => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error:#}"),
    };
    let cpus = aya::util::nr_cpus().expect("the kernel says how many CPUs there may be");
    let counts = counts(&config, cpus);
    let mut expected: BTreeMap<&str, &Definition> = tables::ALL
        .iter()
        .map(|table| (table.name, table))
        .collect();
    for (name, map) in ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
        let (kind, data) = match map {
            Map::Array(data) => {
                let flags = data.info().expect("a loaded table has these").map_flags();
                let kind = if flags & BPF_F_MMAPABLE != 0 {
                    TableKind::MappedArray
                } else {
                    TableKind::Array
                };
                (kind, data)
            }
            Map::PerCpuArray(data) => (TableKind::PerCpuArray, data),
            Map::HashMap(data) => {
                let flags = data.info().expect("a loaded table has these").map_flags();
                let kind = if flags & BPF_F_NO_PREALLOC != 0 {
                    TableKind::SparseHash
                } else {
                    TableKind::Hash
                };
                (kind, data)
            }
            Map::LruHashMap(data) => (TableKind::LruHash, data),
            Map::LpmTrie(data) => (TableKind::Trie, data),
            Map::RingBuf(data) => (TableKind::Ring, data),
            Map::ProgramArray(data) => (TableKind::Programs, data),
            _ => panic!("{name} is of a kind without a sum"),
        };
        let table = expected
            .remove(name)
            .unwrap_or_else(|| panic!("{name} has no row"));
        let info = data.info().expect("a loaded table has these");
        assert_eq!(
            (
                kind,
                info.key_size() as usize,
                info.value_size() as usize,
                info.max_entries() as usize,
            ),
            (table.kind, table.key, table.value, table.entries(&counts)),
            "{name}"
        );
        let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(path).expect("the descriptor is open");
        let memlock = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let reported: usize = memlock
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("no memlock in {text}"));
        let computed = table.bytes(&counts);
        assert!(
            computed.abs_diff(reported) <= HEAD,
            "{name}: {computed} bytes were computed, and the kernel says {reported}"
        );
    }
    let missing: Vec<_> = expected.keys().collect();
    assert!(missing.is_empty(), "not in the kernel: {missing:?}");
}
