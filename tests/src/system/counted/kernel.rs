//! The kernel's helpers, as the program calls them, on the tables of a loaded one.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
};

use super::{
    super::{
        program::{clock, tai},
        sockets::Sockets,
    },
    packet::{copy, resize},
};
use crate::interpreter::{Memory, World};

/// Of `linux/bpf.h`: the commands for one entry of a table, and the flag for changing an existing entry only.
const LOOK_UP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const DELETE: libc::c_int = 3;
const EXIST: u64 = 2;

/// One of the program's tables.
#[derive(Debug)]
pub struct Table {
    pub name: String,
    /// File descriptor; open as long as the program is loaded.
    pub descriptor: i32,
    /// Length of a key, and of a value as user space reads it: for a per-CPU table, the values of all CPUs.
    pub key: usize,
    pub value: usize,
}

/// The helpers that the program calls, on the kernel's tables. An entry that was looked up is copied into memory, and
/// written back after the run.
pub struct Kernel<'t> {
    pub tables: &'t [Table],
    pub sockets: Option<&'t Sockets>,
    /// The number of the packet.
    pub packet: u64,
    /// Addresses and former contents of the entries that were looked up, by table and key.
    pub seen: HashMap<(usize, Vec<u8>), (u64, Vec<u8>)>,
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
            // bpf_get_prandom_u32: one number is as good as another.
            7 => 4,
            // bpf_xdp_adjust_head, bpf_xdp_adjust_tail
            44 => resize(memory, first, -signed(key), 0),
            65 => resize(memory, first, 0, signed(key)),
            // bpf_fib_lookup: nothing is forwarded (BPF_FIB_LKUP_RET_FWD_DISABLED).
            69 => 5,
            // bpf_sk_lookup_udp
            85 => self.connected(memory, key, value),
            // bpf_sk_release: nothing to release. bpf_skc_lookup_tcp: this host has no TCP sockets.
            // bpf_ringbuf_output: nothing reads it here. bpf_get_smp_processor_id: the first.
            8 | 86 | 99 | 130 => 0,
            // bpf_jiffies64. The epoch is arbitrary. Each packet is the first of its tick, so that it asks the clock, which
            // takes the most instructions; what 256 ticks take is right.
            118 => clock() >> 30 << 8 | self.packet & 0xff,
            // bpf_ktime_get_coarse_ns
            160 => clock(),
            // bpf_xdp_load_bytes
            189 if copy(memory, first, key, value, flags) => 0,
            189 => i64::from(-libc::EINVAL).cast_unsigned(),
            // bpf_ktime_get_tai_ns
            208 => tai(),
            other => panic!("helper {other} is not known here"),
        }
    }

    fn constants(&mut self, memory: &mut Memory, table: i32) -> u64 {
        let key = memory.add(vec![0; 4]);
        self.look_up(memory, table.try_into().expect("a number of a table"), key)
    }
}

impl Kernel<'_> {
    /// Looks up the connected socket for a `struct bpf_sock_tuple` of `length` bytes. Returns the address of a `struct
    /// bpf_sock`, or 0.
    fn connected(&self, memory: &mut Memory, tuple: u64, length: u64) -> u64 {
        /// Length of the structure, and offset of its `state`.
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

    /// Creates or removes an entry, so that its copy is no longer valid.
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

    /// Writes back the entries that the program has changed in place.
    pub fn write_back(&mut self, memory: &mut Memory) {
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
    /// Calls `bpf` with a command for one entry.
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
            // Without a value, the kernel requires a null address.
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

/// Returns the signed 32-bit number in a register.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the upper half of the register says nothing"
)]
fn signed(register: u64) -> i32 {
    (register as u32).cast_signed()
}

/// Returns the index of the table that a register stands for.
fn number(register: u64) -> usize {
    usize::try_from(register).expect("a number of a table")
}
