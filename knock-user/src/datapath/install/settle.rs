//! Finishes or undoes what a process that was killed has left half done.
//!
//! To replace a configuration, directories for the next one are filled under other names; then the links get the new
//! programs, or the slot of another's array does; then each directory changes places with the one before it; then those are
//! removed, once what follows is [done](super::complete). Until the first has changed places, the replacement is undone; from then
//! on it is finished. Either way an interface that was guarded stays so.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    attachment,
    complete::{complete_killed, give_up_place},
    entry::Entry,
    framing::Framing,
    pins::{
        access, change,
        directory::{self, Directory, Holds, LINK, PROGRAMS},
        lock::Busy,
        root::PinRoot,
    },
};
use crate::{
    datapath::{
        chain::into,
        error::other_version,
        keys::Keys,
        open::{self, Datapath},
    },
    sys::{bpf, grace},
};

/// Finishes or undoes a replacement that a process which was killed has left, if no other one is at work. Until then the kernel may
/// enforce another configuration than the pins show, or one on trial. Removes what a `down` has left that was killed. Returns whether
/// there was anything.
pub fn settle_killed(root: &PinRoot) -> Result<bool> {
    let is_left = || -> Result<bool> {
        let directories = root.directories()?;
        // Of interfaces that another configuration has left out, they are of the one before.
        let mut generations = BTreeSet::new();
        for directory in &directories {
            match directory.holds {
                Holds::Unfinished => return Ok(true),
                Holds::Instance => {
                    if is_remains(&directory.path)? {
                        return Ok(true);
                    }
                    let meta = directory::meta_if_there(&directory.path)?;
                    generations.extend(meta.map(|meta| meta.generation));
                }
                Holds::OtherVersion | Holds::Foreign(_) => {}
            }
        }
        Ok(generations.len() > 1)
    };
    if !is_left()? {
        return Ok(false);
    }
    match root.try_lock() {
        Err(error) if error.is::<Busy>() => Ok(false),
        Ok(Some(_lock)) if is_left()? => settle(root).map(|()| true),
        lock => lock.map(|_| false),
    }
}

/// Returns whether a directory of the instance is what `down` leaves when it is killed: the tables are gone that it removes first, and
/// before these went the links, and the program left its slot. From another one somebody else has removed pins; it may have no link
/// all the same, where its interface has gone or the slot was emptied.
fn is_remains(directory: &Path) -> Result<bool> {
    Ok(!directory::is_whole(directory)
        && change::is_partly_unpinned(directory)
        && directory::links(directory)?.is_empty()
        && !into::holds(directory)?)
}

/// Returns whether a program pinned in a directory is in its slot, or a link pinned there is on an interface.
pub(super) fn is_attached(directory: &Path) -> Result<bool> {
    if into::holds(directory)? {
        return Ok(true);
    }
    for path in directory::links(directory)? {
        let link = bpf::program_link(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        if link.is_some_and(|link| link.interface.is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a process has left half done is still to be done, by whoever comes next.
#[derive(Debug)]
pub struct Unsettled;

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "what follows from a replacement that was killed or has failed is still not done, so grants and keys may be in force \
             that do not apply any more",
        )
    }
}

impl std::error::Error for Unsettled {}

/// Finishes or undoes a replacement, and removes what is left of anything else. Fails with [`Unsettled`] where the rest is for whoever
/// comes next. Needs the lock.
pub fn settle(root: &PinRoot) -> Result<()> {
    let directories = root.directories()?;
    if let Some(other) = directories
        .iter()
        .find(|of| of.holds == Holds::OtherVersion)
    {
        return Err(other_version(&other.path));
    }
    let newest = newest(&directories)?;
    let (complete, unfinished): (Vec<_>, Vec<_>) = directories
        .into_iter()
        .partition(|of| of.holds != Holds::Unfinished);
    let is_begun = |of: &Directory| {
        let belongs = generation(&of.path);
        belongs.is_some() && belongs == newest && generation(&root.of(&of.interface)) < newest
    };
    let (begun, undone): (Vec<_>, Vec<_>) = unfinished.iter().partition(|of| is_begun(of));
    let mut kept = Vec::new();
    for directory in &begun {
        kept.extend(link_ids(&directory.path)?);
    }
    for directory in complete.iter().filter(|of| of.holds == Holds::Instance) {
        if generation(&directory.path) == newest {
            kept.extend(link_ids(&directory.path)?);
        }
    }
    for directory in begun {
        take_place(root, &directory.interface, &kept)?;
    }
    if !undone.is_empty() {
        let next: Vec<PathBuf> = undone.into_iter().map(|of| of.path.clone()).collect();
        let before = complete.iter().filter(|of| of.holds == Holds::Instance);
        let before: Vec<PathBuf> = before.map(|of| of.path.clone()).collect();
        undo(&next, &before)?;
    }
    let is_before = |path: &Path| generation(path).is_some_and(|of| Some(of) < newest);
    let mut left = unfinished;
    left.retain(|of| !is_before(&of.path) && of.path.exists());
    // First: while their directories are there, whoever comes next does it, if this process is killed or fails.
    if has_whole(root)? {
        put_back_keys(root, left.iter().map(|of| of.path.as_path())).context(Unsettled)?;
    }
    for directory in &left {
        forget_left(root, directory)?;
    }
    for directory in complete.iter().filter(|of| of.holds == Holds::Instance) {
        // By its path: what was begun has been given its name meanwhile. One of the newest generation from which somebody has removed
        // pins is `up`'s to replace.
        let meta = directory::meta_if_there(&directory.path)?;
        let is_left_out = meta.is_some_and(|meta| Some(meta.generation) < newest);
        if is_left_out || is_remains(&directory.path)? {
            give_up_place(root, &directory.interface)?;
        }
    }
    let mut left = root.directories()?;
    left.retain(|of| of.holds == Holds::Unfinished);
    if has_whole(root)?
        && let Some(before) = left.iter().find(|of| is_before(&of.path))
    {
        complete_killed(root, &before.path).context(Unsettled)?;
    }
    for directory in &left {
        forget_left(root, directory)?;
    }
    Ok(())
}

/// Returns whether an instance is up with all its tables: with others, nothing that follows can be done.
fn has_whole(root: &PinRoot) -> Result<bool> {
    let directories = root.directories()?;
    Ok(directories
        .iter()
        .any(|of| of.holds == Holds::Instance && directory::is_whole(&of.path)))
}

/// Puts the keys of the configuration that stays into force, where those of one that is undone may have been put into the tables of
/// both. `undone`: the directories of that, or what is left of them.
pub(super) fn put_back_keys<'d>(
    root: &PinRoot,
    undone: impl Iterator<Item = &'d Path>,
) -> Result<()> {
    let folders: Vec<PathBuf> = undone
        .filter(|path| generation(path).is_some())
        .filter_map(|path| Some(open::applied(path).ok()?.config.knock.keys))
        .collect();
    if folders.is_empty() {
        return Ok(());
    }
    let mut datapath = Datapath::open(root)?;
    let keys = Keys::read(datapath.config(), false)?;
    // Else what is in the tables may be of another folder, and is not what this configuration admits.
    let is_own = folders.iter().all(|of| *of == datapath.config().knock.keys);
    let compiled = keys.compile(&datapath.applied, is_own.then_some(&datapath))?;
    if let Some(error) = datapath.apply_compiled(compiled)? {
        tracing::warn!("{error:#}");
    }
    Ok(())
}

fn forget_left(root: &PinRoot, directory: &Directory) -> Result<()> {
    forget(root, &directory.path)?;
    tracing::info!(
        "finished what a knockgate that was killed or has failed had begun for {}",
        directory.interface
    );
    Ok(())
}

/// Gives the directory that was filled for `interface` its name. What had that name gets the other's.
/// `kept`: the links that the new directories have already, each in that of its interface's present name.
pub(super) fn take_place(root: &PinRoot, interface: &str, kept: &[u32]) -> Result<()> {
    let (next, place) = (root.unnamed(interface), root.of(interface));
    share_links(&place, &next, |link, _| !kept.contains(&link))?;
    let mut directories = root.directories()?.into_iter();
    // When all pins are there: a process without `CAP_FSETID` that changes the directory's mode takes its set-group-id bit
    // away, from which they have their group. Another one's where the interface is new.
    let model =
        directories.find(|of| of.holds == Holds::Instance && (of.path == place || !place.exists()));
    if let Some(model) = model {
        access::carry(&model.path, &next);
    }
    let moved = if place.exists() {
        exchange(&next, &place)
    } else {
        fs::rename(&next, &place)
    };
    moved.with_context(|| format!("cannot make {}", place.display()))
}

/// Pins the links of `from` that are on an interface in `to` as well, if they are wanted by their ids and the indices of their
/// interfaces.
pub(super) fn share_links(
    from: &Path,
    to: &Path,
    is_wanted: impl Fn(u32, u32) -> bool,
) -> Result<()> {
    let there = link_ids(to)?;
    for path in directory::links(from)? {
        let link = bpf::program_link(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        let Some((id, index)) = link.and_then(|link| Some((link.id, link.interface?.get()))) else {
            continue;
        };
        if !is_wanted(id, index) || there.contains(&id) {
            continue;
        }
        let mut copy = to.join(path.file_name().unwrap_or(OsStr::new(LINK)));
        if copy.exists() {
            // Another link has that name.
            copy = directory::free_link(to, index);
        }
        bpf::open(&path)
            .and_then(|link| bpf::pin(&link, &copy))
            .with_context(|| format!("cannot pin a link in {}", to.display()))?;
    }
    Ok(())
}

/// Has links and slot carry the programs of the instance again, whose directories are `before`, in place of those pinned in
/// `next`. Each packet is judged by the one or the other.
pub(super) fn undo(next: &[PathBuf], before: &[PathBuf]) -> Result<()> {
    // All of them, before anything is removed: one program may guard several interfaces.
    if let Err(error) = change_slot(next, before) {
        // Its array takes programs of another kind by now.
        tracing::warn!("{error:#}");
    }
    if let Some(into) = next.iter().find_map(|of| into::of(of)) {
        // What could not be exchanged must not stay: soon nothing leads to its tables any more.
        for name in PROGRAMS {
            let only: Vec<u32> = only_in(name, next, before)?.into_keys().collect();
            into.release(&only)?;
        }
    }
    change_programs(before, next, before)?;
    // What packets go on to is in tables that are removed next.
    grace::wait();
    Ok(())
}

/// Has the links pinned in `links` carry the programs pinned in `to` in place of those pinned in `from`, each in place of one that
/// reads the same packets. All are directories.
pub(super) fn change_programs(links: &[PathBuf], from: &[PathBuf], to: &[PathBuf]) -> Result<()> {
    for name in PROGRAMS {
        let Some(new) = pinned(name, to)?.into_values().next() else {
            continue;
        };
        for old in only_in(name, from, to)?.values() {
            for directory in links {
                update_links(directory, old, &new)?;
            }
        }
    }
    Ok(())
}

/// As [`change_programs`], in the slot that the instance is in, if it is in one.
pub(super) fn change_slot(from: &[PathBuf], to: &[PathBuf]) -> Result<()> {
    let Some(into) = from.iter().chain(to).find_map(|of| into::of(of)) else {
        return Ok(());
    };
    // No array holds an entry for TCX.
    for name in [Framing::Ethernet, Framing::BareIp].map(|framing| Entry::xdp(framing).pin()) {
        let Some(new) = pinned(name, to)?.into_values().next() else {
            continue;
        };
        let old: Vec<u32> = only_in(name, from, to)?.into_keys().collect();
        if !old.is_empty() {
            let new = bpf::open(&new).with_context(|| format!("cannot open {}", new.display()))?;
            into.change(&old, &new)?;
        }
    }
    Ok(())
}

/// Returns a pin of each program that has this name in one of the directories, by its id. Most have the same, but an entry that
/// was needed later may have been loaded for each.
fn pinned(name: &str, directories: &[PathBuf]) -> Result<BTreeMap<u32, PathBuf>> {
    let mut pins = BTreeMap::new();
    for directory in directories {
        let pin = directory.join(name);
        if pin.exists() {
            pins.insert(attachment::program_id(&pin)?, pin);
        }
    }
    Ok(pins)
}

/// As [`pinned`], without the programs that are pinned in `others` too: a directory that is filled with pins that were gone has the
/// programs that are in force.
fn only_in(
    name: &str,
    directories: &[PathBuf],
    others: &[PathBuf],
) -> Result<BTreeMap<u32, PathBuf>> {
    let kept = pinned(name, others)?;
    let mut pins = pinned(name, directories)?;
    pins.retain(|program, _| !kept.contains_key(program));
    Ok(pins)
}

/// Puts the program pinned at `to` in place of that pinned at `from` on the links pinned in `directory`.
fn update_links(directory: &Path, from: &Path, to: &Path) -> Result<()> {
    let cannot = || {
        format!(
            "cannot replace the program of the links in {}",
            directory.display()
        )
    };
    let id = attachment::program_id(from)?;
    let old = bpf::open(from).with_context(cannot)?;
    let new = bpf::open(to).with_context(cannot)?;
    for path in directory::links(directory)? {
        let Some(state) = bpf::program_link(&path).with_context(cannot)? else {
            continue;
        };
        if state.program == id && state.interface.is_some() {
            let link = bpf::open(&path).with_context(cannot)?;
            bpf::update_link(&link, &new, &old).with_context(cannot)?;
        }
    }
    Ok(())
}

/// Removes a directory of an instance that has others. Its links stay on their interfaces where they are pinned elsewhere under
/// the root, and the slot is left as it is.
pub(super) fn forget(root: &PinRoot, directory: &Path) -> Result<()> {
    let mut elsewhere = Vec::new();
    for other in root.directories()? {
        if other.path != directory && matches!(other.holds, Holds::Instance | Holds::Unfinished) {
            elsewhere.extend(link_ids(&other.path)?);
        }
    }
    for path in directory::links(directory)? {
        let link = bpf::program_link(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        if link.is_some_and(|link| elsewhere.contains(&link.id)) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    change::unpin(directory)
}

pub(super) fn link_ids(directory: &Path) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for path in directory::links(directory)? {
        let link = bpf::program_link(&path)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        ids.extend(link.map(|link| link.id));
    }
    Ok(ids)
}

/// Returns the highest generation of the instance's directories.
fn newest(directories: &[Directory]) -> Result<Option<u32>> {
    let mut newest = None;
    for directory in directories.iter().filter(|of| of.holds == Holds::Instance) {
        newest = newest.max(Some(directory::meta(&directory.path)?.generation));
    }
    Ok(newest)
}

/// Returns the generation of a whole directory.
pub(super) fn generation(directory: &Path) -> Option<u32> {
    if !directory::is_whole(directory) {
        return None;
    }
    directory::meta(directory).ok().map(|meta| meta.generation)
}

/// Has two directories change places. The BPF file system can do so since Linux 5.17 (`simple_rename` of `fs/libfs.c`).
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes());
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: both names outlive the call.
    let result = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
