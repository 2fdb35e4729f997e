//! Gets packages from Debian's archive and unpacks them. Nothing is installed.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{self as std_process, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use netlab::host::find_program;

use crate::{architecture::Architecture, process, workspace};

/// Lists of packages, and how apt is called to use them.
pub(crate) struct Archive {
    /// Options for each of apt's commands.
    options: Vec<OsString>,
    /// Where the lists are, unless they are this machine's own.
    apart: Option<PathBuf>,
}

/// A suite of the archive, and the part of the archive that has it.
pub(crate) type Suite = (&'static str, Part);

/// The parts of Debian's archive.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Main,
    Security,
}

/// Debian 12, on which everything is built.
pub(crate) const BOOKWORM: &[Suite] = &[
    ("bookworm", Part::Main),
    ("bookworm-security", Part::Security),
];

/// How long the lists of an archive that is apart are taken for new.
const LIFETIME: Duration = Duration::from_hours(24);

/// The keys that sign the archive's lists, from the package `debian-archive-keyring`.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Part {
    const fn address(self) -> &'static str {
        match self {
            Self::Main => "http://deb.debian.org/debian",
            Self::Security => "http://deb.debian.org/debian-security",
        }
    }
}

impl Archive {
    /// Returns the archive as this machine's apt knows it.
    pub(crate) fn of_this_machine() -> Result<Self> {
        has_apt()?;
        Ok(Self {
            // As root, apt would download as another user, who cannot write here.
            options: options(&["APT::Sandbox::User=root"]),
            apart: None,
        })
    }

    /// Returns the archive of these suites for an architecture. Its lists are kept in the target folder, and this machine's
    /// own lists, sources and packages stay as they are. Of all versions of a package the highest counts.
    pub(crate) fn apart(architecture: Architecture, suites: &[Suite]) -> Result<Self> {
        has_apt()?;
        let architecture = architecture.debian();
        let names: Vec<_> = suites.iter().map(|(suite, _)| *suite).collect();
        let folder = workspace::target().join(format!("lists/{architecture}-{}", names.join("-")));
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let write = |name: &str, contents: String| {
            let path = folder.join(name);
            fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
        };
        write("sources.sources", sources(architecture, suites))?;
        write("status", String::new())?;
        // Suites have priorities of their own, such as that of backports, which would hide the newest.
        let same = "Package: *\nPin: release *\nPin-Priority: 990\n";
        write("preferences", same.to_owned())?;
        let folder_is = folder.display();
        let options = options(&[
            "APT::Sandbox::User=root",
            &format!("APT::Architecture={architecture}"),
            &format!("APT::Architectures={architecture}"),
            &format!("Dir::State={folder_is}"),
            &format!("Dir::State::status={folder_is}/status"),
            &format!("Dir::Cache={folder_is}/cache"),
            &format!("Dir::Etc::sourcelist={folder_is}/sources.sources"),
            "Dir::Etc::sourceparts=/dev/null",
            &format!("Dir::Etc::preferences={folder_is}/preferences"),
            "Dir::Etc::preferencesparts=/dev/null",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]);
        let archive = Self {
            options,
            apart: Some(folder.clone()),
        };
        let stamp = folder.join("updated");
        let age = fs::metadata(&stamp).and_then(|stamp| stamp.modified());
        let age = age.ok().and_then(|time| time.elapsed().ok());
        if age.is_none_or(|age| age > LIFETIME) {
            archive.update()?;
            fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        Ok(archive)
    }

    /// Returns the package on which the metapackage `package` depends, and whose name begins with `prefix`.
    pub(crate) fn newest(&self, package: &str, prefix: &str) -> Result<String> {
        let newest = self.depends(package)?;
        let newest = newest.into_iter().find(|name| name.starts_with(prefix));
        newest.with_context(|| format!("the package {package} depends on no {prefix}"))
    }

    /// Returns the names of the packages on which a package depends.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let said = process::stdout(self.apt("apt-cache").args(["depends", package]))?;
        let names = said
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Returns these packages and their dependencies, except for those that this machine has installed. Of an archive
    /// that is apart, nothing is.
    pub(crate) fn lacking(&self, packages: &[&str]) -> Result<Vec<String>> {
        let said = process::stdout(
            self.apt("apt-get")
                .args(["--simulate", "--no-install-recommends", "install"])
                .args(packages),
        )?;
        let lacking: Vec<_> = said
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        ensure!(
            !lacking.is_empty(),
            "the package {} is installed, but its program is missing",
            packages.join(", ")
        );
        Ok(lacking)
    }

    /// Tries again with new lists of packages if the first attempt fails: a new machine has none, and the archive no
    /// longer has packages of old lists.
    pub(crate) fn or_with_new_lists<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        eprintln!("{error:#}\nTrying again with new lists of packages.");
        self.update()?;
        attempt()
    }

    fn update(&self) -> Result<()> {
        let mut update = match self.apart {
            Some(_) => self.apt("apt-get"),
            None => process::as_root("apt-get", "refresh apt's lists of packages")?,
        };
        process::stdout(update.args(["-q", "update"])).map(drop)
    }

    /// Downloads packages and unpacks them into one folder.
    pub(crate) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        // Moved to its place when complete, so that an incomplete folder is never used.
        let part = folder.with_extension(format!("part-{}", std_process::id()));
        let contents = part.join("contents");
        fs::create_dir_all(&contents)
            .with_context(|| format!("cannot make {}", contents.display()))?;
        let done = (|| {
            println!("Downloading {}", packages.join(", "));
            process::stdout(
                self.apt("apt-get")
                    .current_dir(&part)
                    .args(["-qq", "download"])
                    .args(packages),
            )?;
            let archives: Vec<_> = entries(&part)?
                .into_iter()
                .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
                .collect();
            ensure!(
                archives.len() == packages.len(),
                "apt-get downloaded {} packages in place of {}",
                archives.len(),
                packages.len()
            );
            for archive in archives {
                process::run(Command::new("dpkg").arg("-x").arg(archive).arg(&contents))?;
            }
            fs::rename(&contents, folder)
                .with_context(|| format!("cannot move what was unpacked to {}", folder.display()))
        })();
        // Files that remain after a failure do no harm.
        let _ = fs::remove_dir_all(&part);
        done
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}

/// Returns the paths in a folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    listed.with_context(|| format!("cannot list {}", folder.display()))
}

fn has_apt() -> Result<()> {
    if find_program("apt-get").is_none() || find_program("dpkg").is_none() {
        bail!(
            "this needs packages from Debian's archive, and this machine has no apt-get and dpkg"
        );
    }
    Ok(())
}

fn options(settings: &[&str]) -> Vec<OsString> {
    let pairs = settings.iter().map(|setting| ["-o", setting]);
    pairs.flatten().map(OsString::from).collect()
}

/// Returns apt's sources, in the format of `sources.list(5)` that it calls deb822.
fn sources(architecture: &str, suites: &[Suite]) -> String {
    let sources = suites.iter().map(|(suite, part)| {
        format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nArchitectures: {architecture}\n\
             Signed-By: {KEYS}\n\n",
            part.address()
        )
    });
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suite_is_taken_from_the_part_that_has_it() {
        let sources = sources("arm64", BOOKWORM);
        let suites: Vec<_> = sources
            .split("\n\n")
            .filter(|source| !source.is_empty())
            .map(|source| {
                let field = |name| source.lines().find_map(|line| line.strip_prefix(name));
                (field("URIs: "), field("Suites: "), field("Architectures: "))
            })
            .collect();
        let main = (
            Some("http://deb.debian.org/debian"),
            Some("bookworm"),
            Some("arm64"),
        );
        let security = (
            Some("http://deb.debian.org/debian-security"),
            Some("bookworm-security"),
            Some("arm64"),
        );
        assert_eq!(suites, [main, security]);
    }

    #[test]
    fn every_setting_is_an_option_of_its_own() {
        assert_eq!(options(&["A=1", "B=2"]), ["-o", "A=1", "-o", "B=2"]);
    }
}
