//! Packages from Debian's archive.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use netlab::host::find_program;

use super::{Purpose, toolchain};
use crate::process;

/// A Debian package, and why it is needed.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    /// A service of the package, which set-up keeps from starting.
    service: Option<&'static str>,
}

/// A program that is run by name, and the package that contains it.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) package: &'static Package,
    pub(super) needed_for: Purpose,
}

const PROTOC: Package = package(
    "protobuf-compiler",
    "turns etcd's protocol into Rust when `knockgate` is built",
);
const UTIL_LINUX: Package = package("util-linux", "makes and enters namespaces");
const IPROUTE2: Package = package("iproute2", "makes the networks that demo and tests run in");
const KNOCKD: Package = package(
    "knockd",
    "its client, `knock`, with which the tests knock; the bench runs its daemon",
)
.silencing("knockd");
const SSH_CLIENT: Package = package("openssh-client", "the tests open a gate by a real ssh");
const SSH_SERVER: Package = package(
    "openssh-server",
    "the server of that ssh, inside the tests' own network",
)
.silencing("ssh");
const NMAP: Package = package("nmap", "the tests scan with it");
const PROMETHEUS: Package = package(
    "prometheus",
    "the server that must understand the metrics, the alert rules and the dashboard",
)
.silencing("prometheus");
const NODE_EXPORTER: Package = package(
    "prometheus-node-exporter",
    "reads the metrics that `knockgate metrics` writes to a file",
)
.silencing("prometheus-node-exporter");
const ETCD: Package = package(
    "etcd-server",
    "the members over which the tests' hosts open gates together",
)
.silencing("etcd");
const ETCDCTL: Package = package(
    "etcd-client",
    "`etcdctl`, by which the tests meddle with those members",
);
const SYSTEMD: Package = package(
    "systemd",
    "the journal that a test logs to, and its rating of the unit",
);
const BUSYBOX: Package = package(
    "busybox-static",
    "the tools inside the kernels that the program is tried on",
);
const DPKG_DEV: Package = package("dpkg-dev", "finds what the Debian package depends on");
const BINUTILS: Package = package(
    "binutils",
    "removes symbols from the binary of the packages",
);
const CROSS: Package = package(
    "gcc-aarch64-linux-gnu",
    "compiles and links for arm64 on this machine",
);
/// `apt-get` is told to leave out what a package only recommends, such as this.
pub(super) const CROSS_LIBRARY: Package = package(
    "libc6-dev-arm64-cross",
    "the C library that this compiler compiles and links for",
);
const LINTIAN: Package = package("lintian", "judges the Debian package");
const MMDEBSTRAP: Package = package(
    "mmdebstrap",
    "makes the small Debians in which the package is tried",
);
const NFTABLES: Package = package(
    "nftables",
    "the tests publish ports by its rules, and the bench compares with knocking by them",
);
const IPTABLES: Package = package(
    "iptables",
    "the tests publish ports with it, and the bench's fwknopd opens some",
);
const FWKNOPD: Package =
    package("fwknop-server", "a daemon that the bench compares with").silencing("fwknop-server");
const FWKNOP: Package = package(
    "fwknop-client",
    "the tests open a gate by it, and the bench its daemon's port",
);
const XDP_TOOLS: Package = package(
    "xdp-tools",
    "a loader of others' programs, beside which the tests guard; and a port filter that the peers' harness measures",
);
const ETHTOOL: Package = package("ethtool", "the peers' harness sets up interfaces with it");
const CLANG: Package = package("clang-19", "builds the peers' kernel programs");
const GCC: Package = package("gcc", "builds the peers' senders");
const MAKE: Package = package("make", "the same");
const PYTHON: Package = package(
    "python3",
    "runs a plain client of docs/clients, and the peers' harness",
);
const OPENSSL: Package = package("openssl", "makes the knocks of the plain client in bash");
const XXD: Package = package("xxd", "the same");

/// See [`super::cargo_fuzz`].
pub(super) const CXX: Package = package("g++", "compiles the fuzzer that guided fuzzing links");

/// What `protoc` reads, in addition to itself. Other distributions have these files in another package, or in that of `protoc`.
pub(super) const PROTOCOLS: Package = package(
    "libprotobuf-dev",
    "the definitions that etcd's protocol is built on",
);

/// The programs that build, demo, tests, booted kernels and bench run.
pub(super) const PROGRAMS: &[Program] = &[
    program("protoc", &PROTOC, Purpose::Build),
    program("unshare", &UTIL_LINUX, Purpose::Demo),
    program("nsenter", &UTIL_LINUX, Purpose::Demo),
    program("setpriv", &UTIL_LINUX, Purpose::Demo),
    program("ip", &IPROUTE2, Purpose::Demo),
    program("knock", &KNOCKD, Purpose::Test),
    program("ssh", &SSH_CLIENT, Purpose::Test),
    program("ssh-keygen", &SSH_CLIENT, Purpose::Test),
    program("sshd", &SSH_SERVER, Purpose::Test),
    program("nmap", &NMAP, Purpose::Test),
    program("fwknop", &FWKNOP, Purpose::Test),
    program("nft", &NFTABLES, Purpose::Test),
    program("iptables-nft", &IPTABLES, Purpose::Test),
    program("python3", &PYTHON, Purpose::Test),
    program("openssl", &OPENSSL, Purpose::Test),
    program("xxd", &XXD, Purpose::Test),
    program("prometheus", &PROMETHEUS, Purpose::Test),
    program("promtool", &PROMETHEUS, Purpose::Test),
    program("prometheus-node-exporter", &NODE_EXPORTER, Purpose::Test),
    program("xdp-loader", &XDP_TOOLS, Purpose::Test),
    program("etcd", &ETCD, Purpose::Test),
    program("etcdctl", &ETCDCTL, Purpose::Test),
    program("journalctl", &SYSTEMD, Purpose::Test),
    program("systemd-analyze", &SYSTEMD, Purpose::Test),
    program("busybox", &BUSYBOX, Purpose::Kernels),
    program("dpkg-shlibdeps", &DPKG_DEV, Purpose::Dist),
    program("strip", &BINUTILS, Purpose::Dist),
    program("aarch64-linux-gnu-gcc", &CROSS, Purpose::Cross),
    program("lintian", &LINTIAN, Purpose::DistTest),
    program("mmdebstrap", &MMDEBSTRAP, Purpose::DistTest),
    program("knockd", &KNOCKD, Purpose::Bench),
    program("nft", &NFTABLES, Purpose::Bench),
    program("iptables-nft", &IPTABLES, Purpose::Bench),
    program("fwknopd", &FWKNOPD, Purpose::Bench),
    program("xdp-filter", &XDP_TOOLS, Purpose::Peers),
    program("ethtool", &ETHTOOL, Purpose::Peers),
    program("clang-19", &CLANG, Purpose::Peers),
    program("gcc", &GCC, Purpose::Peers),
    program("make", &MAKE, Purpose::Peers),
    program("python3", &PYTHON, Purpose::Peers),
];

/// A compiler and the source of its `core`. Debian updates these for its browsers, in addition to the older `rustc` of
/// the release.
pub(super) const COMPILER: &[Package] = &[
    package("rustc-web", "the compiler for the kernel program"),
    package(
        "rust-web-src",
        "the source of `core`, which is compiled for BPF",
    ),
];

/// The libraries with which [`super::crates::BPF_LINKER`] is built.
pub(super) const LLVM: &[Package] = &[
    package(
        "llvm-22-dev",
        "the library that turns the kernel program into BPF",
    ),
    package("libpolly-22-dev", "a part of that library"),
    package("zlib1g-dev", "that library's compression"),
    package("libzstd-dev", "that library's compression"),
];

/// The libraries with which the peers' harness is built.
pub(super) const PEERS: &[Package] = &[package("libbpf-dev", "the peers' loaders")];

/// Returns whether `protoc` finds [`PROTOCOLS`].
pub(super) fn has_protocols() -> bool {
    ["/usr/include", "/usr/local/include"].iter().any(|folder| {
        Path::new(folder)
            .join("google/protobuf/descriptor.proto")
            .is_file()
    })
}

/// Returns whether the compiler for arm64 finds [`CROSS_LIBRARY`].
pub(super) fn has_cross_library() -> bool {
    Command::new("aarch64-linux-gnu-gcc")
        .args([
            "-fsyntax-only",
            "-include",
            "stdint.h",
            "-x",
            "c",
            "/dev/null",
        ])
        .output()
        .is_ok_and(|output| output.status.success())
}

impl Package {
    pub(super) fn is_installed(&self) -> bool {
        Command::new("dpkg-query")
            .args(["--show", "--showformat=${db:Status-Status}", self.name])
            .output()
            .is_ok_and(|output| output.stdout == b"installed")
    }

    const fn silencing(mut self, service: &'static str) -> Self {
        self.service = Some(service);
        self
    }
}

/// Installs packages by one call of apt-get as root. Removes nothing, starts no service.
pub(super) fn install(packages: &[&Package]) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get, so nothing was installed.\n{}",
            by_hand(packages)
        );
    }
    let mut command = process::as_root("sh", "install Debian's packages")?;
    let status = command
        .args(["-c", &script(packages)])
        .status()
        .context("cannot start a shell as root")?;
    ensure!(
        status.success(),
        "apt-get did not install the packages ({status}); its own lines above say why. They are known to \
         be had on Debian 12 with its security archive.\n{}",
        by_hand(packages)
    );
    Ok(())
}

/// Returns what to do without apt-get.
fn by_hand(packages: &[&Package]) -> String {
    let is_of_toolchain = |package: &&Package| {
        let mut parts = COMPILER.iter().chain(LLVM);
        parts.any(|part| part.name == package.name)
    };
    let (toolchain, others): (Vec<&Package>, Vec<_>) =
        packages.iter().copied().partition(is_of_toolchain);
    let mut lines = Vec::new();
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|package| package.name).collect();
        lines.push(format!(
            "Install these packages (by their names in Debian) by this machine's own means: {}.",
            names.join(", ")
        ));
    }
    if !toolchain.is_empty() {
        lines.push(toolchain::HINT.to_owned());
    }
    lines.push("Then run the same command again.".to_owned());
    lines.join("\n")
}

/// Returns the script for root's shell.
///
/// While `policy-rc.d` exits with 101, Debian's packages start no service. Otherwise, set-up for the tests would offer
/// ssh to the machine's network. By its mark, one that was left behind is taken away.
fn script(packages: &[&Package]) -> String {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    let mut script = format!(
        "set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
mark='# knockgate: until packages are installed'
if [ ! -e $policy ] || grep -qsxF \"$mark\" $policy; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\\n%s\\nexit 101\\n' \"$mark\" >$policy
    chmod 755 $policy
fi
apt-get -q update
apt-get -q install --yes --no-remove --no-install-recommends {}
",
        names.join(" ")
    );
    for service in packages.iter().filter_map(|package| package.service) {
        script.push_str("! command -v systemctl >/dev/null || systemctl --quiet disable ");
        script.push_str(service);
        script.push_str(" || true\n");
    }
    script
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package {
        name,
        why,
        service: None,
    }
}

const fn program(name: &'static str, package: &'static Package, needed_for: Purpose) -> Program {
    Program {
        name,
        package,
        needed_for,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    #[test]
    fn one_line_installs_everything_and_no_service_stays_enabled() {
        let script = script(&[&IPROUTE2, &SSH_SERVER]);
        let installs: Vec<_> = script
            .lines()
            .filter(|line| line.contains(" install "))
            .collect();
        assert_eq!(
            installs,
            [
                "apt-get -q install --yes --no-remove --no-install-recommends iproute2 openssh-server"
            ]
        );
        assert!(script.contains("disable ssh "));
        assert!(!script.contains("disable knockd"));
    }

    #[test]
    fn by_hand_names_what_is_missing_and_nothing_else() {
        let programs = by_hand(&[&IPROUTE2, &KNOCKD]);
        assert!(
            programs.contains("own means: iproute2, knockd."),
            "{programs}"
        );
        assert!(!programs.contains("rustup"), "{programs}");
        let libraries = by_hand(&[&CROSS_LIBRARY, &PROTOCOLS]);
        assert!(
            libraries.contains("own means: libc6-dev-arm64-cross, libprotobuf-dev."),
            "{libraries}"
        );
        assert!(!libraries.contains("rustup"), "{libraries}");
        let compiler = by_hand(&[&COMPILER[1]]);
        assert!(compiler.contains("--component rust-src"), "{compiler}");
        assert!(!compiler.contains("names in Debian"), "{compiler}");
    }

    /// Else no package would start its service on this machine any more.
    #[test]
    fn services_may_start_again_however_the_installation_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy-rc.d");
        let script = script(&[&IPROUTE2]);
        let script = script.replace("/usr/sbin/policy-rc.d", &policy.to_string_lossy());
        let apt = folder.path().join("apt-get");
        // The mark is in the one that is killed: the next one takes away what that has left.
        for (signal, is_left) in [
            ("HUP", false),
            ("TERM", false),
            ("KILL", true),
            ("HUP", false),
        ] {
            let stub = format!(
                "#!/bin/sh\ntest -x {} && kill -{signal} $PPID\n",
                policy.display()
            );
            fs::write(&apt, stub).expect("writable");
            fs::set_permissions(&apt, Permissions::from_mode(0o755)).expect("it is there");
            let path = format!("{}:/usr/bin:/bin", folder.path().display());
            // Also where the tests run under `nohup`.
            let status = Command::new("env")
                .args(["--default-signal=HUP", "sh", "-c", &script])
                .env("PATH", path)
                .status()
                .expect("a shell");
            assert!(!status.success(), "{signal}");
            assert_eq!(policy.exists(), is_left, "{signal}");
        }
        fs::write(&policy, "#!/bin/sh\nexit 101\n").expect("writable");
        fs::write(&apt, "#!/bin/sh\n").expect("writable");
        let status = Command::new("sh")
            .args(["-c", &script])
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .status();
        assert!(status.expect("a shell").success());
        assert!(policy.exists(), "it is the administrator's");
    }

    #[test]
    fn the_script_is_one_that_a_shell_can_read() {
        let every: Vec<_> = PROGRAMS.iter().map(|program| program.package).collect();
        let checked = Command::new("sh")
            .args(["-n", "-c", &script(&every)])
            .status();
        assert!(checked.is_ok_and(|status| status.success()));
    }
}
