//! Loads the kernel program with tables made and filled for one configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::MapError,
    programs::{Program, ProgramError, ProgramFd},
};
use knock_common::{
    cursor::Cursor,
    knock::ring,
    layout::{LAYOUT, Meta},
    seed::Seed,
};

use super::{
    attachment::Attachment, entry::Entry, framing::Framing, native::Facts, pins::directory,
};
use crate::{
    config::{Attach, Config, OpenPorts, listening_ports},
    datapath::{
        chain,
        compile::{Contents, Settings, applied::Applied, compile, rejects},
        error::{NEEDS_TO_LOAD, NotPermitted, is_denied},
        host::HostState,
        tables::{self, Definition},
        write::HostTables,
    },
    sys::{
        bpf::{self, Hook},
        clock, kernel_version, links,
    },
    values::Port,
};

/// The program's entries by their names in the object, and in the kernel's list of programs: for Ethernet, for Ethernet
/// frames in several buffers, and for links without a header.
pub const ENTRIES: [&str; 3] = [
    Framing::Ethernet.entry(),
    "knockgate_frags",
    Framing::BareIp.entry(),
];

/// The entries of the TCX program.
pub const TCX_ENTRIES: [&str; 2] = [
    Entry::tcx(Framing::Ethernet).name(),
    Entry::tcx(Framing::BareIp).name(),
];

/// Returns the XDP entry for the Ethernet interfaces of `config`: the one for frames in several buffers where an interface
/// needs it and no gate rejects, since a reply is made from a frame in one piece. Neighbours decide it first.
fn ethernet_entry(applied: &Applied) -> &'static str {
    let [usual, frags, _] = ENTRIES;
    let config = &applied.config;
    let is_needed = || {
        let mut interfaces = config.interfaces.iter();
        !matches!(config.attach, Attach::Generic | Attach::Tcx)
            && can_take_frags(config)
            && interfaces.any(|name| Facts::read(name).needs_frags())
    };
    // Where neighbours keep a configuration out of force, that has been said before; here one comes into force without them.
    let wanted = chain::frags(applied).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        chain::frags_of_array(applied.circumstances.into.as_ref())
            .ok()
            .flatten()
    });
    let needed = wanted.unwrap_or_else(is_needed);
    if needed && rejects(config) {
        tracing::warn!("until then, denied packets get no reply");
    }
    if needed { frags } else { usual }
}

/// Returns whether the program of `config` may take frames in several buffers on this kernel.
pub fn can_take_frags(config: &Config) -> bool {
    kernel_version::is_at_least((5, 18)) && !rejects(config)
}

/// Returns the object of a hook's entries, as `cargo xtask build` has compiled it. Both have the same tables.
#[cfg(kernel_program)]
pub fn object(hook: Hook) -> Result<&'static [u8]> {
    Ok(match hook {
        Hook::Xdp => aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kernel_program")),
        Hook::Tcx => aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcx_program")),
    })
}

/// Returns a number that identifies this build of the kernel programs.
pub fn fingerprint() -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for hook in [Hook::Xdp, Hook::Tcx] {
        object(hook)?.hash(&mut hasher);
    }
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    Ok(hasher.finish())
}

#[cfg(not(kernel_program))]
pub fn object(_hook: Hook) -> Result<&'static [u8]> {
    Err(anyhow!(
        "this knockgate was built without its kernel program; build it with `cargo xtask build`"
    ))
}

/// What a set of tables begins with, beside the contents that follow from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// As in [`Meta`].
    pub since: u64,
    pub seed: Seed,
    pub generation: u32,
    /// Makes flow labels unpredictable.
    pub secret: u64,
    /// End of the trial, ns of `CLOCK_MONOTONIC`; 0: none.
    pub deadline: u64,
}

impl Origin {
    /// Returns the origin of an instance that comes up now.
    pub fn now(deadline: u64) -> Result<Self> {
        Ok(Self {
            since: clock::monotonic_now(),
            seed: Seed::new(random()?, random()?),
            generation: 0,
            secret: random()?,
            deadline,
        })
    }
}

/// Loads the program for `contents` into the kernel: tables made and filled, attached to nothing yet. Only these entries are
/// loaded, since verifying one takes most of the time; and of these the ones for XDP, as those for TCX have to be loaded onto
/// tables that are pinned ([`load_onto`]).
pub fn load(contents: &Contents, entries: &BTreeSet<Entry>, origin: Origin) -> Result<Ebpf> {
    let mut ebpf = make(Hook::Xdp, contents, origin, VerifierLogLevel::default())?;
    load_xdp_entries(&mut ebpf, &contents.applied, entries)?;
    Ok(ebpf)
}

fn load_xdp_entries(ebpf: &mut Ebpf, applied: &Applied, entries: &BTreeSet<Entry>) -> Result<()> {
    for entry in entries.iter().filter(|entry| entry.hook == Hook::Xdp) {
        load_into_kernel(ebpf, name_of(applied, *entry))?;
    }
    Ok(())
}

/// As [`load`], beside an instance whose tables are pinned in `directory` and which is attached as `attachments` says. The tables
/// for which `is_kept` holds are that instance's own; all others are made anew.
pub fn load_beside(
    directory: &Path,
    attachments: &[Attachment],
    is_kept: &dyn Fn(&Definition) -> bool,
    contents: &Contents,
    entries: &BTreeSet<Entry>,
    origin: Origin,
) -> Result<Ebpf> {
    let counts = contents.counts();
    let constants = Constants::of(&contents.settings, origin.seed);
    let mut loader = constants.loader(VerifierLogLevel::default());
    for table in tables::ALL {
        if is_kept(table) {
            loader.map_pin_path(table.name, directory.join(table.pin_name()));
        } else {
            let entries = u32::try_from(table.entries(&counts)).unwrap_or(u32::MAX);
            loader.map_max_entries(table.name, entries);
        }
    }
    let mut ebpf = loader.load(object(Hook::Xdp)?).map_err(not_loaded)?;
    fill(&ebpf, contents, origin, attachments)?;
    load_xdp_entries(&mut ebpf, &contents.applied, entries)?;
    Ok(ebpf)
}

/// Loads an entry onto the tables that are pinned in `directory`, which were made for `applied`.
pub fn load_onto(directory: &Path, applied: &Applied, entry: Entry) -> Result<Ebpf> {
    directory::require_whole(directory)?;
    let seed = directory::meta(directory)?.seed;
    let trial = applied.circumstances.trial.is_some();
    let constants = Constants::of(&Settings::of(&applied.config, trial)?, seed);
    let mut loader = constants.loader(VerifierLogLevel::default());
    for table in tables::ALL {
        loader.map_pin_path(table.name, directory.join(table.pin_name()));
    }
    let mut ebpf = loader.load(object(entry.hook)?).map_err(not_loaded)?;
    load_into_kernel(&mut ebpf, name_of(applied, entry))?;
    Ok(ebpf)
}

/// Loads the entry with this name alone, else as `load`. `seed`: of all hashes; `None`: a random one.
pub fn load_entry(config: &Config, name: &str, seed: Option<Seed>) -> Result<Ebpf> {
    let hook = if TCX_ENTRIES.contains(&name) {
        Hook::Tcx
    } else {
        Hook::Xdp
    };
    let mut origin = Origin::now(0)?;
    origin.seed = seed.unwrap_or(origin.seed);
    let contents = compile(config, None)?;
    let mut ebpf = make(hook, &contents, origin, VerifierLogLevel::default())?;
    load_into_kernel(&mut ebpf, name)?;
    Ok(ebpf)
}

/// Returns the name of an entry in its object.
fn name_of(applied: &Applied, entry: Entry) -> &'static str {
    if entry == Entry::xdp(Framing::Ethernet) {
        ethernet_entry(applied)
    } else {
        entry.name()
    }
}

fn load_into_kernel(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| anyhow!("the object has no program `{name}`"))?;
    let is_interrupted = |error: &ProgramError| match error {
        ProgramError::LoadError { io_error, .. } => bpf::is_interrupted(io_error),
        _ => false,
    };
    let loaded = match program {
        Program::Xdp(program) => bpf::load(|| program.load(), is_interrupted),
        Program::SchedClassifier(program) => bpf::load(|| program.load(), is_interrupted),
        _ => bail!("the object has another kind of program `{name}`"),
    };
    loaded.map_err(|error| match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => refused(io_error, &verifier_log.to_string()),
        error => anyhow!(error).context("cannot load the kernel program"),
    })
}

/// Makes and fills the tables for `config` with the object of a hook's entries, and loads none yet. `log`: what the verifier
/// is to say should it refuse one.
pub fn prepare(hook: Hook, config: &Config, log: VerifierLogLevel) -> Result<Ebpf> {
    let contents = compile(config, None)?;
    make(hook, &contents, Origin::now(0)?, log)
}

fn make(hook: Hook, contents: &Contents, origin: Origin, log: VerifierLogLevel) -> Result<Ebpf> {
    let counts = contents.counts();
    let constants = Constants::of(&contents.settings, origin.seed);
    let mut loader = constants.loader(log);
    for table in tables::ALL {
        let entries = u32::try_from(table.entries(&counts)).unwrap_or(u32::MAX);
        loader.map_max_entries(table.name, entries);
    }
    let ebpf = loader.load(object(hook)?).map_err(not_loaded)?;
    // What packets and commands change from here on.
    let mut lengths = tables::GRANT_LENGTHS.open(&ebpf)?;
    for (index, length) in (0..).zip(contents.grant_lengths) {
        lengths.set(index, length, 0)?;
    }
    tables::PROGRESS_CURSOR
        .open(&ebpf)?
        .set(0, Cursor::at(ring::FIRST), 0)?;
    fill(&ebpf, contents, origin, &[])?;
    Ok(ebpf)
}

/// The program's constants, by their names in the object.
struct Constants {
    words: [(&'static str, u32); 17],
    long_words: [(&'static str, u64); 3],
    seed: Seed,
}

impl Constants {
    fn of(settings: &Settings, seed: Seed) -> Self {
        let Settings {
            monitor,
            trial,
            has_allow,
            has_places,
            least_idle,
            rejects,
            has_fwknop,
            holds_knocks,
            guarded,
            grant_slots,
            session_slots,
            session_rows,
            grant_slot_mask,
            session_slot_mask,
            progress_slots,
            next_slot,
            window,
        } = *settings;
        let flag = u32::from;
        Self {
            words: [
                ("MONITOR", flag(monitor)),
                ("TRIAL", flag(trial)),
                ("HAS_ALLOW", flag(has_allow)),
                ("HAS_PLACES", flag(has_places)),
                ("GUARDED", guarded),
                ("TICK_BITS", tick_bits()),
                ("REJECTS", flag(rejects)),
                ("HAS_FWKNOP", flag(has_fwknop)),
                ("HOLDS_KNOCKS", flag(holds_knocks)),
                ("GRANT_SLOTS", grant_slots),
                ("SESSION_SLOTS", session_slots),
                ("SESSION_ROWS", session_rows),
                ("GRANT_SLOT_MASK", grant_slot_mask),
                ("SESSION_SLOT_MASK", session_slot_mask),
                ("PROGRESS_SLOTS", progress_slots),
                ("NEXT_SLOT", next_slot),
                ("TAKES_AUTHENTICATED", flag(window.is_some())),
            ],
            long_words: [
                ("LEAST_IDLE", least_idle),
                ("MAX_AGE", window.map_or(0, |window| window.max_age)),
                ("MAX_AHEAD", window.map_or(0, |window| window.max_ahead)),
            ],
            seed,
        }
    }

    /// Returns a loader that writes them into the object.
    fn loader(&self, log: VerifierLogLevel) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(log);
        for (name, value) in &self.words {
            loader.override_global(name, value, true);
        }
        for (name, value) in &self.long_words {
            loader.override_global(name, value, true);
        }
        loader.override_global("SEED", &self.seed, true);
        loader
    }
}

/// Fills the tables of an object that follow from the configuration and the host. `attachments`: of an instance that it is to
/// replace.
fn fill(
    ebpf: &Ebpf,
    contents: &Contents,
    origin: Origin,
    attachments: &[Attachment],
) -> Result<()> {
    let Origin {
        since,
        seed,
        generation,
        secret,
        deadline,
    } = origin;
    let config = &contents.applied.config;
    contents.fill(ebpf, &open_ports(config)?)?;
    let guarded = guarded(config, attachments);
    let host =
        HostState::read(config, &guarded, secret).context("cannot read this host's addresses")?;
    HostTables::open(ebpf)?.write(&host)?;
    tables::DEADLINE.open(ebpf)?.set(0, deadline, 0)?;
    let meta = Meta {
        layout: LAYOUT,
        config_length: u32::try_from(contents.config.len())?,
        since,
        seed,
        generation,
        zero: 0,
    };
    tables::META.open(ebpf)?.set(0, meta, 0)?;
    Ok(())
}

/// Returns the indices and present names of the interfaces that `config` guards: those that have its names, and those that the
/// program has stayed on when they were renamed.
fn guarded(config: &Config, attachments: &[Attachment]) -> Vec<(u32, String)> {
    let is_followed =
        |row: &&Attachment| row.is_attached() && config.interfaces.contains(&row.configured);
    let followed = attachments.iter().filter(is_followed);
    let followed = followed.filter_map(|row| Some((row.index?, row.name.clone())));
    let named = config.interfaces.iter();
    let named = named.filter_map(|name| Some((links::index_of(name)?, name.clone())));
    let guarded: BTreeMap<u32, String> = followed.chain(named).collect();
    guarded.into_iter().collect()
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| anyhow!("the system's random source failed: {error}"))
}

/// Returns the descriptor of an entry by its name, if it has been loaded.
pub fn loaded<'e>(ebpf: &'e Ebpf, name: &str) -> Option<&'e ProgramFd> {
    let fd = match ebpf.program(name)? {
        Program::Xdp(program) => program.fd(),
        Program::SchedClassifier(program) => program.fd(),
        _ => return None,
    };
    fd.ok()
}

/// Returns the binary logarithm of the kernel's timer ticks a second (`CONFIG_HZ`), to the nearest.
fn tick_bits() -> u32 {
    let hertz = 1_000_000_000 / clock::tick().clamp(1, 1_000_000_000);
    // The logarithm of the square is twice that of the number, so halving it rounds to the nearest.
    let square = hertz * hertz;
    square.ilog2().div_ceil(2)
}

/// Returns the ports on which a packet is no probe, protected and knock ports aside.
pub fn open_ports(config: &Config) -> Result<BTreeSet<Port>> {
    Ok(match &config.open_ports {
        OpenPorts::Auto => {
            listening_ports().context(
                "cannot ask the kernel which ports this host listens on, for which it needs inet_diag, tcp_diag and \
                 udp_diag; else list them: open_ports = [...]",
            )?
        }
        OpenPorts::List(ports) => ports.iter().copied().collect(),
    })
}

fn not_loaded(error: EbpfError) -> anyhow::Error {
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) if is_denied(io_error) => {
            denied()
        }
        _ => anyhow!(error).context("cannot make the kernel tables"),
    }
}

/// Returns the verifier's reason in a line; the log is shown where it is asked for.
fn refused(error: io::Error, log: &str) -> anyhow::Error {
    tracing::debug!("the verifier's log:\n{log}");
    if is_denied(&error) && log.trim().is_empty() {
        return denied();
    }
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    // The last lines are statistics; the one before them gives the reason.
    let statistics = ["processed ", "verification time ", "stack depth "];
    let why = lines
        .iter()
        .rev()
        .find(|line| !statistics.iter().any(|start| line.starts_with(start)))
        .map_or("no reason given", |line| line.trim());
    anyhow!(error).context(format!(
        "the kernel refuses the program: {why} ({} lines omitted; RUST_LOG=debug shows them)",
        lines.len().saturating_sub(1)
    ))
}

fn denied() -> anyhow::Error {
    NotPermitted {
        what: "to load a program into the kernel".into(),
        needs: NEEDS_TO_LOAD,
    }
    .into()
}
