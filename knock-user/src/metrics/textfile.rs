//! Metrics in a file, for the textfile collector of the node exporter.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// The exporter runs as another user.
const MODE: u32 = 0o644;

/// Replaces the file at `path` by one with this text, mode 0644. A reader sees the old text or the new one; where it
/// fails, the old one stays.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let path = target(path).with_context(failed)?;
    let directory = path.parent().filter(|parent| *parent != Path::new(""));
    // The collector reads names that end with ".prom" only, so it never sees this one.
    let mut file = tempfile::Builder::new()
        .prefix(".knockgate-")
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .with_context(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().set_permissions(Permissions::from_mode(MODE)))
        // Where the machine loses power, a file without contents must not take the place of the old one.
        .and_then(|()| file.as_file().sync_all())
        .with_context(failed)?;
    file.persist(&path)
        .map_err(|error| error.error)
        .with_context(failed)?;
    Ok(())
}

/// Follows symbolic links, so that what they lead to is replaced and not they. Refuses a device or a pipe, which would be
/// replaced by a file.
fn target(path: &Path) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(path) => {
            let is_file = fs::metadata(&path)?.is_file();
            ensure!(
                is_file,
                "it is no ordinary file; without --textfile the metrics go to standard output"
            );
            Ok(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("readable");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("readable").file_name())
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_replaced_whole_and_readable_by_everyone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("knockgate.prom");
        for text in ["one 1\n", "two 2\n"] {
            write(&path, text).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("readable"), text);
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
        assert_eq!(names(folder.path()), ["knockgate.prom"]);
    }

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").expect("writable");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        write(&link, "new").expect("written");
        assert_eq!(fs::read_to_string(&file).expect("readable"), "new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    }

    #[test]
    fn a_device_is_refused_and_stays() {
        let error = write(Path::new("/dev/null"), "x").expect_err("a device");
        let error = format!("{error:#}");
        assert!(
            error.contains("cannot write /dev/null: it is no ordinary file"),
            "{error}"
        );
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("missing/knockgate.prom");
        write(&path, "x").expect_err("no such folder");
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).expect("a folder");
        write(&taken, "x").expect_err("a folder");
        assert_eq!(names(folder.path()), ["taken"]);
    }
}
