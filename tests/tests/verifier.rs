//! Measures how close the program is to the limits of the kernel's verifier.
//!
//! Verifiers differ: a change that costs one kernel nothing may make another one check ten times as many paths. So
//! `docs/development/verifier.md` has figures for several kernels, and none may grow far beyond its figure.

use std::{fmt, fs, fs::File, mem, os::fd::AsRawFd as _, str::FromStr as _};

use aya::{
    Ebpf, VerifierLogLevel,
    programs::{Program, ProgramError},
};
use knock_user::{
    config::Config,
    datapath::{self, ENTRIES, Hook, TCX_ENTRIES},
};
use knockgate_tests::need;

/// The stored figures, which `cargo xtask kernels --update` writes.
const STORED: &str = include_str!("../../docs/development/verifier.md");

/// Half of Linux's limit (`BPF_COMPLEXITY_LIMIT_INSNS`), as a reserve for kernels that are not tried.
const MOST_INSTRUCTIONS: u64 = 500_000;

/// A configuration that uses every feature: the verifier does not check code for features that are off.
const EVERYTHING: &str = r#"
    interfaces = ["eth0"]
    allow = ["192.0.2.0/24"]
    addresses = "host"
    open_ports = ["80/tcp"]
    limits = { sources = 16384, grants = 16, sessions = 64, keys = 16 }
    [[interface]]
    name = "eth1"
    next = "/sys/fs/bpf/next"
    [knock]
    ports = ["41641/udp"]
    [fwknop]
    ports = ["62201/udp"]
    [fleet]
    name = "test"
    endpoints = ["https://192.0.2.1:2379"]
    replay = "strict"
    [[gate]]
    name = "ssh"
    protect = ["22/tcp"]
    open_for = "10s"
    deny = "reject"
    connections = 1
    grant_to = "prefix"
    sources = ["203.0.113.0/24", "2001:db8:1::/48"]
    [[gate.knock]]
    user = "alice"
    sequence = ["7000/udp", "8443/tcp", "9301/udp"]
    within = "5s"
    [[gate.fwknop]]
    user = "bob"
    key = "a passphrase"
    hmac_key = "another passphrase"
"#;

#[test]
fn the_program_is_far_from_the_limits() {
    if !need::met(&[]) {
        return;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let release = release.trim();
    let measure = |hook, entry| {
        let figures = Figures::measure(hook, entry);
        // A line for `cargo xtask kernels`.
        println!("\nverifier: {release}: {entry}: {figures}");
        (entry, figures)
    };
    let mut figures: Vec<_> = ENTRIES.map(|entry| measure(Hook::Xdp, entry)).into();
    if need::tcx() {
        figures.extend(TCX_ENTRIES.map(|entry| measure(Hook::Tcx, entry)));
    }
    // All figures are printed before any is checked, so that `--update` gets all.
    for (entry, figures) in figures {
        is_far_from_the_limits(release, entry, &figures);
    }
}

fn is_far_from_the_limits(release: &str, entry: &str, figures: &Figures) {
    assert!(
        figures.instructions < MOST_INSTRUCTIONS,
        "the verifier of {release} processes {} instructions of {entry}; {MOST_INSTRUCTIONS} is the most that \
         the program may take",
        figures.instructions
    );
    let version = version(release);
    let stored = stored()
        .into_iter()
        .find(|(kernel, of, _)| *kernel == version && of == entry);
    let Some((_, _, stored)) = stored else {
        return;
    };
    for (what, now, then) in [
        ("instructions", figures.instructions, stored.instructions),
        ("peak states", figures.peak_states, stored.peak_states),
        ("bytes of the largest frame", figures.frame, stored.frame),
    ] {
        assert!(
            now * 4 <= then * 5,
            "{what} of {entry} on {release}: {now}, more than a quarter above the {then} in \
             docs/development/verifier.md. Where that \
             is worth its cost, `cargo xtask kernels --update` writes it down"
        );
    }
}

#[test]
fn the_table_has_the_kernels_that_are_booted() {
    let rows = stored().into_iter();
    let rows: Vec<_> = rows.map(|(kernel, entry, _)| (kernel, entry)).collect();
    for kernel in ["6.1", "6.12"] {
        for entry in ENTRIES {
            let row = (kernel.to_owned(), entry.to_owned());
            assert!(
                rows.contains(&row),
                "no {row:?} among {rows:?} in docs/development/verifier.md; `cargo xtask kernels --update` writes it"
            );
        }
    }
}

#[test]
fn statistics_are_read_in_both_forms() {
    let end = "processed 1234 insns (limit 1000000) max_states_per_insn 9 total_states 80 peak_states 50 mark_read 0\n";
    for frames in [
        "stack depth 96+216+0\n",
        "stack depth max 480\nsubprog 0 (knockgate) main insns_self 4 insns_total 9 stack 96\n\
         subprog 1 (f_3C_g_3E_) static insns_self 5 insns_total 5 stack 216\n",
    ] {
        let figures = Figures::read(&format!("verification time 5 usec\n{frames}{end}"));
        assert_eq!(
            figures.to_string(),
            "1234 instructions, 50 peak states, 216 bytes of stack"
        );
    }
}

/// The verifier's statistics of an accepted program.
struct Figures {
    /// Instructions processed, over all paths.
    instructions: u64,
    /// The most states that it kept at the same time.
    peak_states: u64,
    /// Stack of the function that uses most, bytes.
    frame: u64,
}

impl Figures {
    fn measure(hook: Hook, entry: &str) -> Self {
        let (config, _) = Config::parse(EVERYTHING, "everything").expect("a valid configuration");
        let prepared = datapath::prepare(hook, &config, VerifierLogLevel::STATS);
        let mut ebpf = prepared.unwrap_or_else(|error| panic!("{error:#}"));
        Self::read(&verifier_log(&mut ebpf, entry))
    }

    /// Reads the statistics at the end of the log (`print_verification_stats` in `kernel/bpf/verifier.c`).
    fn read(log: &str) -> Self {
        let after = |name: &str| {
            let (_, rest) = log.rsplit_once(name)?;
            rest.split_whitespace().next()
        };
        let number = |name: &str| after(name).and_then(|word| u64::from_str(word).ok());
        // A line for each function since Linux 7.3, before that one line with the frames of all, such as `stack depth 96+40`.
        let functions = log.lines().filter(|line| line.starts_with("subprog "));
        let frames = functions.filter_map(|line| line.rsplit_once(" stack ")?.1.parse().ok());
        let joined = || {
            after("stack depth ")?
                .split('+')
                .map_while(|frame| u64::from_str(frame).ok())
                .max()
        };
        let frame = frames.max().or_else(joined);
        match (number("processed "), number("peak_states "), frame) {
            (Some(instructions), Some(peak_states), Some(frame)) => Self {
                instructions,
                peak_states,
                frame,
            },
            _ => panic!("no statistics at the end of the verifier's log:\n{log}"),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instructions,
            peak_states,
            frame,
        } = self;
        write!(
            f,
            "{instructions} instructions, {peak_states} peak states, {frame} bytes of stack"
        )
    }
}

/// Returns the verifier's log of a program that it accepts. aya returns the log only if loading fails, so loading is
/// made to fail after verification, for lack of a free descriptor.
fn verifier_log(ebpf: &mut Ebpf, entry: &str) -> String {
    let program = ebpf.program_mut(entry).expect("the program");
    let result = {
        let _none = NoMoreDescriptors::begin();
        match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => panic!("{entry} is of another type"),
        }
    };
    match result {
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) if io_error.raw_os_error() == Some(libc::EMFILE) => verifier_log.to_string(),
        Err(error) => panic!("this should have failed for want of a descriptor: {error}"),
        Ok(()) => panic!("the program was loaded, though there was no descriptor left for it"),
    }
}

/// While this value exists, the process cannot open a new descriptor.
struct NoMoreDescriptors {
    before: libc::rlimit,
}

impl NoMoreDescriptors {
    fn begin() -> Self {
        let next = File::open("/dev/null").expect("there is one").as_raw_fd();
        // SAFETY: rlimit is plain data, for which all zeroes is a value.
        let mut before: libc::rlimit = unsafe { mem::zeroed() };
        // SAFETY: the structure is valid for the call to write.
        let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) };
        assert_eq!(read, 0, "a process may read its own limits");
        set_limit(libc::rlimit {
            rlim_cur: next.try_into().expect("a descriptor is not negative"),
            ..before
        });
        Self { before }
    }
}

impl Drop for NoMoreDescriptors {
    fn drop(&mut self) {
        set_limit(self.before);
    }
}

fn set_limit(limit: libc::rlimit) {
    // SAFETY: the structure is valid for the call to read.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0, "a process may move within its own limits");
}

/// Returns the rows of the stored table: kernel, release, entry, instructions, peak states, frame.
fn stored() -> Vec<(String, String, Figures)> {
    let number = |cell: &str| u64::from_str(&cell.replace(',', ""));
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [kernel, _, entry, instructions, peak_states, frame] = cells[..] else {
            return None;
        };
        let figures = Figures {
            instructions: number(instructions).ok()?,
            peak_states: number(peak_states).ok()?,
            frame: number(frame).ok()?,
        };
        Some((kernel.to_owned(), entry.to_owned(), figures))
    };
    STORED.lines().filter_map(row).collect()
}

/// Returns the version of a release: `6.1` for `6.1.0-56-cloud-amd64`.
fn version(release: &str) -> String {
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}
