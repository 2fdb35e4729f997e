//! BPF objects that are not knockgate's: a program that is attached to the interface already, a map in the place of
//! a pin.

mod tcx;

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData};
use knock_common::layout::Meta;

use netlab::{Netns, host::BPFFS};

pub use tcx::{Action, TcxProgram, programs_at_tcx};

use crate::{
    lab::{Lab, WAN},
    neighbour::PROG_TYPE_SCHED_CLS,
    run::run,
};

/// The name of the foreign program.
pub const PROGRAM_NAME: &str = "someone_elses";

// From `bpf_cmd`, `bpf_prog_type`, `bpf_map_type` and `bpf_attach_type` of `linux/bpf.h`.
pub(crate) const MAP_CREATE: libc::c_long = 0;
pub(crate) const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_FREEZE: libc::c_long = 22;
pub(crate) const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;
pub(crate) const PROG_TYPE_XDP: u32 = 6;
pub(crate) const MAP_TYPE_ARRAY: u32 = 2;
pub(crate) const ATTACH_XDP: u32 = 37;
/// `XDP_PASS` of `linux/bpf.h`.
const XDP_PASS: i32 = 2;
/// `BPF_LINK_TYPE_TCX` of `linux/bpf.h`.
const LINK_TYPE_TCX: u32 = 11;

/// An XDP program that passes every packet. It stays attached until this value is dropped.
#[derive(Debug)]
pub struct ForeignProgram {
    /// The id that the kernel gave it.
    pub id: u32,
    _program: File,
    _link: Option<OwnLink>,
    pin: Option<PathBuf>,
}

impl ForeignProgram {
    /// Attaches to the host's interface by a BPF link, as newer loaders do.
    pub fn linked(lab: &Lab) -> Self {
        Self::on(&lab.host, WAN)
    }

    /// Attaches to any interface by a BPF link.
    pub fn on(netns: &Netns, interface: &str) -> Self {
        let (program, id) = load();
        let index = netns.index_of(interface);
        let attributes = LinkCreate {
            program: descriptor(&program),
            target: index.unwrap_or_else(|error| panic!("{error}")),
            attach_type: ATTACH_XDP,
            flags: 0,
        };
        // The same index is another interface in another namespace.
        let link = netns.run(|| bpf(LINK_CREATE, &attributes));
        Self {
            id,
            _program: program,
            _link: Some(OwnLink(
                link.expect("an XDP program can be linked to a veth"),
            )),
            pin: None,
        }
    }

    /// Attaches to the host's interface over netlink, as `ip link` does.
    pub fn over_netlink(lab: &Lab) -> Self {
        let (program, id) = load();
        let pin = Path::new(BPFFS).join(format!("{}-foreign", lab.host.name()));
        self::pin(&program, &pin);
        // Before anything can fail, so that the pin is removed in any case.
        let attached = Self {
            id,
            _program: program,
            _link: None,
            pin: Some(pin.clone()),
        };
        // Not `ip -n`, which mounts another /sys without the pin.
        let mut command = lab.host.command("ip");
        command.args(["link", "set", WAN, "xdp", "pinned"]).arg(pin);
        run(&mut command).exits(0);
        attached
    }
}

/// A link that is detached when this is dropped. To close it would not do: where another test is starting a process, that has the
/// descriptor too for a moment.
#[derive(Debug)]
struct OwnLink(File);

impl Drop for OwnLink {
    fn drop(&mut self) {
        // Its interface may be gone already.
        let _ = command(LINK_DETACH, &descriptor(&self.0));
    }
}

impl Drop for ForeignProgram {
    fn drop(&mut self) {
        if let Some(pin) = &self.pin {
            // The interface is removed with its namespace. A failure here must not hide that of a test.
            let _ = fs::remove_file(pin);
        }
    }
}

/// Pins a map at `path` that no version of knockgate has made.
pub fn pin_map(path: &Path) {
    let map = bpf(
        MAP_CREATE,
        &MapCreate {
            map_type: MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: 3,
            max_entries: 1,
            flags: 0,
        },
    );
    pin(&map.expect("an array map can be made"), path);
}

/// Changes the layout number in the table at `path`, as if another version had pinned the tables beside it.
pub fn change_layout(path: &Path) {
    let data = MapData::from_pin(path).expect("an instance is up");
    let mut meta: Array<_, Meta> = Map::Array(data).try_into().expect("it is an array");
    let mut changed = meta.get(&0, 0).expect("it has one entry");
    changed.layout += 1;
    meta.set(0, changed, 0).expect("it can be written");
}

/// Freezes the table pinned at `path`: from now on, no process can write to it.
pub fn freeze(path: &Path) {
    let data = MapData::from_pin(path).expect("an instance is up");
    let attributes = MapFreeze {
        map: data.fd().as_fd().as_raw_fd().unsigned_abs(),
    };
    command(MAP_FREEZE, &raw const attributes).expect("a table can be frozen");
}

/// Puts a table of the same name whose entry is longer in the place of the one at `path`, as if another version had pinned
/// the tables beside it.
pub fn lengthen_meta(path: &Path) {
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"META");
    let attributes = NamedMap {
        map: MapCreate {
            map_type: MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: u32::try_from(size_of::<Meta>()).expect("a small number") + 8,
            max_entries: 1,
            flags: 0,
        },
        inner_map: 0,
        numa_node: 0,
        name,
    };
    let map = bpf(MAP_CREATE, &attributes).expect("an array map can be made");
    fs::remove_file(path).expect("an instance is up");
    pin(&map, path);
}

/// Detaches the link that is pinned at `path`, as `bpftool link detach` does.
pub fn detach(path: &Path) {
    let link = open(path);
    command(LINK_DETACH, &descriptor(&link))
        .unwrap_or_else(|error| panic!("cannot detach {}: {error}", path.display()));
}

/// Replaces the program of the link that is pinned at `path` by the foreign one, as `bpf_link__update_program` does.
pub fn replace(path: &Path) {
    let link = open(path);
    let program = if kind_of(&link) == LINK_TYPE_TCX {
        load_as(PROG_TYPE_SCHED_CLS, 0, Action::Next as i32)
    } else {
        load_as(PROG_TYPE_XDP, ATTACH_XDP, XDP_PASS)
    };
    let attributes = LinkUpdate {
        link: descriptor(&link),
        program: descriptor(&program),
        flags: 0,
        old_program: 0,
    };
    command(LINK_UPDATE, &raw const attributes)
        .unwrap_or_else(|error| panic!("cannot update {}: {error}", path.display()));
}

pub(crate) fn open(path: &Path) -> File {
    let shown = path.display();
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in it");
    let attributes = ObjPin {
        path: address(path.as_ptr()),
        object: 0,
        flags: 0,
    };
    bpf(OBJ_GET, &attributes).unwrap_or_else(|error| panic!("cannot open {shown}: {error}"))
}

#[repr(C)]
pub(crate) struct ProgLoad {
    pub(crate) program_type: u32,
    pub(crate) instruction_count: u32,
    pub(crate) instructions: u64,
    pub(crate) license: u64,
    pub(crate) log_level: u32,
    pub(crate) log_size: u32,
    pub(crate) log_buffer: u64,
    pub(crate) kernel_version: u32,
    pub(crate) flags: u32,
    pub(crate) name: [u8; 16],
    pub(crate) interface: u32,
    pub(crate) expected_attach_type: u32,
}

#[repr(C)]
pub(crate) struct MapCreate {
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

#[repr(C)]
struct NamedMap {
    map: MapCreate,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct MapFreeze {
    map: u32,
}

#[repr(C)]
struct ObjPin {
    path: u64,
    object: u32,
    flags: u32,
}

#[repr(C)]
pub(crate) struct GetInfo {
    pub(crate) object: u32,
    pub(crate) length: u32,
    pub(crate) info: u64,
}

#[repr(C)]
pub(crate) struct LinkCreate {
    pub(crate) program: u32,
    pub(crate) target: u32,
    pub(crate) attach_type: u32,
    pub(crate) flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Loads `return XDP_PASS;`. Returns its descriptor and id.
fn load() -> (File, u32) {
    let program = load_as(PROG_TYPE_XDP, ATTACH_XDP, XDP_PASS);
    let id = id_of(&program);
    (program, id)
}

/// Loads a program that returns this number. A link accepts a new program only if the attach types are the same.
fn load_as(program_type: u32, expected_attach_type: u32, number: i32) -> File {
    let [a, b, c, d] = number.to_le_bytes();
    // r0 = the number; exit
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, a, b, c, d], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut name = [0; 16];
    name[..PROGRAM_NAME.len()].copy_from_slice(PROGRAM_NAME.as_bytes());
    bpf(
        PROG_LOAD,
        &ProgLoad {
            program_type,
            instruction_count: 2,
            instructions: address(instructions.as_ptr()),
            license: address(c"GPL".as_ptr()),
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
            kernel_version: 0,
            flags: 0,
            name,
            interface: 0,
            expected_attach_type,
        },
    )
    .expect("two instructions pass the verifier")
}

/// Returns the kernel's id of a program.
pub(crate) fn id_of(program: &File) -> u32 {
    let [_, id] = information(program);
    id
}

/// Returns the kind of a link.
fn kind_of(link: &File) -> u32 {
    let [kind, _] = information(link);
    kind
}

/// Returns the first fields of `bpf_prog_info`, or of `bpf_link_info`: type and id.
fn information(object: &File) -> [u32; 2] {
    let mut info = [0_u32; 2];
    let attributes = GetInfo {
        object: descriptor(object),
        length: 8,
        info: address(info.as_mut_ptr().cast_const()),
    };
    command(OBJ_GET_INFO_BY_FD, &raw const attributes).expect("an object has information");
    // SAFETY: `info` is live and aligned; the kernel wrote to it behind the compiler's back.
    unsafe { std::ptr::read_volatile(&raw const info) }
}

pub(crate) fn pin(object: &File, path: &Path) {
    let shown = path.display();
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL in it");
    let attributes = ObjPin {
        path: address(path.as_ptr()),
        object: descriptor(object),
        flags: 0,
    };
    command(OBJ_PIN, &raw const attributes)
        .unwrap_or_else(|error| panic!("cannot pin at {shown}: {error}"));
}

/// Runs a `bpf` command that returns a new descriptor.
pub(crate) fn bpf<T>(what: libc::c_long, attributes: &T) -> io::Result<File> {
    // SAFETY: the kernel has just opened this descriptor for the caller alone.
    command(what, attributes).map(|descriptor| unsafe { File::from_raw_fd(descriptor) })
}

pub(crate) fn command<T>(what: libc::c_long, attributes: *const T) -> io::Result<i32> {
    // SAFETY: every attribute structure above lays out the head of `union bpf_attr` for its command, the
    // kernel takes the rest for zero, and the pointers in it are valid for the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, what, attributes, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(crate) fn descriptor(file: &File) -> u32 {
    file.as_raw_fd().unsigned_abs()
}

pub(crate) fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}
