//! `cargo xtask setup`: finds or installs what the other commands need.
//!
//! Uses what is installed already. Lists what is missing, with the reason, before it installs anything: Debian's
//! packages by one call of apt-get as root, tools from crates.io by cargo into a folder of this checkout. A second run
//! finds everything installed and takes a second.

mod crates;
mod cross;
mod packages;
mod toolchain;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use netlab::host::find_program;

use self::{
    crates::Crate,
    packages::Package,
    toolchain::{LINKER_LLVM, Search},
};
pub(crate) use self::{
    cross::Cross,
    toolchain::{Compiler, Linker, Toolchain},
};
use crate::architecture::Architecture;

/// What the machine is made ready for; each includes those above it, but for those of packages and of the bench at
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Purpose {
    /// Building the kernel program and `knockgate`
    Build,
    /// Showing the gate at work
    Demo,
    /// Running every test
    Test,
    /// Trying the program on other kernels
    Kernels,
    /// The checks that a change must pass before it lands
    Ci,
    /// Making packages
    Dist,
    /// Building for another processor: to check it, to make packages, and to try them there in qemu
    Cross,
    /// Making packages and trying them
    DistTest,
    /// Measuring, beside others that do what knockgate does
    Bench,
    /// Measuring by the harness of `bench --peers`
    Peers,
}

impl Purpose {
    /// Returns whether this purpose needs everything that `other` needs.
    fn includes(self, other: Self) -> bool {
        match self {
            // Not the tests' needs: the bench runs no test.
            Self::Bench => other <= Self::Demo || other == Self::Bench,
            Self::Peers => other == Self::Peers || Self::Bench.includes(other),
            Self::Dist => matches!(other, Self::Build | Self::Dist),
            Self::Cross => other == Self::Cross || Self::Dist.includes(other),
            Self::DistTest => {
                other == Self::DistTest || other <= Self::Demo || Self::Dist.includes(other)
            }
            Self::Ci => {
                other <= self || Self::Cross.includes(other) || Self::DistTest.includes(other)
            }
            Self::Build | Self::Demo | Self::Test | Self::Kernels => other <= self,
        }
    }
}

/// `cargo xtask setup`.
pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let Toolchain { compiler, linker } = ready(purpose)?;
    let Compiler { rustc, version, .. } = compiler;
    let Linker { path, llvm } = linker;
    println!("The machine is ready. The kernel program is built");
    println!("  with rustc {version}: {}", rustc.display());
    println!("  and the bpf-linker for LLVM {llvm}: {}", path.display());
    Ok(())
}

/// Sets up for a purpose. Returns the toolchain that builds the kernel program.
///
/// Fails if something can neither be found nor installed; the error names the commands to run by hand.
pub(crate) fn ready(purpose: Purpose) -> Result<Toolchain> {
    let missing = Missing::find(purpose);
    if !missing.is_empty() {
        missing.announce();
        missing.install()?;
    }
    match toolchain::search() {
        Search::Complete(toolchain) => Ok(toolchain),
        Search::NoLinker | Search::NoCompiler => bail!(
            "everything was installed, and still no compiler with the source of `core` and no bpf-linker \
             that fits it were found.\n{}",
            toolchain::HINT
        ),
    }
}

/// Sets up for building for an architecture. Returns nothing where that is this machine's.
pub(crate) fn cross(architecture: Architecture) -> Result<Option<Cross>> {
    if architecture.is_here() {
        return Ok(None);
    }
    ready(Purpose::Cross)?;
    Cross::find(architecture).map(Some)
}

/// Returns the program that removes symbols from what was built for this machine or another processor.
pub(crate) fn strip(cross: Option<&Cross>) -> String {
    cross.map_or_else(|| "strip".to_owned(), |cross| cross.tool("strip"))
}

/// Returns cargo-fuzz, and installs it first if necessary, together with a C++ compiler. Only guided fuzzing needs
/// them.
pub(crate) fn cargo_fuzz() -> Result<PathBuf> {
    let compiler = find_program("c++").is_none().then_some(&packages::CXX);
    let tool = (!crates::CARGO_FUZZ.is_installed()).then_some(&crates::CARGO_FUZZ);
    let missing = Missing {
        packages: compiler.into_iter().collect(),
        crates: tool.into_iter().collect(),
    };
    if !missing.is_empty() {
        missing.announce();
        missing.install()?;
    }
    let tool = &crates::CARGO_FUZZ;
    tool.find()
        .context("cargo-fuzz was installed, and still is not there")
}

/// The cargo-deb that [`Purpose::Dist`] has installed or found.
pub(crate) fn cargo_deb() -> Result<PathBuf> {
    let tool = &crates::CARGO_DEB;
    tool.find()
        .context("there is no cargo-deb; `cargo xtask setup --for dist` installs it")
}

/// What a purpose needs and this machine lacks.
struct Missing {
    packages: Vec<&'static Package>,
    crates: Vec<&'static Crate>,
}

impl Missing {
    fn find(purpose: Purpose) -> Self {
        let mut packages: Vec<&'static Package> = Vec::new();
        for program in packages::PROGRAMS {
            let named = packages
                .iter()
                .any(|package| package.name == program.package.name);
            if !named
                && purpose.includes(program.needed_for)
                && find_program(program.name).is_none()
            {
                packages.push(program.package);
            }
        }

        if purpose.includes(Purpose::Build) && !packages::has_protocols() {
            packages.push(&packages::PROTOCOLS);
        }
        if purpose.includes(Purpose::Cross) && !packages::has_cross_library() {
            packages.push(&packages::CROSS_LIBRARY);
        }
        if purpose.includes(Purpose::Peers) {
            let libraries = packages::PEERS.iter();
            packages.extend(libraries.filter(|package| !package.is_installed()));
        }

        let mut crates = Vec::new();
        let search = toolchain::search();
        if matches!(search, Search::NoCompiler) {
            packages.extend(
                packages::COMPILER
                    .iter()
                    .filter(|package| !package.is_installed()),
            );
        }
        if !matches!(search, Search::Complete(_)) && !toolchain::has_linker_for(LINKER_LLVM) {
            packages.extend(
                packages::LLVM
                    .iter()
                    .filter(|package| !package.is_installed()),
            );
            crates.push(&crates::BPF_LINKER);
        }
        for (tool, needed_for) in crates::TOOLS {
            if purpose.includes(*needed_for) && !tool.is_installed() {
                crates.push(tool);
            }
        }
        Self { packages, crates }
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.crates.is_empty()
    }

    fn announce(&self) {
        let Self { packages, crates } = self;
        if !packages.is_empty() {
            eprintln!("To be installed from Debian, by apt-get as root:");
            for Package { name, why, .. } in packages {
                eprintln!("  {name:<16} {why}");
            }
        }
        if !crates.is_empty() {
            let folder = crate::workspace::tools();
            eprintln!("To be built by cargo into {}:", folder.display());
            for Crate { name, why, .. } in crates {
                eprintln!("  {name:<16} {why}");
            }
        }
    }

    fn install(&self) -> Result<()> {
        let Self { packages, crates } = self;
        let steps = usize::from(!packages.is_empty()) + crates.len();
        // apt-get and cargo show how far each of them is.
        if !packages.is_empty() {
            eprintln!("[1/{steps}] {} packages, by apt-get", packages.len());
            packages::install(packages)?;
        }
        for (nth, package) in (steps - crates.len() + 1..).zip(crates) {
            eprintln!("[{nth}/{steps}] {}, by cargo", package.name);
            package.install()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_include_one_another() {
        use Purpose::{Bench, Build, Ci, Cross, Demo, Dist, DistTest, Kernels, Peers, Test};

        let ladder = [Build, Demo, Test, Kernels, Ci];
        for (step, purpose) in ladder.into_iter().enumerate() {
            for (other_step, other) in ladder.into_iter().enumerate() {
                assert_eq!(
                    purpose.includes(other),
                    other_step <= step,
                    "{purpose:?}, {other:?}"
                );
            }
            assert!(!purpose.includes(Bench) && !purpose.includes(Peers));
            assert_eq!(Bench.includes(purpose), purpose <= Demo, "{purpose:?}");
        }
        assert!(Ci.includes(DistTest) && DistTest.includes(Dist) && DistTest.includes(Demo));
        assert!(Cross.includes(Dist) && Cross.includes(Cross) && !Cross.includes(Demo));
        assert!(
            Ci.includes(Cross)
                && !DistTest.includes(Cross)
                && !Dist.includes(Cross)
                && !Peers.includes(Cross)
        );
        assert!(!Dist.includes(Demo) && !Kernels.includes(Dist) && !Bench.includes(Dist));
        assert!(Peers.includes(Bench) && Peers.includes(Peers) && !Bench.includes(Peers));
    }
}
