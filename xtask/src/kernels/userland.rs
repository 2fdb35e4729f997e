//! The programs in a guest that are not of this project, and the shared libraries of all programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use netlab::host::find_program;

use super::debian;
use crate::{
    architecture::Architecture,
    archive::{Archive, BOOKWORM},
    process,
    setup::Cross,
};

/// Packages with what guests of another processor run, beside what is built for them.
const PACKAGES: [&str; 5] = [
    "busybox-static",
    "iproute2",
    "libc6",
    "libgcc-s1",
    "xdp-tools",
];

/// Where programs and libraries come from.
pub(super) enum Userland {
    /// From this machine.
    Here,
    /// From Debian's packages for another processor.
    Unpacked {
        folder: PathBuf,
        /// The folder of libraries in Debian, such as `aarch64-linux-gnu`.
        gnu: String,
        readelf: String,
    },
}

impl Userland {
    /// Downloads and unpacks the programs for another processor, unless that was done before.
    pub(super) fn fetch(architecture: Architecture, cross: Option<&Cross>) -> Result<Self> {
        let Some(cross) = cross else {
            return Ok(Self::Here);
        };
        // By the packages, so that another list does not find what an earlier one has left.
        let name = format!("userland-{}-{}", architecture.debian(), PACKAGES.join("+"));
        let folder = debian::cache()?.join(name);
        if !folder.is_dir() {
            let archive = Archive::apart(architecture, BOOKWORM)?;
            archive
                .or_with_new_lists(|| archive.unpack(&archive.lacking(&PACKAGES)?, &folder))
                .with_context(|| format!("cannot get {}", PACKAGES.join(", ")))?;
        }
        Ok(Self::Unpacked {
            folder,
            gnu: architecture.gnu(),
            readelf: cross.tool("readelf"),
        })
    }

    /// Returns the path of a program.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf> {
        match self {
            Self::Here => find_program(name).with_context(|| {
                format!("cannot find `{name}`, which set-up should have installed")
            }),
            Self::Unpacked { folder, .. } => ["bin", "sbin", "usr/bin", "usr/sbin"]
                .iter()
                .map(|place| folder.join(place).join(name))
                .find(|path| path.is_file())
                .with_context(|| format!("no `{name}` in {}", folder.display())),
        }
    }

    /// Returns the folder of BPF objects that Debian's packages bring: its path in a guest, and here.
    pub(super) fn objects(&self) -> Result<(String, PathBuf)> {
        let place = |gnu: &str| format!("usr/lib/{gnu}/bpf");
        Ok(match self {
            Self::Here => {
                let place = place(&Architecture::or_here(None)?.gnu());
                let here = Path::new("/").join(&place);
                (place, here)
            }
            Self::Unpacked { folder, gnu, .. } => (place(gnu), folder.join(place(gnu))),
        })
    }

    /// Returns the shared libraries of a program and their loader: each with its path in the guest.
    pub(super) fn libraries(&self, program: &Path) -> Result<Vec<(String, PathBuf)>> {
        match self {
            Self::Here => {
                // `ldd` fails for a static program; then there are no libraries.
                let output = process::output(Command::new("ldd").arg(program))?;
                let said = String::from_utf8_lossy(&output.stdout);
                let paths = said
                    .split_whitespace()
                    .filter(|word| word.starts_with('/') && !word.ends_with(':'));
                Ok(paths
                    .map(|path| (path.to_owned(), PathBuf::from(path)))
                    .collect())
            }
            Self::Unpacked {
                folder,
                gnu,
                readelf,
            } => unpacked_libraries(program, folder, gnu, readelf),
        }
    }
}

/// Returns what `ldd` would, if the programs ran on this machine.
fn unpacked_libraries(
    program: &Path,
    folder: &Path,
    gnu: &str,
    readelf: &str,
) -> Result<Vec<(String, PathBuf)>> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    let mut waiting = vec![program.to_owned()];
    while let Some(path) = waiting.pop() {
        let said = process::stdout(
            Command::new(readelf)
                .args(["--wide", "--dynamic", "--program-headers"])
                .arg(&path),
        )?;
        for name in needed(&said) {
            // The loader is named by its path, libraries by their names.
            let place = if name.starts_with('/') {
                name.to_owned()
            } else {
                format!("/lib/{gnu}/{name}")
            };
            if found.iter().any(|(known, _)| *known == place) {
                continue;
            }
            let places = ["", "usr"].map(|top| folder.join(top).join(&place[1..]));
            let Some(library) = places.into_iter().find(|path| path.is_file()) else {
                bail!("{} needs {name}, which no package has", path.display());
            };
            found.push((place, library.clone()));
            waiting.push(library);
        }
    }
    Ok(found)
}

/// Returns the names of libraries and the path of the loader in the output of `readelf`.
fn needed(said: &str) -> impl Iterator<Item = &str> {
    let markers = ["Shared library: [", "Requesting program interpreter: "];
    said.lines().filter_map(move |line| {
        let after = markers
            .iter()
            .find_map(|marker| Some(line.split_once(marker)?.1));
        after?.split(']').next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_program_brings_its_libraries() {
        let libraries = Userland::Here.libraries(Path::new("/bin/ls"));
        let libraries = libraries.expect("ldd can be run");
        assert!(
            libraries.iter().any(|(path, _)| path.contains("libc.so")),
            "{libraries:?}"
        );
    }

    #[test]
    fn libraries_and_loader_are_read_from_the_headers() {
        let said = "      [Requesting program interpreter: /lib/ld-linux-aarch64.so.1]\n\
                     0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]\n\
                     0x000000000000000c (INIT)               0x1b58\n";
        let names: Vec<_> = needed(said).collect();
        assert_eq!(names, ["/lib/ld-linux-aarch64.so.1", "libgcc_s.so.1"]);
    }
}
