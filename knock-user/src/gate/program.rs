//! Loading the kernel program with its tables made for one configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfError, EbpfLoader, Pod, VerifierLogLevel,
    maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
    programs::{ProgramError, Xdp},
};
use bytemuck::Zeroable as _;
use ipnet::IpNet;
use knock_common::{
    Address,
    address::{V4, V6},
    cursor,
    cursor::Cursor,
    grant::filter,
    keys::ScopedAddress,
    knock::automaton::Transition,
    knock::ring,
    layout::{CONFIG_CHUNK, LAYOUT, Meta},
    reject::{Link, LinkKey},
    rules::{GateRules, Role},
    seed::Seed,
};

use super::{
    Automaton, NEEDS_TO_LOAD, NotPermitted,
    answering::{self, Surroundings},
    framing::Framing,
    interface, is_denied, kernel_version, memory,
    native::Facts,
    rows::monotonic_now,
    tables::{meta, pin_name},
};
use crate::config::{
    self, Attach, Config, Deny, Established, GrantTo, Mode, OpenPorts, Port, Protocol,
    listening_ports,
};

/// The program's entries by their names in the object, and in the kernel's list of programs: the usual one, and
/// the one that takes frames in several buffers.
pub const ENTRIES: [&str; 3] = [
    Framing::Ethernet.entry(),
    "knockgate_frags",
    Framing::BareIp.entry(),
];

/// The entry for the interfaces of `config`: the second where one of them needs it. A gate that answers needs
/// every frame in one piece.
pub fn entry(config: &Config) -> &'static str {
    let [usual, frags, _] = ENTRIES;
    let needed = config.attach != Attach::Generic
        && can_take_frags(config)
        && config
            .interfaces
            .iter()
            .any(|name| Facts::read(name).needs_frags());
    if needed { frags } else { usual }
}

/// May a program take frames in several buffers on this kernel, and where no gate answers?
pub fn can_take_frags(config: &Config) -> bool {
    kernel_version::is_at_least(5, 18) && !answering::rejects(config)
}

/// The kernel program, as `cargo xtask build` compiled it.
#[cfg(kernel_program)]
pub fn object() -> Result<&'static [u8]> {
    Ok(aya::include_bytes_aligned!(concat!(
        env!("OUT_DIR"),
        "/kernel_program"
    )))
}

#[cfg(not(kernel_program))]
pub fn object() -> Result<&'static [u8]> {
    Err(anyhow!(
        "this knockgate was built without its kernel program; build it with `cargo xtask build`"
    ))
}

/// Loads the program for `config` into the kernel: tables made and filled, attached to nothing yet. Of the entries
/// only those that read these framings, since verifying one takes most of the time.
pub fn load(config: &Config, framings: &BTreeSet<Framing>) -> Result<Ebpf> {
    let mut ebpf = prepare(config, VerifierLogLevel::default())?;
    for framing in framings {
        load_into_kernel(&mut ebpf, entry_for(config, *framing))?;
    }
    Ok(ebpf)
}

/// Loads the entry for `framing` onto the tables that are pinned in `directory`, which were made for `config`.
pub fn load_onto(directory: &Path, config: &Config, framing: Framing) -> Result<Ebpf> {
    let entry = entry_for(config, framing);
    let constants = Constants::of(config, meta(directory)?.seed)?;
    let mut loader = constants.loader(VerifierLogLevel::default());
    for table in memory::shapes() {
        loader.map_pin_path(table.name, directory.join(pin_name(table.name)));
    }
    let mut ebpf = loader.load(object()?).map_err(not_loaded)?;
    load_into_kernel(&mut ebpf, entry)?;
    Ok(ebpf)
}

/// As [`load`], of the entry with this name alone.
pub fn load_entry(config: &Config, name: &str) -> Result<Ebpf> {
    let mut ebpf = prepare(config, VerifierLogLevel::default())?;
    load_into_kernel(&mut ebpf, name)?;
    Ok(ebpf)
}

/// Name of the entry for interfaces of this framing.
fn entry_for(config: &Config, framing: Framing) -> &'static str {
    match framing {
        Framing::Ethernet => entry(config),
        Framing::BareIp => framing.entry(),
    }
}

fn load_into_kernel(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| anyhow!("the object has no program `{name}`"))?;
    let program: &mut Xdp = program.try_into()?;
    program.load().map_err(|error| match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => refused(io_error, &verifier_log.to_string()),
        error => anyhow!(error).context("cannot load the kernel program"),
    })
}

/// Makes and fills the tables for `config`. What is left is to load the program; should the verifier refuse
/// it, it says as much as `log` asks for.
pub fn prepare(config: &Config, log: VerifierLogLevel) -> Result<Ebpf> {
    let automaton = Automaton::compile(config)?;
    let applied = serde_json::to_vec(config).context("cannot write down the configuration")?;
    let seed = seed()?;
    let constants = Constants::of(config, seed)?;
    let mut loader = constants.loader(log);
    for table in memory::sizes(config, &automaton, applied.len()) {
        let entries = u32::try_from(table.entries).unwrap_or(u32::MAX);
        loader.map_max_entries(table.name, entries);
    }
    let mut ebpf = loader.load(object()?).map_err(not_loaded)?;
    Tables(&mut ebpf).fill(config, &automaton, &applied, seed)?;
    Ok(ebpf)
}

/// The program's constants for one configuration, by their names in the object.
struct Constants {
    words: [(&'static str, u32); 9],
    seed: Seed,
}

impl Constants {
    fn of(config: &Config, seed: Seed) -> Result<Self> {
        let limits = config.limits;
        let flag = u32::from;
        let grant_filter_mask = u32::try_from(filter::words(limits.grants as usize) - 1)?;
        let progress_slots = u32::try_from(ring::slots(limits.sources as usize))?;
        let words = [
            ("MONITOR", flag(config.mode == Mode::Monitor)),
            ("HAS_ALLOW", flag(!config.allow.is_empty())),
            ("HAS_GUARDED_ADDRESSES", flag(!config.addresses.is_empty())),
            ("TICK_BITS", tick_bits()),
            ("REJECTS", flag(answering::rejects(config))),
            ("GRANT_SLOTS", limits.grants),
            ("SESSION_SLOTS", limits.sessions),
            ("GRANT_FILTER_MASK", grant_filter_mask),
            ("PROGRESS_SLOTS", progress_slots),
        ];
        Ok(Self { words, seed })
    }

    /// A loader that puts them into the object.
    fn loader(&self, log: VerifierLogLevel) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(log);
        for (name, value) in &self.words {
            loader.override_global(name, value, true);
        }
        loader.override_global("SEED", &self.seed, true);
        loader
    }
}

fn seed() -> Result<Seed> {
    let draw =
        || getrandom::u64().map_err(|error| anyhow!("the system's random source failed: {error}"));
    Ok(Seed::new(draw()?, draw()?))
}

/// An entry by its name, if it has been loaded.
pub fn loaded<'e>(ebpf: &'e mut Ebpf, name: &str) -> Option<&'e mut Xdp> {
    let program: &mut Xdp = ebpf.program_mut(name)?.try_into().ok()?;
    program.fd().is_ok().then_some(program)
}

/// Binary logarithm of the kernel's timer ticks a second (`CONFIG_HZ`), to the nearest. The coarse clocks move
/// by a tick, and their resolution says so.
fn tick_bits() -> u32 {
    let hertz = 1_000_000_000 / answering::tick().clamp(1, 1_000_000_000);
    // The square doubles the logarithm, so that the half of it rounds.
    let square = hertz * hertz;
    square.ilog2().div_ceil(2)
}

/// Ports on which a packet is no probe, protected and knock ports aside.
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

/// The role table's non-empty entries.
pub fn roles(config: &Config, automaton: &Automaton, open: &BTreeSet<Port>) -> BTreeMap<u32, u32> {
    let mut roles = BTreeMap::new();
    let mut put = |port: Port, role: Role| {
        let udp = port.protocol == Protocol::Udp;
        roles.insert(Role::index(udp, port.number), role.pack());
    };
    // Later ones win: a port that something listens on may well be a knock port.
    for port in open {
        put(*port, Role::Open);
    }
    for (port, symbol) in automaton.symbols.iter().zip(0_u16..) {
        let starts = usize::from(symbol) < automaton.starts;
        put(*port, Role::Knock { symbol, starts });
    }
    for (gate, index) in config.gates.iter().zip(0_u16..) {
        for port in &gate.protect {
            put(*port, Role::Protected { gate: index });
        }
    }
    roles
}

/// The tables of an object that is about to be loaded.
struct Tables<'e>(&'e mut Ebpf);

impl Tables<'_> {
    fn fill(
        &mut self,
        config: &Config,
        automaton: &Automaton,
        applied: &[u8],
        seed: Seed,
    ) -> Result<()> {
        self.gates(config)?;
        self.array("SEQUENCE", automaton.sequences.iter().copied())?;
        self.array("STATE", automaton.states.iter().copied())?;
        let mut transitions = self.hash::<Transition, u32>("TRANSITION")?;
        for (transition, next) in &automaton.transitions {
            transitions.insert(transition, next, 0)?;
        }
        let open = open_ports(config)?;
        let mut table: Array<_, u32> = self.table("ROLE")?;
        for (index, role) in roles(config, automaton, &open) {
            table.set(index, role, 0)?;
        }
        let mut cursors: Array<_, Cursor> = self.table("CURSOR")?;
        cursors.set(cursor::SOURCES, Cursor::at(ring::FIRST), 0)?;
        self.networks(config)?;
        self.lengths(config)?;
        self.answers(config)?;
        let chunks = applied.chunks(CONFIG_CHUNK).map(|part| {
            let mut chunk = [0; CONFIG_CHUNK];
            chunk[..part.len()].copy_from_slice(part);
            chunk
        });
        self.array("CONFIG", chunks)?;
        let meta = Meta {
            layout: LAYOUT,
            config_length: u32::try_from(applied.len())?,
            since: monotonic_now(),
            seed,
        };
        self.array("META", std::iter::once(meta))
    }

    fn gates(&mut self, config: &Config) -> Result<()> {
        self.array("GATE", config.gates.iter().map(gate_rules))
    }

    fn answers(&mut self, config: &Config) -> Result<()> {
        let guarded: Vec<_> = config
            .interfaces
            .iter()
            .filter_map(|name| Some((interface::find(name)?, name.clone())))
            .collect();
        let host = Surroundings::read(config, &guarded, answering::secret()?)
            .context("cannot read this host's addresses")?;
        self.array("REPLY_SETTINGS", host.settings.into_iter())?;
        let mut links = self.hash::<LinkKey, Link>("REPLY_LINK")?;
        for (key, link) in host.link_rows() {
            links.insert(key, link, 0)?;
        }
        let mut addresses = self.hash::<ScopedAddress, u32>("LOCAL_ADDRESS")?;
        for (address, standing) in host.address_rows() {
            addresses.insert(address, standing, 0)?;
        }
        Ok(())
    }

    fn networks(&mut self, config: &Config) -> Result<()> {
        let mut allow: LpmTrie<_, ScopedAddress, u32> = self.table("ALLOW")?;
        for network in &config.allow {
            allow.insert(&network_key(*network, None), 1, 0)?;
        }
        let mut knockers: LpmTrie<_, ScopedAddress, u32> = self.table("KNOCKER")?;
        for (gate, index) in config.gates.iter().zip(0_u16..) {
            for network in &gate.sources {
                knockers.insert(&network_key(*network, Some(index)), 1, 0)?;
            }
        }
        let mut addresses = self.hash::<ScopedAddress, u32>("GUARDED_ADDRESS")?;
        for address in &config.addresses {
            let key = match address {
                IpAddr::V4(address) => ScopedAddress::new(V4::from(*address)),
                IpAddr::V6(address) => ScopedAddress::new(V6::from(*address)),
            };
            addresses.insert(key, 1_u32, 0)?;
        }
        Ok(())
    }

    fn lengths(&mut self, config: &Config) -> Result<()> {
        let to_prefix = |gate: &config::Gate| gate.grant_to == GrantTo::Prefix;
        if config.gates.iter().any(to_prefix) {
            let prefixes = [V4::PREFIX, V6::PREFIX];
            self.array("GRANT_LENGTHS", prefixes.into_iter().map(u64::from))?;
        }
        Ok(())
    }

    fn array<V: Pod>(&mut self, name: &str, values: impl Iterator<Item = V>) -> Result<()> {
        let mut array: Array<_, V> = self.table(name)?;
        for (value, index) in values.zip(0_u32..) {
            array
                .set(index, value, 0)
                .with_context(|| format!("cannot fill the table {name}"))?;
        }
        Ok(())
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        self.table(name)
    }

    fn table<'m, T>(&'m mut self, name: &str) -> Result<T>
    where
        T: TryFrom<&'m mut aya::maps::Map, Error = MapError>,
    {
        let map = self
            .0
            .map_mut(name)
            .ok_or_else(|| anyhow!("the object has no table {name}"))?;
        T::try_from(map).with_context(|| format!("the table {name} is of another kind"))
    }
}

/// A network as key of the LPM tables, scoped to a gate or not.
pub fn network_key(network: IpNet, gate: Option<u16>) -> Key<ScopedAddress> {
    fn of<A: Address>(address: A, gate: Option<u16>) -> ScopedAddress {
        match gate {
            Some(gate) => ScopedAddress::of_gate(address, gate),
            None => ScopedAddress::new(address),
        }
    }
    let data = match network.network() {
        IpAddr::V4(address) => of(V4::from(address), gate),
        IpAddr::V6(address) => of(V6::from(address), gate),
    };
    debug_assert_ne!(data, ScopedAddress::zeroed(), "the family is never zero");
    Key::new(
        ScopedAddress::HEAD_BITS + u32::from(network.prefix_len()),
        data,
    )
}

fn not_loaded(error: EbpfError) -> anyhow::Error {
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) if is_denied(io_error) => {
            denied()
        }
        _ => anyhow!(error).context("cannot make the kernel tables"),
    }
}

/// The verifier's word in a line; the rest only where it was asked for.
fn refused(error: io::Error, log: &str) -> anyhow::Error {
    tracing::debug!("the verifier's log:\n{log}");
    if is_denied(&error) && log.trim().is_empty() {
        return denied();
    }
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    // The last lines are statistics; the one before them says why.
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

/// What a gate asks for, as the kernel's table holds it.
pub fn gate_rules(gate: &config::Gate) -> GateRules {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let config::Gate {
        name: _,
        protect: _,
        open_for,
        session_idle,
        established,
        connections,
        grant_to,
        deny,
        sources,
        knocks: _,
    } = gate;
    GateRules {
        open_for: nanoseconds(*open_for),
        session_idle: nanoseconds(*session_idle),
        connections: *connections,
        to_prefix: u8::from(*grant_to == GrantTo::Prefix),
        restricted: u8::from(!sources.is_empty()),
        cut: u8::from(*established == Established::Cut),
        reject: u8::from(*deny == Deny::Reject),
    }
}
