//! Finds the compiler and the linker for the kernel program.
//!
//! `core` is compiled for BPF with the program, so the compiler needs the source of its own library. The compiler
//! passes LLVM bitcode to bpf-linker, which must be built with the same LLVM or a newer one, since an older LLVM cannot
//! read it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::crates::BPF_LINKER;
use netlab::host::{find_program, is_executable};

use crate::{process, workspace};

/// The LLVM version of the bpf-linker that set-up builds.
pub(super) const LINKER_LLVM: u32 = 22;

/// Instructions for machines on which set-up cannot install.
pub(super) const HINT: &str = "\
To build the kernel program without Debian's compiler:
  rustup toolchain install nightly --profile minimal --component rust-src
  and put a bpf-linker of that nightly's LLVM (`rustc +nightly -vV` names it) or a newer one on PATH,
  from https://github.com/aya-rs/bpf-linker/releases or by `cargo install bpf-linker`.";

/// A compiler and a linker that fit each other.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// A compiler that has the source of its own `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    /// A cargo that can build this compiler's `core`.
    pub(crate) cargo: PathBuf,
    /// As `rustc -vV` prints it.
    pub(crate) version: String,
    llvm: u32,
}

/// A bpf-linker, and the major version of its LLVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    pub(crate) llvm: u32,
}

/// The result of a search for a toolchain.
pub(super) enum Search {
    Complete(Toolchain),
    /// There is a compiler for which a linker can be built.
    NoLinker,
    NoCompiler,
}

/// Looks for a compiler, nightly ones first, and a linker for it.
pub(super) fn search() -> Search {
    choose(compilers(), &linkers())
}

/// Returns whether a bpf-linker on this machine reads the bitcode of an LLVM version.
pub(super) fn has_linker_for(llvm: u32) -> bool {
    linkers().iter().any(|linker| linker.llvm >= llvm)
}

fn choose(mut compilers: Vec<Compiler>, linkers: &[Linker]) -> Search {
    compilers.sort_by_key(|compiler| !compiler.version.contains("nightly"));
    for compiler in &compilers {
        if let Some(linker) = linkers.iter().find(|linker| linker.llvm >= compiler.llvm) {
            return Search::Complete(Toolchain {
                compiler: compiler.clone(),
                linker: linker.clone(),
            });
        }
    }
    if compilers
        .iter()
        .any(|compiler| compiler.llvm <= LINKER_LLVM)
    {
        Search::NoLinker
    } else {
        Search::NoCompiler
    }
}

fn compilers() -> Vec<Compiler> {
    let own = workspace::cargo();
    let mut found = Vec::new();
    for rustc in rustup_compilers() {
        let cargo = rustc.with_file_name("cargo");
        let cargo = if is_executable(&cargo) {
            cargo
        } else {
            own.clone()
        };
        found.extend(inspect(rustc, cargo));
    }
    // The cargo beside a packaged compiler may be from another, much older package.
    found.extend(inspect(PathBuf::from("/usr/bin/rustc"), own));
    found
}

fn rustup_compilers() -> Vec<PathBuf> {
    let listed = process::stdout(Command::new("rustup").args(["toolchain", "list", "--quiet"]));
    let Ok(listed) = listed else {
        return Vec::new();
    };
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|name| {
            process::stdout(Command::new("rustup").args(["which", "rustc", "--toolchain", name]))
                .ok()
        })
        .map(|path| PathBuf::from(path.trim()))
        .collect()
}

/// Returns a compiler, if it is new enough for this workspace and has the source of its `core`.
fn inspect(rustc: PathBuf, cargo: PathBuf) -> Option<Compiler> {
    let sysroot = process::stdout(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if !core.is_dir() {
        return None;
    }
    let said = process::stdout(Command::new(&rustc).arg("-vV")).ok()?;
    let (version, llvm) = parse_rustc(&said)?;
    (release(version)? >= release(env!("CARGO_PKG_RUST_VERSION"))?).then(|| Compiler {
        rustc,
        cargo,
        version: version.to_owned(),
        llvm,
    })
}

fn linkers() -> Vec<Linker> {
    [Some(BPF_LINKER.path()), find_program("bpf-linker")]
        .into_iter()
        .flatten()
        .filter_map(|path| {
            // `bpf-linker --version` does not print the LLVM version. This passes `--version` to LLVM, which prints its
            // own and ends the program before it opens a file.
            let said = process::stdout(Command::new(&path).args([
                "--llvm-args=--version",
                "--target=bpfel",
                "--output=/dev/null",
                "/dev/null",
            ]));
            let llvm = parse_llvm(&said.ok()?)?;
            Some(Linker { path, llvm })
        })
        .collect()
}

/// Returns release and LLVM's major version from the output of `rustc -vV`.
fn parse_rustc(said: &str) -> Option<(&str, u32)> {
    let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    Some((field("release: ")?, major(field("LLVM version: ")?)?))
}

/// Returns the major version from LLVM's output, such as `Debian LLVM version 22.1.8`.
fn parse_llvm(said: &str) -> Option<u32> {
    said.lines()
        .find_map(|line| major(line.split_once("LLVM version ")?.1))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// Returns major and minor number of a Rust version, such as `1.97.0-nightly`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rustc_and_llvm_print_is_understood() {
        let said = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_rustc(said), Some(("1.97.0-nightly", 22)));
        assert_eq!(release("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(
            parse_llvm("Debian LLVM version 22.1.8\n  Optimized build.\n"),
            Some(22)
        );
        assert_eq!(
            parse_llvm("LLVM (http://llvm.org/):\n  LLVM version 21.1.0-rust-1.92.0\n"),
            Some(21)
        );
        assert_eq!(parse_llvm("bpf-linker 0.13.0\n"), None);
    }

    #[test]
    fn a_nightly_is_preferred() {
        let chosen = choose(
            vec![compiler("1.96.0", 22), compiler("1.97.0-nightly", 22)],
            &[linker(22)],
        );
        assert!(
            matches!(chosen, Search::Complete(found) if found.compiler.version == "1.97.0-nightly")
        );
    }

    #[test]
    fn a_linker_of_an_older_llvm_does_not_fit() {
        let chosen = choose(vec![compiler("1.96.0", 22)], &[linker(21)]);
        assert!(matches!(chosen, Search::NoLinker));
        let chosen = choose(vec![compiler("1.96.0", 22)], &[linker(21), linker(23)]);
        assert!(matches!(chosen, Search::Complete(found) if found.linker.llvm == 23));
    }

    #[test]
    fn a_compiler_that_no_linker_can_be_had_for_gives_way_to_one_that_fits() {
        let newer = LINKER_LLVM + 1;
        let chosen = choose(
            vec![
                compiler("1.99.0-nightly", newer),
                compiler("1.96.0", LINKER_LLVM),
            ],
            &[linker(LINKER_LLVM)],
        );
        assert!(matches!(chosen, Search::Complete(found) if found.compiler.version == "1.96.0"));
        let chosen = choose(
            vec![compiler("1.99.0-nightly", newer)],
            &[linker(LINKER_LLVM)],
        );
        assert!(matches!(chosen, Search::NoCompiler));
    }

    fn compiler(version: &str, llvm: u32) -> Compiler {
        Compiler {
            rustc: PathBuf::from("/toolchain/bin/rustc"),
            cargo: PathBuf::from("/toolchain/bin/cargo"),
            version: version.to_owned(),
            llvm,
        }
    }

    fn linker(llvm: u32) -> Linker {
        Linker {
            path: PathBuf::from("/usr/bin/bpf-linker"),
            llvm,
        }
    }
}
