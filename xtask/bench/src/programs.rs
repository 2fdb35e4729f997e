//! Runs kernel programs: the bench's own, and knockgate's by its pin.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{SchedClassifier, TcAttachType, Xdp, links::LinkOrder, tc::TcAttachOptions},
    util::nr_cpus,
};
use aya_obj::programs::XdpAttachType;

use netlab::host::{cpus, keep_to};

use crate::{clock, figures::Slice, host::Host, keys::Message};

#[path = "../ebpf/src/terms.rs"]
pub mod terms;
#[path = "../ebpf/src/traffic.rs"]
mod traffic;

pub use traffic::{MOST_MESSAGES, Traffic};

// SAFETY: `repr(C)`, integers only, and no padding: words of four bytes, two of these in halves.
unsafe impl aya::Pod for Traffic {}

/// Frames in a batch: the default of the kernel and of drivers.
const BATCH: u32 = 64;

/// The array of the program that calls another one.
const CALLED: &str = "CALLED";

/// The bench's own programs, loaded.
pub struct Programs {
    /// The object that they were loaded from, to load programs with their own tables.
    pub object: PathBuf,
    /// Where they are pinned.
    pub folder: PathBuf,
    traffic: PerCpuArray<MapData, Traffic>,
    messages: Array<MapData, Message>,
    under_test: ProgramArray<MapData>,
    vary: Xdp,
    send: Xdp,
}

/// A program that does less than knockgate, for comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    Drop,
    Pass,
    Parse,
}

/// The same at TCX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloorAtTcx {
    Drop,
    Pass,
}

/// The kind of LRU lists of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// Lists that all CPUs share.
    Shared,
    /// Lists for each CPU (`BPF_F_NO_COMMON_LRU`), each with an equal share of the entries.
    Apart,
}

/// A table of sources. A key is the address in the frame's byte order, padded to the length of an IPv6 address and a
/// family.
pub type Memory = HashMap<MapData, [u64; 3], [u64; 16]>;

impl Programs {
    /// Loads them from the object that was built from `bench/ebpf`.
    pub fn load(host: &Host, object: &Path) -> Result<Self> {
        let mut ebpf =
            Ebpf::load_file(object).with_context(|| format!("cannot load {}", object.display()))?;
        let folder = host.pins("programs");
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, program) in ebpf.programs_mut() {
            // All but those for TCX, which not every kernel has.
            let Ok(program) = <&mut Xdp>::try_from(program) else {
                continue;
            };
            program
                .load()
                .with_context(|| format!("the kernel refuses the bench's own program {name}"))?;
            program.pin(folder.join(name))?;
        }
        let called = ebpf.map(CALLED).context("no array for the root")?;
        called.pin(folder.join(CALLED))?;
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .ok_or_else(|| anyhow!("{} has no table {name}", object.display()))
        };
        Ok(Self {
            traffic: map("TRAFFIC")?.try_into()?,
            messages: map("MESSAGES")?.try_into()?,
            under_test: map("UNDER_TEST")?.try_into()?,
            vary: pinned(&folder.join("vary"))?,
            send: pinned(&folder.join("send"))?,
            object: object.to_owned(),
            folder,
        })
    }

    pub fn floor(&self, floor: Floor) -> Result<Xdp> {
        pinned(&self.floor_pin(floor))
    }

    /// Returns where the program is pinned.
    pub fn floor_pin(&self, floor: Floor) -> PathBuf {
        self.folder.join(match floor {
            Floor::Drop => "bare_drop",
            Floor::Pass => "bare_pass",
            Floor::Parse => "parse_only",
        })
    }

    /// Attaches a floor to an interface at TCX, for as long as what is returned lives.
    pub fn floor_at_tcx(&self, host: &Host, interface: &str, floor: FloorAtTcx) -> Result<Ebpf> {
        let name = match floor {
            FloorAtTcx::Drop => "tcx_drop",
            FloorAtTcx::Pass => "tcx_pass",
        };
        let mut ebpf = Ebpf::load_file(&self.object)
            .with_context(|| format!("cannot load {}", self.object.display()))?;
        let program: &mut SchedClassifier = ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?
            .try_into()?;
        program.load()?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        host.inside(|| {
            program
                .attach_with_options(interface, TcAttachType::Ingress, options)
                .with_context(|| format!("cannot attach a program to {interface} at TCX"))
        })?;
        Ok(ebpf)
    }

    /// Returns the program that calls the one in an array.
    pub fn root(&self) -> Result<Xdp> {
        pinned(&self.folder.join("root"))
    }

    /// Returns where that array is pinned.
    pub fn called_pin(&self) -> PathBuf {
        self.folder.join(CALLED)
    }

    /// Loads the program that makes this many multiplications and drops.
    pub fn waiting(&self, turns: u32) -> Result<Xdp> {
        let mut ebpf = EbpfLoader::new()
            .override_global("TURNS", &turns, true)
            .load_file(&self.object)
            .with_context(|| format!("cannot load {}", self.object.display()))?;
        let program: &mut Xdp = ebpf
            .program_mut("wait")
            .context("no program wait")?
            .try_into()?;
        program.load()?;
        let path = self.folder.join(format!("wait_{turns}"));
        let _ = std::fs::remove_file(&path);
        program.pin(&path)?;
        pinned(&path)
    }

    /// Loads a program that stores sources. Returns it with its table, which has this size.
    pub fn memory(&self, lists: Lists, entries: u32) -> Result<(Xdp, Memory)> {
        let (name, map) = match lists {
            Lists::Shared => ("remember_shared", "SHARED"),
            Lists::Apart => ("remember_apart", "APART"),
        };
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(map, entries)
            .load_file(&self.object)
            .with_context(|| format!("cannot load {}", self.object.display()))?;
        let program: &mut Xdp = ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?
            .try_into()?;
        program.load()?;
        let path = self.folder.join(format!("{name}_{entries}"));
        let _ = std::fs::remove_file(&path);
        program.pin(&path)?;
        let table = ebpf
            .take_map(map)
            .with_context(|| format!("no table {map}"))?;
        Ok((pinned(&path)?, table.try_into()?))
    }

    /// Runs `program` on `count` frames of `traffic`, and advances `traffic`. Returns the thread's CPU time, ns.
    pub fn vary(
        &mut self,
        program: &Xdp,
        frame: &[u8],
        traffic: &mut Traffic,
        count: u32,
    ) -> Result<u64> {
        self.judge_by(program)?;
        self.set_traffic(|_| *traffic)?;
        let spent = on_one_cpu(|| run(&self.vary, frame, count))?;
        self.advance(traffic, count)?;
        Ok(spent)
    }

    /// Makes `vary` call this program.
    pub fn judge_by(&mut self, program: &Xdp) -> Result<()> {
        Ok(self.under_test.set(0, program.fd()?, 0)?)
    }

    /// Sets the traffic that `vary` and `send` make on each CPU, by its number.
    pub fn set_traffic(&mut self, of: impl Fn(u32) -> Traffic) -> Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let each: Vec<Traffic> = (0..u32::try_from(cpus)?).map(of).collect();
        Ok(self.traffic.set(0, PerCpuValues::try_from(each)?, 0)?)
    }

    /// Opens the program that makes traffic, for a thread of its own.
    pub fn varying(&self) -> Result<Xdp> {
        pinned(&self.folder.join("vary"))
    }

    /// Writes the messages that take turns in [`Traffic::messages`], [`MOST_MESSAGES`] at the most.
    pub fn set_messages(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<()> {
        for (index, message) in (0..).zip(messages) {
            self.messages.set(index, message, 0)?;
        }
        Ok(())
    }

    /// Sends `count` frames of `traffic`. They have been received when this returns, since the receiving side of a veth
    /// pair runs on the sender's thread.
    pub fn send(&mut self, frame: &[u8], traffic: &mut Traffic, count: u32) -> Result<()> {
        self.set_traffic(|_| *traffic)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH.min(count)),
            ..TestRunOptions::default()
        };
        on_one_cpu(|| self.send.test_run(options).context("cannot send frames"))?;
        self.advance(traffic, count)
    }

    fn advance(&self, traffic: &mut Traffic, count: u32) -> Result<()> {
        let after = traffic.packet.wrapping_add(count);
        let cpus = self.traffic.get(&0, 0)?;
        let ran = cpus.iter().find(|cpu| cpu.packet == after);
        *traffic =
            *ran.with_context(|| format!("{count} frames were asked for and others made"))?;
        Ok(())
    }
}

/// Does something without moving to another CPU, since each has traffic of its own.
fn on_one_cpu<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let allowed = cpus()?;
    let [first, _, ..] = allowed[..] else {
        return work();
    };
    keep_to(&[first])?;
    let result = work();
    keep_to(&allowed)?;
    result
}

/// Opens a pinned program.
pub fn pinned(path: &Path) -> Result<Xdp> {
    Xdp::from_pin(path, XdpAttachType::Interface)
        .with_context(|| format!("cannot open the program {}", path.display()))
}

/// Runs a program `repeat` times on one frame. Returns the thread's CPU time, ns.
pub fn run(program: &Xdp, frame: &[u8], repeat: u32) -> Result<u64> {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat,
        ..TestRunOptions::default()
    };
    let before = clock::thread();
    program.test_run(options).context("cannot run a program")?;
    Ok(clock::thread() - before)
}

/// Returns the time of one run, ns, from the times of a long series and of a quarter of it, in whose difference the
/// cost of the system call drops out.
pub fn slope(repeat: u32, measure: impl FnMut(u32) -> Result<u64>) -> Result<f64> {
    let Slice {
        short,
        long,
        packets,
    } = Slice::of(repeat, measure)?;
    Ok((long - short) / packets)
}
