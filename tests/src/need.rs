//! What a machine needs to run the suites.
//!
//! A suite that skips silently is a suite that nobody runs. So if something is missing, a test skips with a message
//! where the machine cannot have it (no root, no BPF file system), and fails where the machine should have it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use netlab::{
    Netns,
    host::{BPFFS, ensure_bpffs, find_program, is_root},
};

/// Programs, and the Debian packages that contain them.
const PACKAGES: &[(&str, &str)] = &[
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("fwknop", "fwknop-client"),
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
    ("systemd-analyze", "systemd"),
    ("unshare", "util-linux"),
    ("xdp-loader", "xdp-tools"),
];

/// Returns whether this machine can run a test that needs these programs in addition to `ip`. Prints to standard error
/// what is missing.
///
/// # Panics
/// If the machine should have it: with `CI=true`, and as root with a BPF file system.
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

/// Returns whether the kernel has an optional feature, by running an `ip` command in a namespace. Prints to standard
/// error what is missing, which makes `cargo xtask kernels` fail.
pub fn kernel_has(what: &str, netns: &Netns, command: &str) -> bool {
    has(what, netns.ip(command)).is_some()
}

/// Returns what an optional feature of the kernel has given. Says where it is missing, as [`kernel_has`] does.
pub fn has<T>(what: &str, given: io::Result<T>) -> Option<T> {
    given
        .inspect_err(|error| {
            eprintln!("skipped; missing here: {what}, which this kernel lacks: {error}");
        })
        .ok()
}

/// Returns whether the kernel has TCX (since Linux 6.6). Prints to standard error that it has not.
pub fn tcx() -> bool {
    let has_it = linux() >= (6, 6);
    if !has_it {
        // Not "missing here", which would make `cargo xtask kernels` fail: it boots older kernels on purpose.
        eprintln!("not run: Linux {} has no TCX", release().trim());
    }
    has_it
}

/// Returns whether the kernel says which devices have native XDP (since Linux 6.3).
pub fn xdp_features() -> bool {
    linux() >= (6, 3)
}

/// Returns whether a page of memory has more than the usual 4 KiB, as on some kernels of arm64.
pub fn large_pages() -> bool {
    // SAFETY: takes no pointers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) > 4096 }
}

/// Returns the first two numbers of the kernel's version.
pub fn linux() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse().ok());
    (number().unwrap_or(0), number().unwrap_or(0))
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// Returns whether a test has the machine to itself, so that it may set its clock: a guest of `cargo xtask kernels`, which says
/// so in the variable `KNOCKGATE_GUEST`. Prints to standard error that it has not.
pub fn machine_of_its_own() -> bool {
    if !is_guest() {
        eprintln!(
            "skipped; missing here: a machine whose clock may be set; `cargo xtask kernels --only clock` boots one"
        );
    }
    is_guest()
}

/// Returns whether this is a guest of `cargo xtask kernels`, with one of Debian's kernels.
pub fn is_guest() -> bool {
    env::var_os("KNOCKGATE_GUEST").is_some()
}

/// Returns the `knockgate` under test: the variable `KNOCKGATE`, else the release build of this checkout.
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
