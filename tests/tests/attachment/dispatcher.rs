//! Behind libxdp's dispatcher: an XDP program that calls the components of several projects, as `xdp-loader` and others
//! attach it. Where the kernel cannot replace functions of programs (`freplace`), libxdp attaches the component itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use knockgate_tests::{
    lab::{
        Family, Lab,
        Source::{A, B},
        WAN,
    },
    need,
    run::{self, Run},
    scenario::{Attach, Scenario},
};

use crate::{expect_status, ssh};

const LOADER: &str = "xdp-loader";
/// The name of libxdp's own program.
const DISPATCHER: &str = "xdp_dispatcher";
/// A component that lets packets by, in the folder of BPF objects of Debian's package.
const COMPONENT: &str = "xdpfilt_alw_all.o";

/// What `xdp-loader` has attached. Dropping it detaches it.
struct Loaded<'l> {
    lab: &'l Lab,
    /// Where libxdp keeps its pins.
    pins: PathBuf,
}

impl<'l> Loaded<'l> {
    fn on(lab: &'l Lab) -> Self {
        // The BPF file system refuses names with dots.
        let pins = PathBuf::from(format!("{}-xdp", lab.pin_root().display()));
        fs::create_dir(&pins).expect("a folder of the test's own");
        let this = Self { lab, pins };
        this.add();
        this
    }

    fn add(&self) {
        let component = object(COMPONENT);
        let component = component.to_str().expect("made of ASCII");
        self.run(&["load", "--mode", "native", WAN, component])
            .exits(0);
    }

    /// Returns what is listed as on the interface.
    fn status(&self) -> String {
        self.run(&["status", WAN]).exits(0).stdout.clone()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.lab.host.command(LOADER);
        run::run(command.env("LIBXDP_BPFFS", &self.pins).args(arguments))
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        self.run(&["unload", WAN, "--all"]);
        // A failure here must not hide that of a test.
        let _ = fs::remove_dir_all(&self.pins);
    }
}

fn object(name: &str) -> PathBuf {
    let gnu = format!("{}-linux-gnu", std::env::consts::ARCH);
    Path::new("/usr/lib").join(gnu).join("bpf").join(name)
}

#[test]
fn it_guards_behind_libxdps_programs() {
    let Some(lab) = Lab::build(&[LOADER]).filter(|_| need::tcx()) else {
        return;
    };
    let scenario = Scenario::new(Attach::Tcx, Family::V4, lab);
    let loaded = Loaded::on(&scenario.lab);
    let before = loaded.status();
    // Debian's kernels can; this machine's need not.
    if need::is_guest() {
        assert!(before.contains(DISPATCHER), "{before}");
    }
    let name = if before.contains(DISPATCHER) {
        DISPATCHER
    } else {
        "xdpfilt_alw_all"
    };
    let configure = |attach: &str| {
        let gate = ssh();
        scenario.lab.configure(&format!(
            "interfaces = [\"{WAN}\"]\nattach = \"{attach}\"\n{gate}"
        ));
    };
    for attach in ["native", "generic"] {
        configure(attach);
        scenario
            .knockgate("up")
            .exits(1)
            .says(&[name, "attach = \"tcx\""]);
    }
    assert_eq!(loaded.status(), before);

    configure("auto");
    scenario
        .knockgate("up")
        .exits(0)
        .says(&[name, "attached at TCX, behind it"]);
    scenario.closed(A, "22/tcp");
    scenario.knockgate("allow {B} --gate ssh --for 1h").exits(0);
    scenario.open(B, "22/tcp");
    assert_eq!(loaded.status(), before);

    // Another component, for which libxdp replaces its dispatcher.
    if name == DISPATCHER {
        loaded.add();
        assert_ne!(loaded.status(), before);
        expect_status(&scenario, &[(WAN, None, true)]);
        scenario.closed(A, "22/tcp");
        scenario.open(B, "22/tcp");
    }
    let with_ours = loaded.status();
    scenario.knockgate("down").exits(0);
    assert_eq!(loaded.status(), with_ours, "it is theirs");
    scenario.open(A, "22/tcp");
}
