//! `bpf(2)`: pinned objects and links. Tables in [`batch`] and [`mapping`], arrays of programs in [`programs`], links at TCX in
//! [`tcx`], the file system of pins in [`fs`].

pub mod batch;
pub mod fs;
pub mod mapping;
pub mod programs;
pub mod tcx;

use std::{
    ffi::CString,
    io, mem,
    num::NonZeroU32,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use bytemuck::Zeroable;

// `enum bpf_cmd` of linux/bpf.h.
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;

/// `BPF_F_RDONLY` of `linux/bpf.h`.
const READ_ONLY: u32 = 1 << 3;
/// `BPF_F_REPLACE` of `linux/bpf.h`.
const REPLACE: u32 = 1 << 2;

/// `BPF_LINK_TYPE_XDP` and `BPF_LINK_TYPE_TCX` of `enum bpf_link_type`.
const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;

/// How often in turn a signal may interrupt the loading of a program before that fails.
const INTERRUPTIONS: usize = 100;

/// The kind of object that a descriptor refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Map,
    Program,
    Link,
}

/// Where on an interface a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// In the driver or, generic, right behind it.
    Xdp,
    /// Behind the kernel's own handling of the link, at ingress (since Linux 6.6).
    Tcx,
}

/// The state of a link to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramLink {
    /// Its own id.
    pub id: u32,
    /// Id of the program that it attaches.
    pub program: u32,
    pub hook: Hook,
    /// Index of the interface that it is on, in that interface's network namespace; `None` where it is detached or the
    /// interface is gone. `bpf_xdp_link_fill_link_info` of `net/core/dev.c` and `tcx_link_fill_info` of `kernel/bpf/tcx.c`
    /// read it from the device, so it follows a device that is renamed or moved.
    pub interface: Option<NonZeroU32>,
}

/// Attaches an XDP program to an interface for as long as the link is open or pinned; `native`: in its driver.
pub fn link_xdp(program: impl AsFd, interface: u32, native: bool) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: raw(program.as_fd()),
        interface,
        attach_type: ATTACH_XDP,
        flags: if native { DRV_MODE } else { SKB_MODE },
    };
    // SAFETY: the structure holds no pointer.
    let link = unsafe { bpf(LINK_CREATE, &raw const attributes) }?;
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// What the kernel says of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    pub id: u32,
    /// One of `enum bpf_prog_type`.
    pub kind: u32,
    /// A hash of its instructions.
    pub tag: [u8; 8],
}

/// Opens the object that is pinned at `path`, to read and change it.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    get(path, 0)
}

/// Opens the table or program that is pinned at `path`, to read it: for who may read the pin, but not write it. The
/// kernel opens links only as [`open`] does.
pub fn look(path: &Path) -> io::Result<OwnedFd> {
    get(path, READ_ONLY)
}

fn get(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let name = c_string(path)?;
    let attributes = Object {
        path: name.as_ptr() as u64,
        descriptor: 0,
        flags,
    };
    // SAFETY: the path outlives the call.
    let opened = unsafe { bpf(OBJ_GET, &raw const attributes) }?;
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Pins an object at `path`.
pub fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let name = c_string(path)?;
    let attributes = Object {
        path: name.as_ptr() as u64,
        descriptor: raw(object.as_fd()),
        flags: 0,
    };
    // SAFETY: the path outlives the call.
    unsafe { bpf(OBJ_PIN, &raw const attributes) }.map(drop)
}

/// Returns the kind of an open object; `None` for other kinds.
pub fn kind(object: impl AsFd) -> Option<Kind> {
    let path = format!("/proc/self/fd/{}", object.as_fd().as_raw_fd());
    let target = std::fs::read_link(path).ok()?;
    match target.to_str()?.strip_prefix("anon_inode:")? {
        "bpf-map" => Some(Kind::Map),
        "bpf-prog" => Some(Kind::Program),
        "bpf-link" | "bpf_link" => Some(Kind::Link),
        _ => None,
    }
}

/// Returns the state of the link to an interface that is pinned at `path`; `None` where it is something else.
pub fn program_link(path: &Path) -> io::Result<Option<ProgramLink>> {
    let link = open(path)?;
    if kind(&link) != Some(Kind::Link) {
        return Ok(None);
    }
    link_of(&link)
}

/// As [`program_link`], of an open link.
pub fn link_of(link: impl AsFd) -> io::Result<Option<ProgramLink>> {
    let info: LinkInfo = info(link)?;
    let hook = match info.kind {
        LINK_TYPE_XDP => Hook::Xdp,
        LINK_TYPE_TCX => Hook::Tcx,
        _ => return Ok(None),
    };
    Ok(Some(ProgramLink {
        id: info.id,
        program: info.program,
        hook,
        interface: NonZeroU32::new(info.interface),
    }))
}

/// Returns what the kernel says of the program pinned at `path`; `None` where it is something else.
pub fn program(path: &Path) -> io::Result<Option<Program>> {
    program_of(look(path)?)
}

/// Returns what the kernel says of an open program; `None` where it is something else.
pub fn program_of(program: impl AsFd) -> io::Result<Option<Program>> {
    if kind(&program) != Some(Kind::Program) {
        return Ok(None);
    }
    let ProgramInfo { kind, id, tag } = info(&program)?;
    Ok(Some(Program { id, kind, tag }))
}

/// Returns the head of what the kernel says of an object.
fn info<T: Zeroable>(object: impl AsFd) -> io::Result<T> {
    let mut info = T::zeroed();
    let attributes = GetInfo {
        descriptor: raw(object.as_fd()),
        length: u32::try_from(size_of::<T>()).unwrap_or(u32::MAX),
        info: (&raw mut info) as u64,
    };
    // SAFETY: the structure is as long as is said and outlives the call; it holds integers, so that whatever the kernel
    // writes is a value.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &raw const attributes) }?;
    Ok(info)
}

/// Puts the program `new` in the place of `old` on the interface of a link: each packet is judged by one or the
/// other. Fails with `EPERM` where the link carries another program than `old`.
pub fn update_link(link: impl AsFd, new: impl AsFd, old: impl AsFd) -> io::Result<()> {
    let attributes = LinkUpdate {
        link: raw(link.as_fd()),
        new: raw(new.as_fd()),
        flags: REPLACE,
        old: raw(old.as_fd()),
    };
    // SAFETY: the structure holds no pointer.
    unsafe { bpf(LINK_UPDATE, &raw const attributes) }.map(drop)
}

/// As [`update_link`], whatever program the link carries.
pub fn set_program(link: impl AsFd, new: impl AsFd) -> io::Result<()> {
    let attributes = LinkUpdate {
        link: raw(link.as_fd()),
        new: raw(new.as_fd()),
        flags: 0,
        old: 0,
    };
    // SAFETY: the structure holds no pointer.
    unsafe { bpf(LINK_UPDATE, &raw const attributes) }.map(drop)
}

/// Detaches the link pinned at `path` from its interface. Removing the pin does that too, but only some time later.
pub fn detach_link(path: &Path) -> io::Result<()> {
    let link = open(path)?;
    let attributes = LinkDetach {
        descriptor: raw(link.as_fd()),
    };
    // SAFETY: the structure holds no pointer.
    unsafe { bpf(LINK_DETACH, &raw const attributes) }.map(drop)
}

/// For `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct Object {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct GetInfo {
    descriptor: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    new: u32,
    flags: u32,
    old: u32,
}

#[repr(C)]
struct LinkDetach {
    descriptor: u32,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
}

/// The head of `struct bpf_link_info`, for a link to an interface. The kernel writes no more than the length that it is given.
#[repr(C)]
#[derive(Clone, Copy, Zeroable)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _padding: u32,
    interface: u32,
    _rest: u32,
}

/// Loads a program, and tries again where a signal has interrupted that. `is_interrupted`: see [`is_interrupted`].
pub fn load<T, E>(
    mut load: impl FnMut() -> Result<T, E>,
    is_interrupted: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 0..INTERRUPTIONS {
        match load() {
            Err(failed) if is_interrupted(&failed) => {}
            loaded => return loaded,
        }
    }
    load()
}

/// Returns whether a signal has kept the kernel from verifying a program: the verifier gives up as soon as one is pending, with
/// `EAGAIN` (Linux 5.0 and later). A service is sent one when a hook ends.
pub fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Has aya find out what BPF can do on this kernel, while signals wait. It asks once for the life of the process, by loading
/// programs, and takes one that a signal has interrupted for one that the kernel refuses.
pub fn learn_features() -> io::Result<()> {
    // SAFETY: all zeros is a valid set of signals, and both calls are given sets that outlive them.
    let before = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
            (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) {
            0 => before,
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    };
    // Every kernel that is recent enough has these. SIGSTOP cannot be blocked, so it may have interrupted the question.
    let is_whole = aya::features().bpf_global_data();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    if is_whole {
        Ok(())
    } else {
        Err(io::Error::other(
            "a signal has kept the kernel from saying what its BPF can do; try again",
        ))
    }
}

/// # Safety
///
/// `T` lays out the head of `union bpf_attr` for the command, and every pointer in it is good for the call. Where the
/// kernel writes to the structure, `attributes` comes from a `&mut`.
unsafe fn bpf<T>(command: libc::c_int, attributes: *const T) -> io::Result<i32> {
    // SAFETY: the kernel reads the structure, whose size is given, and takes the rest for zero; its pointers are good by
    // the function's contract.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn raw(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

fn c_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path has a NUL byte in it"))
}
