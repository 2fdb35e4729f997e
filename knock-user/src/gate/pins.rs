//! Where the gate is pinned: `ROOT/IFACE/{link,program}` and one pin for each table.
//!
//! All interfaces of one gate share their tables, so each directory holds pins of the same ones. A directory is
//! made under another name and renamed once everything but the link is in it: one that bears an interface's
//! name has all tables. A process that is killed meanwhile leaves what the next one recognizes and removes.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{MapError, MapInfo, MapType};

use super::{
    NEEDS_TO_OPEN, NotPermitted,
    framing::Framing,
    is_denied,
    memory::{self, TableKind, TableSize},
    tables::{layout_of, pin_name},
};
use crate::sys::bpf::{self, Kind};

/// Where pins live unless `--pin-root` says otherwise.
pub const DEFAULT_ROOT: &str = "/sys/fs/bpf/knockgate";

/// Name of the link's pin in an interface's directory. A link that has stayed on a card which was renamed
/// makes room for the next as `link%INDEX`.
pub const LINK: &str = "link";
/// Name of the program's pin in an interface's directory.
const PROGRAM: &str = "program";
/// Name of the pin of the entry for links without a header.
const PROGRAM_IP: &str = "program_ip";
/// Names of the pins of the program's entries.
pub const PROGRAMS: [&str; 2] = [PROGRAM, PROGRAM_IP];

/// Name of the pin of the entry that reads this framing. An entry is pinned once an interface needs it.
pub const fn program(framing: Framing) -> &'static str {
    match framing {
        Framing::Ethernet => PROGRAM,
        Framing::BareIp => PROGRAM_IP,
    }
}

/// Name of the pin of the table that identifies a gate.
const META: &str = "meta";

/// Stands for a dot in the name of an interface's directory.
const DOT: &str = "%2e";
/// Begins the name of a directory that is being filled.
const NEW: &str = "%new-";

/// How long another command may keep the pins locked. Loading takes seconds on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The directory under which interfaces are pinned.
#[derive(Debug, Clone)]
pub struct PinRoot(PathBuf);

/// An entry of the pin root.
#[derive(Debug)]
pub struct Directory {
    /// The interface that it was made for.
    pub interface: String,
    pub path: PathBuf,
    pub contents: Contents,
}

/// What an entry of the pin root holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Tables of this layout.
    Gate,
    /// A part of what this build pins, on no interface: a process was killed while it made or removed it.
    Unfinished,
    /// Pins of another version.
    OtherVersion,
    /// Not knockgate's; the name of something that shows it.
    Foreign(String),
}

/// Another process has had the pins locked for too long.
#[derive(Debug)]
pub struct Busy(String);

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Busy {}

impl PinRoot {
    /// However it is spelled, a directory is one root.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(canonical(path.as_ref()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of one interface. Its name, but for dots, which the BPF file system keeps for
    /// itself: `eth0.100` is pinned in `eth0%2e100`. No interface name has a `%` of its own.
    pub fn of(&self, interface: &str) -> PathBuf {
        self.0.join(interface.replace('.', DOT))
    }

    /// Where the directory of an interface is filled, before [`PinRoot::of`] names it.
    fn unnamed(&self, interface: &str) -> PathBuf {
        self.0.join(format!("{NEW}{}", interface.replace('.', DOT)))
    }

    /// What is below the root, in order of the names. Nothing where there is no root.
    pub fn directories(&self) -> Result<Vec<Directory>> {
        self.refuse_dots()?;
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
        let on_bpffs = is_bpffs(&self.0)?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", self.0.display()))?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let contents = if !on_bpffs || !path.is_dir() {
                Contents::Foreign(name.clone())
            } else {
                match contents(&path, name.starts_with(NEW))? {
                    // A process that was killed has left it, with or without all tables.
                    Some(Contents::Gate) if name.starts_with(NEW) => Contents::Unfinished,
                    Some(contents) => contents,
                    // Gone since it was listed.
                    None => continue,
                }
            };
            let interface = name.strip_prefix(NEW).unwrap_or(&name).replace(DOT, ".");
            found.push(Directory {
                interface,
                path,
                contents,
            });
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
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
            if let Some(where_) = private_mount() {
                tracing::warn!(
                    "{where_}: the mount at {BPFFS}, and the gate with it, ends with the last process \
                     there. To keep the gate, mount one for the whole system first: `mount -t bpf bpf \
                     {BPFFS}`"
                );
            }
        }
        self.refuse_dots()?;
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

    /// Is there a root, and could anything be pinned in it?
    pub fn is_on_bpffs(&self) -> Result<Option<bool>> {
        self.refuse_dots()?;
        match self.0.try_exists() {
            Ok(true) => is_bpffs(&self.0).map(Some),
            Ok(false) => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot look at {}", self.0.display()))
            }
        }
    }

    /// Keeps other knockgate commands from changing what is pinned here, until it is dropped; makes the
    /// root where there is none.
    ///
    /// What is locked is the root itself: only its owner can open it, which can't be said of the file system's
    /// top, and it is shared exactly where the pins are. Whoever removes it holds the lock, and who gets the
    /// lock afterwards sees that what they hold is no longer there.
    pub fn lock(&self) -> Result<Lock> {
        loop {
            if let Some(lock) = self.acquire(PATIENCE)? {
                return Ok(lock);
            }
            self.make()?;
        }
    }

    /// As [`PinRoot::lock`], but none where there is no root.
    pub fn lock_existing(&self) -> Result<Option<Lock>> {
        self.acquire(PATIENCE)
    }

    /// As [`PinRoot::lock_existing`], but fails with [`Busy`] instead of waiting.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        self.acquire(Duration::ZERO)
    }

    fn acquire(&self, patience: Duration) -> Result<Option<Lock>> {
        self.refuse_dots()?;
        let begun = Instant::now();
        loop {
            let directory = match File::open(&self.0) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) if is_denied(&error) => {
                    return Err(NotPermitted {
                        what: format!("to open {}", self.0.display()),
                        needs: NEEDS_TO_OPEN,
                    }
                    .into());
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot open {}", self.0.display()));
                }
            };
            // SAFETY: the descriptor is open; the call touches no memory.
            if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                let is_there = |held: fs::Metadata| {
                    fs::metadata(&self.0)
                        .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()))
                };
                if directory.metadata().is_ok_and(is_there) {
                    return Ok(Some(Lock {
                        _directory: directory,
                    }));
                }
                continue;
            }
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::EWOULDBLOCK | libc::EINTR)) {
                return Err(error).with_context(|| format!("cannot lock {}", self.0.display()));
            }
            if begun.elapsed() >= patience {
                let holder = directory.metadata().ok().and_then(|held| holder(&held));
                let holder = holder.unwrap_or_else(|| "another process".to_owned());
                return Err(Busy(format!(
                    "{holder} has kept {} locked for more than {} s; try again when it has ended",
                    self.0.display(),
                    patience.as_secs()
                ))
                .into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fills the directory of `interface` by `pin`, and names it when it is full. Needs the lock.
    pub fn fill(&self, interface: &str, pin: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let (unnamed, directory) = (self.unnamed(interface), self.of(interface));
        make_directory(&unnamed)?;
        let filled = pin(&unnamed).and_then(|()| {
            // In place of an empty directory, too.
            fs::rename(&unnamed, &directory).map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOTDIR) => anyhow!(
                    "{} is not knockgate's, so {interface} can't be pinned there; remove it, or choose \
                     another --pin-root",
                    directory.display()
                ),
                _ => anyhow!(error).context(format!("cannot make {}", directory.display())),
            })
        });
        if filled.is_err()
            && let Err(error) = remove(&unnamed)
        {
            tracing::warn!("{error:#}");
        }
        filled.map(|()| directory)
    }

    /// Removes the root if nothing is in it any more. Needs the lock.
    pub fn tidy(&self) {
        let _ = fs::remove_dir(&self.0);
    }

    /// The BPF file system says "not permitted" to a name with a dot (`bpf_lookup` of kernel/bpf/inode.c).
    fn refuse_dots(&self) -> Result<()> {
        for path in self.0.ancestors() {
            let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
                continue;
            };
            let name = name.to_string_lossy();
            if name.contains('.') && parent.exists() && is_bpffs(parent)? {
                bail!(
                    "`{name}` can't be the name of a directory in {}: the BPF file system takes no \
                     names with a dot; choose another --pin-root",
                    parent.display()
                );
            }
        }
        Ok(())
    }
}

/// An exclusive lock; see [`PinRoot::lock`].
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// Pins of links in a directory: the first is called [`LINK`].
pub fn links(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for name in names(directory)?.unwrap_or_default() {
        if is_link(&name) {
            links.push(directory.join(name));
        }
    }
    Ok(links)
}

/// Does it have all tables? A program that is missing can be loaded onto them.
pub fn is_whole(directory: &Path) -> bool {
    let tables = memory::shapes();
    let mut names = tables.iter().map(|table| pin_name(table.name));
    names.all(|name| directory.join(name).exists())
}

/// Pins the tables and the programs that are pinned in `from` in `to` as well.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let tables = memory::shapes();
    let names = tables.iter().map(|table| pin_name(table.name));
    let programs = PROGRAMS.into_iter().filter(|name| from.join(name).exists());
    for name in names.chain(programs.map(str::to_owned)) {
        bpf::open(&from.join(&name))
            .and_then(|object| bpf::pin(&object, &to.join(&name)))
            .with_context(|| format!("cannot pin {name} in {} again", to.display()))?;
    }
    Ok(())
}

/// Removes a directory with what is knockgate's in it. The link goes first: while it is there, so are the
/// tables. What identifies a gate goes last.
pub fn remove(directory: &Path) -> Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let in_directory = || format!("cannot remove the pins in {}", directory.display());
    for link in links(directory)? {
        // Where this can't be done (before Linux 5.9), removing the pin does it, only later.
        let _ = bpf::detach_link(&link);
        gone(fs::remove_file(link)).with_context(in_directory)?;
    }
    let Some(mut names) = names(directory)? else {
        return Ok(());
    };
    names.sort_by_key(|name| name == META);
    let mut left = Vec::new();
    for name in names {
        let path = directory.join(&name);
        if is_ours(&path, &name) {
            gone(fs::remove_file(path)).with_context(in_directory)?;
        } else {
            left.push(name);
        }
    }
    if left.is_empty() {
        gone(fs::remove_dir(directory)).with_context(in_directory)
    } else {
        tracing::warn!(
            "left in {}, since knockgate has not pinned it: {}",
            directory.display(),
            left.join(", ")
        );
        Ok(())
    }
}

/// Names in a directory; none where it is gone.
fn names(directory: &Path) -> Result<Option<Vec<String>>> {
    let cannot_read = || format!("cannot read {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_denied(&error) => {
            return Err(NotPermitted {
                what: format!("to read the pins in {}", directory.display()),
                needs: NEEDS_TO_OPEN,
            }
            .into());
        }
        Err(error) => return Err(error).with_context(cannot_read),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(cannot_read)?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(Some(names))
}

/// What a directory on a BPF file system holds; none where it is gone. `is_new`: by its name, it was being
/// filled, so that it needs no mark to be knockgate's.
fn contents(directory: &Path, is_new: bool) -> Result<Option<Contents>> {
    let Some(names) = names(directory)? else {
        return Ok(None);
    };
    if let Some(layout) = layout_of(directory)? {
        return Ok(Some(if layout == knock_common::layout::LAYOUT {
            Contents::Gate
        } else {
            Contents::OtherVersion
        }));
    }
    if !is_new {
        // Tables that happen to have the same names and shapes don't make these pins knockgate's.
        let unmarked = names.into_iter().next();
        return Ok(Some(
            unmarked.map_or(Contents::Unfinished, Contents::Foreign),
        ));
    }
    let tables = memory::shapes();
    let known = |name: &str| tables.iter().find(|table| pin_name(table.name) == name);
    let mut contents = Contents::Unfinished;
    for name in names {
        let path = directory.join(&name);
        let table = known(&name);
        if path.is_dir()
            || !(table.is_some() || PROGRAMS.contains(&name.as_str()) || is_link(&name))
        {
            return Ok(Some(Contents::Foreign(name)));
        }
        let is_of_this_build = match table {
            Some(table) => has_shape(&path, table)?,
            // A link may be on an interface, so that it guards something.
            None => PROGRAMS.contains(&name.as_str()) && is_program(&path)?,
        };
        if !is_of_this_build {
            contents = Contents::OtherVersion;
        }
    }
    Ok(Some(contents))
}

fn is_link(name: &str) -> bool {
    name.strip_prefix(LINK)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('%'))
}

/// Is it a pin that some version of knockgate has made? Those of this one are known by their names; a table of
/// another one bears its pin's name in the kernel, in capitals and cut after 15.
fn is_ours(path: &Path, name: &str) -> bool {
    let tables = memory::shapes();
    if PROGRAMS.contains(&name)
        || is_link(name)
        || tables.iter().any(|table| pin_name(table.name) == name)
    {
        return !path.is_dir();
    }
    let called = |info: &MapInfo| info.name_as_str().map(ToOwned::to_owned);
    is_kind(path, Kind::Map).unwrap_or(false)
        && MapInfo::from_pin(path)
            .ok()
            .and_then(|info| called(&info))
            .is_some_and(|called| {
                let expected: String = name.to_uppercase().chars().take(15).collect();
                called == expected
            })
}

fn has_shape(path: &Path, table: &TableSize) -> Result<bool> {
    if !is_kind(path, Kind::Map)? {
        return Ok(false);
    }
    let info = match MapInfo::from_pin(path) {
        Ok(info) => info,
        Err(MapError::SyscallError(call)) => return Err(call.io_error.into()),
        Err(error) => return Err(error.into()),
    };
    let kind = match table.kind {
        TableKind::Array | TableKind::MappedArray => MapType::Array,
        TableKind::PerCpuArray => MapType::PerCpuArray,
        TableKind::Hash => MapType::Hash,
        TableKind::LruHash => MapType::LruHash,
        TableKind::Trie => MapType::LpmTrie,
        TableKind::Ring => MapType::RingBuf,
    };
    Ok(info.map_type().is_ok_and(|found| found == kind)
        && info.key_size() as usize == table.key
        && info.value_size() as usize == table.value)
}

fn is_program(path: &Path) -> Result<bool> {
    is_kind(path, Kind::Program)
}

fn is_kind(path: &Path, kind: Kind) -> Result<bool> {
    match bpf::open(path) {
        Ok(object) => Ok(bpf::kind(&object) == Some(kind)),
        Err(error) if is_denied(&error) => Err(NotPermitted {
            what: format!("to open {}", path.display()),
            needs: NEEDS_TO_OPEN,
        }
        .into()),
        // Gone, or nothing that can be opened.
        Err(_) => Ok(false),
    }
}

/// Who holds the lock, by what /proc says of it.
fn holder(held: &fs::Metadata) -> Option<String> {
    let place = format!(
        "{:02x}:{:02x}:{}",
        libc::major(held.dev()),
        libc::minor(held.dev()),
        held.ino()
    );
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK");
        let (_, _, _, pid, of) = (
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
        );
        (of == place).then_some(pid)
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("process {pid} ({})", name.trim()))
}

/// The path without links, `.`, `..` and slashes at its end, as far as it exists.
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

const BPFFS: &str = "/sys/fs/bpf";

/// Makes a directory that only its owner can look into: pins give away the sequences.
fn make_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(error) if is_denied(&error) => Err(NotPermitted {
            what: format!("to create {}", path.display()),
            needs: super::NEEDS_TO_LOAD,
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

/// Says whether a mount made here is seen by this process's mount namespace alone.
fn private_mount() -> Option<&'static str> {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt"));
    match (namespace("self"), namespace("1")) {
        (Ok(own), Ok(first)) if own == first => None,
        (Ok(_), Ok(_)) => Some("this process has a mount namespace of its own"),
        _ => Some("this process may have a mount namespace of its own"),
    }
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

    #[test]
    fn links_are_known_by_name() {
        assert!(is_link("link") && is_link("link%7"));
        assert!(!is_link("linkage") && !is_link("program"));
    }
}
