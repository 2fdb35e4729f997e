//! A copy of the workspace's sources in the target folder, into which faults are put.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::faults::Fault;
use crate::workspace;

/// Names that are not copied.
const LEFT_OUT: [&str; 3] = ["target", ".git", ".ci"];

/// The copy. It is kept, so that the next run builds only what has changed.
pub(super) struct Copy {
    root: PathBuf,
}

/// A fault in the copy. Dropping it removes the fault.
pub(super) struct Put {
    path: PathBuf,
    before: String,
}

impl Copy {
    /// Brings the copy up to date with the checkout.
    pub(super) fn make() -> Result<Self> {
        let root = workspace::target().join("mutants/source");
        let mut left_out: BTreeSet<OsString> = LEFT_OUT.into_iter().map(Into::into).collect();
        if root.starts_with(workspace::root()) {
            // Cargo also reads the settings in parent folders, and would use each flag twice.
            left_out.insert(".cargo".into());
        }
        mirror(&workspace::root(), &root, &left_out)
            .with_context(|| format!("cannot copy the sources to {}", root.display()))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn put(&self, fault: &Fault) -> Result<Put> {
        let path = self.root.join(fault.file);
        let before =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let after = fault.put_into(&before).with_context(|| {
            format!(
                "`{}`: the text to replace is not exactly once in {}: {}",
                fault.what, fault.file, fault.find
            )
        })?;
        fs::write(&path, after).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Put { path, before })
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        // If this fails, the next run's `Copy::make` does it.
        let _ = fs::write(&self.path, &self.before);
    }
}

/// Makes `to` a copy of `from`. Does not touch files that are equal, since cargo compares times.
fn mirror(from: &Path, to: &Path, left_out: &BTreeSet<OsString>) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if left_out.contains(&name) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            mirror(&entry.path(), &target, left_out)?;
        } else {
            let wanted = fs::read(entry.path())?;
            if fs::read(&target).ok().as_ref() != Some(&wanted) {
                fs::write(&target, wanted)?;
            }
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if names.contains(&entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{process, time::SystemTime};

    use super::*;

    #[test]
    fn a_mirror_follows_changes_and_touches_nothing_else() {
        let folder = std::env::temp_dir().join(format!("knockgate-mirror-{}", process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        let left_out = BTreeSet::from(["target".into()]);
        let made = || {
            mirror(&from, &to, &left_out).unwrap();
            let text = |name: &str| fs::read_to_string(to.join(name)).ok();
            (text("in/same"), text("in/other"), text("target/x"))
        };
        fs::create_dir_all(from.join("in")).unwrap();
        fs::create_dir_all(from.join("target")).unwrap();
        fs::write(from.join("in/same"), "1").unwrap();
        fs::write(from.join("in/other"), "2").unwrap();
        fs::write(from.join("target/x"), "3").unwrap();
        assert_eq!(made(), (Some("1".into()), Some("2".into()), None));

        let long_ago = SystemTime::UNIX_EPOCH;
        let same = fs::File::options()
            .write(true)
            .open(to.join("in/same"))
            .unwrap();
        same.set_modified(long_ago).unwrap();
        fs::write(from.join("in/other"), "4").unwrap();
        assert_eq!(made(), (Some("1".into()), Some("4".into()), None));
        assert_eq!(same.metadata().unwrap().modified().unwrap(), long_ago);

        fs::remove_file(from.join("in/other")).unwrap();
        assert_eq!(made(), (Some("1".into()), None, None));
        fs::remove_dir_all(folder).unwrap();
    }
}
