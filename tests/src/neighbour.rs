//! Programs beside knockgate's: one that counts the packets which reach it and hands them on, and arrays of programs.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use netlab::Netns;

use crate::{
    foreign::{
        ATTACH_XDP, LINK_CREATE, LinkCreate, MAP_CREATE, MAP_TYPE_ARRAY, MapCreate, PROG_LOAD,
        PROG_TYPE_XDP, ProgLoad, address, bpf, command, descriptor, id_of, open, pin,
    },
    run::wait_until,
};

// From `bpf_cmd`, `bpf_map_type` and `bpf_prog_type` of `linux/bpf.h`.
const LOOKUP_ELEM: libc::c_long = 1;
const UPDATE_ELEM: libc::c_long = 2;
const DELETE_ELEM: libc::c_long = 3;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
pub const PROG_TYPE_SCHED_CLS: u32 = 3;
/// `BPF_XDP_DEVMAP` of `enum bpf_attach_type`.
pub const ATTACH_DEVMAP: u32 = 33;
const HAS_FRAGS: u32 = 1 << 5;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;

/// The name of the program.
pub const NAME: &str = "neighbour";

/// What a program is.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub program_type: u32,
    pub frags: bool,
    pub attach_type: u32,
    /// Whether packets begin with the IP header, and not with Ethernet's.
    pub bare_ip: bool,
}

impl Kind {
    pub const USUAL: Self = Self {
        program_type: PROG_TYPE_XDP,
        frags: false,
        attach_type: ATTACH_XDP,
        bare_ip: false,
    };
    pub const FRAGS: Self = Self {
        frags: true,
        ..Self::USUAL
    };
    pub const BARE_IP: Self = Self {
        bare_ip: true,
        ..Self::USUAL
    };
}

/// A program that counts packets by their destination port, then has the programs of an array called in turn, and passes
/// what none of them takes.
#[derive(Debug)]
pub struct Neighbour {
    pub id: u32,
    program: File,
    counts: File,
    link: Option<File>,
}

impl Neighbour {
    /// Loads one that hands packets to the host.
    pub fn new() -> Self {
        Self::of(Kind::USUAL, None)
    }

    /// Loads one of another kind, which calls the programs in `array`.
    pub fn of(kind: Kind, array: Option<&Array>) -> Self {
        let counts = bpf(
            MAP_CREATE,
            &MapCreate {
                map_type: MAP_TYPE_ARRAY,
                key_size: 4,
                value_size: 8,
                max_entries: 65_536,
                flags: 0,
            },
        );
        let counts = counts.expect("an array map can be made");
        let program = load(kind, &counts, array);
        Self {
            id: id_of(&program),
            program,
            counts,
            link: None,
        }
    }

    /// Pins the program at `path`, in place of what is pinned there.
    pub fn pin(&self, path: &Path) {
        let _ = fs::remove_file(path);
        pin(&self.program, path);
    }

    /// Pins the link by which it is attached.
    pub fn pin_link(&self, path: &Path) {
        pin(self.link.as_ref().expect("it is attached"), path);
    }

    /// Attaches it to an interface, for as long as this value lives.
    pub fn attach(&mut self, netns: &Netns, interface: &str, native: bool) {
        let index = netns.index_of(interface);
        let attributes = LinkCreate {
            program: descriptor(&self.program),
            target: index.unwrap_or_else(|error| panic!("{error}")),
            attach_type: ATTACH_XDP,
            flags: if native { DRV_MODE } else { SKB_MODE },
        };
        // The kernel frees the link of one that was attached before some time after its last descriptor is closed.
        wait_until("the interface is free", || {
            match netns.run(|| bpf(LINK_CREATE, &attributes)) {
                Ok(link) => self.link = Some(link),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => panic!("an XDP program can be linked to a veth: {error}"),
            }
            self.link.is_some()
        });
    }

    /// Returns how many packets to this port have reached it; port 0 stands for all that are not TCP or UDP over plain IPv4.
    pub fn count(&self, port: u16) -> u64 {
        let (key, mut value) = (u32::from(port), 0_u64);
        entry(LOOKUP_ELEM, &self.counts, key, &raw mut value).expect("it has every port");
        // SAFETY: the value is live and aligned; the kernel wrote to it behind the compiler's back.
        unsafe { std::ptr::read_volatile(&raw const value) }
    }
}

impl Default for Neighbour {
    fn default() -> Self {
        Self::new()
    }
}

/// An array of programs. Its pin is removed with this value.
#[derive(Debug)]
pub struct Array {
    array: File,
    pin: PathBuf,
}

impl Array {
    /// Makes an array and pins it.
    pub fn pinned(slots: u32, path: PathBuf) -> Self {
        let array = bpf(
            MAP_CREATE,
            &MapCreate {
                map_type: MAP_TYPE_PROG_ARRAY,
                key_size: 4,
                value_size: 4,
                max_entries: slots,
                flags: 0,
            },
        );
        let array = array.expect("an array of programs can be made");
        let _ = fs::remove_file(&path);
        pin(&array, &path);
        Self { array, pin: path }
    }

    /// Puts a program into a slot.
    pub fn put(&self, slot: u32, program: &Neighbour) {
        let mut program = descriptor(&program.program);
        entry(UPDATE_ELEM, &self.array, slot, &raw mut program).expect("of the same kind");
    }

    pub fn empty(&self, slot: u32) {
        entry(DELETE_ELEM, &self.array, slot, std::ptr::null_mut::<u32>()).expect("it is taken");
    }

    /// Returns the id of the program in a slot.
    pub fn slot(&self, slot: u32) -> Option<u32> {
        let mut id = 0_u32;
        match entry(LOOKUP_ELEM, &self.array, slot, &raw mut id) {
            // SAFETY: as for counts.
            Ok(()) => Some(unsafe { std::ptr::read_volatile(&raw const id) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("cannot look at slot {slot}: {error}"),
        }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // A failure here must not hide that of a test.
        let _ = fs::remove_file(&self.pin);
    }
}

/// Returns the id of the program that is pinned at `path`.
pub fn pinned_id(path: &Path) -> u32 {
    id_of(&open(path))
}

fn entry<V>(what: libc::c_long, map: &File, key: u32, value: *mut V) -> io::Result<()> {
    let attributes = Element {
        map: descriptor(map),
        _padding: 0,
        key: address(&raw const key),
        value: address(value.cast_const()),
        flags: 0,
    };
    command(what, &raw const attributes).map(drop)
}

#[repr(C)]
struct Element {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// One BPF instruction: operation, registers (destination in the lower half), offset, constant.
type Instruction = (u8, u8, i16, i32);

/// How many slots of an array are called.
const SLOTS: i32 = 4;

fn load(kind: Kind, counts: &File, array: Option<&Array>) -> File {
    let map = |of: &File| descriptor(of).cast_signed();
    // What programs of other types see of a packet begins with its length, so those do not look at it.
    let is_xdp = kind.program_type == PROG_TYPE_XDP;
    let mut code: Vec<Instruction> = vec![(0xbf, 0x16, 0, 0), (0xb7, 0x09, 0, 0)];
    // Where the IP header begins.
    let ip: i16 = if kind.bare_ip { 0 } else { 14 };
    if is_xdp {
        code.extend([
            // r7 = data; r8 = data_end; r2 = the end of the ports; if it is beyond: count
            (0x61, 0x17, 0, 0),
            (0x61, 0x18, 4, 0),
            (0xbf, 0x72, 0, 0),
            (0x07, 0x02, 0, i32::from(ip) + 24),
            (0x2d, 0x82, if kind.bare_ip { 4 } else { 6 }, 0),
        ]);
        if !kind.bare_ip {
            // r3 = the kind of frame; unless it is IPv4: count
            code.extend([(0x69, 0x73, 12, 0), (0x55, 0x03, 4, 0x0008)]);
        }
        code.extend([
            // r3 = version and length of the header; unless it has no options: count
            (0x71, 0x73, ip, 0),
            (0x55, 0x03, 2, 0x45),
            // r9 = the destination port
            (0x69, 0x79, ip + 22, 0),
            (0xdc, 0x09, 0, 16),
        ]);
    }
    code.extend([
        // count: the key r9 on the stack; r0 = its entry
        (0x63, 0x9a, -4, 0),
        (0xbf, 0xa2, 0, 0),
        (0x07, 0x02, 0, -4),
        (0x18, 0x11, 0, map(counts)),
        (0, 0, 0, 0),
        (0x85, 0, 0, 1),
        (0x15, 0x00, 2, 0),
        (0xb7, 0x01, 0, 1),
        (0xdb, 0x10, 0, 0),
    ]);
    for slot in 0..array.map_or(0, |_| SLOTS) {
        code.extend([
            // r1 = the context; r2 = the array; r3 = the slot; tail call
            (0xbf, 0x61, 0, 0),
            (0x18, 0x12, 0, array.map_or(0, |of| map(&of.array))),
            (0, 0, 0, 0),
            (0xb7, 0x03, 0, slot),
            (0x85, 0, 0, 12),
        ]);
    }
    // r0 = XDP_PASS; exit
    code.extend([(0xb7, 0, 0, 2), (0x95, 0, 0, 0)]);
    let instructions: Vec<[u8; 8]> = code
        .into_iter()
        .map(|(operation, registers, offset, constant)| {
            let mut instruction = [operation, registers, 0, 0, 0, 0, 0, 0];
            instruction[2..4].copy_from_slice(&offset.to_ne_bytes());
            instruction[4..].copy_from_slice(&constant.to_ne_bytes());
            instruction
        })
        .collect();
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let program = bpf(
        PROG_LOAD,
        &ProgLoad {
            program_type: kind.program_type,
            instruction_count: instructions.len().try_into().expect("few"),
            instructions: address(instructions.as_ptr()),
            license: address(c"GPL".as_ptr()),
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
            kernel_version: 0,
            flags: if kind.frags { HAS_FRAGS } else { 0 },
            name,
            interface: 0,
            expected_attach_type: kind.attach_type,
        },
    );
    program.unwrap_or_else(|error| panic!("the verifier refuses the neighbour: {error}"))
}
