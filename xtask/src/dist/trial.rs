//! The package as its users meet it: lintian's opinion, then its life in Debian 12 and 13.
//!
//! Each Debian is unpacked into memory, in a mount namespace and network namespaces that end with the trial
//! ([`stage`]). [`system`] runs commands in it.

mod stage;
mod system;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use netlab::host::namespaces;

pub(crate) use self::stage::Stage;
use super::{contents::Contents, debian, emptied};
use crate::{process, workspace};

/// Debian's releases, and the packages that a trial needs beside those that every Debian has.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
const PACKAGES: &str = "--include=man-db";
const MIRROR: &str = "http://deb.debian.org/debian";

/// Tries a package. `knockgate` is the binary in it, for the client's side.
pub(super) fn run(contents: &Contents, package: &Path, knockgate: &Path) -> Result<()> {
    let folder = contents.folder.join("trial");
    emptied(&folder)?;
    let again = debian::pack(contents, knockgate, debian::REVISION, &folder)?;
    ensure!(
        fs::read(package)? == fs::read(&again)?,
        "packing the same again has made another package: {}",
        again.display()
    );
    println!("Packed twice, with the same result.");
    lint(package)?;
    let newer = debian::pack(contents, knockgate, debian::REVISION + 1, &folder)?;
    for release in RELEASES {
        try_in(release, package, &newer, knockgate)?;
    }
    println!("The package passed in Debian {}.", RELEASES.join(" and "));
    Ok(())
}

fn lint(package: &Path) -> Result<()> {
    process::run(
        Command::new("lintian")
            .args(["--allow-root", "--fail-on", "error", "--"])
            .arg(package),
    )?;
    println!("lintian found no error.");
    Ok(())
}

fn try_in(release: &str, package: &Path, newer: &Path, knockgate: &Path) -> Result<()> {
    let archive = archive(release)?;
    let this = env::current_exe().context("cannot find this program's own path")?;
    println!("Debian {release}:");
    // The stage ends with this process, whatever ends it.
    let mut command = process::as_root("setpriv", "make a Debian in namespaces of its own")?;
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net"])
        .arg(this)
        .arg("dist-stage")
        .arg("--archive")
        .arg(archive)
        .arg("--packages")
        .args([package, newer])
        .arg("--knockgate")
        .arg(knockgate)
        .arg("--outside")
        .args(namespaces()?)
        .env_remove("SSH_CONNECTION");
    let status = command.status().context("cannot start the trial's stage")?;
    ensure!(
        status.success(),
        "the package failed in Debian {release}; the lines above say how. Nothing of the trial is left"
    );
    Ok(())
}

/// Returns an archive of a small Debian, made once and kept beside the tools.
fn archive(release: &str) -> Result<PathBuf> {
    let folder = workspace::tools().join("debian");
    let path = folder.join(release).with_extension("tar");
    if !path.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        println!("Getting Debian {release} from {MIRROR}");
        let part = folder.join(release).with_extension("part.tar");
        let why = "put a small Debian into a file";
        process::run(
            process::as_root("mmdebstrap", why)?
                .args(["--quiet", "--variant=minbase", PACKAGES, release])
                .arg(&part)
                .arg(MIRROR),
        )?;
        fs::rename(&part, &path)
            .with_context(|| format!("cannot move {} to its place", part.display()))?;
    }
    Ok(path)
}
