//! The BPF file system, which holds pins.

use std::{ffi::CString, fs, io, path::Path};

/// Where the BPF file system is mounted by convention.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Returns whether `path` is on a BPF file system.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    /// `BPF_FS_MAGIC` of `linux/magic.h`.
    const MAGIC: u64 = 0xcafe_4a11;
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path has a NUL byte in it")
    })?;
    // SAFETY: all zeros is a valid `statfs`; the name ends with a zero byte, and the call fills the
    // structure or fails.
    let kind = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        if libc::statfs(name.as_ptr(), &raw mut stat) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.f_type
    };
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == MAGIC))
}

/// Returns whether a BPF file system refuses the name of a path: it has "not permitted" for one with a dot (`bpf_lookup` of
/// `kernel/bpf/inode.c`).
pub fn refuses_name(path: &Path) -> io::Result<bool> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Ok(false);
    };
    Ok(name.to_string_lossy().contains('.') && parent.exists() && is_bpffs(parent)?)
}

/// Mounts a BPF file system at [`MOUNT_POINT`], for its owner alone, as systemd does. By default everybody may write to it.
pub fn mount() -> io::Result<()> {
    let bpf = c"bpf";
    // SAFETY: four strings that end with a zero byte, and no flags.
    let result = unsafe {
        libc::mount(
            bpf.as_ptr(),
            c"/sys/fs/bpf".as_ptr(),
            bpf.as_ptr(),
            0,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns why a mount made by this process may be invisible to the rest of the system; `None` where it is visible.
pub fn private_mount() -> Option<&'static str> {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt"));
    match (namespace("self"), namespace("1")) {
        (Ok(own), Ok(first)) if own == first => None,
        (Ok(_), Ok(_)) => Some("this process has a mount namespace of its own"),
        _ => Some("this process may have a mount namespace of its own"),
    }
}
