//! Arrays of programs (`BPF_MAP_TYPE_PROG_ARRAY`), by which one program hands a packet on to another.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use bytemuck::Zeroable;

use super::{bpf, info, raw};

// `enum bpf_cmd` of linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const MAP_GET_FD_BY_ID: libc::c_int = 14;

/// `BPF_MAP_TYPE_PROG_ARRAY` of `enum bpf_map_type`.
const PROG_ARRAY: u32 = 3;
/// `BPF_PROG_TYPE_XDP` of `enum bpf_prog_type`.
pub const XDP: u32 = 6;
/// `BPF_F_XDP_HAS_FRAGS` of `linux/bpf.h`.
const HAS_FRAGS: u32 = 1 << 5;

/// What the kernel says of an array of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array {
    /// The kernel's id of it.
    pub id: u32,
    pub slots: u32,
    /// The type of the programs that belong in it, once there has been one.
    pub holds: Option<u32>,
}

/// Returns what the kernel says of an open array of programs; `None` where it is something else.
pub fn array(object: impl AsFd) -> io::Result<Option<Array>> {
    if super::kind(&object) != Some(super::Kind::Map) {
        return Ok(None);
    }
    let MapInfo {
        kind, id, slots, ..
    } = info(&object)?;
    if kind != PROG_ARRAY {
        return Ok(None);
    }
    let path = format!("/proc/self/fdinfo/{}", object.as_fd().as_raw_fd());
    let text = fs::read_to_string(path)?;
    let holds = text
        .lines()
        .find_map(|line| line.strip_prefix("owner_prog_type:"));
    let holds = holds.and_then(|number| number.trim().parse().ok());
    Ok(Some(Array { id, slots, holds }))
}

/// Makes an array of one slot.
pub fn new_array() -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        kind: PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        slots: 1,
    };
    // SAFETY: the structure holds no pointer.
    let array = unsafe { bpf(MAP_CREATE, &raw const attributes) }?;
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(array) })
}

/// Returns the id of the program in a slot; `None` where there is none.
pub fn slot(array: impl AsFd, slot: u32) -> io::Result<Option<u32>> {
    let mut program = 0_u32;
    let attributes = Element {
        array: raw(array.as_fd()),
        _padding: 0,
        key: (&raw const slot) as u64,
        value: (&raw mut program) as u64,
        flags: 0,
    };
    // SAFETY: key and value are four bytes each, as in every array of programs, and outlive the call.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &raw const attributes) } {
        Ok(_) => Ok(Some(program)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a program into a slot, in place of what is there: each packet that is handed on goes to one or the other. Fails
/// with `EINVAL` where the programs of the array are of another kind.
pub fn put(array: impl AsFd, slot: u32, program: impl AsFd) -> io::Result<()> {
    let program = raw(program.as_fd());
    let attributes = Element {
        array: raw(array.as_fd()),
        _padding: 0,
        key: (&raw const slot) as u64,
        value: (&raw const program) as u64,
        flags: 0,
    };
    // SAFETY: as above.
    unsafe { bpf(MAP_UPDATE_ELEM, &raw const attributes) }.map(drop)
}

/// Empties a slot.
pub fn empty(array: impl AsFd, slot: u32) -> io::Result<()> {
    let attributes = Element {
        array: raw(array.as_fd()),
        _padding: 0,
        key: (&raw const slot) as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: as above; the command reads no value.
    match unsafe { bpf(MAP_DELETE_ELEM, &raw const attributes) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens every array of programs in the kernel. Needs `CAP_SYS_ADMIN`.
pub fn all_arrays() -> io::Result<Vec<OwnedFd>> {
    let mut arrays = Vec::new();
    let mut ids = Ids {
        id: 0,
        next: 0,
        flags: 0,
    };
    loop {
        // SAFETY: the structure holds no pointer, and the kernel writes the next id to it.
        match unsafe { bpf(MAP_GET_NEXT_ID, &raw mut ids) } {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(arrays),
            result => result?,
        };
        ids = Ids {
            id: ids.next,
            next: 0,
            flags: 0,
        };
        // SAFETY: as above.
        let map = match unsafe { bpf(MAP_GET_FD_BY_ID, &raw const ids) } {
            // SAFETY: a new descriptor, which the call above has made and nothing else owns.
            Ok(map) => unsafe { OwnedFd::from_raw_fd(map) },
            // Gone since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if array(&map)?.is_some() {
            arrays.push(map);
        }
    }
}

/// Loads an XDP program that hands packets on by this array, and passes them. The kernel refuses it with `EINVAL` where
/// programs with this attach type, and these `frags`, are of another kind than those of the array. One that has had no
/// program yet takes on the kind of this one.
pub fn load_caller(array: impl AsFd, frags: bool, attach_type: u32) -> io::Result<OwnedFd> {
    const TAIL_CALL: i32 = 12;
    const PASS: i32 = 2;
    let [a, b, c, d] = raw(array.as_fd()).to_ne_bytes();
    let [call, pass] = [TAIL_CALL, PASS].map(i32::to_ne_bytes);
    let instructions: [[u8; 8]; 6] = [
        // r2 = the array: a load of 64 bits, whose source says that it is a descriptor of a map
        [0x18, 0x12, 0, 0, a, b, c, d],
        [0; 8],
        // r3 = 0; call tail_call; r0 = XDP_PASS; exit
        [0xb7, 3, 0, 0, 0, 0, 0, 0],
        [0x85, 0, 0, 0, call[0], call[1], call[2], call[3]],
        [0xb7, 0, 0, 0, pass[0], pass[1], pass[2], pass[3]],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    let attributes = ProgramLoad {
        kind: XDP,
        instructions: u32::try_from(instructions.len()).unwrap_or_default(),
        at: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: if frags { HAS_FRAGS } else { 0 },
        name: *b"knockgate_probe\0",
        interface: 0,
        attach_type,
    };
    // SAFETY: instructions and license outlive the call, and are as long as is said.
    let load = || unsafe { bpf(PROG_LOAD, &raw const attributes) };
    let program = super::load(load, super::is_interrupted)?;
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    slots: u32,
}

/// For commands about one entry.
#[repr(C)]
struct Element {
    array: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// For `BPF_MAP_GET_NEXT_ID`, and `BPF_MAP_GET_FD_BY_ID`, which reads the head alone.
#[repr(C)]
struct Ids {
    id: u32,
    next: u32,
    flags: u32,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
struct MapInfo {
    kind: u32,
    id: u32,
    _key_size: u32,
    _value_size: u32,
    slots: u32,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    at: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}
