//! Programs at TCX that are not knockgate's.

use std::fs::File;

use netlab::Netns;

use super::{LinkCreate, OwnLink, address, bpf, command, descriptor, id_of, load_as};
use crate::neighbour::PROG_TYPE_SCHED_CLS;

const PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` of `linux/bpf.h`.
const INGRESS: u32 = 46;
/// `BPF_F_BEFORE` and `BPF_F_AFTER` of `linux/bpf.h`.
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;

/// The most programs on an interface.
const MOST: usize = 64;

/// What a foreign program does with every packet: `TCX_NEXT` and `TCX_PASS` of `linux/bpf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Next = -1,
    /// To the host, past all other programs.
    Pass = 0,
}

/// A program at TCX. It stays attached until this value is dropped.
#[derive(Debug)]
pub struct TcxProgram {
    /// The id that the kernel gave it.
    pub id: u32,
    _program: File,
    _link: OwnLink,
}

impl TcxProgram {
    /// Attaches to an interface, in front of all others or behind them.
    pub fn on(netns: &Netns, interface: &str, action: Action, first: bool) -> Self {
        let program = load_as(PROG_TYPE_SCHED_CLS, 0, action as i32);
        let index = netns.index_of(interface);
        let attributes = LinkCreate {
            program: descriptor(&program),
            target: index.unwrap_or_else(|error| panic!("{error}")),
            attach_type: INGRESS,
            flags: if first { BEFORE } else { AFTER },
        };
        let link = netns.run(|| bpf(super::LINK_CREATE, &attributes));
        Self {
            id: id_of(&program),
            _program: program,
            _link: OwnLink(link.expect("a program can be linked to a veth at TCX")),
        }
    }
}

/// Returns the ids of the programs at TCX of an interface, in the order in which packets pass them; none as well where there
/// is no such interface, or no TCX.
pub fn programs_at_tcx(netns: &Netns, interface: &str) -> Vec<u32> {
    let Ok(index) = netns.index_of(interface) else {
        return Vec::new();
    };
    let mut ids = [0_u32; MOST];
    let mut query = Query {
        interface: index,
        attach_type: INGRESS,
        query_flags: 0,
        attach_flags: 0,
        programs: address(ids.as_mut_ptr().cast_const()),
        count: MOST.try_into().expect("a small number"),
        rest: [0; 9],
    };
    let found = netns.run(|| command(PROG_QUERY, &raw mut query));
    if found.is_err() {
        return Vec::new();
    }
    // SAFETY: both are live and aligned; the kernel wrote to them behind the compiler's back.
    let (count, ids) = unsafe {
        (
            std::ptr::read_volatile(&raw const query.count),
            std::ptr::read_volatile(&raw const ids),
        )
    };
    ids.into_iter()
        .take(count.try_into().expect("a small number"))
        .collect()
}

#[repr(C)]
struct Query {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    rest: [u32; 9],
}
