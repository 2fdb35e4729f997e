//! Files that the service makes for its own life.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A file that this process has made, removed when dropped, unless another file has its name by then.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl OwnFile {
    /// Takes the file that has this name now.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(path, &fs::symlink_metadata(path)?))
    }

    /// Takes a file that is open, whatever has its name.
    pub fn of(path: &Path, open: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(open),
        }
    }

    /// Returns whether it still has its name.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity)
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the numbers of a file system and of a file in it.
fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_another_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [path, other] = ["one", "other"].map(|name| folder.path().join(name));
        for file in [&path, &other] {
            fs::write(file, "").expect("writable");
        }
        let [first, second] = [0, 1].map(|_| OwnFile::at(&path).expect("it is there"));
        fs::rename(&other, &path).expect("writable");
        assert!(!first.is_there());
        drop(first);
        assert!(path.exists());
        drop(second);
        drop(OwnFile::at(&path).expect("it is there"));
        assert!(!path.exists());
    }
}
