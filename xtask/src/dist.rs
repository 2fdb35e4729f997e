//! `cargo xtask dist`: a Debian package and a tarball of the release build, with their checksums.
//!
//! [`contents`] makes what goes into both beside the binary, [`copyright`] the licences of what is linked into it,
//! [`documents`] the pages.
//! [`debian`] and [`tarball`] pack. The binary is linked with glibc and not with musl: glibc alone asks the host's
//! name services, as `knockgate knock HOST` should. So it must not need a newer one than Debian 12 has.

mod contents;
mod copyright;
mod debian;
mod documents;
mod tarball;
mod trial;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::contents::Contents;
pub(crate) use self::trial::Stage;
use crate::{
    architecture::Architecture,
    build, process,
    setup::{self, Purpose},
    workspace,
};

/// Largest package, bytes.
const LARGEST: u64 = 8_000_000;

#[derive(Args)]
pub(crate) struct Options {
    /// The processor that the packages are for, if not this machine's
    #[arg(long, value_enum)]
    arch: Option<Architecture>,
    /// Then try the package in Debian 12 and 13, each in memory: install, guard, upgrade, remove, purge
    #[arg(long)]
    test: bool,
}

/// Sets up, builds and packs.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { arch, test } = *options;
    let architecture = Architecture::or_here(arch)?;
    ensure!(
        !test || architecture.is_here(),
        "a package for {} cannot be tried on this machine; `cargo xtask kernels --arch {0}` tries what it contains",
        architecture.debian()
    );
    let toolchain = setup::ready(if test {
        Purpose::DistTest
    } else {
        Purpose::Dist
    })?;
    let here = build::release(&toolchain)?.knockgate;
    let cross = setup::cross(architecture)?;
    let (knockgate, folder) = match &cross {
        Some(_) => (
            build::release_for(&toolchain, cross.as_ref())?.knockgate,
            format!("dist-{}", architecture.debian()),
        ),
        None => (here.clone(), "dist".to_owned()),
    };
    let contents = Contents::make(&here, &knockgate, architecture, cross, epoch()?)?;
    let folder = workspace::target().join(folder);
    emptied(&folder)?;
    let package = debian::pack(&contents, &knockgate, debian::REVISION, &folder)?;
    let tarball = tarball::pack(&contents, &knockgate, &folder)?;
    let sums = checksums(&folder, &[&package, &tarball])?;
    for file in [&package, &tarball] {
        let size = fs::metadata(file)?.len();
        ensure!(
            size <= LARGEST,
            "{} has {size} bytes, more than the {LARGEST} that a package may have",
            file.display()
        );
        println!("{:>9} bytes  {}", size, file.display());
    }
    println!("{:>16} {}", "checksums", sums.display());
    if test {
        trial::run(&contents, &package, &knockgate)?;
    } else {
        println!("Install it:");
        println!("  sudo apt install {}", package.display());
    }
    Ok(())
}

/// Returns the time that everything packed bears, in seconds since 1970: two runs make the same files.
fn epoch() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given,
        Err(_) => process::stdout(Command::new("git").current_dir(workspace::root()).args([
            "log",
            "-1",
            "--format=%ct",
        ]))
        .context("the time of the latest commit is not known; set SOURCE_DATE_EPOCH")?,
    };
    let text = text.trim();
    text.parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH must be seconds since 1970, not {text:?}"))
}

/// Writes `SHA256SUMS` beside these files, by their names.
fn checksums(folder: &Path, files: &[&Path]) -> Result<PathBuf> {
    let names = files.iter().filter_map(|file| file.file_name());
    let sums = process::stdout(
        Command::new("sha256sum")
            .current_dir(folder)
            .arg("--")
            .args(names),
    )?;
    let path = folder.join("SHA256SUMS");
    write(&path, sums.as_bytes())?;
    Ok(path)
}

/// Makes a folder that has nothing in it.
fn emptied(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
