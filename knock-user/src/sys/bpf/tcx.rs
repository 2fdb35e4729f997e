//! Links at TCX, the list of programs that an interface has for what it receives (since Linux 6.6).

use std::{
    io,
    os::fd::{AsFd, FromRawFd as _, OwnedFd},
};

use super::{LINK_CREATE, bpf, raw};

/// `BPF_PROG_QUERY` of `enum bpf_cmd`.
const PROG_QUERY: libc::c_int = 16;
/// `BPF_TCX_INGRESS` of `enum bpf_attach_type`.
const INGRESS: u32 = 46;
/// `BPF_F_BEFORE` and `BPF_F_AFTER` of `linux/bpf.h`; with no other program named, before or behind all.
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;

/// The most programs on one interface (`BPF_MPROG_MAX` of `linux/bpf_mprog.h`).
const MOST: usize = 64;

/// A program in the list of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The kernel's id of it.
    pub program: u32,
    /// The id of the link by which it is attached; 0: it is attached by itself.
    pub link: u32,
}

/// Attaches a program at TCX for as long as the link is open or pinned: in front of all others, or behind them. Fails with
/// `EEXIST` where the interface has the program already.
pub fn link(program: impl AsFd, interface: u32, first: bool) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: raw(program.as_fd()),
        interface,
        attach_type: INGRESS,
        flags: if first { BEFORE } else { AFTER },
        relative: 0,
        _padding: 0,
        revision: 0,
    };
    // SAFETY: the structure holds no pointer.
    let link = unsafe { bpf(LINK_CREATE, &raw const attributes) }?;
    // SAFETY: a new descriptor, which the call above has made and nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Returns the programs of an interface in the order in which packets pass them; none where there is no such interface, or
/// the kernel has no TCX. Needs `CAP_NET_ADMIN`.
pub fn list(interface: u32) -> io::Result<Vec<Listed>> {
    let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
    let mut attributes = Query {
        interface,
        attach_type: INGRESS,
        query_flags: 0,
        attach_flags: 0,
        programs: (&raw mut programs) as u64,
        count: u32::try_from(MOST).unwrap_or_default(),
        _padding: 0,
        program_flags: 0,
        links: (&raw mut links) as u64,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: both arrays are as long as is said and outlive the call; the kernel writes numbers to them, and to the
    // structure.
    match unsafe { bpf(PROG_QUERY, &raw mut attributes) } {
        Ok(_) => {}
        // No program, no interface, or an attach type that is not known.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    }
    let count = usize::try_from(attributes.count).unwrap_or_default();
    let listed = programs.into_iter().zip(links).take(count);
    Ok(listed
        .map(|(program, link)| Listed { program, link })
        .collect())
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    _padding: u32,
    revision: u64,
}

#[repr(C)]
struct Query {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    _padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}
