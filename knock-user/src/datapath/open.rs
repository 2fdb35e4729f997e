//! The datapath of an instance, opened from its pins.

use std::{
    cell::{OnceCell, RefCell},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use knock_common::{
    grant::Grant,
    knock::authenticated::key::NAME,
    layout::{CONFIG_CHUNK, LAYOUT, Meta},
    report::Budget,
    seed::Seed,
    session::{HolderCount, Session},
    set::Set,
    verdict::Counter,
};

use super::{
    compile::{Contents, applied::Applied, compile_as},
    edit::{
        grant_table::GrantTable,
        session_table::{RowsAndCounts, SessionTable},
    },
    error::{NotPermitted, NothingUp, other_version},
    install::{
        attachment::{self, Attachment},
        pins::{
            directory::{self, Directory, Holds, PROGRAMS},
            lock::{Busy, Lock, PATIENCE},
            root::PinRoot,
        },
    },
    keys::tables::KeyTables,
    origin::Origins,
    tables::{self, Access, Counts, PinDirectory, data},
    view::progress::ProgressTable,
    write::HostTables,
};
use crate::{
    config::Config,
    sys::bpf::{self, batch, mapping::Mapping},
};

/// The program's tables, with the configuration that they were made for.
///
/// Every table is opened with the sizes that this build knows, and refused where they differ. It stays open, so that a
/// command or service that has opened it once does not depend on the directory that it was opened from, which may be taken
/// down alone.
pub struct Datapath {
    pub applied: Applied,
    /// When it came up, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// How many configurations have been replaced in place since then.
    pub generation: u32,
    pub(super) seed: Seed,
    pub(super) root: PinRoot,
    pins: PinDirectory,
    pub(super) role: Array<MapData, u32>,
    pub(super) host: HostTables,
    /// The sources part-way through a sequence.
    pub progress: ProgressTable,
    pub(super) lengths: Array<MapData, u64>,
    pub(super) grants: Array<MapData, Grant>,
    grant_sets: Array<MapData, Set>,
    grant_filter: Array<MapData, u64>,
    /// These three, mapped when they are first looked up or changed.
    grant_table: OnceCell<GrantTable>,
    pub(super) sessions: Array<MapData, Session>,
    session_rows: Array<MapData, u64>,
    session_sets: Array<MapData, Set>,
    session_counts: Array<MapData, HolderCount>,
    /// These four, mapped when they are first looked up or changed.
    session_table: OnceCell<SessionTable>,
    pub(super) packets: PerCpuArray<MapData, Counter>,
    pub(super) knocks: PerCpuArray<MapData, u64>,
    pub(super) earlier_packets: Array<MapData, Counter>,
    pub(super) earlier_knocks: Array<MapData, u64>,
    pub(super) deadline: Array<MapData, u64>,
    /// `None`: opened for reading, for which they are not needed.
    pub(super) keys: Option<KeyTables>,
    pub(super) key_names: Array<MapData, [u8; NAME]>,
    pub(super) authenticated: PerCpuArray<MapData, u64>,
    pub(super) budget: PerCpuArray<MapData, Budget>,
    pub(super) fwknop_count: Array<MapData, u64>,
    pub(super) fwknop_overrun: PerCpuArray<MapData, u64>,
    /// What follows on Ethernet interfaces, and on others. While one is open, the kernel does not empty it, so that packets
    /// that are being judged by a program that is replaced go on as those before.
    pub(super) next: [OwnedFd; 2],
    contents: OnceCell<Contents>,
    /// The slot that a grant of another host has taken last.
    pub(super) spread: u64,
    origins: RefCell<Option<Origins>>,
}

/// Returns the configuration in force of the instance pinned in `directory`.
pub(super) fn applied(directory: &Path) -> Result<Applied> {
    let meta = directory::meta(directory)?;
    if meta.layout != LAYOUT {
        return Err(other_version(directory));
    }
    let pins = PinDirectory {
        path: directory.to_owned(),
        access: Access::Look,
    };
    read_applied(&pins, &meta)
}

fn read_applied(pins: &PinDirectory, meta: &Meta) -> Result<Applied> {
    let mut text = Vec::new();
    batch::for_each(
        data(&tables::CONFIG.open(pins)?),
        |_: &u32, chunk: &[u8; CONFIG_CHUNK]| text.extend_from_slice(chunk),
    )
    .context("cannot read the configuration in force")?;
    text.truncate(meta.config_length as usize);
    Applied::from_json(&text).map_err(|_| other_version(&pins.path))
}

/// Looks at pins without the lock. If that fails, looks once more while it holds the lock: a process that held it may have been
/// removing pins, one after the other.
pub(super) fn settled<T>(
    acquire: impl Fn() -> Result<Option<Lock>>,
    look: impl Fn() -> Result<T>,
) -> Result<T> {
    match look() {
        Err(error) if !error.is::<NothingUp>() && !error.is::<NotPermitted>() => {
            let _lock = acquire()?;
            look()
        }
        seen => seen,
    }
}

impl Datapath {
    /// Opens what is pinned under `root`, for those who hold its lock. Fails with [`NothingUp`] or [`NotPermitted`].
    pub fn open(root: &PinRoot) -> Result<Self> {
        Self::open_for(Access::Change, root)
    }

    /// As [`Datapath::open`], for those who do not hold the lock.
    pub fn open_unlocked(root: &PinRoot) -> Result<Self> {
        Self::open_settled(Access::Change, root)
    }

    /// As [`Datapath::open_unlocked`], to read alone: for those who may read the pins and not write them.
    pub fn look(root: &PinRoot) -> Result<Self> {
        Self::open_settled(Access::Look, root)
    }

    /// As [`Datapath::look`], but fails with [`Busy`] where it would wait for another process.
    pub fn look_at_once(root: &PinRoot) -> Result<Self> {
        settled(|| root.try_lock(), || Self::open_for(Access::Look, root))
    }

    /// As [`Datapath::open_unlocked`], for what has other things to do meanwhile: while another process has the pins locked, it
    /// sleeps.
    pub async fn open_unlocked_async(root: &PinRoot) -> Result<Self> {
        let begun = Instant::now();
        loop {
            let opened = settled(|| root.try_lock(), || Self::open_for(Access::Change, root));
            match opened {
                Err(error) if error.is::<Busy>() && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => return opened,
            }
        }
    }

    fn open_settled(access: Access, root: &PinRoot) -> Result<Self> {
        settled(|| root.lock_existing(), || Self::open_for(access, root))
    }

    fn open_for(access: Access, root: &PinRoot) -> Result<Self> {
        let directories = root.directories()?;
        let holding = |holds: &Holds| {
            let mut directories = directories.iter();
            directories.find(|directory| directory.holds == *holds)
        };
        // Somebody may have removed pins from another one.
        let is_whole =
            |of: &&Directory| of.holds == Holds::Instance && directory::is_whole(&of.path);
        let whole = directories.iter().find(is_whole);
        if let Some(Directory { path, .. }) = whole.or_else(|| holding(&Holds::Instance)) {
            let path = path.clone();
            Self::open_in(root, PinDirectory { path, access })
        } else if let Some(Directory { path, .. }) = holding(&Holds::OtherVersion) {
            Err(other_version(path))
        } else {
            Err(NothingUp.into())
        }
    }

    fn open_in(root: &PinRoot, pins: PinDirectory) -> Result<Self> {
        let meta = directory::meta(&pins.path)?;
        if meta.layout != LAYOUT {
            return Err(other_version(&pins.path));
        }
        let applied = read_applied(&pins, &meta)?;
        Self::with(root, pins, meta, applied)
    }

    /// Opens what this process has pinned in `directory`, with these contents.
    pub(super) fn open_new(
        root: &PinRoot,
        directory: PathBuf,
        contents: &Contents,
    ) -> Result<Self> {
        let pins = PinDirectory {
            path: directory,
            access: Access::Change,
        };
        let meta = directory::meta(&pins.path)?;
        let opened = Self::with(root, pins, meta, contents.applied.clone())?;
        Ok(Self {
            contents: OnceCell::from(contents.clone()),
            ..opened
        })
    }

    /// Returns whether it was opened to be changed too.
    pub(super) fn is_writable(&self) -> bool {
        self.pins.access == Access::Change
    }

    /// Returns the table of grants, to look keys up and to change it. Of tables that were opened for reading alone, it would be a
    /// copy that gets old.
    pub fn grant_table(&self) -> Result<&GrantTable> {
        if let Some(table) = self.grant_table.get() {
            return Ok(table);
        }
        let table = GrantTable::of(
            &self.grants,
            &self.grant_sets,
            Mapping::of(&self.grant_filter)?,
            self.seed,
        )?;
        Ok(self.grant_table.get_or_init(|| table))
    }

    /// Returns the table of sessions, to look flows up and to change it; see [`grant_table`](Self::grant_table).
    pub fn session_table(&self) -> Result<&SessionTable> {
        if let Some(table) = self.session_table.get() {
            return Ok(table);
        }
        let table = SessionTable::of(
            &self.sessions,
            &self.session_sets,
            RowsAndCounts {
                rows: Mapping::of(&self.session_rows)?,
                counts: Mapping::of(&self.session_counts)?,
            },
            self.seed,
        )?;
        Ok(self.session_table.get_or_init(|| table))
    }

    fn with(root: &PinRoot, pins: PinDirectory, meta: Meta, applied: Applied) -> Result<Self> {
        let Meta {
            layout: _,
            config_length: _,
            since,
            seed,
            generation,
            zero: _,
        } = meta;
        Ok(Self {
            applied,
            since,
            generation,
            seed,
            progress: ProgressTable {
                sets: tables::PROGRESS_SET.open(&pins)?,
                places: tables::PROGRESS.open(&pins)?,
                cursor: tables::PROGRESS_CURSOR.open(&pins)?,
            },
            lengths: tables::GRANT_LENGTHS.open(&pins)?,
            grants: tables::GRANT.open(&pins)?,
            grant_sets: tables::GRANT_SET.open(&pins)?,
            grant_filter: tables::GRANT_FILTER.open(&pins)?,
            grant_table: OnceCell::new(),
            sessions: tables::SESSION.open(&pins)?,
            session_rows: tables::SESSION_ROW.open(&pins)?,
            session_sets: tables::SESSION_SET.open(&pins)?,
            session_counts: tables::SESSION_COUNT.open(&pins)?,
            session_table: OnceCell::new(),
            packets: tables::PACKETS.open(&pins)?,
            knocks: tables::KNOCKS.open(&pins)?,
            earlier_packets: tables::EARLIER_PACKETS.open(&pins)?,
            earlier_knocks: tables::EARLIER_KNOCKS.open(&pins)?,
            deadline: tables::DEADLINE.open(&pins)?,
            keys: (pins.access == Access::Change)
                .then(|| KeyTables::open(&pins))
                .transpose()?,
            key_names: tables::KEY_NAME.open(&pins)?,
            authenticated: tables::AUTHENTICATED.open(&pins)?,
            budget: tables::BUDGET.open(&pins)?,
            fwknop_count: tables::FWKNOP_COUNT.open(&pins)?,
            fwknop_overrun: tables::FWKNOP_OVERRUN.open(&pins)?,
            next: [
                tables::NEXT.descriptor(&pins)?,
                tables::NEXT_IP.descriptor(&pins)?,
            ],
            root: root.clone(),
            role: tables::ROLE.open(&pins)?,
            host: HostTables::open(&pins)?,
            pins,
            contents: OnceCell::new(),
            spread: 0,
            origins: RefCell::default(),
        })
    }

    /// Returns under which root it is pinned.
    pub(super) fn root(&self) -> &PinRoot {
        &self.root
    }

    pub fn config(&self) -> &Config {
        &self.applied.config
    }

    /// Returns the contents of the configured tables, compiled when they are first asked for: they take a while where
    /// there are many sequences.
    pub fn contents(&self) -> Result<&Contents> {
        if let Some(contents) = self.contents.get() {
            return Ok(contents);
        }
        let contents = compile_as(
            self.config(),
            Some(&self.applied.ids),
            self.applied.circumstances.clone(),
        )?;
        Ok(self.contents.get_or_init(|| contents))
    }

    /// Opens the ring of events. It may have one reader at a time: the service, or else who holds the lock.
    pub fn events(&self) -> Result<RingBuf<MapData>> {
        tables::EVENTS.open(&self.pins)
    }

    /// Opens the ring of packets of fwknop's. It may have one reader at a time.
    pub fn fwknop_ring(&self) -> Result<RingBuf<MapData>> {
        tables::FWKNOP.open(&self.pins)
    }

    /// Opens the ring of knocks that wait for the fleet. It may have one reader at a time.
    pub fn held_ring(&self) -> Result<RingBuf<MapData>> {
        tables::HELD.open(&self.pins)
    }

    /// Returns where an entry of the program is pinned. All entries share one log.
    pub fn program_pin(&self) -> Option<PathBuf> {
        let mut pins = PROGRAMS.iter().map(|name| self.pins.path.join(name));
        pins.find(|pin| pin.exists())
    }

    /// Returns the tag of the program in the kernel, as bpftool shows it; `None` where no program is pinned.
    pub fn program_tag(&self) -> Result<Option<String>> {
        let Some(pin) = self.program_pin() else {
            return Ok(None);
        };
        let program =
            bpf::program(&pin).with_context(|| format!("cannot look at {}", pin.display()))?;
        Ok(program.map(|program| format!("{:016x}", u64::from_be_bytes(program.tag))))
    }

    /// Returns whether it is still pinned; `false` where it has been taken down since it was opened.
    pub fn is_pinned(&self) -> Result<bool> {
        Ok(!self.directories()?.is_empty())
    }

    /// Returns whether another instance has been pinned in its place.
    pub fn is_replaced(&self) -> Result<bool> {
        for directory in self.root.directories()? {
            if directory.holds == Holds::Instance && !self.is_pinned_in(&directory)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns a directory with all tables and programs, to pin them from again; `None` where there is none.
    pub(super) fn whole_directory(&self) -> Result<Option<PathBuf>> {
        let mut directories = self.directories()?.into_iter();
        Ok(directories
            .find(|directory| directory::is_whole(&directory.path))
            .map(|directory| directory.path))
    }

    /// Returns the id of the gate called `name`, or an error that names the gates that exist.
    pub fn require_gate(&self, name: &str) -> Result<u16> {
        self.applied.ids.gate(name).ok_or_else(|| {
            let gates = self.config().gates.iter();
            let names: Vec<&str> = gates.map(|gate| gate.name.as_str()).collect();
            anyhow!("no gate is called `{name}`; there is {}", names.join(", "))
        })
    }

    /// Returns how the program is attached to each configured interface, and to each that it has followed through a
    /// change of name.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        let into = self.applied.circumstances.into.as_ref();
        let config = self.config();
        attachment::attachments(&self.root, &config.interfaces, into, config.order)
    }

    /// Returns the directories in which it is pinned.
    pub(super) fn directories(&self) -> Result<Vec<Directory>> {
        let mut directories = Vec::new();
        for directory in self.root.directories()? {
            if directory.holds == Holds::Instance && self.is_pinned_in(&directory)? {
                directories.push(directory);
            }
        }
        Ok(directories)
    }

    fn is_pinned_in(&self, directory: &Directory) -> Result<bool> {
        let meta = directory::meta_if_there(&directory.path)?;
        Ok(meta.is_some_and(|meta| meta.since == self.since))
    }

    /// Returns the sizes of the tables that follow from the configuration. Those of counters may be larger.
    pub(super) fn counts(&self) -> Result<Counts> {
        Ok(self.contents()?.counts())
    }

    /// Returns the instance as it is now, if another configuration has replaced this one in place since it was opened. For those
    /// who hold the lock of its root.
    pub fn reopened(&self) -> Result<Option<Self>> {
        let Some(path) = self.successor()? else {
            return Ok(None);
        };
        let access = self.pins.access;
        Self::open_in(&self.root, PinDirectory { path, access }).map(Some)
    }

    /// Returns whether another configuration has replaced this one in place since it was opened.
    pub fn is_superseded(&self) -> Result<bool> {
        Ok(self.successor()?.is_some())
    }

    /// Returns a directory of the configuration that has replaced this one in place.
    fn successor(&self) -> Result<Option<PathBuf>> {
        for directory in self.directories()? {
            if directory::meta(&directory.path)?.generation != self.generation {
                return Ok(Some(directory.path));
            }
        }
        Ok(None)
    }

    /// Returns the name of a host of the fleet by its number in a grant; `None`: it is this one.
    pub(super) fn origin(&self, host: u32) -> Option<String> {
        if host == 0 {
            return None;
        }
        let mut origins = self.origins.borrow_mut();
        // Others may have come since it was read.
        if !origins.as_ref().is_some_and(|known| known.has(host)) {
            *origins = Some(Origins::load(&self.root));
        }
        origins.as_ref()?.name(host).map(ToOwned::to_owned)
    }

    /// Returns the number that makes flow labels unpredictable; 0 where no gate rejects.
    pub(super) fn secret(&self) -> Result<u64> {
        self.host.secret()
    }
}
