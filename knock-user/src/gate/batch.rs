//! Reading a whole table in few system calls.
//!
//! Going from key to key (`BPF_MAP_GET_NEXT_KEY`) starts over whenever the key it stands on has been
//! evicted, so on a table under a flood it never ends. `BPF_MAP_LOOKUP_BATCH` (since Linux 5.6) goes
//! from bucket to bucket: it ends, and takes a thousandth of the calls.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use bytemuck::Pod;

/// The part of `union bpf_attr` that batch commands read (`linux/bpf.h`).
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Entries asked for at a time. A bucket must fit: the kernel's hash tables have as many buckets as
/// entries, so a bucket of this many has never been seen.
const CHUNK: u32 = 4096;

/// Calls `each` with every entry of a hash table or an array.
pub fn for_each<K: Pod, V: Pod>(map: &MapData, mut each: impl FnMut(&K, &V)) -> Result<()> {
    let mut keys = vec![K::zeroed(); CHUNK as usize];
    let mut values = vec![V::zeroed(); CHUNK as usize];
    // Hash tables keep a bucket number here, arrays a key; four bytes, with room to spare.
    let mut position = [0_u64; 8];
    let mut first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { position.as_ptr() as u64 },
            out_batch: position.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: CHUNK,
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attribute has the layout that the kernel reads for this command, its size is
        // passed along, and keys and values point to room for `count` entries of the table's sizes
        // (the typed handles check these when they are opened).
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attr,
                size_of::<BatchAttr>(),
            )
        };
        let error = (result != 0).then(io::Error::last_os_error);
        let last = match error {
            None => false,
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Some(error) => return Err(error).context("cannot read a kernel table"),
        };
        let count = attr.count as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            each(key, value);
        }
        if last {
            return Ok(());
        }
        first = false;
    }
}
