//! Where the gate is pinned: `ROOT/IFACE/{link,program}` and one pin for each table.
//!
//! All interfaces of one gate share their tables, so each directory holds pins of the same ones.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};

use super::{NEEDS_TO_OPEN, NotPermitted, is_denied};

/// Where pins live unless `--pin-root` says otherwise.
pub const DEFAULT_ROOT: &str = "/sys/fs/bpf/knockgate";

/// Name of the link's pin in an interface's directory.
pub const LINK: &str = "link";
/// Name of the program's pin in an interface's directory.
pub const PROGRAM: &str = "program";

/// Stands for a dot in the name of an interface's directory.
const DOT: &str = "%2e";

/// The directory under which interfaces are pinned.
#[derive(Debug, Clone)]
pub struct PinRoot(PathBuf);

impl PinRoot {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of one interface. Its name, but for dots, which the BPF file system keeps for
    /// itself: `eth0.100` is pinned in `eth0%2e100`. No interface name has a `%` of its own.
    pub fn of(&self, interface: &str) -> PathBuf {
        self.0.join(interface.replace('.', DOT))
    }

    /// Interfaces that have pins, in order of their names.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if is_denied(&error) => {
                return Err(NotPermitted {
                    what: format!("to read the pins in {}", self.0.display()),
                    needs: NEEDS_TO_OPEN,
                }
                .into());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.0.display()));
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", self.0.display()))?;
            if entry.path().is_dir() {
                names.push(entry.file_name().to_string_lossy().replace(DOT, "."));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes the root, mounting a missing BPF file system first.
    pub fn make(&self) -> Result<()> {
        if !self.0.exists() && self.0.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS))? {
            mount_bpffs().with_context(|| {
                format!(
                    "no BPF file system is mounted at {BPFFS}, and mounting one failed; try \
                     `mount -t bpf bpf {BPFFS}`"
                )
            })?;
            tracing::info!("mounted the BPF file system at {BPFFS}");
        }
        make_directory(&self.0)?;
        if is_bpffs(&self.0)? {
            Ok(())
        } else {
            // Only if it was empty: nobody's files are touched.
            let _ = fs::remove_dir(&self.0);
            Err(anyhow!(
                "{} is not on a BPF file system, so nothing can be pinned there; choose a \
                 --pin-root under {BPFFS}, or mount one with `mount -t bpf bpf DIRECTORY`",
                self.0.display()
            ))
        }
    }

    /// Keeps other knockgate commands from changing what is pinned here, until it is dropped.
    pub fn lock(&self) -> Result<Lock> {
        loop {
            let directory =
                File::open(&self.0).with_context(|| format!("cannot open {}", self.0.display()))?;
            // SAFETY: the descriptor is open; the call touches no memory.
            if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX) } != 0 {
                return Err(io::Error::last_os_error())
                    .with_context(|| format!("cannot lock {}", self.0.display()));
            }
            // Whoever held the lock may have removed the directory: lock what is there now.
            match fs::metadata(&self.0) {
                Ok(now)
                    if directory
                        .metadata()
                        .is_ok_and(|held| held.ino() == now.ino()) =>
                {
                    return Ok(Lock {
                        _directory: directory,
                    });
                }
                Ok(_) => {}
                Err(_) => make_directory(&self.0)?,
            }
        }
    }

    /// Removes everything pinned for `interface`. The link goes first: while it is pinned, tables
    /// must be there for the commands that look at them.
    pub fn remove(&self, interface: &str) -> Result<()> {
        let directory = self.of(interface);
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let in_directory = || format!("cannot remove the pins in {}", directory.display());
        let link = directory.join(LINK);
        detach(&link);
        gone(fs::remove_file(link)).with_context(in_directory)?;
        match fs::read_dir(&directory) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry.with_context(in_directory)?.path();
                    gone(fs::remove_file(path)).with_context(in_directory)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(in_directory),
        }
        gone(fs::remove_dir(&directory)).with_context(in_directory)
    }

    /// Removes the root if nothing is pinned in it any more.
    pub fn tidy(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// An exclusive lock; see [`PinRoot::lock`].
pub struct Lock {
    _directory: File,
}

/// Takes what is attached by the link pinned at `path` off its interface. Removing the pin does that too, but
/// the kernel may take its time for it; so where this can't be done (before Linux 5.9) it is done later.
fn detach(path: &Path) {
    /// `BPF_OBJ_GET` and `BPF_LINK_DETACH` of `linux/bpf.h`.
    const OBJ_GET: libc::c_int = 7;
    const LINK_DETACH: libc::c_int = 34;
    /// Their members of `bpf_attr`.
    #[repr(C)]
    struct ObjGet {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    #[repr(C)]
    struct LinkDetach {
        link_fd: u32,
    }
    let Ok(name) = CString::new(path.as_os_str().as_encoded_bytes()) else {
        return;
    };
    let get = ObjGet {
        pathname: name.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the kernel reads the structure, whose size is given, and the name, which ends with a zero
    // byte; both outlive the call.
    let opened =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &raw const get, size_of::<ObjGet>()) };
    let Some(link) = i32::try_from(opened).ok().filter(|&link| link >= 0) else {
        return;
    };
    // SAFETY: a descriptor that the call above has made for us, and nobody else has.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let attributes = LinkDetach {
        link_fd: link.as_raw_fd().cast_unsigned(),
    };
    // SAFETY: the kernel reads the structure, whose size is given.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LINK_DETACH,
            &raw const attributes,
            size_of::<LinkDetach>(),
        )
    };
}

const BPFFS: &str = "/sys/fs/bpf";

/// Makes a directory that only its owner can look into: pins give away the sequences.
pub fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if is_denied(&error) => Err(NotPermitted {
            what: format!("to create {}", path.display()),
            needs: super::NEEDS_TO_LOAD,
        }
        .into()),
        result => result.with_context(|| format!("cannot create {}", path.display())),
    }
}

/// Is `path` on a BPF file system?
fn is_bpffs(path: &Path) -> Result<bool> {
    /// `BPF_FS_MAGIC` of `linux/magic.h`.
    const MAGIC: u64 = 0xcafe_4a11;
    let name = CString::new(path.as_os_str().as_encoded_bytes())
        .with_context(|| format!("{} is no path", path.display()))?;
    // SAFETY: all zeros is a valid `statfs`; the name ends with a zero byte, and the call fills the
    // structure or fails.
    let kind = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        if libc::statfs(name.as_ptr(), &raw mut stat) != 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot look at {}", path.display()));
        }
        stat.f_type
    };
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == MAGIC))
}

fn mount_bpffs() -> io::Result<()> {
    let bpf = c"bpf";
    // SAFETY: three strings that end with a zero byte, no flags, no data.
    let result = unsafe {
        libc::mount(
            bpf.as_ptr(),
            c"/sys/fs/bpf".as_ptr(),
            bpf.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
