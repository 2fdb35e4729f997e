//! What is packed beside the binary: manual pages, completions, licences, pages, the changelog.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{copyright, debian, documents, emptied, write};
use crate::{architecture::Architecture, process, setup::Cross};

/// Shells, and the file in which each looks for completions.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "knockgate.bash"),
    ("zsh", "_knockgate"),
    ("fish", "knockgate.fish"),
];

/// A folder of what was made, as `[package.metadata.deb]` of knock-user names it.
pub(super) struct Contents {
    pub(super) folder: PathBuf,
    /// The time that everything packed bears, in seconds since 1970.
    pub(super) epoch: u64,
    /// The processor that the binary is for, and what has built it, if that is not this machine's.
    pub(super) architecture: Architecture,
    pub(super) cross: Option<Cross>,
}

impl Contents {
    /// Makes everything that goes with `knockgate`, most of it by `here`: the same binary for this machine.
    pub(super) fn make(
        here: &Path,
        knockgate: &Path,
        architecture: Architecture,
        cross: Option<Cross>,
        epoch: u64,
    ) -> Result<Self> {
        let build = knockgate.parent().context("a binary is in a folder")?;
        let folder = build.join("package");
        emptied(&folder)?;
        let [man, completions] = ["man", "completions"].map(|name| folder.join(name));

        process::stdout(Command::new(here).arg("man").arg(&man))?;
        compress(&files(&man)?)?;
        fs::create_dir(&completions)?;
        for (shell, name) in SHELLS {
            let script = process::stdout(Command::new(here).args(["completions", shell]))?;
            write(&completions.join(name), script.as_bytes())?;
        }
        write(
            &folder.join("copyright"),
            copyright::of_binary(architecture)?.as_bytes(),
        )?;
        documents::make(&folder.join("documents"))?;
        let changelog = folder.join("changelog.Debian");
        write(&changelog, debian::changelog(epoch)?.as_bytes())?;
        compress(&[changelog])?;
        Ok(Self {
            folder,
            epoch,
            architecture,
            cross,
        })
    }
}

/// Compresses each file, without its name and time.
fn compress(files: &[PathBuf]) -> Result<()> {
    process::run(
        Command::new("gzip")
            .args(["--best", "--no-name", "--"])
            .args(files),
    )
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    Ok(entries.collect::<Result<_, _>>()?)
}
