//! What a machine must have before a network can be built on it.
//!
//! A suite that silently skips is a suite that nobody runs, so there are two answers to a missing
//! thing: a skip that names it where the machine could never have had it (no root, no bpffs), and a
//! failure where it should be there.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use netlab::{
    Netns,
    host::{BPFFS, ensure_bpffs, find_program, is_root},
};

/// Tools and the Debian packages that bring them.
const PACKAGES: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("knock", "knockd"),
    ("nmap", "nmap"),
    ("prometheus", "prometheus"),
    ("prometheus-node-exporter", "prometheus-node-exporter"),
    ("promtool", "prometheus"),
    ("setarch", "util-linux"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("unshare", "util-linux"),
];

/// Whether a network can be built here with these tools beside `ip`. Says on standard error what was
/// missing where it cannot.
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
/// error what was missing where it cannot, which fails a run of `cargo xtask kernels`.
pub fn kernel_has(what: &str, netns: &Netns, command: &str) -> bool {
    let done = netns.ip(command);
    if let Err(error) = &done {
        eprintln!("skipped; missing here: {what}, which this kernel lacks: {error}");
    }
    done.is_ok()
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

fn lacking(name: &str) -> Option<String> {
    if find_program(name).is_some() {
        return None;
    }
    let package = PACKAGES.iter().find(|(tool, _)| *tool == name);
    Some(package.map_or_else(
        || format!("`{name}`"),
        |(_, package)| format!("`{name}` (Debian package {package})"),
    ))
}

fn privileges() -> Result<(), String> {
    if !is_root() {
        return Err("root, which network namespaces and XDP need".to_owned());
    }
    ensure_bpffs().map_err(|error| format!("a BPF file system at {BPFFS}: {error}"))
}
