//! The system of a guest: an archive that the kernel unpacks into memory (an initramfs).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    debian::Kernel,
    suites::{AFTER_CRASH, Check, Suites},
    userland::Userland,
};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// Kernel modules that the suites need: for veth pairs, bridges, tags, devices without link headers, tunnels, encryption and its
/// ciphers; and those that list sockets, which the kernel would load by itself if there was a `modprobe`.
const MODULES: [&str; 30] = [
    "veth",
    "bridge",
    "tun",
    "wireguard",
    "ipip",
    "sit",
    "ip6_tunnel",
    "8021q",
    // SCTP asks for it by an alias.
    "crc32c_generic",
    "sctp",
    "ip_gre",
    "ip6_gre",
    "ah4",
    "ah6",
    "esp4",
    "esp6",
    "xfrm_user",
    "authenc",
    "echainiv",
    "drbg",
    "jitterentropy_rng",
    "ctr",
    "crypto_null",
    "tcp_diag",
    "udp_diag",
    "bonding",
    "macvlan",
    "ipvlan",
    "pppoe",
    "vrf",
];

/// Programs that a guest needs, and their paths there. The path of `ip` is searched before busybox,
/// which has an `ip` with fewer features.
const PROGRAMS: [(&str, &str); 3] = [
    ("busybox", "bin/busybox"),
    ("ip", "usr/bin/ip"),
    ("xdp-loader", "usr/bin/xdp-loader"),
];

/// What `xdp-loader` loads: the dispatcher of libxdp, and a program for it to call, which lets packets by.
const OBJECTS: [&str; 2] = ["xdp-dispatcher.o", "xdpfilt_alw_all.o"];

/// Packs the archive, in the cpio format `newc` (`Documentation/driver-api/early-userspace/` in Linux).
pub(super) fn pack(
    kernel: &Kernel,
    knockgate: &Path,
    built: &Suites,
    checks: &[&Check],
    userland: &Userland,
) -> Result<Vec<u8>> {
    let mut files = Files::default();
    files.add("init", 0o755, INIT.into());
    files.add("checks", 0o644, lines(checks).into());
    for (number, (name, module)) in kernel.modules(&MODULES)?.into_iter().enumerate() {
        // Numbered in the order of loading.
        files.add(&format!("modules/{number:02}-{name}.ko"), 0o644, module);
    }
    for (name, place) in PROGRAMS {
        files.add_program(place, &userland.find(name)?, userland)?;
    }
    let (place, folder) = userland.objects()?;
    for name in OBJECTS {
        files.add(&format!("{place}/{name}"), 0o644, read(&folder.join(name))?);
    }
    files.add_program("usr/bin/knockgate", knockgate, userland)?;
    let suites: BTreeSet<_> = checks.iter().map(|check| check.suite).collect();
    for suite in suites {
        files.add_program(&format!("suites/{suite}"), &built.path(suite), userland)?;
    }
    Ok(files.archive())
}

/// Packs what is added to the system of a machine that starts again: what it has left, and what it is to check then.
pub(super) fn pack_after_crash(left: &str) -> Vec<u8> {
    let mut files = Files::default();
    files.add("left.json", 0o644, left.into());
    files.add("checks", 0o644, lines(&[&AFTER_CRASH]).into());
    files.archive()
}

/// Returns the lines by which `init` runs the checks.
fn lines(checks: &[&Check]) -> String {
    let lines = checks
        .iter()
        .map(|check| format!("check {} {}\n", check.suite, check.arguments().join(" ")));
    lines.collect()
}

/// The contents of the archive, by path without leading slash.
#[derive(Default)]
struct Files(BTreeMap<String, File>);

struct File {
    mode: u32,
    contents: Vec<u8>,
}

impl Files {
    fn add(&mut self, path: &str, permissions: u32, contents: Vec<u8>) {
        const REGULAR: u32 = 0o100_000;
        const FOLDER: u32 = 0o040_000;
        for (slash, _) in path.match_indices('/') {
            self.0.entry(path[..slash].to_owned()).or_insert(File {
                mode: FOLDER | 0o755,
                contents: Vec::new(),
            });
        }
        let mode = REGULAR | permissions;
        self.0.insert(path.to_owned(), File { mode, contents });
    }

    /// Adds a program and its shared libraries, which keep their paths.
    fn add_program(&mut self, path: &str, program: &Path, userland: &Userland) -> Result<()> {
        self.add(path, 0o755, read(program)?);
        for (place, library) in userland.libraries(program)? {
            let contents = read(&library)?;
            self.add(place.trim_start_matches('/'), 0o755, contents);
        }
        Ok(())
    }

    /// Writes the archive. Folders precede their contents, since the map is sorted by path.
    fn archive(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for ((path, file), number) in self.0.iter().zip(1..) {
            entry(&mut archive, number, path, file);
        }
        let end = File {
            mode: 0,
            contents: Vec::new(),
        };
        entry(&mut archive, 0, "TRAILER!!!", &end);
        archive
    }
}

/// Writes an entry: a header of hexadecimal numbers, path and contents, of which both are padded to multiples of four.
fn entry(archive: &mut Vec<u8>, number: usize, path: &str, file: &File) {
    let File { mode, contents } = file;
    let (name, size) = (path.len() + 1, contents.len());
    // Owner root, one link, no time, no device, no checksum.
    archive.extend(
        format!(
            "070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}\
             {name:08x}{0:08x}",
            0, 1
        )
        .bytes(),
    );
    archive.extend(path.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(contents);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read back by the busybox that a guest would run.
    #[test]
    fn folders_come_first_and_everything_is_aligned() {
        let mut files = Files::default();
        files.add("a/b/c", 0o755, b"12345".to_vec());
        files.add("init", 0o755, b"#!".to_vec());
        let archive = files.archive();
        assert_eq!(archive.len() % 4, 0);
        let names: Vec<_> = archive
            .windows(6)
            .enumerate()
            .filter(|(_, window)| window == b"070701")
            .map(|(at, _)| {
                assert_eq!(at % 4, 0, "a header begins at {at}");
                let name = archive[at + 110..].split(|&byte| byte == 0).next();
                String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
            })
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "init", "TRAILER!!!"]);
    }
}
