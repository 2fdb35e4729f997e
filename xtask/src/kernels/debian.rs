//! Gets kernels and the emulator from Debian's archive. They are unpacked, not installed.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self as std_process, Command},
    slice,
};

use anyhow::{Context as _, Result, bail, ensure};
use netlab::host::find_program;

use crate::{process, workspace};

/// Packages that depend on the newest build of their kernel: Debian 12's own kernel, and its newest.
pub(super) const PACKAGES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// The emulator's package and its program.
const EMULATOR: (&str, &str) = ("qemu-system-x86", "qemu-system-x86_64");

/// The emulator that boots a kernel.
pub(super) struct Emulator {
    program: PathBuf,
    /// Where it was unpacked, unless it is installed.
    unpacked: Option<PathBuf>,
}

impl Emulator {
    /// Returns the installed emulator, or else downloads Debian's and unpacks it beside the kernels. It is not
    /// installed, since its package conflicts with the tools of a newer qemu.
    pub(super) fn fetch() -> Result<Self> {
        let (package, program) = EMULATOR;
        if let Some(program) = find_program(program) {
            let unpacked = None;
            return Ok(Self { program, unpacked });
        }
        let folder = cache()?.join(package);
        if !folder.is_dir() {
            or_with_new_lists(|| unpack(&lacking(package)?, &folder))
                .with_context(|| format!("cannot get the package {package}"))?;
        }
        Ok(Self {
            program: folder.join("usr/bin").join(program),
            unpacked: Some(folder),
        })
    }

    /// Appends the emulator to a command line.
    pub(super) fn add_to(&self, command: &mut Command) {
        let Self { program, unpacked } = self;
        command.arg(program);
        if let Some(folder) = unpacked {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            let libraries = libraries.map(|libraries| folder.join(libraries));
            if let Ok(libraries) = env::join_paths(libraries) {
                command.env("LD_LIBRARY_PATH", libraries);
            }
            for firmware in ["usr/share/seabios", "usr/share/qemu"] {
                command.arg("-L").arg(folder.join(firmware));
            }
        }
    }
}

/// A kernel from its package.
pub(super) struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// Names and files of its modules, some of them compressed.
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// Downloads and unpacks the kernel on which one of [`PACKAGES`] depends, unless that was done before.
    pub(super) fn fetch(package: &str) -> Result<Self> {
        let cache = cache()?;
        let folder = or_with_new_lists(|| {
            let image = newest(package)?;
            let folder = cache.join(&image);
            if !folder.is_dir() {
                unpack(slice::from_ref(&image), &folder)?;
            }
            Ok(folder)
        });
        let folder = folder.with_context(|| {
            format!("cannot get the kernel of the package {package}, which Debian 12 has with its security archive")
        })?;
        Self::find(&folder)
    }

    /// Returns these modules and their dependencies, in an order in which they can be loaded. A module that does not
    /// exist is built in.
    pub(super) fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut ordered = Vec::new();
        for name in wanted {
            self.add(name, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn find(folder: &Path) -> Result<Self> {
        let boot = entries(&folder.join("boot"))?;
        let kernel = boot.iter().find_map(|path| {
            let release = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
            Some((release.to_owned(), path.clone()))
        });
        let (release, image) = kernel.with_context(|| {
            format!(
                "no kernel in {}; remove that folder and try again",
                folder.display()
            )
        })?;
        let mut modules = BTreeMap::new();
        let mut folders = vec![folder.join("lib/modules").join(&release).join("kernel")];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = module_name(&path) {
                    modules.insert(name, path);
                }
            }
        }
        Ok(Self {
            release,
            image,
            modules,
        })
    }

    fn add(&self, name: &str, ordered: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        let Some(path) = self.modules.get(name) else {
            return Ok(());
        };
        if ordered.iter().any(|(present, _)| present == name) {
            return Ok(());
        }
        let module = read_module(path)?;
        for needed in dependencies(&module) {
            self.add(&needed, ordered)?;
        }
        ordered.push((name.to_owned(), module));
        Ok(())
    }
}

/// Tries again with new lists of packages if the first attempt fails: a new machine has none, and the archive no longer
/// has packages of old lists.
fn or_with_new_lists<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    let error = match attempt() {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    eprintln!("{error:#}\nTrying again with new lists of packages.");
    process::run(
        process::as_root("apt-get", "refresh apt's lists of packages")?.args(["-q", "update"]),
    )?;
    attempt()
}

/// Returns the package on which the metapackage `package` depends.
fn newest(package: &str) -> Result<String> {
    let said = process::stdout(Command::new("apt-cache").args(["depends", package]))?;
    let newest = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|depends| depends.starts_with("linux-image-"));
    let newest = newest.with_context(|| format!("the package {package} depends on no kernel"))?;
    Ok(newest.to_owned())
}

/// Returns a package and its dependencies, except for those that are installed.
fn lacking(package: &str) -> Result<Vec<String>> {
    let said = process::stdout(Command::new("apt-get").args([
        "--simulate",
        "--no-install-recommends",
        "install",
        package,
    ]))?;
    let lacking: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    ensure!(
        !lacking.is_empty(),
        "the package {package} is installed, but its program is missing"
    );
    Ok(lacking)
}

/// Returns the folder for kernels and emulator.
fn cache() -> Result<PathBuf> {
    if find_program("apt-get").is_none() || find_program("dpkg").is_none() {
        bail!("the kernels come from Debian's archive, and this machine has no apt-get and dpkg");
    }
    let cache = workspace::target().join("kernels");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}

/// Downloads packages and unpacks them into one folder.
fn unpack(packages: &[String], folder: &Path) -> Result<()> {
    // Moved to its place when complete, so that an incomplete folder is never used.
    let part = folder.with_extension(format!("part-{}", std_process::id()));
    let contents = part.join("contents");
    fs::create_dir_all(&contents).with_context(|| format!("cannot make {}", contents.display()))?;
    let done = (|| {
        println!("Downloading {}", packages.join(", "));
        // As root, apt would download as another user, who cannot write here.
        process::stdout(
            Command::new("apt-get")
                .current_dir(&part)
                .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
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

/// Returns the name by which other modules refer to a module's file.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name);
    Some(name.strip_suffix(".ko")?.replace('-', "_"))
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = process::output(Command::new("busybox").arg("xzcat").arg(path))?;
    ensure!(
        output.status.success(),
        "cannot unpack {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

/// Returns the dependencies of a module, from its section `.modinfo`: strings that end with a zero.
fn dependencies(module: &[u8]) -> Vec<String> {
    module
        .split(|&byte| byte == 0)
        .find_map(|text| text.strip_prefix(b"depends="))
        .map(String::from_utf8_lossy)
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
    });
    listed.with_context(|| format!("cannot list {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_the_names_that_others_give_them() {
        for (file, name) in [
            ("veth.ko", Some("veth")),
            ("kernel/crypto/sha1-generic.ko.xz", Some("sha1_generic")),
            ("modules.order", None),
        ] {
            assert_eq!(module_name(Path::new(file)).as_deref(), name, "{file}");
        }
    }

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(
            dependencies(b"\x7fELF\0license=GPL\0depends=stp,mrp-core\0name=8021q\0"),
            ["stp", "mrp_core"]
        );
        assert_eq!(dependencies(b"license=GPL\0depends=\0name=veth\0"), [""; 0]);
    }
}
