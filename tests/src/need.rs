//! What a machine must have before a network can be built on it.
//!
//! A suite that silently skips is a suite that nobody runs, so there are two answers to a missing
//! thing: a skip that names it where the machine could never have had it (no root, no bpffs), and a
//! failure where it should be there.

use std::{
    env, fs, io, mem,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{netns::Netns, run::run};

/// Where pins live.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Tools and the Debian packages that bring them.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("knock", "knockd"),
    ("nmap", "nmap"),
    ("setarch", "util-linux"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("unshare", "util-linux"),
];

/// Whether a network can be built here with these tools beside `ip`. Says on standard error what was
/// missing where it can't.
///
/// Panics where the machine should have had it: under `CI=true`, and as root with a bpffs.
pub fn met(tools: &[&str]) -> bool {
    static PRIVILEGES: OnceLock<Result<(), String>> = OnceLock::new();
    let privileges = PRIVILEGES.get_or_init(privileges);
    let missing: Vec<String> = privileges
        .as_ref()
        .err()
        .cloned()
        .into_iter()
        .chain(["ip"].iter().chain(tools).filter_map(|tool| lacking(tool)))
        .collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join("; ");
    let expected = privileges.is_ok() || env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(
        !expected,
        "this machine should be able to run this test, but lacks: {missing}. \
         `cargo xtask setup` installs what the tests need"
    );
    eprintln!("skipped; missing here: {missing}");
    false
}

/// Whether the kernel has what not every one has, so that `ip` can do this in a namespace. Says on standard
/// error what was missing where it can't, which fails a run of `cargo xtask kernels`.
pub fn kernel_has(what: &str, netns: &Netns, arguments: &[&str]) -> bool {
    let mut command = Command::new("ip");
    let done = run(command.args(["-n", netns.name()]).args(arguments));
    if done.code != Some(0) {
        eprintln!(
            "skipped; missing here: {what}, which this kernel lacks: {}",
            done.stderr.trim()
        );
    }
    done.code == Some(0)
}

/// The `knockgate` under test: what `KNOCKGATE` names, else the release build of this checkout.
pub fn knockgate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let path = env::var_os("KNOCKGATE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/knockgate"),
            PathBuf::from,
        );
        path.canonicalize().unwrap_or_else(|error| {
            panic!(
                "no knockgate to test at {}: {error}. `cargo xtask test` builds one and says where \
                 it is in the variable KNOCKGATE",
                path.display()
            )
        })
    })
}

/// The full path of a tool, searched where root's tools are too.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn lacking(name: &str) -> Option<String> {
    if tool(name).is_some() {
        return None;
    }
    let package = PACKAGES.iter().find(|(tool, _)| *tool == name);
    Some(package.map_or_else(
        || format!("`{name}`"),
        |(_, package)| format!("`{name}` (Debian package {package})"),
    ))
}

fn privileges() -> Result<(), String> {
    // SAFETY: geteuid has no preconditions and can't fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err("root, which network namespaces and XDP need".to_owned());
    }
    fs::create_dir_all(BPFFS)
        .and_then(|()| mount_bpffs())
        .map_err(|error| format!("a BPF file system at {BPFFS}: {error}"))
}

/// Mounts a bpffs unless one is there: a second on top would hide the pins in the first.
fn mount_bpffs() -> io::Result<()> {
    // SAFETY: statfs is plain data, for which all zeroes is a value.
    let mut found: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: both pointers are valid for the call, and the path ends in a NUL.
    if unsafe { libc::statfs(c"/sys/fs/bpf".as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if found.f_type == libc::BPF_FS_MAGIC {
        return Ok(());
    }
    // SAFETY: the strings end in a NUL, and bpffs takes no data.
    let mounted = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            c"/sys/fs/bpf".as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if mounted == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
