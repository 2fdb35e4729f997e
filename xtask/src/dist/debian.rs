//! The Debian package, by cargo-deb: it is kept up to date with debhelper's scripts for systemd, which a package by
//! `dpkg-deb` alone would have to copy.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::contents::Contents;
use crate::{
    process,
    setup::{self, Cross},
    workspace,
};

/// Counts packages of one version.
pub(super) const REVISION: u32 = 1;

/// Major and minor number of Debian 12's glibc.
const OLDEST_GLIBC: (u32, u32) = (2, 36);

/// Packs that revision, with the binary `knockgate`, into a folder. Fails where the package would not run on Debian 12.
pub(super) fn pack(
    contents: &Contents,
    knockgate: &Path,
    revision: u32,
    folder: &Path,
) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let architecture = contents.architecture.debian();
    let package = folder.join(format!("knockgate_{version}-{revision}_{architecture}.deb"));
    let mut command = Command::new(setup::cargo_deb()?);
    command
        .current_dir(workspace::root())
        .args(["deb", "--quiet", "--package", "knock-user"])
        .args(["--no-build", "--locked", "--deb-revision"])
        .arg(revision.to_string())
        .arg("--output")
        .arg(&package)
        .env("CARGO_TARGET_DIR", workspace::target())
        .env("SOURCE_DATE_EPOCH", contents.epoch.to_string());
    if let Some(cross) = &contents.cross {
        cross.direct(&mut command);
        command.args(["--variant", architecture]);
    }
    process::stdout(&mut command)?;

    let depends = process::stdout(
        Command::new("dpkg-deb")
            .arg("--field")
            .arg(&package)
            .arg("Depends"),
    )?;
    let needed = glibc(&depends)
        .with_context(|| format!("no version of glibc among its dependencies: {depends}"))?;
    ensure!(
        needed <= OLDEST_GLIBC,
        "this package needs glibc {}.{}, and Debian 12 has {}.{}: build it on Debian 12",
        needed.0,
        needed.1,
        OLDEST_GLIBC.0,
        OLDEST_GLIBC.1
    );
    if let Some(cross) = &contents.cross {
        let asked = symbols(cross, knockgate)?;
        ensure!(
            asked == needed,
            "the binary asks for symbols of glibc {}.{}, and knock-user/Cargo.toml says {}.{}",
            asked.0,
            asked.1,
            needed.0,
            needed.1
        );
    }
    Ok(package)
}

/// Returns Debian's changelog of this version.
pub(super) fn changelog(epoch: u64) -> Result<String> {
    let date = process::stdout(
        Command::new("date")
            .args(["--utc", "--rfc-email", "--date"])
            .arg(format!("@{epoch}")),
    )?;
    Ok(format!(
        "knockgate ({version}-{REVISION}) unstable; urgency=medium

  * Version {version}; /usr/share/doc/knockgate/changelog.gz lists what has changed.

 -- The knockgate contributors <knockgate@packages.invalid>  {date}",
        version = env!("CARGO_PKG_VERSION"),
    ))
}

/// Returns the newest version of glibc whose symbols a binary for another processor asks for.
fn symbols(cross: &Cross, binary: &Path) -> Result<(u32, u32)> {
    let said = process::stdout(
        Command::new(cross.tool("objdump"))
            .arg("--dynamic-syms")
            .arg(binary),
    )?;
    newest_symbol(&said).context("the binary asks for no symbol of glibc")
}

/// Returns the newest version among symbols such as `(GLIBC_2.34) stat`.
fn newest_symbol(said: &str) -> Option<(u32, u32)> {
    let versions = said.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|next: char| next != '.' && !next.is_ascii_digit())?;
        let mut numbers = rest[..end].split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    versions.max()
}

/// Returns the version of glibc in a list of dependencies, such as `libc6 (>= 2.34)`.
fn glibc(depends: &str) -> Option<(u32, u32)> {
    let (_, version) = depends.split_once("libc6 (>= ")?;
    let (version, _) = version.split_once(')')?;
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_glibc_is_found() {
        assert_eq!(glibc("libc6 (>= 2.34)\n"), Some((2, 34)));
        assert_eq!(
            glibc("libgcc-s1 (>= 4.2), libc6 (>= 2.9), adduser"),
            Some((2, 9))
        );
        assert_eq!(glibc("libc6"), None);
        assert!((2, 9) < OLDEST_GLIBC);
    }

    #[test]
    fn the_newest_symbol_counts() {
        let said = "0 DF *UND* 0 (GLIBC_2.17) write\n0 DF *UND* 0 (GLIBC_2.4.1) open\n0 DF *UND* 0 (GLIBC_2.9)  a\n";
        assert_eq!(newest_symbol(said), Some((2, 17)));
        assert_eq!(
            newest_symbol("0 DF *UND* 0 (GCC_3.0) _Unwind_Resume\n"),
            None
        );
    }

    #[test]
    fn a_changelog_is_as_debian_wants_it() {
        let changelog = changelog(0).unwrap();
        assert!(
            changelog.ends_with(">  Thu, 01 Jan 1970 00:00:00 +0000\n"),
            "{changelog}"
        );
        assert!(changelog.starts_with("knockgate ("), "{changelog}");
    }
}
