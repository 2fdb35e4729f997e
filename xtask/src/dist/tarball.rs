//! The tarball, for systems without Debian's packages: it is unpacked into /usr/local.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{contents::Contents, emptied, read, write};
use crate::{process, setup, workspace};

/// Where each file goes. The first that is named is relative to the contents, the second to the checkout.
const MADE: [(&str, &str); 6] = [
    ("man", "share/man/man1"),
    (
        "completions/knockgate.bash",
        "share/bash-completion/completions/knockgate",
    ),
    (
        "completions/_knockgate",
        "share/zsh/site-functions/_knockgate",
    ),
    (
        "completions/knockgate.fish",
        "share/fish/vendor_completions.d/knockgate.fish",
    ),
    ("copyright", "share/doc/knockgate/copyright"),
    ("documents", "share/doc/knockgate"),
];
const KEPT: [(&str, &str); 3] = [
    ("CHANGELOG.md", "share/doc/knockgate/CHANGELOG.md"),
    ("LICENSE-MIT", "share/doc/knockgate/LICENSE-MIT"),
    ("LICENSE-APACHE", "share/doc/knockgate/LICENSE-APACHE"),
];

/// In `packaging/`.
const UNITS: [&str; 3] = [
    "knockgate.service",
    "knockgate-metrics.service",
    "knockgate-metrics.timer",
];

/// Packs the tarball into a folder.
pub(super) fn pack(contents: &Contents, knockgate: &Path, folder: &Path) -> Result<PathBuf> {
    let name = format!(
        "knockgate-{}-{}-linux",
        env!("CARGO_PKG_VERSION"),
        contents.architecture.rust()
    );
    let work = contents.folder.join("tarball");
    emptied(&work)?;
    let tree = work.join(&name);

    for (from, to) in MADE {
        copy(&contents.folder.join(from), &tree.join(to))?;
    }
    for (from, to) in KEPT {
        copy(&workspace::root().join(from), &tree.join(to))?;
    }
    let binary = tree.join("bin/knockgate");
    copy(knockgate, &binary)?;
    let strip = setup::strip(contents.cross.as_ref());
    process::run(Command::new(strip).arg(&binary))?;
    for unit in UNITS {
        let text = read(&workspace::root().join("packaging").join(unit))?;
        let here = text.replace("/usr/bin/knockgate", "/usr/local/bin/knockgate");
        let path = tree.join("lib/systemd/system").join(unit);
        make_parent(&path)?;
        write(&path, here.as_bytes())?;
    }

    let tarball = folder.join(format!("{name}.tar.gz"));
    process::run(
        Command::new("tar")
            .arg("--create")
            .arg("--file")
            .arg(&tarball)
            .args(["--use-compress-program", "gzip --best --no-name"])
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mode=u+rw,go+r,go-w,a+X", "--format=ustar"])
            .arg(format!("--mtime=@{}", contents.epoch))
            .arg("--directory")
            .arg(&work)
            .arg(&name),
    )?;
    Ok(tarball)
}

/// Copies a file, or the files of a folder.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    make_parent(to)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}
