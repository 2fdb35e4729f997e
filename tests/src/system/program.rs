//! The program itself, loaded into the kernel and attached to nothing: packets are put through it by
//! `BPF_PROG_TEST_RUN`, and what it remembers is read and changed as knockgate's own commands do it.
//!
//! The kernel's clock cannot be set, so time is made to pass by moving every time that the tables hold into
//! the past, which the program cannot tell from waiting. A moved time may lie before the machine's boot: times
//! wrap, and the program compares them so that this makes no difference.
//!
//! Nor can that clock be stopped while a busy machine does something else between two packets. So the
//! program runs [slowed](SLOWED) down: what is a second for the test takes ten minutes of the kernel's clock.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, TestRunResult, Xdp},
    util::nr_cpus,
};
use ipnet::IpNet;
use knock_common::{
    address::{V4, V6},
    grant::{Grant, GrantKey},
    keys::ScopedAddress,
    knock::progress::{Progress, ProgressSet},
    reject::{Link, LinkKey, ReplySettings, address_kind},
    session,
    session::Session,
    time::TICK_SHIFT,
    verdict::Counter,
};
use knock_user::{
    config::{Config, Deny},
    datapath::{self, Datapath, ENTRIES, Framing, PinRoot},
};

use super::{Flow, GrantSeen, SystemUnderTest, Tally, Verdict, sockets::Sockets};
use netlab::{host::BPFFS, netns};

use crate::need;

/// XDP's answers, from the kernel's `xdp_action`.
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
/// Index of the loopback interface, by which the packets of `BPF_PROG_TEST_RUN` come.
pub const LOOPBACK: u32 = 1;
/// `BPF_EXIST` of `linux/bpf.h`: change an entry, never make one.
const EXIST: u64 = 2;
/// One unit of the test's time is so many of the kernel's, for each duration that is configured or waited for.
/// A delay of half a minute between two packets is then less than a [`SystemUnderTest::grain`].
const SLOWED: u32 = 600;
/// What the directory of pins is called in place of an interface.
const INTERFACE: &str = "none";

/// A loaded program with its tables, all of which go when this value goes.
pub struct Program {
    ebpf: Ebpf,
    framing: Framing,
    datapath: Datapath,
    /// By name.
    tables: BTreeMap<String, MapData>,
    /// By how much this gate's clock is ahead of the kernel's, ns of the kernel's.
    ahead: u64,
    /// What was sent back for the last packet.
    answer: Option<Vec<u8>>,
    /// So many bytes of a frame are in its first buffer.
    first: Option<u32>,
    /// The host's, once it has made any.
    sockets: Option<Sockets>,
}

impl Program {
    /// Loads the program for `config` and Ethernet, or says why this machine cannot (see [`need::met`]).
    pub fn load(config: &Config) -> Option<Self> {
        Self::load_for(config, Framing::Ethernet)
    }

    /// As [`Program::load`], the entry for links of this kind.
    pub fn load_for(config: &Config, framing: Framing) -> Option<Self> {
        let mut program = Self::load_entry(config, framing.entry())?;
        program.framing = framing;
        Some(program)
    }

    /// Loads the program for frames in several buffers, and hands it such: of each, no more than so many bytes
    /// are in the first buffer. (Since Linux 6.18; at least the Ethernet header has to be there.)
    pub fn load_scattered(config: &Config, first: u32) -> Option<Self> {
        let mut program = Self::load_entry(config, ENTRIES[1])?;
        program.first = Some(first);
        if program.test(&[0; 200], None).is_err() {
            eprintln!(
                "skipped; missing here: test runs with a short first buffer, as Linux 6.18 has"
            );
            return None;
        }
        program.forget();
        Some(program)
    }

    fn load_entry(config: &Config, entry: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !need::met(&[]) {
            return None;
        }
        netns::isolate_thread();
        let ebpf = datapath::load_entry(&slowed(config), entry)
            .unwrap_or_else(|error| panic!("{error:#}"));
        let name = format!(
            "kg-oracle-{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let pins = PinRoot::new(Path::new(BPFFS).join(name));
        let opened = pin_and_open(&ebpf, &pins);
        // What has been opened stays open; without pins, nothing is left even where this process is killed.
        remove(&pins);
        let (datapath, tables) = opened.unwrap_or_else(|error| panic!("{error}"));
        let mut program = Self {
            ebpf,
            framing: Framing::Ethernet,
            datapath,
            tables,
            ahead: 0,
            answer: None,
            first: None,
            sockets: None,
        };
        let mut local = program.table::<ScopedAddress, u32>("LOCAL_ADDRESS");
        local
            .insert(ScopedAddress::COMPLETE, address_kind::OWN, 0)
            .expect("there is room");
        for address in super::own() {
            program.lives_at(address);
        }
        Some(program)
    }

    /// Puts a frame through the program.
    fn test(&self, frame: &[u8], out: Option<&mut [u8]>) -> io::Result<TestRunResult> {
        let length = u32::try_from(frame.len()).expect("a frame is short");
        // `struct xdp_md`: where data, its end and metadata are, and two interfaces with a queue.
        let context = self.first.map(|first| {
            [0, first.min(length), 0, 0, 0, 0]
                .map(u32::to_ne_bytes)
                .concat()
        });
        let result = self.xdp().test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: out,
            ctx_in: context.as_deref(),
            ..TestRunOptions::default()
        });
        result.map_err(|error| io::Error::other(error.to_string()))
    }

    /// A table by its name in the object.
    pub fn table_of(&self, name: &str) -> &MapData {
        &self.tables[name]
    }

    /// Does any of its gates answer?
    pub fn rejects(&self) -> bool {
        let mut gates = self.datapath.config().gates.iter();
        gates.any(|gate| gate.deny == Deny::Reject)
    }

    /// The tables, as commands open them.
    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    pub fn xdp(&self) -> &Xdp {
        let entries = ENTRIES.iter().filter_map(|name| self.ebpf.program(name));
        let mut entries = entries.filter_map(|program| <&Xdp>::try_from(program).ok());
        let loaded = entries.find(|program| program.fd().is_ok());
        loaded.expect("an entry has been loaded")
    }

    /// What was sent back for the last packet.
    pub fn answer(&self) -> Option<&[u8]> {
        self.answer.as_deref()
    }

    /// Makes this an address of the host's.
    pub fn lives_at(&mut self, address: IpAddr) {
        let key = match address {
            IpAddr::V4(address) => ScopedAddress::new(V4::from(address)),
            IpAddr::V6(address) => ScopedAddress::new(V6::from(address)),
        };
        let mut table = self.table::<ScopedAddress, u32>("LOCAL_ADDRESS");
        table
            .insert(key, address_kind::OWN, 0)
            .expect("there is room");
    }

    /// Gives the interface by which all packets come, or the VLANs on it, a MAC address.
    pub fn listens_at(&mut self, vlans: [u16; 2], mac: [u8; 6]) {
        let key = LinkKey {
            interface: LOOPBACK,
            vlans,
        };
        let link = Link {
            mac,
            hop_limit: 64,
            partial: 0,
        };
        let mut table = self.table::<LinkKey, Link>("REPLY_LINK");
        table.insert(key, link, 0).expect("there is room");
    }

    /// Has it answer in these ways, whatever this machine's are.
    pub fn answers_by(&mut self, settings: ReplySettings) {
        let map = self
            .ebpf
            .map_mut("REPLY_SETTINGS")
            .expect("a table of the program");
        let mut table: Array<_, ReplySettings> =
            map.try_into().expect("of the type that its layout says");
        table.set(0, settings, 0).expect("there is one");
    }

    /// The host's sockets, once it has made any.
    pub(super) const fn sockets(&self) -> Option<&Sockets> {
        self.sockets.as_ref()
    }

    /// A time of the kernel's as one of the test's.
    fn shown(&self, time: u64) -> u64 {
        (time + self.ahead) / u64::from(SLOWED)
    }

    fn table<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.ebpf.map_mut(name).expect("a table of the program");
        map.try_into().expect("of the type that its layout says")
    }

    fn change<K: Pod, V: Pod>(&mut self, name: &str, change: impl Fn(&mut V)) {
        let mut table = self.table::<K, V>(name);
        let rows: Vec<(K, V)> = table
            .iter()
            .map(|row| row.expect("nobody evicts"))
            .collect();
        for (key, mut value) in rows {
            change(&mut value);
            table.insert(key, value, EXIST).expect("it was there");
        }
    }

    /// Returns the keys that were there.
    fn empty<K: Pod, V: Pod>(&mut self, name: &str) -> Vec<K> {
        let mut table = self.table::<K, V>(name);
        let keys: Vec<K> = table
            .keys()
            .map(|key| key.expect("nobody evicts"))
            .collect();
        for key in &keys {
            table.remove(key).expect("it was there");
        }
        keys
    }

    fn zero<V: Pod + Default>(&mut self, name: &str) {
        let map = self.ebpf.map_mut(name).expect("a table of the program");
        let mut counters: PerCpuArray<_, V> =
            map.try_into().expect("of the type that its layout says");
        let cpus = nr_cpus().expect("the kernel knows its CPUs");
        for index in 0..counters.len() {
            let zeroes = PerCpuValues::try_from(vec![V::default(); cpus]).expect("one for each");
            counters.set(index, zeroes, 0).expect("within the table");
        }
    }
}

impl SystemUnderTest for Program {
    fn framing(&self) -> Framing {
        self.framing
    }

    /// The program reads a clock that moves in ticks of up to 10 ms, and a busy machine may let some time
    /// pass between one look at the clock and the next: of the kernel's time, half a minute.
    fn grain(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn now(&self) -> u64 {
        self.shown(clock())
    }

    fn wait(&mut self, time: Duration) {
        // Whole units of a knock's time, so that moving rounds nothing.
        let ticks = nanoseconds(time * SLOWED).div_ceil(1 << TICK_SHIFT);
        let by = ticks << TICK_SHIFT;
        // An end that lies before the boot is as good as one at the boot. 0 has a meaning for a grant.
        let back_grant = |grant: &mut Grant| grant.until = grant.until.saturating_sub(by).max(1);
        let back_session = |session: &mut Session| {
            session.last = session.last.wrapping_sub(by);
            session.granted_until = session.granted_until.saturating_sub(by);
        };
        self.change::<GrantKey<V4>, _>("GRANT4", back_grant);
        self.change::<GrantKey<V6>, _>("GRANT6", back_grant);
        self.change::<session::Flow<V4>, _>("SESSION4", back_session);
        self.change::<session::Flow<V6>, _>("SESSION6", back_session);
        let ticks = u32::try_from(ticks).expect("tests wait for less than 52 days");
        let progress = self.datapath.progress.map().expect("the tables are there");
        for index in progress.used() {
            let mut row = progress.places.get(index);
            row.era = Progress::era_of(row.last().wrapping_sub(by));
            for step in &mut row.steps {
                step.time = step.time.wrapping_sub(ticks);
            }
            progress.places.set(index, row);
        }
        self.ahead += by;
    }

    fn judge(&mut self, frame: &[u8]) -> bool {
        // An answer may be longer than what it answers.
        let mut out = vec![0; frame.len() + 64];
        let mut test = || self.test(frame, Some(&mut out));
        // The packet comes by the loopback interface of the caller's namespace.
        let result = match &self.sockets {
            Some(sockets) => sockets.beside(&mut test),
            None => test(),
        }
        .expect("the kernel takes any frame of at least 14 bytes");
        out.truncate(result.data_size_out as usize);
        match result.return_value {
            XDP_TX if self.rejects() => {
                self.answer = Some(out);
                return false;
            }
            XDP_PASS | XDP_DROP => {}
            other => panic!("the program answered {other}"),
        }
        assert_eq!(out, frame, "the program changed the packet");
        self.answer = None;
        result.return_value == XDP_PASS
    }

    fn allow(&mut self, source: IpNet, gate: u16, length: Duration) -> bool {
        let now = clock();
        let until = now + nanoseconds(length * SLOWED);
        self.datapath
            .allow(source.addr(), source.prefix_len(), gate, until, now)
            .is_ok()
    }

    fn revoke(&mut self, source: IpNet, gate: u16) {
        self.datapath
            .revoke(source, Some(gate))
            .expect("the tables are there");
    }

    fn connect(&mut self, own: SocketAddr, peer: SocketAddr) {
        let sockets = self.sockets.get_or_insert_with(Sockets::none);
        sockets.connect(own, peer);
    }

    fn counted(&self, verdict: Verdict) -> (u64, u64) {
        let map = self.ebpf.map("PACKETS").expect("a table of the program");
        let counters: PerCpuArray<_, Counter> = map.try_into().expect("counters");
        let index = verdict.index().try_into().expect("few counters");
        let counters = counters.get(&index, 0).expect("within the table");
        counters.iter().fold((0, 0), |(packets, bytes), counter| {
            (packets + counter.packets, bytes + counter.bytes)
        })
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::of(self.datapath.config());
        for row in self.datapath.packets().expect("the tables are there") {
            let verdict = Verdict {
                reason: row.reason,
                gate: row.gate,
            };
            tally.packets[verdict.index()] = (row.packets, row.bytes);
        }
        let rows = self.datapath.knocks().expect("the tables are there");
        tally.knocks = rows.into_iter().map(|row| row.count).collect();
        tally
    }

    fn grants(&self) -> Vec<GrantSeen> {
        let rows = self.datapath.grants().expect("the tables are there");
        let mut seen: Vec<GrantSeen> = rows
            .into_iter()
            .map(|row| GrantSeen {
                gate: row.gate,
                source: row.source,
                until: self.shown(row.until),
                connections: row.connections,
                user: row.user,
            })
            .collect();
        seen.sort();
        seen
    }

    fn flows(&self) -> Vec<Flow> {
        let rows = self.datapath.sessions().expect("the tables are there");
        let mut flows: Vec<Flow> = rows
            .into_iter()
            .map(|row| Flow {
                gate: row.gate,
                protocol: row.protocol,
                source: row.source,
                destination: row.destination,
            })
            .collect();
        flows.sort();
        flows
    }

    fn forget(&mut self) {
        if let Some(sockets) = &mut self.sockets {
            sockets.close();
        }
        for key in self.empty::<GrantKey<V4>, Grant>("GRANT4") {
            self.datapath.grant_filter.count_out(&key);
        }
        for key in self.empty::<GrantKey<V6>, Grant>("GRANT6") {
            self.datapath.grant_filter.count_out(&key);
        }
        let mut counters = self.datapath.grant_filter.words().iter();
        assert!(
            counters.all(|word| word.load(Ordering::SeqCst) == 0),
            "a grant that has gone was still counted"
        );
        self.empty::<session::Flow<V4>, Session>("SESSION4");
        self.empty::<session::Flow<V6>, Session>("SESSION6");
        let progress = self.datapath.progress.map().expect("the tables are there");
        for (number, set) in progress.sets.iter().enumerate() {
            if set != ProgressSet::default() {
                progress.sets.set(number, ProgressSet::default());
            }
        }
        self.zero::<Counter>("PACKETS");
        self.zero::<u64>("KNOCKS");
    }
}

/// The same gates with every duration as long as the program is to take it for.
fn slowed(config: &Config) -> Config {
    let mut config = config.clone();
    for gate in &mut config.gates {
        gate.open_for *= SLOWED;
        gate.session_idle *= SLOWED;
        for knock in &mut gate.knocks {
            knock.within *= SLOWED;
        }
    }
    config
}

/// Pins every table, as `up` does, and opens them, as every command does that looks at a gate.
fn pin_and_open(
    ebpf: &Ebpf,
    pins: &PinRoot,
) -> Result<(Datapath, BTreeMap<String, MapData>), String> {
    let directory = pins.of(INTERFACE);
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let mut tables = BTreeMap::new();
    for (name, map) in ebpf.maps() {
        // The file system takes no name that begins with a dot, as that of the constants does.
        let path = directory.join(name.trim_start_matches('.').to_lowercase());
        let pinned = map.pin(&path);
        pinned.map_err(|error| format!("cannot pin {name}: {error}"))?;
        let opened = MapData::from_pin(&path);
        let opened = opened.map_err(|error| format!("cannot open {name}: {error}"))?;
        tables.insert(name.to_owned(), opened);
    }
    let datapath = Datapath::open(pins).map_err(|error| format!("{error:#}"))?;
    Ok((datapath, tables))
}

fn remove(pins: &PinRoot) {
    // What stays is seen in the next listing; the test's own failure must not be hidden by this one.
    let _ = fs::remove_dir_all(pins.path());
}

/// ns of the clock that the program reads.
pub fn clock() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the structure; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("tests wait for less than 500 years")
}
