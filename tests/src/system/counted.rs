//! The compiled program, run by an interpreter that counts instructions, on the tables of a loaded program.

mod kernel;
mod packet;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::util::nr_cpus;
use aya_obj::{Object, generated::bpf_insn};
use ipnet::IpNet;
use knock_common::seed::Seed;
use knock_user::{
    config::Config,
    datapath::{self, Framing, Hook},
};

use self::{
    kernel::{Kernel, Table},
    packet::{context, kind, taken},
};
use super::{
    Flow, GrantSeen, Program, SystemUnderTest, Tally, Verdict,
    program::{XDP_DROP, XDP_PASS, XDP_TX},
};
use crate::interpreter::{self, Memory};

/// `BPF_MAP_TYPE_PERCPU_ARRAY` of `linux/bpf.h`.
const PER_CPU_ARRAY: u32 = 6;

/// A loaded program whose packets are judged by interpreting its instructions.
pub struct Counted {
    program: Program,
    code: Vec<bpf_insn>,
    tables: Vec<Table>,
    longest: BTreeMap<String, u64>,
    /// How many packets it has judged.
    packets: u64,
    /// The reply to the last packet.
    answer: Option<Vec<u8>>,
}

impl Counted {
    /// As [`Program::load_seeded`], for Ethernet.
    pub fn load(config: &Config) -> Option<Self> {
        Self::load_for(config, Framing::Ethernet)
    }

    /// As [`Program::load_seeded`], with the same seed each time: how many instructions a look-up takes depends on which keys
    /// share a set.
    pub fn load_for(config: &Config, framing: Framing) -> Option<Self> {
        /// Any numbers.
        const SEED: Seed = Seed::new(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
        let program = Program::load_seeded(config, framing, SEED)?;
        let mut object =
            Object::parse(datapath::object(Hook::Xdp).expect("it was loaded")).expect("it was");
        let cpus = nr_cpus().expect("the kernel knows its CPUs");
        let mut tables = Vec::new();
        for (name, map) in &object.maps {
            let size = map.value_size() as usize;
            let per_cpu = map.map_type() == PER_CPU_ARRAY;
            tables.push(Table {
                name: name.clone(),
                descriptor: program.table_of(name).fd().as_fd().as_raw_fd(),
                key: map.key_size() as usize,
                value: if per_cpu {
                    size.next_multiple_of(8) * cpus
                } else {
                    size
                },
            });
        }
        let maps = object.maps.clone();
        // The code knows each table by its index here.
        let numbered = tables.iter().zip(0..);
        let numbered = numbered.map(|(table, number)| (&*table.name, number, &maps[&table.name]));
        let text = object.functions.keys().map(|(section, _)| *section);
        let text = text.collect();
        object.relocate_maps(numbered, &text).expect("it was");
        object.relocate_calls(&text).expect("it was");
        let entry = object.programs[framing.entry()].function_key();
        let code = object.functions[&entry].instructions.clone();
        Some(Self {
            program,
            code,
            tables,
            longest: BTreeMap::new(),
            packets: 0,
            answer: None,
        })
    }

    /// Returns the loaded program, which uses the same tables.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Returns the reply to the last packet.
    pub fn answer(&self) -> Option<&[u8]> {
        self.answer.as_deref()
    }

    /// Returns the most instructions that a packet has taken, by verdict and knock outcome: as [`Tally::since`] writes
    /// these, without gates; if a gate rejects, with the kind of reply.
    pub fn longest(&self) -> &BTreeMap<String, u64> {
        &self.longest
    }
}

impl SystemUnderTest for Counted {
    fn framing(&self) -> Framing {
        self.program.framing()
    }

    fn judge(&mut self, frame: &[u8]) -> bool {
        self.program.set_wall();
        let before = self.tally();
        self.packets += 1;
        let mut memory = Memory::default();
        let context = context(&mut memory, frame);
        let mut kernel = Kernel {
            tables: &self.tables,
            sockets: self.program.sockets(),
            packet: self.packets,
            seen: HashMap::new(),
        };
        let run = interpreter::run(&self.code, &mut memory, &mut kernel, context);
        kernel.write_back(&mut memory);
        let left = taken(&mut memory, context);
        let verdict = u32::try_from(run.answer).expect("an XDP verdict");
        match verdict {
            XDP_TX if self.program.rejects() => self.answer = Some(left),
            XDP_PASS | XDP_DROP => {
                assert_eq!(left, frame, "the packet was changed");
                self.answer = None;
            }
            other => panic!("the program answered {other}"),
        }
        let moved = self.tally().since(&before);
        let words = moved.split(' ').filter_map(|word| word.split('@').next());
        let mut words: Vec<&str> = words.collect();
        if self.program.rejects() && verdict != XDP_PASS {
            let network = match self.framing() {
                Framing::Ethernet => 14,
                Framing::BareIp => 0,
            };
            words.push(
                self.answer()
                    .map_or("unanswered", |answer| kind(answer, network)),
            );
        }
        let longest = self.longest.entry(words.join(", ")).or_default();
        *longest = run.instructions.max(*longest);
        verdict == XDP_PASS
    }

    fn grain(&self) -> Duration {
        self.program.grain()
    }

    fn now(&self) -> u64 {
        self.program.now()
    }

    fn slowed(&self) -> u32 {
        self.program.slowed()
    }

    fn wait(&mut self, time: Duration) {
        self.program.wait(time);
    }

    fn allow(&mut self, source: IpNet, gate: u16, length: Duration) -> bool {
        self.program.allow(source, gate, length)
    }

    fn revoke(&mut self, source: IpNet, gate: u16) {
        self.program.revoke(source, gate);
    }

    fn connect(&mut self, own: SocketAddr, peer: SocketAddr) {
        self.program.connect(own, peer);
    }

    fn counted(&self, verdict: Verdict) -> (u64, u64) {
        self.program.counted(verdict)
    }

    fn tally(&self) -> Tally {
        self.program.tally()
    }

    fn grants(&self) -> Vec<GrantSeen> {
        self.program.grants()
    }

    fn flows(&self) -> Vec<Flow> {
        self.program.flows()
    }

    fn forget(&mut self) {
        self.program.forget();
    }
}
