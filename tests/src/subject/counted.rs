//! The program as it was compiled, run instruction by instruction on the tables of one that is loaded, and
//! counted.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::util::nr_cpus;
use aya_obj::{Object, generated::bpf_insn};
use ipnet::IpNet;
use knock_user::{config::Config, gate};

use super::{
    Flow, GrantSeen, Program, Subject, Tally, Verdict,
    program::{XDP_DROP, XDP_PASS, clock},
};
use crate::interpreter::{self, Memory, World};

/// Of `linux/bpf.h`: the commands for one entry of a table, the flag that changes an entry and never makes one,
/// and the type of a table with a value for each CPU.
const LOOK_UP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const DELETE: libc::c_int = 3;
const EXIST: u64 = 2;
const PER_CPU_ARRAY: u32 = 6;

/// A loaded program whose packets are judged by its object's instructions, on its own tables.
pub struct Counted {
    program: Program,
    code: Vec<bpf_insn>,
    tables: Vec<Table>,
    longest: BTreeMap<String, u64>,
}

/// One of the program's tables.
#[derive(Debug)]
struct Table {
    name: String,
    /// The kernel's; it lives as long as the program.
    descriptor: i32,
    /// Bytes of a key, and of a value as the kernel hands it out: of a table for each CPU, all of them.
    key: usize,
    value: usize,
}

impl Counted {
    /// As [`Program::load`].
    pub fn load(config: &Config) -> Option<Self> {
        let program = Program::load(config)?;
        let mut object = Object::parse(gate::object().expect("it was loaded")).expect("it was");
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
        // Each is known to the code by its place here.
        let numbered = tables.iter().zip(0..);
        let numbered = numbered.map(|(table, number)| (&*table.name, number, &maps[&table.name]));
        let text = object.functions.keys().map(|(section, _)| *section);
        let text = text.collect();
        object.relocate_maps(numbered, &text).expect("it was");
        object.relocate_calls(&text).expect("it was");
        let entry = object.programs["knockgate"].function_key();
        let code = object.functions[&entry].instructions.clone();
        Some(Self {
            program,
            code,
            tables,
            longest: BTreeMap::new(),
        })
    }

    /// The most instructions that a packet has taken, by what came of it: as [`Tally::since`] writes it, without
    /// gates.
    pub fn longest(&self) -> &BTreeMap<String, u64> {
        &self.longest
    }
}

impl Subject for Counted {
    fn judge(&mut self, frame: &[u8]) -> bool {
        let before = self.tally();
        let mut memory = Memory::default();
        let begin = memory.add(frame.to_vec());
        let end = begin + frame.len() as u64;
        // `struct xdp_md`: data, data_end, data_meta, then what this program doesn't ask for.
        let mut context = vec![0; 24];
        for (place, address) in [begin, end, begin].into_iter().enumerate() {
            let address = u32::try_from(address).expect("addresses of packets fit 32 bits");
            context[place * 4..][..4].copy_from_slice(&address.to_le_bytes());
        }
        let context = memory.add(context);
        let mut kernel = Kernel {
            tables: &self.tables,
            seen: HashMap::new(),
        };
        let run = interpreter::run(&self.code, &mut memory, &mut kernel, context);
        kernel.write_back(&mut memory);
        assert_eq!(
            memory.at(begin, frame.len()),
            frame,
            "the packet was changed"
        );
        let moved = self.tally().since(&before);
        let words = moved.split(' ').filter_map(|word| word.split('@').next());
        let words: Vec<&str> = words.collect();
        let longest = self.longest.entry(words.join(", ")).or_default();
        *longest = run.instructions.max(*longest);
        match u32::try_from(run.answer) {
            Ok(XDP_PASS) => true,
            Ok(XDP_DROP) => false,
            other => panic!("the program answered {other:?}, neither pass nor drop"),
        }
    }

    fn grain(&self) -> Duration {
        self.program.grain()
    }

    fn now(&self) -> u64 {
        self.program.now()
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

/// The helpers that the program calls, by the kernel's own tables. An entry that was looked up is one place in
/// memory until the program has run, and then written back.
struct Kernel<'t> {
    tables: &'t [Table],
    /// Where the entries are, and what was in them, by table and key.
    seen: HashMap<(usize, Vec<u8>), (u64, Vec<u8>)>,
}

impl World for Kernel<'_> {
    fn help(&mut self, memory: &mut Memory, helper: i32, arguments: [u64; 5]) -> u64 {
        let [first, key, value, flags, _] = arguments;
        let failed = |result: io::Result<()>| match result {
            Ok(()) => 0,
            Err(error) => i64::from(-error.raw_os_error().expect("the kernel's")).cast_unsigned(),
        };
        match helper {
            // bpf_map_lookup_elem
            1 => self.look_up(memory, number(first), key),
            // bpf_map_update_elem
            2 => {
                let table = self.table(first);
                let key = memory.at(key, table.key).to_vec();
                let value = memory.at(value, table.value).to_vec();
                self.changed(memory, number(first), &key, |table| {
                    failed(table.call(UPDATE, &key, &mut value.clone(), flags))
                })
            }
            // bpf_map_delete_elem
            3 => {
                let key = memory.at(key, self.table(first).key).to_vec();
                self.changed(memory, number(first), &key, |table| {
                    failed(table.call(DELETE, &key, &mut [], 0))
                })
            }
            // bpf_skc_lookup_tcp: this host has no socket for anybody. bpf_ringbuf_output: nobody reads it here.
            99 | 130 => 0,
            // bpf_jiffies64: ticks of any length, since any epoch.
            118 => clock() >> 22,
            // bpf_ktime_get_coarse_ns
            160 => clock(),
            other => panic!("helper {other} is not known here"),
        }
    }

    fn constants(&mut self, memory: &mut Memory, table: i32) -> u64 {
        let key = memory.add(vec![0; 4]);
        self.look_up(memory, table.try_into().expect("a number of a table"), key)
    }
}

impl Kernel<'_> {
    fn table(&self, first: u64) -> &Table {
        &self.tables[number(first)]
    }

    fn look_up(&mut self, memory: &mut Memory, number: usize, key: u64) -> u64 {
        let table = &self.tables[number];
        let key = memory.at(key, table.key).to_vec();
        if let Some((address, _)) = self.seen.get(&(number, key.clone())) {
            return *address;
        }
        let mut value = vec![0; table.value];
        if table.call(LOOK_UP, &key, &mut value, 0).is_err() {
            return 0;
        }
        let address = memory.add(value.clone());
        self.seen.insert((number, key), (address, value));
        address
    }

    /// Makes or removes an entry by itself: what is known of it is not so any more.
    fn changed(
        &mut self,
        memory: &mut Memory,
        number: usize,
        key: &[u8],
        change: impl Fn(&Table) -> u64,
    ) -> u64 {
        self.write_back(memory);
        self.seen.remove(&(number, key.to_vec()));
        change(&self.tables[number])
    }

    /// Writes what the program has changed in place.
    fn write_back(&mut self, memory: &mut Memory) {
        for ((number, key), (address, before)) in &mut self.seen {
            let now = memory.at(*address, before.len());
            if now != before.as_slice() {
                before.copy_from_slice(now);
                let table = &self.tables[*number];
                let written = table.call(UPDATE, key, before, EXIST);
                written.unwrap_or_else(|error| panic!("{}: {error}", table.name));
            }
        }
    }
}

impl Table {
    /// One of the system call's commands for an entry.
    fn call(
        &self,
        command: libc::c_int,
        key: &[u8],
        value: &mut [u8],
        flags: u64,
    ) -> io::Result<()> {
        /// The part of `union bpf_attr` that these commands read.
        #[repr(C)]
        struct Attributes {
            descriptor: u32,
            zero: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let attributes = Attributes {
            descriptor: self.descriptor.cast_unsigned(),
            zero: 0,
            key: key.as_ptr() as u64,
            // Where there is none, the kernel wants no address either.
            value: if value.is_empty() {
                0
            } else {
                value.as_mut_ptr() as u64
            },
            flags,
        };
        // SAFETY: key and value are as long as the table says, and outlive the call; deleting reads no value.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                &raw const attributes,
                size_of::<Attributes>(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// A table, by what stands in a register for it.
fn number(register: u64) -> usize {
    usize::try_from(register).expect("a number of a table")
}
