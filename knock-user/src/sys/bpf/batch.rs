//! Reads and writes many entries of a table in few system calls.
//!
//! `BPF_MAP_GET_NEXT_KEY` starts over whenever the key that it is given has been evicted, so on a table under a
//! flood it may never end. `BPF_MAP_LOOKUP_BATCH` (since Linux 5.6) goes from bucket to bucket: it ends, and takes a
//! thousandth of the calls. `BPF_MAP_UPDATE_BATCH` takes as few.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result};
use aya::{maps::MapData, util::nr_cpus};
use bytemuck::Pod;

use super::bpf;

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

/// The part of `union bpf_attr` that commands about one entry read.
#[repr(C)]
struct EntryAttr {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
/// `ENOTSUPP` of the kernel's `linux/errno.h`, which it returns for a kind of table without the command.
const NOT_SUPPORTED: i32 = 524;
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
            map_fd: descriptor(map),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values point to room for `count` entries of the table's sizes (the typed
        // handles check these when they are opened), in a table of each CPU for all CPUs that may be.
        let last = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &raw mut attr) } {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error).context("cannot read a kernel table"),
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

/// Copies the entries of an array. One that is written meanwhile may be half of the old and half of the new.
///
/// # Safety
///
/// `to` is memory for as many values as the array has entries.
pub unsafe fn copy_array<V>(map: &MapData, to: *mut [V]) -> Result<()> {
    let mut keys = vec![0_u32; to.len().min(CHUNK as usize)];
    let mut position = 0_u32;
    let mut done = 0;
    while done < to.len() {
        let count = (to.len() - done).min(keys.len());
        let mut attr = BatchAttr {
            in_batch: if done == 0 {
                0
            } else {
                (&raw const position) as u64
            },
            out_batch: (&raw mut position) as u64,
            keys: keys.as_mut_ptr() as u64,
            // SAFETY: `done` is less than the length.
            values: unsafe { to.cast::<V>().add(done) } as u64,
            count: u32::try_from(count)?,
            map_fd: descriptor(map),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: there is room for `count` keys and values at these places.
        match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &raw mut attr) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                return Err(error).context("cannot read a kernel table");
            }
            _ => {}
        }
        if attr.count == 0 {
            break;
        }
        done += attr.count as usize;
    }
    Ok(())
}

/// Writes entries in this order, whether or not the table has them. One after the other where the kernel has no batches
/// for this kind of table.
pub fn write<K: aya::Pod, V: aya::Pod>(
    map: &MapData,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Result<()> {
    let (keys, values): (Vec<K>, Vec<V>) = entries.into_iter().unzip();
    if keys.is_empty() {
        return Ok(());
    }
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len())?,
        map_fd: descriptor(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: as many keys and values as is said, of the table's sizes, as above.
    match unsafe { bpf(BPF_MAP_UPDATE_BATCH, &raw mut attr) } {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | NOT_SUPPORTED)) => {
            write_singly(map, &keys, &values)
        }
        Err(error) => Err(error),
    }
    .context("cannot write a kernel table")
}

fn write_singly<K, V>(map: &MapData, keys: &[K], values: &[V]) -> io::Result<()> {
    for (key, value) in keys.iter().zip(values) {
        let mut attr = EntryAttr {
            map_fd: descriptor(map),
            _padding: 0,
            key: (&raw const *key) as u64,
            value: (&raw const *value) as u64,
            flags: 0,
        };
        // SAFETY: a key and a value of the table's sizes, as above.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &raw mut attr) }?;
    }
    Ok(())
}

fn descriptor(map: &MapData) -> u32 {
    map.fd().as_fd().as_raw_fd().cast_unsigned()
}
