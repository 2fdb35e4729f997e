//! How much kernel memory the tables of a configuration take.
//!
//! All of it is taken when the gate comes up: no packet makes a table grow. The sums are the
//! kernel's own (`htab_map_mem_usage` and its siblings, which came with Linux 6.4), for 64-bit
//! machines, without the few hundred bytes of each table's head.

use std::sync::OnceLock;

use knock_common::{
    address::{V4, V6},
    cursor,
    cursor::Cursor,
    event::Event,
    grant::filter,
    grant::{Grant, GrantKey, GrantSlot},
    keys::{ScopedAddress, SourceKey},
    knock::Outcome,
    knock::automaton::{Sequence, State, Transition},
    knock::progress::{Progress, ProgressSet},
    knock::ring,
    layout::{CONFIG_CHUNK, Meta},
    reject::rate_limit::IcmpBucket,
    reject::reply::ReplyBuffer,
    reject::{Link, LinkKey, ReplySettings},
    report::{Budget, class},
    rules::{GateRules, ROLES},
    scattered::Room,
    session::{Flow, HOLDERS, Session, SessionSlot},
    verdict::{Counter, Reason},
};

use super::{
    Automaton, TooEntangled,
    answering::{DESTINATIONS, MOST_ADDRESSES, MOST_LINKS, rejects},
};
use crate::config::Config;

/// One kernel table: what it is made of, and so what memory it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// Name in the object; its pin is called the same in lower case.
    pub name: &'static str,
    pub kind: TableKind,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    /// Entries; bytes, for a ring.
    pub entries: usize,
}

/// How the kernel keeps a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    Array,
    /// An array that can be mapped: in pages of its own.
    MappedArray,
    PerCpuArray,
    /// Allocated whole.
    Hash,
    LruHash,
    /// Allocated entry by entry, all of them when the gate comes up.
    Trie,
    Ring,
}

/// The tables of a gate with this configuration.
pub fn table_sizes(config: &Config) -> Result<Vec<TableSize>, TooEntangled> {
    let automaton = Automaton::compile(config)?;
    // It is written down to be read back by other commands; what can't be is refused later.
    let applied = serde_json::to_vec(config).map_or(0, |text| text.len());
    Ok(sizes(config, &automaton, applied))
}

/// The same, for whoever has compiled the sequences and written down the configuration, in so many bytes.
pub(super) fn sizes(config: &Config, automaton: &Automaton, applied: usize) -> Vec<TableSize> {
    use TableKind::{Array, Hash, LruHash, MappedArray, PerCpuArray, Ring, Trie};

    let gates = config.gates.len();
    let restricted = config.gates.iter().map(|gate| gate.sources.len()).sum();
    let [sources, grants, sessions] = [
        config.limits.sources as usize,
        config.limits.grants as usize,
        config.limits.sessions as usize,
    ];
    let places = ring::slots(sources);
    // Only where a gate answers.
    let answering = |entries| if rejects(config) { entries } else { 0 };
    vec![
        array::<u32>("ROLE", Array, ROLES as usize),
        array::<GateRules>("GATE", Array, gates),
        array::<Sequence>("SEQUENCE", Array, automaton.sequences.len()),
        array::<State>("STATE", Array, automaton.states.len()),
        keyed::<Transition, u32>("TRANSITION", Hash, automaton.transitions.len()),
        keyed::<TrieKey, u32>("ALLOW", Trie, config.allow.len()),
        keyed::<TrieKey, u32>("KNOCKER", Trie, restricted),
        keyed::<ScopedAddress, u32>("GUARDED_ADDRESS", Hash, config.addresses.len()),
        array::<u64>("GRANT_LENGTHS", Array, 2),
        array::<[u8; CONFIG_CHUNK]>("CONFIG", Array, applied.div_ceil(CONFIG_CHUNK)),
        array::<Meta>("META", Array, 1),
        array::<ProgressSet>("PROGRESS_SET", MappedArray, ring::sets(places)),
        array::<Progress>("PROGRESS", MappedArray, places),
        keyed::<GrantKey<V4>, Grant>("GRANT4", Hash, grants),
        keyed::<GrantKey<V6>, Grant>("GRANT6", Hash, grants),
        array::<u64>("GRANT_FILTER", MappedArray, filter::words(grants)),
        array::<GrantSlot>("GRANT_SLOT", Array, grants),
        keyed::<Flow<V4>, Session>("SESSION4", Hash, sessions),
        keyed::<Flow<V6>, Session>("SESSION6", Hash, sessions),
        array::<SessionSlot>("SESSION_SLOT", Array, sessions),
        array::<u32>("SESSION_COUNT", Array, HOLDERS),
        array::<Cursor>("CURSOR", MappedArray, cursor::COUNT as usize),
        array::<Counter>("PACKETS", PerCpuArray, (gates + 1) * Reason::COUNT),
        array::<u64>("KNOCKS", PerCpuArray, gates * Outcome::ALL.len()),
        TableSize {
            name: "EVENTS",
            kind: Ring,
            key: 0,
            value: 0,
            entries: RING,
        },
        array::<Budget>("BUDGET", PerCpuArray, class::COUNT as usize),
        keyed::<SourceKey, u64>("REPORTED", LruHash, 16_384),
        array::<Room>("SCATTERED", PerCpuArray, 1),
        array::<ReplySettings>("REPLY_SETTINGS", Array, 1),
        keyed::<LinkKey, Link>("REPLY_LINK", Hash, answering(MOST_LINKS)),
        // With the note that they are all.
        keyed::<ScopedAddress, u32>("LOCAL_ADDRESS", Hash, MOST_ADDRESSES + 1),
        keyed::<SourceKey, IcmpBucket>("ICMP_BUCKET", LruHash, answering(DESTINATIONS)),
        array::<u64>("ICMP_GLOBAL", Array, 1),
        array::<ReplyBuffer>("REPLY", PerCpuArray, 1),
    ]
}

/// Every table with its name and shape. How many entries it has depends on the configuration.
pub(super) fn shapes() -> &'static [TableSize] {
    static SHAPES: OnceLock<Vec<TableSize>> = OnceLock::new();
    SHAPES.get_or_init(|| {
        let text = "[[gate]]\nname = \"any\"\nprotect = [\"1/tcp\"]\n";
        let (config, _) = Config::parse(text, "shapes").expect("a gate needs no more");
        table_sizes(&config).expect("there are no sequences")
    })
}

/// Bytes of the ring of events: room for about 4,000.
const RING: usize = 256 * 1024;
const _: () = assert!(RING / (size_of::<Event>() + 8) > 4000);

/// A prefix length stands before the key's data.
type TrieKey = [u8; 4 + size_of::<ScopedAddress>()];

fn array<V>(name: &'static str, kind: TableKind, entries: usize) -> TableSize {
    keyed::<u32, V>(name, kind, entries)
}

fn keyed<K, V>(name: &'static str, kind: TableKind, entries: usize) -> TableSize {
    TableSize {
        name,
        kind,
        key: size_of::<K>(),
        value: size_of::<V>(),
        // The kernel makes no table without entries.
        entries: entries.max(1),
    }
}

impl TableSize {
    /// Bytes of kernel memory on a machine with this many possible CPUs.
    pub fn bytes(&self, cpus: usize) -> usize {
        let Self {
            name: _,
            kind,
            key,
            value,
            entries,
        } = *self;
        let (key, value) = (key.next_multiple_of(8), value.next_multiple_of(8));
        match kind {
            TableKind::Array => entries * value,
            TableKind::MappedArray => (entries * value).next_multiple_of(PAGE_BYTES),
            TableKind::PerCpuArray => entries * (POINTER + cpus * value),
            TableKind::LruHash => buckets(entries) + entries * (HASH_ELEMENT + key + value),
            // Each CPU has a spare element, so that an update needs no second look at the free ones.
            TableKind::Hash => {
                buckets(entries) + (entries + cpus) * (HASH_ELEMENT + key + value) + cpus * POINTER
            }
            TableKind::Trie => entries * (TRIE_NODE + key + value),
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
/// The most that `sizeof(struct lpm_trie_node)` has been (Linux 6.18 makes do with 24):
/// `kernel/bpf/lpm_trie.c`.
const TRIE_NODE: usize = 40;
/// `RINGBUF_NR_META_PAGES`: `kernel/bpf/ringbuf.c`.
const RING_HEAD: usize = 3;
const PAGE_BYTES: usize = 4096;
const POINTER: usize = 8;

fn buckets(entries: usize) -> usize {
    entries.next_power_of_two() * BUCKET
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

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

    #[test]
    fn the_documentation_states_the_memory_at_default_limits() {
        let tables = table_sizes(&usual()).expect("few sequences");
        for table in &tables {
            let name = format!("| `{}` |", table.name.to_lowercase());
            let row = PAGE.lines().find(|line| line.starts_with(&name));
            let row = row.unwrap_or_else(|| panic!("the page has no row for {}", table.name));
            let stated = match mebibytes(table.bytes(2)).as_str() {
                "0.0 MiB" => "| little |".to_owned(),
                size => format!("| {size} |"),
            };
            assert!(row.ends_with(&stated), "{row:?} should end with {stated:?}");
        }
        let sum = |cpus| -> usize { tables.iter().map(|table| table.bytes(cpus)).sum() };
        assert!(PAGE.contains("each CPU adds 21 to 22 KiB"));
        assert!((21 * 1024..22 * 1024).contains(&(sum(3) - sum(2))));
        let stated = format!("**{}**", mebibytes(sum(2)));
        assert!(PAGE.contains(&stated), "the page should state {stated}");
        assert!(README.contains(&stated), "the README should state {stated}");
    }

    #[test]
    fn the_documentation_states_what_one_more_entry_costs() {
        let sum = |change: fn(&mut Limits)| -> usize {
            let mut config = usual();
            change(&mut config.limits);
            let tables = table_sizes(&config).expect("few sequences");
            tables.iter().map(|table| table.bytes(2)).sum()
        };
        let total = sum(|_| {});
        let costs = |limit: &str, double: fn(&mut Limits), entries: u32| {
            // All defaults are powers of two, so buckets double with the entries.
            let one = (sum(double) - total) / entries as usize;
            let stated = format!("`{limit}` {one} bytes");
            assert!(PAGE.contains(&stated), "the page should state {stated}");
        };
        let Limits {
            sources,
            grants,
            sessions,
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
            collections::{BTreeMap, BTreeSet},
            fs,
            os::fd::{AsFd as _, AsRawFd as _},
        };

        use aya::maps::Map;

        use crate::gate::Framing;

        /// A table's head, and what kernels before 6.15 keep beside a hash table for each CPU.
        const HEAD: usize = 4096;
        /// Of `linux/bpf.h`.
        const BPF_F_MMAPABLE: u32 = 1 << 10;

        let config = usual();
        let ebpf = match super::super::program::load(&config, &BTreeSet::from([Framing::Ethernet]))
        {
            Ok(ebpf) => ebpf,
            Err(error) if error.is::<super::super::NotPermitted>() => {
                eprintln!("skipped: {error}");
                return;
            }
            Err(error) => panic!("{error:#}"),
        };
        let cpus = aya::util::nr_cpus().expect("the kernel says how many CPUs there may be");
        let mut expected: BTreeMap<&str, TableSize> = table_sizes(&config)
            .expect("few sequences")
            .into_iter()
            .map(|table| (table.name, table))
            .collect();
        for (name, map) in ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
            let (kind, data) = match map {
                Map::Array(data) => {
                    let flags = data.info().expect("a loaded table has these").map_flags();
                    let mapped = flags & BPF_F_MMAPABLE != 0;
                    let kind = if mapped {
                        TableKind::MappedArray
                    } else {
                        TableKind::Array
                    };
                    (kind, data)
                }
                Map::PerCpuArray(data) => (TableKind::PerCpuArray, data),
                Map::HashMap(data) => (TableKind::Hash, data),
                Map::LruHashMap(data) => (TableKind::LruHash, data),
                Map::LpmTrie(data) => (TableKind::Trie, data),
                Map::RingBuf(data) => (TableKind::Ring, data),
                _ => panic!("{name} is of a kind without a sum"),
            };
            let table = expected
                .remove(name)
                .unwrap_or_else(|| panic!("{name} is not counted"));
            let info = data.info().expect("a loaded table has these");
            assert_eq!(
                TableSize {
                    name: table.name,
                    kind,
                    key: info.key_size() as usize,
                    value: info.value_size() as usize,
                    entries: info.max_entries() as usize,
                },
                table
            );
            let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
            let text = fs::read_to_string(path).expect("the descriptor is open");
            let memlock = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            let reported: usize = memlock
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or_else(|| panic!("no memlock in {text}"));
            let computed = table.bytes(cpus);
            assert!(
                computed.abs_diff(reported) <= HEAD,
                "{name}: {computed} bytes were computed, and the kernel says {reported}"
            );
        }
        assert!(expected.is_empty(), "not in the kernel: {expected:?}");
    }
}
