//! What comes from crates.io and is built by cargo into a folder of this checkout.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use netlab::host::{find_program, is_executable};

use super::Purpose;
use crate::{process, workspace};

/// A tool that cargo builds, at the version that is known to work.
pub(super) struct Crate {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    version: &'static str,
    options: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

/// Turns the compiler's bitcode into a BPF object. It must be built against the LLVM of that compiler or
/// a newer one: [`super::toolchain::LINKER_LLVM`].
pub(super) const BPF_LINKER: Crate = Crate {
    name: "bpf-linker",
    why: "links the kernel program (takes about a minute)",
    version: "0.13.0",
    options: &["--no-default-features", "--features", "llvm-22"],
    environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
};

pub(super) const CARGO_DENY: Crate = Crate {
    name: "cargo-deny",
    why: "checks licences and sources of the dependencies (takes some minutes)",
    version: "0.20.2",
    options: &[],
    environment: &[],
};

pub(super) const CARGO_DEB: Crate = Crate {
    name: "cargo-deb",
    why: "makes the Debian package (takes a minute)",
    version: "3.8.0",
    options: &[],
    environment: &[],
};

/// Tools that are run by name.
pub(super) const TOOLS: &[(&Crate, Purpose)] =
    &[(&CARGO_DENY, Purpose::Ci), (&CARGO_DEB, Purpose::Dist)];

pub(super) const CARGO_FUZZ: Crate = Crate {
    name: "cargo-fuzz",
    why: "looks for inputs by the code that they reach (takes a minute)",
    version: "0.13.2",
    options: &[],
    environment: &[],
};

impl Crate {
    pub(super) fn is_installed(&self) -> bool {
        self.find().is_some()
    }

    /// Returns its path: in the folder that [`Crate::install`] puts it into, else on PATH.
    pub(super) fn find(&self) -> Option<PathBuf> {
        let own = self.path();
        let own = is_executable(&own).then_some(own);
        own.or_else(|| find_program(self.name))
    }

    pub(super) fn install(&self) -> Result<()> {
        let Self {
            name,
            version,
            options,
            environment,
            why: _,
        } = self;
        let mut command = Command::new(workspace::cargo());
        command
            .args([
                "install",
                name,
                "--version",
                version,
                "--locked",
                "--force",
                "--root",
            ])
            .arg(workspace::tools())
            .args(*options)
            .envs(environment.iter().copied());
        process::run(&mut command).with_context(|| format!("{name} {version} could not be built"))
    }

    /// Where [`Crate::install`] puts it.
    pub(super) fn path(&self) -> PathBuf {
        workspace::tools().join("bin").join(self.name)
    }
}
