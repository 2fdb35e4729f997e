//! The folder with the files of keys: who may read it, one process at a time that changes it, files that are replaced whole.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{
    Host, HostKey, KeyName, KeySet, file,
    private::{read_private, refuse_open},
};

/// What all keys have in common.
const HOST_FILE: &str = "host";

/// Follows the name of a key.
const SUFFIX: &str = ".toml";

/// Begins the name of a file that is being written. What is left of one after a crash is removed by the next command.
const UNFINISHED: &str = ".new-";

/// How long another command may have the folder to itself. Each is done in far less than a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The folder in which a host keeps its keys: mode 0700, files 0600, owned by root or by who runs the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
}

/// The right to change what is in a folder, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    folder: Folder,
    directory: File,
}

impl Folder {
    pub fn open(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads every key. A folder that does not exist has none.
    ///
    /// # Errors
    /// Where others can read the folder or a file, where a file is none of a key, or two keys have one slot: none of the
    /// keys is to be used then.
    pub fn load(&self) -> Result<KeySet> {
        let mut set = KeySet::default();
        if !self.check()? {
            return Ok(set);
        }
        let entries = fs::read_dir(&self.path).with_context(|| self.cannot("read"))?;
        for entry in entries {
            let entry = entry.with_context(|| self.cannot("read"))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().unwrap_or_default();
            if name.starts_with(UNFINISHED) {
                continue;
            }
            let shown = path.display();
            let key = match name.strip_suffix(SUFFIX).map(KeyName::from_file) {
                _ if name == HOST_FILE => None,
                Some(Ok(key)) => Some(key),
                _ => bail!("{shown} is no file of a key: move it out of this folder"),
            };
            // Between the listing and now, a command may have removed it.
            let Some(text) = read_private(&path)? else {
                continue;
            };
            let unfit = |error: String| anyhow!("{shown} cannot be used: {error}");
            match key {
                None => set.host = Some(file::read_host(&text).map_err(unfit)?),
                Some(name) => {
                    let keys = file::read_keys(&name, &text).map_err(unfit)?;
                    set.keys.extend(keys);
                }
            }
        }
        set.keys.sort_by_key(|key| key.slot);
        for pair in set.keys.windows(2) {
            if let [one, other] = pair
                && one.slot == other.slot
            {
                let [one_file, other_file] = [one, other].map(|key| self.file_of(&key.name));
                bail!(
                    "{} and {} have the same slot, {}: one of them was copied here; remove it, and make a key by \
                     `knockgate key new`",
                    one_file.display(),
                    other_file.display(),
                    one.slot
                );
            }
        }
        if let (None, Some(key)) = (&set.host, set.keys.first()) {
            bail!(
                "{} is missing, without which key {} cannot be used: restore it, or remove the keys and make new ones",
                self.path.join(HOST_FILE).display(),
                key.name
            );
        }
        Ok(set)
    }

    /// Keeps other commands from changing the folder; makes it where there is none.
    pub fn lock(&self) -> Result<Lock> {
        if !self.check()? {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.path)
                .with_context(|| self.cannot("make"))?;
            self.check()?;
        }
        let directory = File::open(&self.path).with_context(|| self.cannot("open"))?;
        let begun = Instant::now();
        loop {
            match directory.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    ensure!(
                        begun.elapsed() < PATIENCE,
                        "another process has kept {} locked for more than {} s; try again when it has ended",
                        self.path.display(),
                        PATIENCE.as_secs()
                    );
                    thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| self.cannot("lock"));
                }
            }
        }
        let lock = Lock {
            folder: self.clone(),
            directory,
        };
        lock.remove_unfinished()?;
        Ok(lock)
    }

    /// Returns the file with the keys of `name`.
    pub fn file_of(&self, name: &KeyName) -> PathBuf {
        self.path.join(name.in_file() + SUFFIX)
    }

    /// Returns whether the folder exists; refuses one that others can use.
    fn check(&self) -> Result<bool> {
        let metadata = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            metadata => metadata.with_context(|| self.cannot("look at"))?,
        };
        let shown = self.path.display();
        ensure!(
            metadata.is_dir(),
            "{shown} is not a folder, and no link to one is followed: name the folder itself as `keys`"
        );
        refuse_open(&self.path, &metadata, "700")?;
        Ok(true)
    }

    fn cannot(&self, what: &str) -> String {
        format!("cannot {what} the folder of keys {}", self.path.display())
    }
}

impl Lock {
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Replaces what is kept under a name. `keys` are all keys that have or had it, the newest first; none removes the file.
    pub fn save(&self, name: &KeyName, keys: &[HostKey]) -> Result<()> {
        let path = self.folder.file_of(name);
        if keys.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.directory.sync_all(),
            }
            .with_context(|| format!("cannot remove {}", path.display()));
        }
        self.replace(&path, &file::write_keys(keys.iter()))
    }

    pub fn save_host(&self, host: &Host) -> Result<()> {
        let path = self.folder.path.join(HOST_FILE);
        self.replace(&path, &file::write_host(host))
    }

    /// Puts a file with this text, mode 0600, in the place of the one at `path`: a reader sees all of the one or the other.
    fn replace(&self, path: &Path, text: &str) -> Result<()> {
        let write = || {
            let mut new = tempfile::Builder::new()
                .prefix(UNFINISHED)
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(&self.folder.path)?;
            new.write_all(text.as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(path).map_err(|error| error.error)?;
            self.directory.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn remove_unfinished(&self) -> Result<()> {
        let failed = || self.folder.cannot("tidy");
        for entry in fs::read_dir(&self.folder.path).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(UNFINISHED))
            {
                fs::remove_file(entry.path()).with_context(failed)?;
            }
        }
        Ok(())
    }
}
