//! What two XDP programs must have in common for one to hand packets on to the other.
//!
//! The kernel keeps it with each array of programs, from the first that belongs to it
//! (`__bpf_prog_map_compatible` of `kernel/bpf/core.c`), and tells user space only the type. So it is asked: a program of
//! five instructions that calls by the array is loaded only if it is of the same kind.

use std::{io, os::fd::AsFd};

use anyhow::{Context as _, Result, bail};

use crate::sys::bpf::programs::{self, Array, XDP};

/// `BPF_XDP` of `enum bpf_attach_type`: that of our programs.
const ATTACH_XDP: u32 = 37;
/// All that an XDP program can have: none, as older loaders leave it; those for maps of devices and of CPUs.
const ATTACH_TYPES: [(u32, &str); 4] = [
    (ATTACH_XDP, "BPF_XDP"),
    (0, "none"),
    (33, "BPF_XDP_DEVMAP"),
    (35, "BPF_XDP_CPUMAP"),
];

/// The kind of an XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// It takes frames in several buffers (since Linux 5.18).
    pub frags: bool,
    /// Before Linux 6.18, but for stable kernels that have the change, programs of all attach types go together, and this is
    /// ours.
    pub attach_type: u32,
}

impl Kind {
    /// Refuses another attach type than that of our programs. `who` has it, in the plural.
    pub fn require_attach_type(self, who: &str) -> Result<()> {
        if self.attach_type == ATTACH_XDP {
            return Ok(());
        }
        let mut types = ATTACH_TYPES.iter();
        let name = types.find(|(number, _)| *number == self.attach_type);
        bail!(
            "{who} were loaded with another attach type ({}) than ours (BPF_XDP), and this kernel lets only programs of \
             one attach type call each other: load them with `expected_attach_type` BPF_XDP, as libbpf does for \
             `SEC(\"xdp\")`",
            name.map_or("unknown", |(_, name)| name)
        )
    }
}

/// Returns the kind of the programs that belong in an array; `None` where it has had none yet. Fails where these are no XDP
/// programs.
pub fn of_array(array: impl AsFd) -> Result<Option<Kind>> {
    let found = programs::array(&array).context("cannot look at the array of programs")?;
    let Some(Array {
        holds: Some(holds), ..
    }) = found
    else {
        return Ok(None);
    };
    if holds != XDP {
        bail!("it is for programs of type {holds}, and ours are XDP programs (type {XDP})");
    }
    for (attach_type, _) in ATTACH_TYPES {
        for frags in [false, true] {
            match programs::load_caller(&array, frags, attach_type) {
                Ok(_) => return Ok(Some(Kind { frags, attach_type })),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error).context("cannot ask the kernel about programs"),
            }
        }
    }
    bail!(
        "the kernel lets no program of ours call it: it may be bound to a device, or not compiled to machine code"
    )
}

/// Returns the kind of an XDP program.
pub fn of_program(program: impl AsFd) -> Result<Kind> {
    let array = programs::new_array().context("cannot make an array of programs")?;
    match programs::put(&array, 0, program) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            bail!("the kernel lets no program call it: it is bound to a device")
        }
        // `prog_fd_array_get_ptr` of `kernel/bpf/arraymap.c`, in newer kernels.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => bail!(
            "the kernel lets no program call one whose functions others replace (freplace), such as libxdp's dispatcher: load \
             what it calls as an XDP program by itself, and pin that"
        ),
        put => put.context("cannot ask the kernel about a program")?,
    }
    of_array(&array)?.context("the kernel does not say what the program is")
}

/// Returns whether the kernel has refused a program because it is of another kind.
pub fn is_mismatch(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}
