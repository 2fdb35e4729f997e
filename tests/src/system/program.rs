//! The program itself, loaded into the kernel and attached to no interface: `BPF_PROG_TEST_RUN` runs it on packets, and
//! its tables are read and changed by the functions of knockgate's commands.
//!
//! The kernel's clock cannot be set. To let time pass, every time in the tables is moved into the past instead, which
//! the program cannot tell from waiting. A moved time may lie before the boot: times wrap, and the program compares
//! them accordingly.
//!
//! Nor can that clock be stopped while a busy machine does other work between two packets. So the program runs
//! [slowed](SLOWED) down: a second of the test is ten minutes of the kernel's clock.

mod tables;
mod time;
mod under_test;

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp},
};
use knock_common::{
    address::{V4, V6},
    keys::ScopedAddress,
    reject::{Link, LinkKey, ReplySettings, address_kind},
    seed::Seed,
};
use knock_user::{
    config::{Config, Deny},
    datapath::{self, Datapath, ENTRIES, Framing, PinRoot, TCX_ENTRIES},
};
use netlab::{host::BPFFS, netns};

use self::time::{SLOWED, slowed};
pub use self::time::{clock, tai, tick};
use super::{SystemUnderTest as _, sockets::Sockets};
use crate::{keyring::EPOCH, need};

/// XDP actions, `xdp_action` of `linux/bpf.h`.
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
/// `TCX_NEXT`, `TCX_DROP` and `TCX_REDIRECT` of `linux/bpf.h`.
const TCX_NEXT: u32 = u32::MAX;
const TCX_DROP: u32 = 2;
const TCX_REDIRECT: u32 = 7;
/// Index of the loopback interface, on which packets of `BPF_PROG_TEST_RUN` arrive.
pub const LOOPBACK: u32 = 1;
/// The name of the directory of pins, in place of an interface.
const INTERFACE: &str = "none";

/// A loaded program with its tables. Dropping it unloads them.
pub struct Program {
    ebpf: Ebpf,
    framing: Framing,
    datapath: Datapath,
    /// By name.
    tables: BTreeMap<String, MapData>,
    /// How far the clock of this system is ahead of the kernel's, ns of the kernel's clock.
    ahead: u64,
    /// When everything was emptied, ns of the clock of this system, as the kernel counts.
    begun: u64,
    /// The reply to the last packet.
    answer: Option<Vec<u8>>,
    /// How many bytes of a frame are in its first buffer; `None`: all.
    first: Option<u32>,
    /// The host's sockets, if it has any.
    sockets: Option<Sockets>,
}

impl Program {
    /// Loads the program for `config` and Ethernet. Returns `None`, with a message, if this machine cannot (see
    /// [`need::met`]).
    pub fn load(config: &Config) -> Option<Self> {
        Self::load_for(config, Framing::Ethernet)
    }

    /// As [`Program::load`], with the entry for links of this kind.
    pub fn load_for(config: &Config, framing: Framing) -> Option<Self> {
        let mut program = Self::load_entry(config, framing.entry(), None)?;
        program.framing = framing;
        Some(program)
    }

    /// As [`Program::load_for`], with this seed of all hashes in place of a random one, so that chance decides nothing.
    pub fn load_seeded(config: &Config, framing: Framing, seed: Seed) -> Option<Self> {
        let mut program = Self::load_entry(config, framing.entry(), Some(seed))?;
        program.framing = framing;
        Some(program)
    }

    /// As [`Program::load_for`], with the entry for TCX. Its actions are shown as those of XDP.
    pub fn load_at_tcx(config: &Config, framing: Framing) -> Option<Self> {
        if !need::tcx() {
            return None;
        }
        let entry = match framing {
            Framing::Ethernet => TCX_ENTRIES[0],
            Framing::BareIp => TCX_ENTRIES[1],
        };
        let mut program = Self::load_entry(config, entry, None)?;
        program.framing = framing;
        Some(program)
    }

    /// Loads the program for frames in several buffers, and runs it on frames of which at most `first` bytes are in the
    /// first buffer. Needs Linux 6.18, and at least the Ethernet header in the first buffer.
    pub fn load_scattered(config: &Config, first: u32) -> Option<Self> {
        let mut program = Self::load_entry(config, ENTRIES[1], None)?;
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

    fn load_entry(config: &Config, entry: &str, seed: Option<Seed>) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !need::met(&[]) {
            return None;
        }
        netns::isolate_thread();
        let ebpf = datapath::load_entry(&slowed(config), entry, seed)
            .unwrap_or_else(|error| panic!("{error:#}"));
        let name = format!(
            "kg-oracle-{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let pins = PinRoot::new(Path::new(BPFFS).join(name));
        let opened = pin_and_open(&ebpf, &pins);
        // Open descriptors stay valid; without pins, nothing is left behind even if this process is killed.
        remove(&pins);
        let (datapath, tables) = opened.unwrap_or_else(|error| panic!("{error}"));
        let mut program = Self {
            ebpf,
            framing: Framing::Ethernet,
            datapath,
            tables,
            ahead: 0,
            begun: clock(),
            answer: None,
            first: None,
            sockets: None,
        };
        let mut local = program.table::<ScopedAddress, u32>("LOCAL_ADDRESS");
        local
            .insert(ScopedAddress::COMPLETE, address_kind::OWN, 0)
            .expect("there is room");
        local
            .insert(ScopedAddress::BRIDGED, address_kind::OWN, 0)
            .expect("there is room");
        for address in super::own() {
            program.lives_at(address);
        }
        Some(program)
    }

    /// Runs the program on a frame.
    fn test(&self, frame: &[u8], out: Option<&mut [u8]>) -> io::Result<TestRunResult> {
        let length = u32::try_from(frame.len()).expect("a frame is short");
        // `struct xdp_md`: data, its end, metadata, two interfaces and a queue.
        let context = self.first.map(|first| {
            [0, first.min(length), 0, 0, 0, 0]
                .map(u32::to_ne_bytes)
                .concat()
        });
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: out,
            ctx_in: context.as_deref(),
            ..TestRunOptions::default()
        };
        let result = match self.tcx() {
            Some(program) => program.test_run(options).map(as_of_xdp),
            None => self.xdp().test_run(options),
        };
        result.map_err(|error| io::Error::other(error.to_string()))
    }

    /// Runs the program on a frame that is merged of this many, with at most `size` bytes of payload each. For TCX.
    pub fn take_merged(&self, frame: &[u8], segments: u32, size: u32) {
        /// Bytes of `struct __sk_buff`, and where its `gso_segs` and `gso_size` are.
        const CONTEXT: usize = 192;
        const SEGMENTS: usize = 164;
        const SIZE: usize = 176;
        let mut context = [0; CONTEXT];
        context[SEGMENTS..][..4].copy_from_slice(&segments.to_ne_bytes());
        context[SIZE..][..4].copy_from_slice(&size.to_ne_bytes());
        let program = self.tcx().expect("the entry for TCX has been loaded");
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        });
        result.expect("the kernel takes it");
    }

    /// Runs the program on a frame, whatever becomes of it.
    pub fn take(&self, frame: &[u8]) {
        self.test(frame, None).expect("the kernel takes it");
    }

    /// Returns a table by its name in the object.
    pub fn table_of(&self, name: &str) -> &MapData {
        &self.tables[name]
    }

    /// Returns whether any of its gates rejects.
    pub fn rejects(&self) -> bool {
        let mut gates = self.datapath.config().gates.iter();
        gates.any(|gate| gate.deny == Deny::Reject)
    }

    /// Returns the program and the tables, to run the one while the others are changed.
    pub fn apart(&mut self) -> (&Xdp, &mut Datapath) {
        (xdp(&self.ebpf), &mut self.datapath)
    }

    /// Returns the tables, as commands open them.
    pub fn datapath_mut(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    pub fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    pub fn xdp(&self) -> &Xdp {
        xdp(&self.ebpf)
    }

    fn tcx(&self) -> Option<&SchedClassifier> {
        let entries = TCX_ENTRIES
            .iter()
            .filter_map(|name| self.ebpf.program(name));
        let mut entries = entries.filter_map(|program| program.try_into().ok());
        entries.find(|program: &&SchedClassifier| program.fd().is_ok())
    }

    /// Returns the reply to the last packet.
    pub fn answer(&self) -> Option<&[u8]> {
        self.answer.as_deref()
    }

    /// Adds an address of the host.
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

    /// Sets the MAC address of the interface on which all packets arrive, or of a VLAN on it.
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

    /// Sets how the host replies, in place of this machine's settings.
    pub fn answers_by(&mut self, settings: ReplySettings) {
        let map = self
            .ebpf
            .map_mut("REPLY_SETTINGS")
            .expect("a table of the program");
        let mut table: Array<_, ReplySettings> =
            map.try_into().expect("of the type that its layout says");
        table.set(0, settings, 0).expect("there is one");
    }

    /// Returns the host's sockets, if it has any.
    pub(super) const fn sockets(&self) -> Option<&Sockets> {
        self.sockets.as_ref()
    }

    /// Sets the host's clock, by which the times in authenticated knocks are judged: the kernel's own advances with the
    /// machine's, whatever the test has waited for.
    pub(super) fn set_wall(&mut self) {
        if self.datapath.config().knock.ports.is_empty() {
            return;
        }
        let wall = EPOCH + (clock() + self.ahead - self.begun);
        let map = self
            .ebpf
            .map_mut("CLOCK_OFFSET")
            .expect("a table of the program");
        let mut offset: Array<_, u64> = map.try_into().expect("of the type that its layout says");
        offset
            .set(0, tai().wrapping_sub(wall), 0)
            .expect("there is one");
    }

    /// Converts a time of the kernel into one of the test.
    fn shown(&self, time: u64) -> u64 {
        (time + self.ahead) / u64::from(SLOWED)
    }
}

/// Returns the entry for XDP that has been loaded.
fn xdp(ebpf: &Ebpf) -> &Xdp {
    let entries = ENTRIES.iter().filter_map(|name| ebpf.program(name));
    let mut entries = entries.filter_map(|program| <&Xdp>::try_from(program).ok());
    let loaded = entries.find(|program| program.fd().is_ok());
    loaded.expect("an entry has been loaded")
}

/// Replaces an action of TCX by that of XDP.
fn as_of_xdp(mut result: TestRunResult) -> TestRunResult {
    result.return_value = match result.return_value {
        TCX_NEXT => XDP_PASS,
        TCX_DROP => XDP_DROP,
        // A reply leaves by the interface that the packet came by.
        TCX_REDIRECT => XDP_TX,
        other => panic!("the program answered {other}"),
    };
    result
}

/// Pins every table, as `up` does, and opens them, as other commands do.
fn pin_and_open(
    ebpf: &Ebpf,
    pins: &PinRoot,
) -> Result<(Datapath, BTreeMap<String, MapData>), String> {
    let directory = pins.of(INTERFACE);
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let mut tables = BTreeMap::new();
    for (name, map) in ebpf.maps() {
        // bpffs refuses names that begin with a dot, as the table of constants' does.
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
    // A failure here must not hide that of a test.
    let _ = fs::remove_dir_all(pins.path());
}
