//! Gets kernels and the emulator from Debian's archive. They are unpacked, not installed.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netlab::host::find_program;

use super::suites::When;
use crate::{
    architecture::Architecture,
    archive::{Archive, BOOKWORM, Part, Suite, entries},
    process, workspace,
};

/// A kernel to try.
pub(super) struct Wanted {
    /// What `--kernel` calls it.
    pub(super) name: &'static str,
    /// A package that depends on its newest build.
    package: &'static str,
    /// The suites that have the package; none: what this machine's apt knows.
    suites: &'static [Suite],
    /// Whether it is tried for every change, or only before a release.
    pub(super) when: When,
    /// Whether it is too old for the program, and knockgate must say so.
    pub(super) is_refused: bool,
    /// Options of qemu for the processor that it runs on.
    processor: &'static [&'static str],
}

/// Debian's newest kernel: which of the two is ahead changes.
const NEWEST: &[Suite] = &[("sid", Part::Main), ("trixie-backports", Part::Main)];
const BULLSEYE: &[Suite] = &[
    ("bullseye", Part::Main),
    ("bullseye-security", Part::Security),
];

/// One processor, so that several machines do not wait for each other.
const ONE: &[&str] = &[];

/// The kernels for x86-64: Debian 12's own and its newest, for virtual machines; before a release also Debian's newest, which
/// has more kinds of links, and Debian 11's, which lacks what the program needs.
const AMD64: &[Wanted] = &[
    Wanted {
        name: "6.1",
        package: "linux-image-cloud-amd64",
        suites: &[],
        when: When::EveryChange,
        is_refused: false,
        processor: ONE,
    },
    Wanted {
        name: "6.12",
        package: "linux-image-6.12-cloud-amd64",
        suites: &[],
        when: When::EveryChange,
        is_refused: false,
        processor: ONE,
    },
    Wanted {
        name: "newest",
        package: "linux-image-amd64",
        suites: NEWEST,
        when: When::Release,
        is_refused: false,
        processor: ONE,
    },
    Wanted {
        name: "5.10",
        package: "linux-image-cloud-amd64",
        suites: BULLSEYE,
        when: When::Release,
        is_refused: true,
        processor: ONE,
    },
];

/// The kernels for arm64: one on a processor without the atomic instructions of `ARMv8.1`, in whose place the kernel's compiler
/// emits loops, and one on a processor with them and with pages of 16 KiB. Each has two processors, which run at once.
const ARM64: &[Wanted] = &[
    Wanted {
        name: "6.1",
        package: "linux-image-cloud-arm64",
        suites: BOOKWORM,
        when: When::EveryChange,
        is_refused: false,
        processor: &["-cpu", "cortex-a72", "-smp", "2"],
    },
    Wanted {
        name: "6.12-16k",
        package: "linux-image-6.12-arm64-16k",
        suites: BOOKWORM,
        when: When::EveryChange,
        is_refused: false,
        processor: &["-cpu", "neoverse-n1", "-smp", "2"],
    },
    Wanted {
        name: "newest",
        package: "linux-image-cloud-arm64",
        suites: NEWEST,
        when: When::Release,
        is_refused: false,
        processor: &["-cpu", "neoverse-n1", "-smp", "2"],
    },
];

/// Returns the kernels for an architecture.
pub(super) const fn kernels(architecture: Architecture) -> &'static [Wanted] {
    match architecture {
        Architecture::Amd64 => AMD64,
        Architecture::Arm64 => ARM64,
    }
}

/// What is peculiar to the machines of an architecture.
pub(super) struct Machine {
    /// The emulator's package and its program.
    emulator: (&'static str, &'static str),
    kind: &'static [&'static str],
    /// The device of the kernel's console.
    pub(super) console: &'static str,
    /// Memory for the tables of the checks and for the suites, with a reserve.
    pub(super) memory: &'static str,
    /// The longest time from power-on to the last check; an idle machine needs a tenth of it.
    pub(super) patience: Duration,
}

const AMD64_MACHINE: Machine = Machine {
    emulator: ("qemu-system-x86", "qemu-system-x86_64"),
    kind: &[],
    console: "ttyS0",
    memory: "1024M",
    patience: Duration::from_mins(30),
};

const ARM64_MACHINE: Machine = Machine {
    emulator: ("qemu-system-arm", "qemu-system-aarch64"),
    kind: &["-machine", "virt"],
    console: "ttyAMA0",
    memory: "2048M",
    patience: Duration::from_hours(5),
};

/// The emulator that boots a kernel.
pub(super) struct Emulator {
    program: PathBuf,
    /// Where it was unpacked, unless it is installed.
    unpacked: Option<PathBuf>,
    pub(super) machine: &'static Machine,
}

impl Emulator {
    /// Returns the installed emulator, or else downloads Debian's and unpacks it beside the kernels. It is not
    /// installed, since its package conflicts with the tools of a newer qemu.
    pub(super) fn fetch(architecture: Architecture) -> Result<Self> {
        let machine = match architecture {
            Architecture::Amd64 => &AMD64_MACHINE,
            Architecture::Arm64 => &ARM64_MACHINE,
        };
        let (package, program) = machine.emulator;
        if let Some(program) = find_program(program) {
            return Ok(Self {
                program,
                unpacked: None,
                machine,
            });
        }
        let folder = cache()?.join(package);
        if !folder.is_dir() {
            let archive = Archive::of_this_machine()?;
            archive
                .or_with_new_lists(|| archive.unpack(&archive.lacking(&[package])?, &folder))
                .with_context(|| format!("cannot get the package {package}"))?;
        }
        Ok(Self {
            program: folder.join("usr/bin").join(program),
            unpacked: Some(folder),
            machine,
        })
    }

    /// Appends the emulator to a command line.
    pub(super) fn add_to(&self, command: &mut Command) {
        let Self {
            program,
            unpacked,
            machine,
        } = self;
        command.arg(program).args(machine.kind);
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
    /// Options of qemu for its processor.
    pub(super) processor: &'static [&'static str],
    /// Whether the program must be refused.
    pub(super) is_refused: bool,
    /// Names and files of its modules, some of them compressed.
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// Downloads and unpacks a kernel, unless that was done before.
    pub(super) fn fetch(wanted: &Wanted, architecture: Architecture) -> Result<Self> {
        let Wanted {
            package, suites, ..
        } = wanted;
        let cache = cache()?;
        let archive = if suites.is_empty() {
            Archive::of_this_machine()
        } else {
            Archive::apart(architecture, suites)
        }?;
        let folder = archive.or_with_new_lists(|| {
            let image = archive.newest(package, "linux-image-")?;
            let folder = cache.join(&image);
            if !folder.is_dir() {
                // Since Linux 6.16 the package of the image has nothing in it, and depends on two others.
                let depends = archive.depends(&image)?.into_iter();
                let parts = ["linux-binary-", "linux-modules-"];
                let mut packages: Vec<_> = depends
                    .filter(|name| parts.iter().any(|part| name.starts_with(part)))
                    .collect();
                packages.push(image);
                archive.unpack(&packages, &folder)?;
            }
            Ok(folder)
        });
        let folder = folder
            .with_context(|| format!("cannot get the kernel of Debian's package {package}"))?;
        Self::find(&folder, wanted)
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

    /// Returns whether it has this module, which is not built in.
    pub(super) fn has(&self, module: &str) -> bool {
        self.modules.contains_key(module)
    }

    fn find(folder: &Path, wanted: &Wanted) -> Result<Self> {
        let missing = || {
            format!(
                "no kernel in {}; remove that folder and try again",
                folder.display()
            )
        };
        // Newer packages have everything in one place.
        let places = ["usr/lib/modules", "lib/modules"].map(|place| folder.join(place));
        let place = places.iter().find(|place| place.is_dir());
        let place = entries(place.with_context(missing)?)?;
        let place = place.first().with_context(missing)?;
        let release = place.file_name().and_then(|name| name.to_str());
        let release = release.with_context(missing)?.to_owned();
        let images = [
            place.join("vmlinuz"),
            folder.join("boot").join(format!("vmlinuz-{release}")),
        ];
        let image = images.into_iter().find(|image| image.is_file());
        let mut modules = BTreeMap::new();
        let mut folders = vec![place.join("kernel")];
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
            image: image.with_context(missing)?,
            processor: wanted.processor,
            is_refused: wanted.is_refused,
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

/// Returns the folder for kernels and emulator.
pub(super) fn cache() -> Result<PathBuf> {
    let cache = workspace::target().join("kernels");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
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
