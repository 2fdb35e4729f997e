//! The tables of a gate that is up, opened from their pins.

use std::{
    collections::{self, BTreeSet},
    hash::Hash,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use knock_common::{
    address::{V4, V6},
    table::{
        Budget, CONFIG_CHUNK, Counter, Flow, Grant, GrantKey, GrantSlot, Habits, LAYOUT, Link,
        LinkKey, Meta, Network, Role, Session, SessionSlot,
    },
};

use super::{
    Automaton, NEEDS_TO_OPEN, NotPermitted, NothingUp, PinRoot, Presence, ProgressTable, Xdp,
    answering::Surroundings, interface, is_denied, pins, program,
};
use crate::config::{Config, Port};

/// What there is to open under a pin root.
pub struct OpenGate;

impl OpenGate {
    /// Opens the gate that is up under `root`. Fails with [`NothingUp`] or [`NotPermitted`].
    pub fn at(root: &PinRoot) -> Result<Gate> {
        let interfaces = root.interfaces()?;
        let Some(first) = interfaces.first() else {
            return Err(NothingUp.into());
        };
        Gate::open(root.of(first), interfaces)
    }
}

/// A gate that is up: its configuration as applied, and its tables.
///
/// Every table is opened with the sizes that this build knows, and refused where they differ.
pub struct Gate {
    pub config: Config,
    pub automaton: Automaton,
    /// Interfaces that have pins.
    pub interfaces: Vec<String>,
    /// When it came up, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
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
    habits: Array<MapData, Habits>,
    links: HashMap<MapData, LinkKey, Link>,
    addresses: HashMap<MapData, Network, u32>,
}

pub type Grants = Family<GrantKey<V4>, GrantKey<V6>, Grant>;

/// One table for each address family.
pub struct Family<K4: Pod, K6: Pod, V: Pod> {
    pub v4: HashMap<MapData, K4, V>,
    pub v6: HashMap<MapData, K6, V>,
}

impl Gate {
    fn open(directory: PathBuf, interfaces: Vec<String>) -> Result<Self> {
        let meta: Array<_, Meta> = table(&directory, "META")?;
        let Meta {
            layout,
            config_length,
            since,
            seed,
        } = meta.get(&0, 0).context("cannot read what is pinned")?;
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
            interfaces,
            since,
            role: table(&directory, "ROLE")?,
            lengths: table(&directory, "LENGTHS")?,
            progress: ProgressTable {
                sets: table(&directory, "PROGRESS_SET")?,
                places: table(&directory, "PROGRESS")?,
                cursor: table(&directory, "CURSOR")?,
            },
            grants: Family {
                v4: table(&directory, "GRANT4")?,
                v6: table(&directory, "GRANT6")?,
            },
            presence: Presence::of(&table(&directory, "PRESENCE")?, seed)?,
            grant_slots: table(&directory, "GRANT_SLOT")?,
            sessions: Family {
                v4: table(&directory, "SESSION4")?,
                v6: table(&directory, "SESSION6")?,
            },
            packets: table(&directory, "PACKETS")?,
            knocks: table(&directory, "KNOCKS")?,
            budget: table(&directory, "BUDGET")?,
            habits: table(&directory, "HABITS")?,
            links: table(&directory, "DEVICE")?,
            addresses: table(&directory, "LOCAL")?,
            directory,
        })
    }

    /// The ring of events. There may be one reader at a time.
    pub fn events(&self) -> Result<RingBuf<MapData>> {
        table(&self.directory, "EVENTS")
    }

    /// Where the program is pinned.
    pub fn program_pin(&self) -> PathBuf {
        self.directory.join(pins::PROGRAM)
    }

    /// Is it still pinned, or has it been taken down since it was opened?
    pub fn is_up(&self) -> bool {
        let link = self.directory.join(pins::LINK);
        // Another gate may have come up at the same place since.
        table::<Array<_, Meta>>(&self.directory, "META")
            .and_then(|meta| Ok(meta.get(&0, 0)?.since))
            .is_ok_and(|since| since == self.since)
            && link.exists()
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

    /// The interfaces, and how the gate's program is attached to each; `None` where it is not any
    /// more, since the interface has gone.
    pub fn attached(&self) -> Result<Vec<(String, Option<Xdp>)>> {
        self.interfaces
            .iter()
            .map(|name| {
                let xdp = match interface::index(name) {
                    Ok(index) => interface::attached(index)?,
                    Err(_) => None,
                };
                Ok((name.clone(), xdp))
            })
            .collect()
    }

    /// Declares other ports open than before; see [`super::open_ports`].
    pub fn set_open_ports(
        &mut self,
        before: &BTreeSet<Port>,
        after: &BTreeSet<Port>,
    ) -> Result<()> {
        let roles = |open| program::roles(&self.config, &self.automaton, open);
        let (old, new) = (roles(before), roles(after));
        for index in old.keys().filter(|index| !new.contains_key(index)) {
            self.role.set(*index, Role::Foreign.pack(), 0)?;
        }
        for (index, role) in new {
            if old.get(&index) != Some(&role) {
                self.role.set(index, role, 0)?;
            }
        }
        Ok(())
    }

    /// This host as its closed ports show it now. Where no gate rejects, nothing.
    pub fn surroundings(&self) -> Result<Surroundings> {
        // Flow labels stay as they are.
        let secret = self.habits.get(&0, 0)?.secret;
        Surroundings::read(&self.config, secret).context("cannot read this host's addresses")
    }

    /// Lets the kernel answer as this host does now.
    pub fn set_surroundings(&mut self, now: &Surroundings) -> Result<()> {
        if let Some(habits) = now.habits {
            self.habits.set(0, habits, 0)?;
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
    let pinned = MapData::from_pin(&path).map_err(|error| match &error {
        MapError::SyscallError(call) if is_denied(&call.io_error) => anyhow!(NotPermitted {
            what: format!("to open {}", path.display()),
            needs: NEEDS_TO_OPEN,
        }),
        MapError::SyscallError(call) if call.io_error.kind() == std::io::ErrorKind::NotFound => {
            other_layout(directory)
        }
        _ => anyhow!(error).context(format!("cannot open {}", path.display())),
    })?;
    Map::from_map_data(pinned)
        .and_then(T::try_from)
        .map_err(|_| other_layout(directory))
}

/// The pins are none of this build's.
pub fn other_layout(directory: &Path) -> anyhow::Error {
    anyhow!(
        "what is pinned in {} was not made by this version of knockgate (table layout {LAYOUT}); \
         take it down with `knockgate down`, then bring the gate up again",
        directory.display()
    )
}

/// Is there anything pinned that this build would not make?
pub fn is_whole(directory: &Path) -> bool {
    directory.join(pins::LINK).exists() && directory.join(pin_name("META")).exists()
}
