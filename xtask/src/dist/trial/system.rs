//! A Debian in memory, on one host of the trial's network.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lan::{FOLDER, Host},
    process,
};

/// What package managers keep for themselves, below the root.
const BOOKKEEPING: [&str; 6] = [
    "proc",
    "sys",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
];

pub(super) struct System<'lan> {
    host: &'lan Host,
    root: PathBuf,
}

impl<'lan> System<'lan> {
    /// Unpacks an archive, and mounts what programs expect.
    pub(super) fn unpack(archive: &Path, host: &'lan Host) -> Result<Self> {
        let root = Path::new(FOLDER).join("debian");
        fs::create_dir(&root)?;
        process::run(
            Command::new("tar")
                .args(["--numeric-owner", "--xattrs-include=*", "--extract"])
                .arg("--file")
                .arg(archive)
                .arg("--directory")
                .arg(&root),
        )?;
        // By the host's own processes, as `/sys` shows the network namespace of its mounter.
        for (kind, folder) in [("proc", "proc"), ("sysfs", "sys"), ("bpf", "sys/fs/bpf")] {
            process::run(
                host.command("mount")
                    .args(["-t", kind, kind])
                    .arg(root.join(folder)),
            )?;
        }
        Ok(Self { host, root })
    }

    /// Returns the path outside of a file inside.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Runs a line of shell as root, and returns its standard output. Fails where it does.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let output = self.output(line)?;
        let [said, complained] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ensure!(
            output.status.success(),
            "`{line}` failed ({}):\n{said}{complained}",
            output.status
        );
        Ok(said)
    }

    /// Runs a line of shell, and fails unless it ends with this exit status.
    pub(super) fn exits(&self, line: &str, expected: i32) -> Result<()> {
        let output = self.output(line)?;
        ensure!(
            output.status.code() == Some(expected),
            "`{line}` should have ended with {expected} and not with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Returns every file and folder, apart from what package managers keep for themselves.
    pub(super) fn files(&self) -> Result<BTreeSet<PathBuf>> {
        let device = fs::metadata(&self.root)?.dev();
        let (mut found, mut folders) = (BTreeSet::new(), vec![self.root.clone()]);
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder);
            let entries = entries.with_context(|| format!("cannot list {}", folder.display()))?;
            for entry in entries {
                let path = entry?.path();
                let inside = path.strip_prefix(&self.root).unwrap_or(&path).to_owned();
                if BOOKKEEPING.iter().any(|kept| inside.starts_with(kept)) {
                    continue;
                }
                let metadata = path.symlink_metadata()?;
                if metadata.is_dir() && metadata.dev() == device {
                    folders.push(path);
                }
                found.insert(inside);
            }
        }
        Ok(found)
    }

    fn output(&self, line: &str) -> Result<Output> {
        let mut command = self.host.command("chroot");
        command
            .arg(&self.root)
            .args(["/bin/sh", "-c", line])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("DEBIAN_FRONTEND", "noninteractive");
        process::output(&mut command)
    }
}
