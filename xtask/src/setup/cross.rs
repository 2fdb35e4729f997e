//! Finds or gets what builds `knockgate` for another processor than this machine's.
//!
//! The linker is Debian's cross compiler. The standard library is that of rustup's toolchain, where `rustup target add` has
//! put it; else that of Debian's compiler, from a package of the other architecture, which is unpacked and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    slice,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    architecture::Architecture,
    archive::{Archive, BOOKWORM},
    process, workspace,
};

/// Debian's compiler, its package, and the package with its standard library.
const COMPILER: &str = "/usr/bin/rustc";
const COMPILER_PACKAGE: &str = "rustc-web";
const LIBRARY_PACKAGE: &str = "libstd-rust-web-dev";

/// What builds for another processor.
pub(crate) struct Cross {
    pub(crate) architecture: Architecture,
    /// The folder of Debian's standard library, for which Debian's compiler is taken.
    library: Option<PathBuf>,
}

impl Cross {
    /// Finds or downloads the standard library. The purpose [`super::Purpose::Cross`] has installed the rest.
    pub(super) fn find(architecture: Architecture) -> Result<Self> {
        ensure!(
            architecture == Architecture::Arm64,
            "only packages for arm64 are built on another machine; make those for {} on one of these",
            architecture.debian()
        );
        let library = if rustup_has(architecture) {
            None
        } else {
            Some(library(architecture).with_context(|| {
                format!(
                    "there is no standard library of Rust for {0}. Either `rustup target add {0}` adds it to rustup's \
                     toolchain, or Debian 12 has it, in the version of its own {COMPILER_PACKAGE}",
                    architecture.target()
                )
            })?)
        };
        Ok(Self {
            architecture,
            library,
        })
    }

    /// Makes a command of cargo's build for the processor, into [`Cross::folder`].
    pub(crate) fn direct(&self, command: &mut Command) {
        let Self {
            architecture,
            library,
        } = self;
        let (target, gnu) = (architecture.target(), architecture.gnu());
        let variable = target.to_uppercase().replace('-', "_");
        command
            .args(["--target", &target])
            .env("CARGO_TARGET_DIR", self.folder())
            .env(
                format!("CARGO_TARGET_{variable}_LINKER"),
                format!("{gnu}-gcc"),
            )
            // For C and assembly, which the cryptography of the fleet's client contains.
            .env(
                format!("CC_{}", target.replace('-', "_")),
                format!("{gnu}-gcc"),
            );
        if let Some(library) = library {
            // Programs of the build itself are for this machine, and take the compiler's own library.
            command
                .env("RUSTC", COMPILER)
                // Cargo splits the other variables at blanks, and the path may have some.
                .env(
                    "CARGO_ENCODED_RUSTFLAGS",
                    format!("--sysroot={}", library.display()),
                );
        }
    }

    /// Returns the target folder. It is apart, so that two compilers do not discard each other's results.
    pub(crate) fn folder(&self) -> PathBuf {
        workspace::target().join(self.architecture.debian())
    }

    /// Returns a GNU tool for the processor.
    pub(crate) fn tool(&self, name: &str) -> String {
        format!("{}-{name}", self.architecture.gnu())
    }
}

/// Returns whether the compiler that cargo runs has a standard library for the processor.
fn rustup_has(architecture: Architecture) -> bool {
    let folder = process::stdout(
        Command::new("rustc")
            .current_dir(workspace::root())
            .args(["--print", "target-libdir", "--target"])
            .arg(architecture.target()),
    );
    folder.is_ok_and(|folder| has_library(Path::new(folder.trim())))
}

/// Returns whether a folder has a standard library.
fn has_library(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

/// Returns a folder with Debian's standard library, as `--sysroot` takes it.
fn library(architecture: Architecture) -> Result<PathBuf> {
    let version = process::stdout(Command::new("dpkg-query").args([
        "--show",
        "--showformat=${Version}",
        COMPILER_PACKAGE,
    ]))?;
    let name = format!("{LIBRARY_PACKAGE}={}", version.trim());
    let folder = workspace::tools().join(format!("{}-{name}", architecture.debian()));
    if !folder.is_dir() {
        fs::create_dir_all(workspace::tools())
            .with_context(|| format!("cannot make {}", workspace::tools().display()))?;
        let archive = Archive::apart(architecture, BOOKWORM)?;
        archive.or_with_new_lists(|| archive.unpack(slice::from_ref(&name), &folder))?;
    }
    Ok(folder.join("usr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_is_one_flag() {
        let cross = Cross {
            architecture: Architecture::Arm64,
            library: Some("/a folder/usr".into()),
        };
        let mut command = Command::new("cargo");
        cross.direct(&mut command);
        let flags: Vec<_> = command
            .get_envs()
            .filter(|(name, _)| name.to_string_lossy().ends_with("RUSTFLAGS"))
            .collect();
        let (name, value) = ("CARGO_ENCODED_RUSTFLAGS", "--sysroot=/a folder/usr");
        assert_eq!(flags, [(name.as_ref(), Some(value.as_ref()))]);
    }
}
