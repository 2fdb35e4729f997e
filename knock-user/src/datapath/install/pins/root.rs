//! The pin root: where it is, how its directories are called, and how it is made.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    datapath::error::{NEEDS_TO_LOAD, NotPermitted, cannot, is_denied},
    sys::bpf::fs::{self as bpffs, MOUNT_POINT},
};

/// Where pins live unless `--pin-root` says otherwise.
pub const DEFAULT_ROOT: &str = "/sys/fs/bpf/knockgate";

/// Stands for a dot in the name of an interface's directory.
const DOT: &str = "%2e";
/// Begins the name of a directory that is being filled.
const NEW: &str = "%new-";

/// The directory under which an instance is pinned.
#[derive(Debug, Clone)]
pub struct PinRoot(PathBuf);

impl PinRoot {
    /// Resolves `path`, so that all spellings of one directory are one root.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(canonical(path.as_ref()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the directory of an interface, named after it except for dots, which the BPF file system
    /// reserves: `eth0.100` is pinned in `eth0%2e100`. No interface name contains a `%`.
    pub fn of(&self, interface: &str) -> PathBuf {
        self.0.join(interface.replace('.', DOT))
    }

    /// Returns where the directory of an interface is filled, before it is renamed to [`PinRoot::of`].
    pub fn unnamed(&self, interface: &str) -> PathBuf {
        self.0.join(format!("{NEW}{}", interface.replace('.', DOT)))
    }

    /// Makes the root, mounting a missing BPF file system first.
    pub fn make(&self) -> Result<()> {
        if !self.0.exists() && self.0.starts_with(MOUNT_POINT) && !is_bpffs(Path::new(MOUNT_POINT))?
        {
            bpffs::mount().with_context(|| {
                format!(
                    "no BPF file system is mounted at {MOUNT_POINT}, and mounting one failed; try \
                     `mount -t bpf bpf {MOUNT_POINT}`"
                )
            })?;
            tracing::info!("mounted the BPF file system at {MOUNT_POINT}");
            if let Some(why) = bpffs::private_mount() {
                tracing::warn!(
                    "{why}: the mount at {MOUNT_POINT}, and what is pinned there, ends with the last process in \
                     it. To keep it, mount one for the whole system first: `mount -t bpf bpf {MOUNT_POINT}`"
                );
            }
        }
        self.refuse_dots()?;
        let on_bpffs = loop {
            make_directory(&self.0)?;
            // None: a `down` that ends now has removed it again.
            if let Some(on_bpffs) = self.is_on_bpffs()? {
                break on_bpffs;
            }
        };
        if on_bpffs {
            Ok(())
        } else {
            // Succeeds only where it is empty, so no file is lost.
            let _ = fs::remove_dir(&self.0);
            Err(anyhow!(
                "{} is not on a BPF file system, so nothing can be pinned there; choose a \
                 --pin-root under {MOUNT_POINT}, or mount one with `mount -t bpf bpf DIRECTORY`",
                self.0.display()
            ))
        }
    }

    /// Returns whether the root is on a BPF file system, so that something may be pinned in it; `None` where there is
    /// no root.
    pub fn is_on_bpffs(&self) -> Result<Option<bool>> {
        self.refuse_dots()?;
        match bpffs::is_bpffs(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("look at", &self.0, error)),
            Ok(on_bpffs) => Ok(Some(on_bpffs)),
        }
    }

    /// Removes the root if nothing is in it any more. Needs the lock.
    pub fn tidy(&self) {
        let _ = fs::remove_dir(&self.0);
    }

    /// Refuses a path with a name that the BPF file system refuses.
    pub(super) fn refuse_dots(&self) -> Result<()> {
        for path in self.0.ancestors() {
            let is_refused = bpffs::refuses_name(path);
            if is_refused.with_context(|| format!("cannot look at {}", path.display()))? {
                let (name, parent) = (path.file_name(), path.parent());
                bail!(
                    "`{}` cannot be the name of a directory in {}: the BPF file system takes no \
                     names with a dot; choose another --pin-root",
                    name.unwrap_or_default().display(),
                    parent.unwrap_or(path).display()
                );
            }
        }
        Ok(())
    }
}

/// Reads the name of a directory in the root: the interface that it is of, and whether it is still being filled.
pub(super) fn interface_of(directory: &str) -> (String, bool) {
    let unnamed = directory.strip_prefix(NEW);
    let name = unnamed.unwrap_or(directory).replace(DOT, ".");
    (name, unnamed.is_some())
}

/// Makes a directory that only its owner can look into, since pins give away the sequences.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    let is_gone =
        || fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        // It was there, and another process has removed it before it could be seen to be a directory.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_gone() => {
            make_directory(path)
        }
        Err(error) if is_denied(&error) => Err(NotPermitted {
            what: format!("to create {}", path.display()),
            needs: NEEDS_TO_LOAD,
        }
        .into()),
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => Err(anyhow!(
            "cannot create {}: the file system there is mounted read-only; mount it again with `mount -o \
             remount,rw`, or choose another --pin-root",
            path.display()
        )),
        result => result.with_context(|| format!("cannot create {}", path.display())),
    }
}

fn is_bpffs(path: &Path) -> Result<bool> {
    bpffs::is_bpffs(path).with_context(|| format!("cannot look at {}", path.display()))
}

/// Returns the path without links, `.`, `..` and slashes at its end, as far as it exists.
fn canonical(path: &Path) -> PathBuf {
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    let mut components = path.components();
    let last = components.next_back();
    let parent = || match components.as_path() {
        parent if parent.as_os_str().is_empty() => canonical(Path::new(".")),
        parent => canonical(parent),
    };
    match last {
        Some(Component::Normal(name)) => parent().join(name),
        Some(Component::CurDir) => parent(),
        Some(Component::ParentDir) => {
            let mut path = parent();
            path.pop();
            path
        }
        Some(Component::RootDir | Component::Prefix(_)) | None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_root_that_is_not_there_are_one() {
        let plain = PinRoot::new("/sys/fs/none/gate");
        for spelling in [
            "/sys/fs/none/gate/",
            "/sys/fs//none/./gate",
            "/sys/fs/none/other/../gate",
            "/sys/../sys/fs/none/gate/.",
        ] {
            assert_eq!(PinRoot::new(spelling).path(), plain.path(), "{spelling}");
        }
        assert!(PinRoot::new("gate").path().is_absolute());
    }

    /// It is looked at without the lock, so another command may remove it at any moment.
    #[test]
    fn a_root_that_comes_and_goes_is_no_error() {
        const ROUNDS: usize = 20_000;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = PinRoot::new(folder.path().join("root"));
        std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let _ = fs::create_dir(root.path());
                    let _ = fs::remove_dir(root.path());
                }
            });
            while !others.is_finished() {
                let on_bpffs = root.is_on_bpffs().expect("there or not");
                assert_ne!(on_bpffs, Some(true));
                assert!(root.directories().expect("there or not").is_empty());
                make_directory(root.path()).expect("there now");
                // Only what it is on is refused.
                let refused = root.make().expect_err("no BPF file system").to_string();
                assert!(refused.contains("is not on a BPF file system"), "{refused}");
            }
        });
    }

    #[test]
    fn spellings_of_a_root_that_is_there_are_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("writable");
        std::os::unix::fs::symlink(&root, folder.path().join("link")).expect("writable");
        let plain = PinRoot::new(&root);
        for spelling in ["link", "link/", "root/", "./link/../root"] {
            let spelled = PinRoot::new(folder.path().join(spelling));
            assert_eq!(spelled.path(), plain.path(), "{spelling}");
        }
    }
}
