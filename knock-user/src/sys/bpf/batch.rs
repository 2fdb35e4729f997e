//! Reads a whole table in few system calls.
//!
//! `BPF_MAP_GET_NEXT_KEY` starts over whenever the key that it is given has been evicted, so on a table under a
//! flood it may never end. `BPF_MAP_LOOKUP_BATCH` (since Linux 5.6) goes from bucket to bucket: it ends, and takes a
//! thousandth of the calls.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::{maps::MapData, util::nr_cpus};
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
/// Most entries asked for at a time. A bucket must fit: the kernel's hash tables have as many buckets as entries, so a
/// bucket of this many is as good as impossible.
const CHUNK: u32 = 4096;

/// Calls `each` with every entry of a hash table or an array. An entry that is written meanwhile may be half of the
/// old and half of the new; in a hash table, one that is moved may be missed or come twice.
pub fn for_each<K: Pod, V: Pod>(map: &MapData, mut each: impl FnMut(&K, &V)) -> Result<()> {
    let chunk = map.info()?.max_entries().clamp(64, CHUNK);
    read(map, chunk, 1, |key: &K, values: &[V]| each(key, &values[0]))
}

/// Calls `each` with every index of an array that has a value for each CPU, and with these values (since Linux 5.13).
pub fn for_each_cpu<V: Pod>(map: &MapData, each: impl FnMut(&u32, &[V])) -> Result<()> {
    // The kernel makes each value as long as a multiple of 8.
    const { assert!(size_of::<V>().is_multiple_of(8)) };
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    // No buckets here, so with many CPUs, few entries at a time take little memory.
    let chunk = map.info()?.max_entries().clamp(1, CHUNK / 16);
    read(map, chunk, cpus, each)
}

/// Calls `each` with every key and its values, `each_has` of them; asks for `chunk` keys at a time.
fn read<K: Pod, V: Pod>(
    map: &MapData,
    chunk: u32,
    each_has: usize,
    mut each: impl FnMut(&K, &[V]),
) -> Result<()> {
    let mut keys = vec![K::zeroed(); chunk as usize];
    let mut values = vec![V::zeroed(); chunk as usize * each_has];
    // Hash tables keep a bucket number here, arrays a key; four bytes, with room to spare.
    let mut position = [0_u64; 8];
    let mut first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { position.as_ptr() as u64 },
            out_batch: position.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: chunk,
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attribute has the layout that the kernel reads for this command, its size is
        // passed along, and keys and values point to room for `count` entries of the table's sizes
        // (the typed handles check these when they are opened), in a table of each CPU for all CPUs that may be.
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
        for (key, values) in keys.iter().zip(values.chunks_exact(each_has)).take(count) {
            each(key, values);
        }
        if last {
            return Ok(());
        }
        first = false;
    }
}
