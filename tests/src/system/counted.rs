//! The program as it was compiled, run instruction by instruction on the tables of one that is loaded, and
//! counted.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use aya::util::nr_cpus;
use aya_obj::{Object, generated::bpf_insn};
use ipnet::IpNet;
use knock_user::{
    config::Config,
    datapath::{self, Framing},
};

use super::{
    Flow, GrantSeen, Program, SystemUnderTest, Tally, Verdict,
    program::{LOOPBACK, XDP_DROP, XDP_PASS, XDP_TX, clock},
    sockets::Sockets,
};
use crate::interpreter::{self, Memory, World};

/// Of `linux/bpf.h`: the commands for one entry of a table, the flag that changes an entry and never makes one,
/// and the type of a table with a value for each CPU.
const LOOK_UP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const DELETE: libc::c_int = 3;
const EXIST: u64 = 2;
const PER_CPU_ARRAY: u32 = 6;

/// The room before a packet (`XDP_PACKET_HEADROOM`), and the shortest that one can be made (`ETH_HLEN`).
const ROOM: usize = 256;
const SHORTEST: usize = 14;

/// A loaded program whose packets are judged by its object's instructions, on its own tables.
pub struct Counted {
    program: Program,
    code: Vec<bpf_insn>,
    tables: Vec<Table>,
    longest: BTreeMap<String, u64>,
    /// What was sent back for the last packet.
    answer: Option<Vec<u8>>,
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
        Self::load_for(config, Framing::Ethernet)
    }

    /// As [`Program::load_for`].
    pub fn load_for(config: &Config, framing: Framing) -> Option<Self> {
        let program = Program::load_for(config, framing)?;
        let mut object = Object::parse(datapath::object().expect("it was loaded")).expect("it was");
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
        let entry = object.programs[framing.entry()].function_key();
        let code = object.functions[&entry].instructions.clone();
        Some(Self {
            program,
            code,
            tables,
            longest: BTreeMap::new(),
            answer: None,
        })
    }

    /// The loaded program, which decides for itself, on the same tables.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// What was sent back for the last packet.
    pub fn answer(&self) -> Option<&[u8]> {
        self.answer.as_deref()
    }

    /// The most instructions that a packet has taken, by what came of it: as [`Tally::since`] writes it, without
    /// gates; and where one rejects, with what was answered.
    pub fn longest(&self) -> &BTreeMap<String, u64> {
        &self.longest
    }
}

impl SystemUnderTest for Counted {
    fn framing(&self) -> Framing {
        self.program.framing()
    }

    fn judge(&mut self, frame: &[u8]) -> bool {
        let before = self.tally();
        let mut memory = Memory::default();
        let context = context(&mut memory, frame);
        let mut kernel = Kernel {
            tables: &self.tables,
            sockets: self.program.sockets(),
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

/// `struct xdp_md` of a packet: data, `data_end`, `data_meta`, the interface; then what this program does not ask for.
fn context(memory: &mut Memory, frame: &[u8]) -> u64 {
    let mut context = vec![0; 24];
    context[12..16].copy_from_slice(&LOOPBACK.to_le_bytes());
    let context = memory.add(context);
    put(memory, context, frame.to_vec());
    context
}

/// Makes this the packet of the context.
fn put(memory: &mut Memory, context: u64, packet: Vec<u8>) {
    let length = packet.len() as u64;
    let begin = memory.add(packet);
    for (place, address) in (0..).step_by(4).zip([begin, begin + length, begin]) {
        let address = u32::try_from(address).expect("addresses of packets fit 32 bits");
        memory
            .at(context + place, 4)
            .copy_from_slice(&address.to_le_bytes());
    }
}

/// Takes the packet out of its context.
fn taken(memory: &mut Memory, context: u64) -> Vec<u8> {
    let begin = memory.at(context, 4).try_into().expect("four bytes");
    memory.take(u32::from_le_bytes(begin).into())
}

/// Lets the packet begin so many bytes earlier and end so many later. As the kernel has it, no pointer to what was
/// there is good for anything any more.
fn resize(memory: &mut Memory, context: u64, earlier: i32, later: i32) -> u64 {
    let mut packet = taken(memory, context);
    let size = |by: i32| usize::try_from(by.unsigned_abs()).expect("64 bits");
    if earlier > 0 {
        assert!(size(earlier) <= ROOM, "the kernel has no room there");
        packet.splice(0..0, vec![0; size(earlier)]);
    } else {
        packet.drain(..size(earlier));
    }
    assert!(later <= 0, "no answer is longer than its packet behind it");
    packet.truncate(packet.len() - size(later));
    assert!(
        packet.len() >= SHORTEST,
        "the kernel leaves at least {SHORTEST} bytes"
    );
    put(memory, context, packet);
    0
}

/// What an answer is, by the protocol in it. `network`: where that begins without tags.
fn kind(answer: &[u8], mut network: usize) -> &'static str {
    while network >= 14 && matches!(answer[network - 2..network], [0x81, 0] | [0x88, 0xa8]) {
        network += 4;
    }
    let version = answer[network] >> 4;
    let protocol = answer[network + if version == 4 { 9 } else { 6 }];
    match (version, protocol) {
        (4 | 6, 6) => "reset",
        (4, 1) | (6, 58) => "unreachable",
        other => panic!("an answer of version and protocol {other:?} is not known here"),
    }
}

/// The helpers that the program calls, by the kernel's own tables. An entry that was looked up is one place in
/// memory until the program has run, and then written back.
struct Kernel<'t> {
    tables: &'t [Table],
    sockets: Option<&'t Sockets>,
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
            // bpf_get_prandom_u32: any number is as likely as another.
            7 => 4,
            // bpf_xdp_adjust_head, bpf_xdp_adjust_tail
            44 => resize(memory, first, -signed(key), 0),
            65 => resize(memory, first, 0, signed(key)),
            // bpf_fib_lookup: nothing is forwarded (BPF_FIB_LKUP_RET_FWD_DISABLED).
            69 => 5,
            // bpf_sk_lookup_udp
            85 => self.connected(memory, key, value),
            // bpf_sk_release: there is nothing to let go of. bpf_skc_lookup_tcp: this host has no socket for
            // anybody. bpf_ringbuf_output: nobody reads it here.
            86 | 99 | 130 => 0,
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
    /// A `struct bpf_sock` for a datagram's `struct bpf_sock_tuple` of that length, where there is a connected
    /// socket for it.
    fn connected(&self, memory: &mut Memory, tuple: u64, length: u64) -> u64 {
        /// How long the structure is, and where its `state` is.
        const SOCKET: (usize, usize) = (80, 72);
        /// `TCP_ESTABLISHED`.
        const CONNECTED: u32 = 1;
        let tuple = memory.at(tuple, usize::try_from(length).expect("64 bits"));
        let (addresses, ports) = tuple.split_at(tuple.len() - 4);
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("of either family")),
        };
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        let peer = SocketAddr::new(address(source), port(0));
        let own = SocketAddr::new(address(destination), port(2));
        if !self.sockets.is_some_and(|open| open.contains(own, peer)) {
            return 0;
        }
        let (size, state) = SOCKET;
        let mut socket = vec![0; size];
        socket[state..state + 4].copy_from_slice(&CONNECTED.to_le_bytes());
        memory.add(socket)
    }

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

/// A 32-bit number in a register.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the upper half of the register says nothing"
)]
fn signed(register: u64) -> i32 {
    (register as u32).cast_signed()
}

/// A table, by what stands in a register for it.
fn number(register: u64) -> usize {
    usize::try_from(register).expect("a number of a table")
}
