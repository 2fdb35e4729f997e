//! The tables of a gate that is up, opened from their pins.

use std::{
    collections::{self, BTreeSet},
    hash::Hash,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use bytemuck::Zeroable as _;
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    table::{
        BY_HAND, Budget, CONFIG_CHUNK, Counter, Flow, Grant, GrantKey, GrantSlot, Habits, LAYOUT,
        Link, LinkKey, MAX_LENGTHS, Meta, Network, Progress, Role, Session, SessionSlot, SourceKey,
    },
};

use super::{
    Automaton, NEEDS_TO_OPEN, NotPermitted, NothingUp, PinRoot, Xdp, answering::Surroundings,
    batch, flows, interface, is_denied, pins, program,
};
use crate::config::{self, Config, GrantTo, Port};

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
    lengths: Array<MapData, u64>,
    pub(super) progress: HashMap<MapData, SourceKey, Progress>,
    pub(super) grants: Grants,
    grant_slots: Array<MapData, GrantSlot>,
    pub(super) sessions: Family<Flow<V4>, Flow<V6>, Session>,
    pub(super) packets: PerCpuArray<MapData, Counter>,
    pub(super) knocks: PerCpuArray<MapData, u64>,
    pub(super) budget: PerCpuArray<MapData, Budget>,
    habits: Array<MapData, Habits>,
    links: HashMap<MapData, LinkKey, Link>,
    addresses: HashMap<MapData, Network, u32>,
}

type Grants = Family<GrantKey<V4>, GrantKey<V6>, Grant>;

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
            progress: table(&directory, "PROGRESS")?,
            grants: Family {
                v4: table(&directory, "GRANT4")?,
                v6: table(&directory, "GRANT6")?,
            },
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

    /// Grants by hand, until `until` (ns of `CLOCK_MONOTONIC`), whatever there was before.
    pub fn allow(
        &mut self,
        address: IpAddr,
        length: u8,
        gate: u16,
        until: u64,
        now: u64,
    ) -> Result<()> {
        let network = IpNet::new(address, length)?;
        match address {
            IpAddr::V4(address) => {
                let key = GrantKey::<V4>::new(address.into(), length, gate);
                self.allow_key(&key, until, now)?;
                flows::look_again(&mut self.sessions.v4, network, gate)
            }
            IpAddr::V6(address) => {
                let key = GrantKey::<V6>::new(address.into(), length, gate);
                self.allow_key(&key, until, now)?;
                flows::look_again(&mut self.sessions.v6, network, gate)
            }
        }
    }

    fn allow_key<A: InGrants>(&mut self, key: &GrantKey<A>, until: u64, now: u64) -> Result<()>
    where
        GrantKey<A>: Pod,
    {
        if key.length != A::BITS {
            self.add_length::<A>(key.length, now)?;
        }
        let slot = match absent_as_none(A::of(&mut self.grants).get(key, 0))? {
            Some(grant) => grant.slot,
            None => self.take_slot(key, now)?,
        };
        let grant = Grant {
            until,
            tag: key.tag(),
            connections: 0,
            user: BY_HAND,
            slot,
            zero: 0,
        };
        A::of(&mut self.grants)
            .insert(key, grant, 0)
            .context("cannot write the grant: is the table of grants full?")
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

    /// Finds a slot whose grant has ended and puts `key` there.
    fn take_slot<A: Address>(&mut self, key: &GrantKey<A>, now: u64) -> Result<u32> {
        // From the end, since knocks begin at the front: grants by hand are long and many at a time,
        // and a knock looks at no more than so many slots in a row.
        for index in (0..self.grant_slots.len()).rev() {
            let slot = self.grant_slots.get(&index, 0)?;
            if self.slot_is_free(slot, index, now)? {
                let taken = GrantSlot {
                    address: key.address.padded(),
                    gate: key.gate,
                    length: key.length,
                    family: A::FAMILY,
                    zero: 0,
                };
                self.grant_slots.set(index, taken, 0)?;
                return Ok(index);
            }
        }
        bail!(
            "the table of grants is full ({} entries, limits.grants); revoke some, or wait until \
             some have ended",
            self.grant_slots.len()
        )
    }

    fn slot_is_free(&mut self, slot: GrantSlot, index: u32, now: u64) -> Result<bool> {
        match slot.family {
            4 => self.vacate::<V4>(slot, index, now),
            6 => self.vacate::<V6>(slot, index, now),
            _ => Ok(true),
        }
    }

    fn vacate<A: InGrants>(&mut self, slot: GrantSlot, index: u32, now: u64) -> Result<bool>
    where
        GrantKey<A>: Pod,
    {
        let key = GrantKey {
            address: A::unpadded(slot.address),
            gate: slot.gate,
            length: slot.length,
            zero: A::Fill::zeroed(),
        };
        let grants = A::of(&mut self.grants);
        match absent_as_none(grants.get(&key, 0))? {
            Some(grant) if grant.slot == index && grant.until > now => Ok(false),
            Some(grant) if grant.slot == index => {
                absent_as_none(grants.remove(&key))?;
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    /// Makes the kernel look for grants of this prefix length too.
    fn add_length<A: InGrants>(&mut self, length: u8, now: u64) -> Result<()>
    where
        GrantKey<A>: Pod,
    {
        let mut wanted = self.lengths_in_use::<A>(now)?;
        wanted.insert(length);
        if wanted.len() >= MAX_LENGTHS {
            wanted.remove(&length);
            let lengths: Vec<String> = wanted.iter().map(|length| format!("/{length}")).collect();
            bail!(
                "grants of {} different prefix lengths are live already, and the kernel program \
                 looks for no more; use one of {}",
                wanted.len(),
                lengths.join(", ")
            );
        }
        // Longest first, so that the closest grant is the one that counts connections.
        let mut packed = [0; 8];
        for (place, length) in packed.iter_mut().zip(wanted.into_iter().rev()) {
            *place = length;
        }
        let index = u32::from(A::FAMILY != 4);
        self.lengths.set(index, u64::from_le_bytes(packed), 0)?;
        Ok(())
    }

    /// Prefix lengths of live grants, and the one that knocks make.
    fn lengths_in_use<A: InGrants>(&mut self, now: u64) -> Result<BTreeSet<u8>>
    where
        GrantKey<A>: Pod,
    {
        let to_prefix = |gate: &config::Gate| gate.grant_to == GrantTo::Prefix;
        let mut lengths = BTreeSet::new();
        if self.config.gates.iter().any(to_prefix) {
            lengths.insert(A::PREFIX);
        }
        let grants = A::of(&mut self.grants);
        batch::for_each(data(grants), |key: &GrantKey<A>, grant: &Grant| {
            if grant.until > now && key.length != A::BITS {
                lengths.insert(key.length);
            }
        })?;
        Ok(lengths)
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

/// An address whose family has a table of grants.
trait InGrants: Address
where
    GrantKey<Self>: Pod,
{
    fn of(grants: &mut Grants) -> &mut HashMap<MapData, GrantKey<Self>, Grant>;
}

impl InGrants for V4 {
    fn of(grants: &mut Grants) -> &mut HashMap<MapData, GrantKey<Self>, Grant> {
        &mut grants.v4
    }
}

impl InGrants for V6 {
    fn of(grants: &mut Grants) -> &mut HashMap<MapData, GrantKey<Self>, Grant> {
        &mut grants.v6
    }
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
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).context("cannot use a kernel table"),
    }
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
