//! The kernel tables, one row each. Sizing, opening, pinning and the memory figures follow from the row.
//!
//! To add a table, define it in the kernel program's `maps.rs`, and add its row here and in `docs/how-it-works.md`.

use std::{
    collections::HashSet,
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, Pod,
    maps::{self, Map, MapData, MapError, MapType, lpm_trie},
    util::nr_cpus,
};
use knock_common::{
    cursor::{self, Cursor, Tickets},
    event::Event,
    grant::{Grant, filter},
    keys::{ScopedAddress, SourceKey},
    knock::{
        Outcome,
        authenticated::{
            self,
            key::{HostSecret, Key, KeyGate, NAME},
            work::Work,
        },
        automaton::{Sequence, State, Transition},
        fwknop,
        progress::{Progress, ProgressSet},
        ring,
    },
    layout::{CONFIG_CHUNK, LAYOUT, Meta},
    next,
    reject::{Link, LinkKey, ReplySettings, rate_limit::IcmpBucket, reply::ReplyBuffer},
    report::{Budget, class},
    row::rows,
    rules::{GateRules, ROLES},
    scattered::Room,
    session::{
        HOLDERS, HolderCount, Session,
        recent::{self, Recent},
    },
    set::{Set, sets},
    verdict::{Counter, Reason},
};

use super::{
    error::{cannot_open, is_denied, other_version},
    install::pins::directory,
};
use crate::sys::bpf::{self, Kind};

/// Most addresses of this host that the program knows. Where there are more, packets to the others get no reply, and flows
/// to any address are remembered. With `addresses = "host"`, the kernel's routes are asked about packets to the others.
pub const MOST_ADDRESSES: usize = 4095;
/// Most interfaces in guarded bonds that the program knows.
pub const MOST_BONDED: usize = 255;
/// Most interfaces that the program can reply on, counting each VLAN on an interface.
pub const MOST_LINKS: usize = 4096;
/// Destinations whose ICMP errors are counted.
const DESTINATIONS: usize = 16_384;
/// Sources whose latest reports are remembered.
const REPORTED_SOURCES: usize = 16_384;
/// Bytes of the ring of events: room for about 4,000.
const RING_BYTES: usize = 256 * 1024;
const _: () = assert!(RING_BYTES / (size_of::<Event>() + 8) > 4000);
/// Bytes of the ring of knocks that wait for the fleet: 3,640 of them, each of which a key has made.
const HELD_BYTES: usize = 256 * 1024;
/// Bytes of the ring of packets of fwknop's: what comes in while the service is not on a CPU.
const FWKNOP_BYTES: usize = 4 * 1024 * 1024;

/// Declares the tables: the name in the object, how the kernel keeps it with the types of key and value, its number of
/// entries (bytes, for a ring) by the configuration's [`Counts`], and the [`Group`] with which it is kept when another
/// configuration replaces it.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $form:ty = $entries:expr => $group:ident;)+) => {
        $($(#[$doc])* pub const $name: Table<$form> = Table::new(stringify!($name), Group::$group, $entries);)+

        /// Every table.
        pub const ALL: &[Definition] = &[$($name.definition),+];
    };
}

tables! {
    ROLE: Array<u32> = |_| ROLES as usize => Config;
    GATE: Array<GateRules> = |counts| counts.gates => Config;
    SEQUENCE: Array<Sequence> = |counts| counts.sequences => Config;
    STATE: Array<State> = |counts| counts.states => Config;
    TRANSITION: Hash<Transition, u32> = |counts| counts.transitions => Config;
    ALLOW: Trie<ScopedAddress, u32> = |counts| counts.allow => Config;
    KNOCKER: Trie<ScopedAddress, u32> = |counts| counts.knockers => Config;
    PLACE: Trie<ScopedAddress, u32> = |counts| counts.places => Config;
    GUARDED_ADDRESS: Hash<ScopedAddress, u32> = |counts| counts.guarded_addresses => Config;
    GRANT_LENGTHS: Array<u64> = |_| 2 => Single;
    CONFIG: Array<[u8; CONFIG_CHUNK]> = |counts| counts.config_bytes.div_ceil(CONFIG_CHUNK) => Config;
    META: Array<Meta> = |_| 1 => Config;
    DEADLINE: Array<u64> = |_| 1 => Config;
    PROGRESS_SET: MappedArray<ProgressSet> = |counts| ring::sets(ring::slots(counts.limits.sources)) => Progress;
    PROGRESS: MappedArray<Progress> = |counts| ring::slots(counts.limits.sources) => Progress;
    PROGRESS_CURSOR: MappedArray<Cursor> = |_| 1 => Progress;
    PROGRESS_TICKETS: PerCpuArray<Tickets> = |_| 1 => Progress;
    KEY: MappedArray<Key> = |counts| counts.keys => Keys;
    KEY_NAME: Array<[u8; NAME]> = |counts| counts.keys => Keys;
    KEY_GATE: SparseHash<KeyGate, u32> = |counts| counts.keys * (counts.gates + 1) => Config;
    HOST_SECRET: Array<HostSecret> = |_| HostSecret::COUNT => Config;
    CLOCK_OFFSET: Array<u64> = |_| 1 => Single;
    GRANT: MappedArray<Grant> = |counts| counts.limits.grants => Grants;
    GRANT_SET: MappedArray<Set> = |counts| sets(counts.limits.grants) => Grants;
    GRANT_FILTER: MappedArray<u64> = |counts| filter::words(counts.limits.grants) => Grants;
    SESSION: MappedArray<Session> = |counts| counts.limits.sessions => Sessions;
    SESSION_ROW: MappedArray<u64> = |counts| rows(counts.limits.sessions) => Sessions;
    SESSION_SET: MappedArray<Set> = |counts| sets(counts.limits.sessions) => Sessions;
    SESSION_COUNT: MappedArray<HolderCount> = |_| HOLDERS => Sessions;
    RECENT: MappedArray<Recent> = |counts| counts.cpus * recent::ENTRIES as usize => Config;
    CURSOR: MappedArray<Cursor> = |_| cursor::COUNT as usize => Single;
    PACKETS: PerCpuArray<Counter> = |counts| (counts.counted_gates() + 1) * Reason::COUNT => Counters;
    KNOCKS: PerCpuArray<u64> = |counts| counts.counted_gates() * Outcome::ALL.len() => Counters;
    AUTHENTICATED: PerCpuArray<u64> = |_| authenticated::outcome::Outcome::COUNT => Single;
    EARLIER_PACKETS: Array<Counter> = |counts| (counts.counted_gates() + 1) * Reason::COUNT => Counters;
    EARLIER_KNOCKS: Array<u64> = |counts| counts.counted_gates() * Outcome::ALL.len() => Counters;
    EVENTS: Ring = |_| RING_BYTES => Single;
    BUDGET: PerCpuArray<Budget> = |_| class::COUNT as usize => Single;
    REPORTED: LruHash<SourceKey, u64> = |_| REPORTED_SOURCES => Single;
    HELD: Ring = |counts| if counts.holds_knocks { HELD_BYTES } else { 4096 } => Single;
    KNOCK_WORK: PerCpuArray<Work> = |_| 1 => Single;
    FWKNOP: Ring = |counts| if counts.has_fwknop { FWKNOP_BYTES } else { 4096 } => Single;
    FWKNOP_OVERRUN: PerCpuArray<u64> = |_| 1 => Single;
    FWKNOP_COUNT: Array<u64> = |_| fwknop::Outcome::COUNT => Single;
    SCATTERED: PerCpuArray<Room> = |_| 1 => Single;
    BOND: Hash<u32, u32> = |_| MOST_BONDED => Config;
    REPLY_SETTINGS: Array<ReplySettings> = |_| 1 => Config;
    REPLY_LINK: Hash<LinkKey, Link> = |counts| counts.if_rejecting(MOST_LINKS) => Config;
    // One more for what is noted of them.
    LOCAL_ADDRESS: Hash<ScopedAddress, u32> = |_| MOST_ADDRESSES + 1 => Config;
    ICMP_BUCKET: LruHash<SourceKey, IcmpBucket> = |counts| counts.if_rejecting(DESTINATIONS) => Single;
    ICMP_GLOBAL: Array<u64> = |_| 1 => Single;
    REPLY: PerCpuArray<ReplyBuffer> = |_| 1 => Single;
    NEXT: Programs = |_| next::MOST => Config;
    NEXT_IP: Programs = |_| next::MOST => Config;
    NEXT_INTERFACE: Array<next::Interfaces> = |_| 1 => Config;
}

/// What becomes of a table when another configuration replaces the one that it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// It is made anew: its contents follow from the configuration or the host.
    Config,
    /// It stays, unless its own size changes.
    Single,
    /// The tables of a group stay together, unless the size of one of them changes. Then all of them are made anew, and
    /// what they hold is carried over.
    Progress,
    Keys,
    Grants,
    Sessions,
    /// As above, but they stay if they are large enough.
    Counters,
}

/// Returns the groups of tables that can stay when tables for `next` replace those for `before`.
pub fn lasting(before: &Counts, next: &Counts) -> HashSet<Group> {
    let stays = |table: &Definition| {
        let (has, needs) = (table.entries(before), table.entries(next));
        has == needs || (table.group == Group::Counters && has > needs)
    };
    let groups = [
        Group::Progress,
        Group::Keys,
        Group::Grants,
        Group::Sessions,
        Group::Counters,
    ];
    let whole = |group: &Group| {
        let mut tables = ALL.iter().filter(|table| table.group == *group);
        tables.all(stays)
    };
    groups.into_iter().filter(whole).collect()
}

/// The numbers of a configuration that tables are sized by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The largest gate id, plus one.
    pub gates: usize,
    /// The largest user id, plus one.
    pub sequences: usize,
    pub states: usize,
    pub transitions: usize,
    pub allow: usize,
    /// Networks that may knock, over all gates.
    pub knockers: usize,
    pub places: usize,
    pub guarded_addresses: usize,
    /// Bytes in [`CONFIG`].
    pub config_bytes: usize,
    pub limits: Limits,
    /// Some gate rejects.
    pub rejects: bool,
    /// Slots for keys.
    pub keys: usize,
    /// Clients of fwknop may open a gate.
    pub has_fwknop: bool,
    /// What an authenticated knock opens waits for the fleet.
    pub holds_knocks: bool,
    /// How many CPUs this machine may have.
    pub cpus: usize,
}

/// `limits` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub sources: usize,
    pub grants: usize,
    pub sessions: usize,
}

impl Counts {
    /// Returns the number of gates that there are counters for: more than there are gates, so that the counters stay
    /// where they are when a gate is added.
    fn counted_gates(&self) -> usize {
        self.gates.next_power_of_two().max(16)
    }

    fn if_rejecting(&self, entries: usize) -> usize {
        if self.rejects { entries } else { 0 }
    }
}

/// Returns how many CPUs this machine may have. Where that cannot be read, the first one alone [remembers](recent) flows.
pub fn cpus() -> usize {
    nr_cpus().unwrap_or(1)
}

/// How the kernel keeps a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    Array,
    /// An array that user space can map: in pages of its own.
    MappedArray,
    PerCpuArray,
    /// Allocated whole.
    Hash,
    /// Allocated entry by entry, by commands alone.
    SparseHash,
    LruHash,
    /// Allocated entry by entry, all of them when the configuration is applied.
    Trie,
    Ring,
    /// Of programs to go on to. The kernel empties it when the last pin and descriptor of it are gone.
    Programs,
}

impl TableKind {
    const fn map_type(self) -> MapType {
        match self {
            Self::Array | Self::MappedArray => MapType::Array,
            Self::PerCpuArray => MapType::PerCpuArray,
            Self::Hash | Self::SparseHash => MapType::Hash,
            Self::LruHash => MapType::LruHash,
            Self::Trie => MapType::LpmTrie,
            Self::Ring => MapType::RingBuf,
            Self::Programs => MapType::ProgramArray,
        }
    }
}

/// A table without the types of its entries.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Name in the object.
    pub name: &'static str,
    pub kind: TableKind,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    pub group: Group,
    entries: fn(&Counts) -> usize,
}

impl Definition {
    /// Returns the number of entries; bytes, for a ring.
    pub fn entries(&self, counts: &Counts) -> usize {
        // The kernel makes no table without entries.
        (self.entries)(counts).max(1)
    }

    /// Returns the file name of the table's pin.
    pub fn pin_name(&self) -> String {
        self.name.to_lowercase()
    }

    /// Returns whether what is pinned at `path` has this table's kind and sizes of key and value; `false` where nothing is.
    pub fn is_pinned_at(&self, path: &Path) -> Result<bool> {
        let Some(table) = pinned(path)? else {
            return Ok(false);
        };
        let info = table.info()?;
        let kind = self.kind.map_type();
        Ok(info.map_type().is_ok_and(|found| found == kind)
            && info.key_size() as usize == self.key
            && info.value_size() as usize == self.value)
    }
}

/// Opens whatever table is pinned at `path`, to read it; `None` where there is none, or something else. Everything that is asked
/// about a pin is asked of what was opened: another process may remove the pin meanwhile, or pin something else.
pub fn pinned(path: &Path) -> Result<Option<MapData>> {
    let object = match bpf::look(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        object => object.map_err(|error| cannot_open(path, error))?,
    };
    if bpf::kind(&object) != Some(Kind::Map) {
        return Ok(None);
    }
    Ok(Some(MapData::from_fd(object)?))
}

/// A table with the types of its entries.
pub struct Table<F> {
    pub definition: Definition,
    form: PhantomData<fn() -> F>,
}

impl<F: Form> Table<F> {
    const fn new(name: &'static str, group: Group, entries: fn(&Counts) -> usize) -> Self {
        let definition = Definition {
            name,
            group,
            kind: F::KIND,
            key: F::KEY,
            value: F::VALUE,
            entries,
        };
        Self {
            definition,
            form: PhantomData,
        }
    }
}

impl<F: Open> Table<F> {
    /// Opens the table in `source`, whose kind and sizes of key and value are checked.
    pub fn open(&self, source: &impl Source) -> Result<F::Handle> {
        let map = source.map(&self.definition)?;
        F::Handle::try_from(map).map_err(|_| source.mismatch(&self.definition))
    }
}

impl Table<Programs> {
    /// Opens the table in `source` for the calls of `sys::bpf::programs`, by a descriptor.
    pub fn descriptor(&self, source: &impl Source) -> Result<OwnedFd> {
        match source.map(&self.definition)? {
            Map::ProgramArray(data) => Ok(data.fd().as_fd().try_clone_to_owned()?),
            _ => Err(source.mismatch(&self.definition)),
        }
    }
}

/// The form of a table: how the kernel keeps it, and the sizes of its keys and values.
pub trait Form {
    const KIND: TableKind;
    const KEY: usize;
    const VALUE: usize;
}

/// A form whose entries user space reads or writes.
pub trait Open: Form {
    type Handle: TryFrom<Map, Error = MapError>;
}

macro_rules! forms {
    ($($form:ident<$($parameter:ident),*>: $key:ty => $value:ty, $handle:ident<$($argument:ident),*>;)+) => {
        $(
            pub struct $form<$($parameter),*>(PhantomData<($($parameter,)*)>);

            impl<$($parameter),*> Form for $form<$($parameter),*> {
                const KIND: TableKind = TableKind::$form;
                const KEY: usize = size_of::<$key>();
                const VALUE: usize = size_of::<$value>();
            }

            impl<$($parameter: Pod),*> Open for $form<$($parameter),*> {
                type Handle = maps::$handle<MapData $(, $argument)*>;
            }
        )+
    };
}

forms! {
    Array<V>: u32 => V, Array<V>;
    MappedArray<V>: u32 => V, Array<V>;
    PerCpuArray<V>: u32 => V, PerCpuArray<V>;
    Hash<K, V>: K => V, HashMap<K, V>;
    SparseHash<K, V>: K => V, HashMap<K, V>;
    LruHash<K, V>: K => V, HashMap<K, V>;
    Trie<K, V>: lpm_trie::Key<K> => V, LpmTrie<K, V>;
    Ring<>: () => (), RingBuf<>;
    Programs<>: u32 => u32, ProgramArray<>;
}

/// Where tables are opened from.
pub trait Source {
    fn map(&self, table: &Definition) -> Result<Map>;

    /// Returns the error for a table of another kind or with other sizes.
    fn mismatch(&self, table: &Definition) -> anyhow::Error;
}

/// The directory of an interface, in which every table is pinned.
pub struct PinDirectory {
    pub path: PathBuf,
    pub access: Access,
}

/// What tables are opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: their pins need not be writable.
    Look,
    Change,
}

impl Source for PinDirectory {
    fn map(&self, table: &Definition) -> Result<Map> {
        let path = self.path.join(table.pin_name());
        let opened = match self.access {
            Access::Look => match bpf::open(&path) {
                Err(error) if is_denied(&error) => bpf::look(&path),
                // Who may write as well maps tables, and copies nothing.
                opened => opened,
            },
            Access::Change => bpf::open(&path),
        };
        let pinned = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(&self.path),
            _ => cannot_open(&path, error),
        })?;
        MapData::from_fd(pinned)
            .and_then(Map::from_map_data)
            .map_err(|_| other_version(&self.path))
    }

    fn mismatch(&self, _: &Definition) -> anyhow::Error {
        other_version(&self.path)
    }
}

/// Returns why a directory has not all tables: somebody has removed pins, unless another version has made them.
fn missing(directory: &Path) -> anyhow::Error {
    match directory::meta_if_there(directory) {
        Ok(Some(meta)) if meta.layout == LAYOUT => directory::require_whole(directory)
            .err()
            .unwrap_or_else(|| other_version(directory)),
        _ => other_version(directory),
    }
}

/// An object whose tables have been made.
impl Source for Ebpf {
    fn map(&self, table: &Definition) -> Result<Map> {
        let Definition { name, .. } = table;
        let map = Self::map(self, name).ok_or_else(|| anyhow!("the object has no table {name}"))?;
        let (Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data)
        | Map::ProgramArray(data)) = map
        else {
            return Err(self.mismatch(table));
        };
        // A descriptor of its own, so that the handle is of the same type as that of a pinned table.
        let descriptor = data.fd().as_fd().try_clone_to_owned()?;
        let data = MapData::from_fd(descriptor)?;
        Ok(Map::from_map_data(data)?)
    }

    fn mismatch(&self, table: &Definition) -> anyhow::Error {
        anyhow!("the table {} is of another kind", table.name)
    }
}

/// Returns the map behind a typed handle.
pub fn data<K: Pod, V: Pod, T: maps::IterableMap<K, V>>(table: &T) -> &MapData {
    table.map()
}

/// Makes a missing entry `None`, and any other failure an error.
pub fn absent_as_none<T>(result: Result<T, MapError>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) if is(&error, libc::ENOENT) => Ok(None),
        Err(error) => Err(error).context("cannot use a kernel table"),
    }
}

/// Returns whether the kernel failed with this error number.
pub fn is(error: &MapError, code: i32) -> bool {
    matches!(error, MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(code))
}
