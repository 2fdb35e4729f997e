//! The file that the Debian package installs in the place of a configuration. It configures nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    process,
};

const PACKAGED: &[u8] = include_bytes!("../../../../../packaging/knockgate.toml");

/// Returns whether the file at `path` is still as the package installed it.
///
/// # Errors
/// Where it is not there or cannot be read.
pub(super) fn is_packaged(path: &Path) -> io::Result<bool> {
    // A link is the user's own, whatever it leads to.
    Ok(path.symlink_metadata()?.is_file() && fs::read(path)? == PACKAGED)
}

/// Puts `text` in the place of the package's file, with mode 0600.
///
/// Of several processes that do so at once, one succeeds.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] where the file is no longer the package's.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let packaged = File::open(path)?;
    // Who waited here holds a file that has been replaced.
    packaged.lock()?;
    if packaged.metadata()?.ino() != fs::metadata(path)?.ino() || !is_packaged(path)? {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", process::id()));
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&name)?;
    let replaced = new
        .write_all(text.as_bytes())
        .and_then(|()| new.sync_all())
        .and_then(|()| fs::rename(&name, path));
    if replaced.is_err() {
        // The package's file is still in its place; the remains are of no use.
        let _ = fs::remove_file(&name);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, sync::Barrier, thread};

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_package_configures_nothing() {
        let text = str::from_utf8(PACKAGED).expect("UTF-8");
        let invalid = Config::parse(text, "knockgate.toml").expect_err("there is no gate");
        let codes: Vec<_> = invalid.findings().iter().map(|found| found.code).collect();
        assert_eq!(codes, ["no-gate"]);
    }

    #[test]
    fn one_of_many_replaces_the_packages_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("knockgate.toml");
        fs::write(&path, PACKAGED).expect("writable");
        let (path, together) = (path.as_path(), &Barrier::new(8));
        let written: Vec<String> = thread::scope(|scope| {
            let runs: Vec<_> = (0..8)
                .map(|nth| {
                    scope.spawn(move || {
                        // The name of the new file is that of its process, and these share one.
                        let text = format!("# {nth}\n");
                        together.wait();
                        replace(path, &text).map(|()| text)
                    })
                })
                .collect();
            let results = runs.into_iter().map(|run| run.join().expect("no panic"));
            results.filter_map(Result::ok).collect()
        });
        assert_eq!(written.len(), 1, "{written:?}");
        assert_eq!(fs::read_to_string(path).expect("readable"), written[0]);
        assert_eq!(fs::read_dir(&folder).expect("readable").count(), 1);
    }

    #[test]
    fn a_file_that_was_changed_and_a_link_are_not_the_packages() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [path, link] = ["knockgate.toml", "link"].map(|name| folder.path().join(name));
        fs::write(&path, PACKAGED).expect("writable");
        symlink(&path, &link).expect("a link");
        assert!(is_packaged(&path).expect("readable"));
        assert!(!is_packaged(&link).expect("readable"));
        fs::write(&path, [PACKAGED, b"# mine\n"].concat()).expect("writable");
        assert!(!is_packaged(&path).expect("readable"));
        let error = replace(&path, "").expect_err("it was changed");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
}
