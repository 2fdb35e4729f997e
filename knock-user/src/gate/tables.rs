//! The tables of a gate that is up, opened from their pins.

use std::{
    collections::{self, BTreeSet},
    hash::Hash,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, MapInfo, MapType, PerCpuArray, RingBuf},
};
use knock_common::{
    address::{V4, V6},
    grant::{Grant, GrantKey, GrantSlot},
    keys::ScopedAddress,
    layout::{CONFIG_CHUNK, LAYOUT, Meta},
    reject::{Link, LinkKey, ReplySettings},
    report::Budget,
    rules::Role,
    session::{Flow, Session, SessionSlot},
    verdict::Counter,
};

use super::{
    Attachment, Automaton, NEEDS_TO_OPEN, NotPermitted, NothingUp, PinRoot, Presence,
    ProgressTable,
    answering::Surroundings,
    attachment, batch, is_denied,
    pins::{self, Contents, Directory},
    program,
};
use crate::{
    config::{Config, Port},
    sys::bpf,
};

/// What there is to open under a pin root.
pub struct OpenGate;

impl OpenGate {
    /// Opens the gate that is pinned under `root`. Fails with [`NothingUp`] or [`NotPermitted`].
    pub fn at(root: &PinRoot) -> Result<Gate> {
        let directories = root.directories()?;
        let of = |contents: &Contents| {
            let mut directories = directories.iter();
            directories.find(|directory| directory.contents == *contents)
        };
        if let Some(Directory { path, .. }) = of(&Contents::Gate) {
            Gate::open(root, path.clone())
        } else if let Some(Directory { path, .. }) = of(&Contents::OtherVersion) {
            Err(other_layout(path))
        } else {
            Err(NothingUp.into())
        }
    }
}

/// A gate that is up: its configuration as applied, and its tables.
///
/// Every table is opened with the sizes that this build knows, and refused where they differ.
pub struct Gate {
    pub config: Config,
    pub automaton: Automaton,
    /// When it came up, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    root: PinRoot,
    directory: PathBuf,
    role: Array<MapData, u32>,
    pub(super) lengths: Array<MapData, u64>,
    /// Whose knocking is how far.
    pub progress: ProgressTable,
    pub(super) grants: Grants,
    /// For whoever changes the tables of grants.
    pub presence: Presence,
    pub(super) grant_slots: Array<MapData, GrantSlot>,
    pub(super) sessions: Family<Flow<V4>, Flow<V6>, Session>,
    pub(super) packets: PerCpuArray<MapData, Counter>,
    pub(super) knocks: PerCpuArray<MapData, u64>,
    pub(super) budget: PerCpuArray<MapData, Budget>,
    settings: Array<MapData, ReplySettings>,
    links: HashMap<MapData, LinkKey, Link>,
    addresses: HashMap<MapData, ScopedAddress, u32>,
}

pub type Grants = Family<GrantKey<V4>, GrantKey<V6>, Grant>;

/// One table for each address family.
pub struct Family<K4: Pod, K6: Pod, V: Pod> {
    pub v4: HashMap<MapData, K4, V>,
    pub v6: HashMap<MapData, K6, V>,
}

impl Gate {
    fn open(root: &PinRoot, directory: PathBuf) -> Result<Self> {
        let Meta {
            layout,
            config_length,
            since,
            seed,
        } = meta(&directory)?;
        if layout != LAYOUT {
            return Err(other_layout(&directory));
        }
        let config: Array<_, [u8; CONFIG_CHUNK]> = table(&directory, "CONFIG")?;
        let mut text = Vec::new();
        for chunk in config.iter() {
            text.extend_from_slice(&chunk.context("cannot read the configuration in force")?);
        }
        text.truncate(config_length as usize);
        let config: Config = serde_json::from_slice(&text).map_err(|_| other_layout(&directory))?;
        // The slots are opened only to be sure of their layout before anything is changed.
        let _: Array<_, SessionSlot> = table(&directory, "SESSION_SLOT")?;
        Ok(Self {
            automaton: Automaton::compile(&config)?,
            config,
            since,
            role: table(&directory, "ROLE")?,
            lengths: table(&directory, "GRANT_LENGTHS")?,
            progress: ProgressTable {
                sets: table(&directory, "PROGRESS_SET")?,
                places: table(&directory, "PROGRESS")?,
                cursor: table(&directory, "CURSOR")?,
            },
            grants: Family {
                v4: table(&directory, "GRANT4")?,
                v6: table(&directory, "GRANT6")?,
            },
            presence: Presence::of(&table(&directory, "GRANT_FILTER")?, seed)?,
            grant_slots: table(&directory, "GRANT_SLOT")?,
            sessions: Family {
                v4: table(&directory, "SESSION4")?,
                v6: table(&directory, "SESSION6")?,
            },
            packets: table(&directory, "PACKETS")?,
            knocks: table(&directory, "KNOCKS")?,
            budget: table(&directory, "BUDGET")?,
            settings: table(&directory, "REPLY_SETTINGS")?,
            links: table(&directory, "REPLY_LINK")?,
            addresses: table(&directory, "LOCAL_ADDRESS")?,
            root: root.clone(),
            directory,
        })
    }

    /// The ring of events. There may be one reader at a time.
    pub fn events(&self) -> Result<RingBuf<MapData>> {
        table(&self.directory, "EVENTS")
    }

    /// Where an entry of the program is pinned. All entries share one log.
    pub fn program_pin(&self) -> Option<PathBuf> {
        pins::PROGRAMS
            .iter()
            .map(|name| self.directory.join(name))
            .find(|pin| pin.exists())
    }

    /// Directories in which this gate is pinned, by interface.
    fn directories(&self) -> Result<Vec<Directory>> {
        let mut directories = self.root.directories()?;
        directories.retain(|directory| {
            directory.contents == Contents::Gate && since(&directory.path) == Some(self.since)
        });
        Ok(directories)
    }

    /// Is it still pinned, or has it been taken down since it was opened?
    pub fn is_pinned(&self) -> Result<bool> {
        Ok(!self.directories()?.is_empty())
    }

    /// Has another gate been pinned in its place?
    pub fn is_replaced(&self) -> Result<bool> {
        let directories = self.root.directories()?;
        Ok(directories.iter().any(|directory| {
            directory.contents == Contents::Gate && since(&directory.path) != Some(self.since)
        }))
    }

    /// A directory with all tables and the program, to pin them from again.
    pub(super) fn whole_directory(&self) -> Result<Option<PathBuf>> {
        let mut directories = self.directories()?.into_iter();
        Ok(directories
            .find(|directory| pins::is_whole(&directory.path))
            .map(|directory| directory.path))
    }

    /// Index of the gate called `name`.
    pub fn index_of(&self, name: &str) -> Option<u16> {
        let index = self
            .config
            .gates
            .iter()
            .position(|gate| gate.name == name)?;
        u16::try_from(index).ok()
    }

    /// Index of the gate called `name`, or an error that names those that there are.
    pub fn require(&self, name: &str) -> Result<u16> {
        self.index_of(name).ok_or_else(|| {
            let names: Vec<&str> = self
                .config
                .gates
                .iter()
                .map(|gate| gate.name.as_str())
                .collect();
            anyhow!("no gate is called `{name}`; there is {}", names.join(", "))
        })
    }

    /// How it is attached, for each configured interface and each card that it has followed.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        attachment::attachments(&self.root, &self.config.interfaces)
    }

    /// Declares these ports open, and no others; see [`super::open_ports`]. What is changed is what differs in the
    /// kernel's table, whoever wrote that.
    pub fn set_open_ports(&mut self, open: &BTreeSet<Port>) -> Result<()> {
        use aya::maps::IterableMap as _;
        let wanted = program::roles(&self.config, &self.automaton, open);
        let mut wrong = Vec::new();
        batch::for_each(self.role.map(), |index: &u32, role: &u32| {
            let wanted = wanted.get(index).copied();
            let wanted = wanted.unwrap_or(Role::Foreign.pack());
            if *role != wanted {
                wrong.push((*index, wanted));
            }
        })?;
        for (index, role) in wrong {
            self.role.set(index, role, 0)?;
        }
        Ok(())
    }

    /// This host as its closed ports show it now on the cards that are guarded, whatever they are called.
    /// Where no gate rejects, nothing.
    pub fn surroundings(&self, attachments: &[Attachment]) -> Result<Surroundings> {
        let guarded: Vec<(u32, String)> = attachments
            .iter()
            .filter(|attachment| attachment.is_guarded())
            .filter_map(|attachment| Some((attachment.index?, attachment.name.clone())))
            .collect();
        // Flow labels stay as they are.
        let secret = self.settings.get(&0, 0)?.secret;
        Surroundings::read(&self.config, &guarded, secret)
            .context("cannot read this host's addresses")
    }

    /// Lets the kernel answer as this host does now.
    pub fn set_surroundings(&mut self, now: &Surroundings) -> Result<()> {
        if let Some(settings) = now.settings {
            self.settings.set(0, settings, 0)?;
        }
        replace(&mut self.links, now.link_rows())?;
        replace(&mut self.addresses, now.address_rows())
    }
}

/// Makes a table hold these rows and no others; none that stays is missing meanwhile.
fn replace<K, V>(
    table: &mut HashMap<MapData, K, V>,
    rows: impl Iterator<Item = (K, V)>,
) -> Result<()>
where
    K: Pod + Eq + Hash,
    V: Pod,
{
    let rows: collections::HashMap<K, V> = rows.collect();
    let old = table.keys().collect::<Result<Vec<K>, _>>()?;
    for key in old.into_iter().filter(|key| !rows.contains_key(key)) {
        absent_as_none(table.remove(&key))?;
    }
    for (key, value) in rows {
        table.insert(key, value, 0)?;
    }
    Ok(())
}

/// The map behind a typed handle.
pub fn data<K: Pod, V: Pod>(table: &HashMap<MapData, K, V>) -> &MapData {
    use aya::maps::IterableMap as _;
    table.map()
}

/// A missing entry is an answer, not an error.
pub fn absent_as_none<T>(result: Result<T, MapError>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) if is(&error, libc::ENOENT) => Ok(None),
        Err(error) => Err(error).context("cannot use a kernel table"),
    }
}

/// Is it this error of the kernel's?
pub fn is(error: &MapError, code: i32) -> bool {
    matches!(error, MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(code))
}

/// File name of a table's pin.
pub fn pin_name(table: &str) -> String {
    table.to_lowercase()
}

fn table<T>(directory: &Path, name: &str) -> Result<T>
where
    T: TryFrom<Map, Error = MapError>,
{
    let path = directory.join(pin_name(name));
    let pinned = MapData::from_pin(&path).map_err(|error| match error {
        MapError::SyscallError(call) if call.io_error.kind() == io::ErrorKind::NotFound => {
            other_layout(directory)
        }
        MapError::SyscallError(call) => cannot_open(&path, call.io_error),
        error => anyhow!(error).context(format!("cannot open {}", path.display())),
    })?;
    Map::from_map_data(pinned)
        .and_then(T::try_from)
        .map_err(|_| other_layout(directory))
}

fn cannot_open(path: &Path, error: io::Error) -> anyhow::Error {
    if is_denied(&error) {
        return NotPermitted {
            what: format!("to open {}", path.display()),
            needs: NEEDS_TO_OPEN,
        }
        .into();
    }
    anyhow!(error).context(format!("cannot open {}", path.display()))
}

/// The pins are none of this build's.
pub fn other_layout(directory: &Path) -> anyhow::Error {
    anyhow!(
        "what is pinned in {} was not made by this version of knockgate (table layout {LAYOUT}); \
         take it down with `knockgate down`, then bring the gate up again",
        directory.display()
    )
}

/// The layout of the tables pinned in `directory`, by the table that identifies a gate; none where there is no
/// such table. 0 where it has another form than here.
pub fn layout_of(directory: &Path) -> Result<Option<u32>> {
    let path = directory.join(pin_name("META"));
    if !path.exists() {
        return Ok(None);
    }
    let object = bpf::open(&path).map_err(|error| cannot_open(&path, error))?;
    if bpf::kind(&object) != Some(bpf::Kind::Map) {
        return Ok(None);
    }
    let info = MapInfo::from_pin(&path).map_err(|error| anyhow!(error))?;
    let is_array = info.map_type().is_ok_and(|kind| kind == MapType::Array);
    // Its name in the kernel: nobody else's table is called that.
    if !is_array || info.name_as_str() != Some("META") {
        return Ok(None);
    }
    if info.value_size() as usize != size_of::<Meta>() {
        return Ok(Some(0));
    }
    Ok(Some(meta(directory)?.layout))
}

/// What identifies the gate that is pinned in `directory`.
pub fn meta(directory: &Path) -> Result<Meta> {
    let meta: Array<_, Meta> = table(directory, "META")?;
    meta.get(&0, 0).context("cannot read what is pinned")
}

/// When the gate came up that is pinned in `directory`.
fn since(directory: &Path) -> Option<u64> {
    meta(directory).ok().map(|meta| meta.since)
}
