//! Runs commands, and states what a test expects of them.

use std::{
    fmt::Debug,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    ptr,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long a command that ends by itself may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The system call in which an event loop waits.
#[cfg(target_arch = "x86_64")]
const WAITS: libc::c_long = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const WAITS: libc::c_long = libc::SYS_epoll_pwait;

/// The result of a command that has ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The command line.
    pub command: String,
}

/// A command that is running; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
}

/// Runs a command to its end. Panics if it takes longer than two minutes.
pub fn run(command: &mut Command) -> Run {
    let shown = format!("{command:?}");
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output: Output = receiver.recv_timeout(PATIENCE).map_or_else(
        |_| {
            if let Ok(pid) = pid.try_into() {
                // SAFETY: kill takes no pointers; the child has not been waited for, so the id is its.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            panic!("{shown} did not end within {PATIENCE:?}")
        },
        |output| output.unwrap_or_else(|error| panic!("lost {shown}: {error}")),
    );
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        command: shown,
    }
}

impl Run {
    /// Asserts the exit status; a failure shows the whole output.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "the exit status of {self:#?}");
        self
    }

    /// Asserts that standard error contains all of these texts.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "no {text:?} on standard error of {self:#?}"
            );
        }
        self
    }

    /// Asserts that standard output is empty.
    #[track_caller]
    pub fn prints_nothing(&self) -> &Self {
        assert_eq!(self.stdout, "", "standard output of {self:#?}");
        self
    }

    /// Returns standard output, which must be one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not one JSON document: {error}: {self:#?}"))
    }
}

impl Running {
    /// Starts a command, whose standard output goes to a new file in `folder`.
    pub fn start(command: &mut Command, folder: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let stdout = folder.join(format!("stdout-{number}"));
        let file = File::create(&stdout).expect("the temporary folder is writable");
        let child = command
            .stdout(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self { child, stdout }
    }

    /// Starts a command whose streams go elsewhere already.
    pub fn attached(command: &mut Command) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self {
            child,
            stdout: PathBuf::from("/dev/null"),
        }
    }

    /// Returns what the command has printed so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).expect("it was created above")
    }

    /// Returns the most resident memory of the command so far, bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("it has not been waited for");
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("Linux has it");
        kilobytes(peak)
    }

    /// Returns the resident memory of the command, bytes. The kernel's tables that it has mapped are left out: `up` has
    /// allocated them, so to count them here would count the same memory twice.
    pub fn own_memory(&self) -> u64 {
        let path = format!("/proc/{}/smaps", self.child.id());
        let mappings = fs::read_to_string(path).expect("it has not been waited for");
        let (mut resident, mut is_table) = (0, false);
        for line in mappings.lines() {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            if first == "Rss:" && !is_table {
                resident += kilobytes(rest);
            } else if !first.ends_with(':') {
                // The first line of a mapping: its addresses, and what is mapped.
                is_table = rest.ends_with("anon_inode:bpf-map");
            }
        }
        resident
    }

    /// Returns the CPU time of the command so far.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(path).expect("it has not been waited for");
        // After the name in brackets: the 14th and 15th field are user and system time in ticks of 10 ms.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|field| field.parse::<u32>().expect("a number of ticks"));
        Duration::from_millis(10) * ticks.sum()
    }

    pub fn goes_on(&mut self) -> bool {
        let ended = self.child.try_wait();
        ended.expect("a child can be waited for").is_none()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; the child has not been waited for, so the id is its.
        let sent = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
    }

    /// Holds up the main thread, once that waits for something to do; other threads go on. Ends with [`Running::let_go`], by the same
    /// thread of the caller's.
    pub fn hold(&self) {
        wait_until("its main thread waits", || {
            self.trace(libc::PTRACE_SEIZE);
            self.trace(libc::PTRACE_INTERRUPT);
            // SAFETY: a null pointer asks for no status.
            let stopped = unsafe { libc::waitpid(self.pid(), ptr::null_mut(), libc::__WALL) };
            assert_eq!(stopped, self.pid(), "{}", io::Error::last_os_error());
            let call = fs::read_to_string(format!("/proc/{}/syscall", self.pid()));
            let call = call.expect("it has not been waited for");
            let waits = call.split(' ').next() == Some(&WAITS.to_string());
            if !waits {
                self.let_go();
            }
            waits
        });
    }

    pub fn let_go(&self) {
        self.trace(libc::PTRACE_DETACH);
    }

    fn trace(&self, request: libc::c_uint) {
        let nothing = ptr::null_mut::<libc::c_void>();
        // SAFETY: these requests take no pointers; the child has not been waited for, so the id is its.
        let done = unsafe { libc::ptrace(request, self.pid(), nothing, nothing) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }

    fn pid(&self) -> libc::pid_t {
        let pid = self.child.id().try_into();
        pid.expect("a process id is positive")
    }

    /// Sets how many descriptors the command may have. Returns how many it might have before.
    pub fn limit_descriptors(&self, limit: u64) -> u64 {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let set = |new: *const libc::rlimit, old: *mut libc::rlimit| {
            // SAFETY: each is null or a limit of the caller's; the child has not been waited for, so the id is its.
            let set = unsafe { libc::prlimit(self.pid(), libc::RLIMIT_NOFILE, new, old) };
            assert_eq!(set, 0, "{}", io::Error::last_os_error());
        };
        set(ptr::null(), &raw mut before);
        let new = libc::rlimit {
            rlim_cur: limit,
            ..before
        };
        set(&raw const new, ptr::null_mut());
        before.rlim_cur
    }

    /// Returns how many descriptors the command has open.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        open.expect("it has not been waited for").count()
    }

    /// Whether the command has a handler for a signal, according to `/proc`.
    pub fn catches(&self, signal: i32) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("it has not been waited for");
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .map(|mask| u64::from_str_radix(mask.trim(), 16).expect("a mask in hexadecimal"))
            .expect("Linux has it");
        // Bit 0 stands for signal 1.
        caught & 1 << (signal - 1) != 0
    }

    /// Waits for the end of the command. Returns the exit status; `None` if a signal ended it.
    #[track_caller]
    pub fn ends(mut self) -> Option<i32> {
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a test that depends on a time, such as an idle time, with longer and longer times: `done` returns false if
/// this machine was too slow for the time given, and is then called with twice the time.
#[track_caller]
pub fn given_time(at_first: Duration, mut done: impl FnMut(Duration) -> bool) {
    let mut time = at_first;
    while !done(time) {
        assert!(time < PATIENCE, "this machine takes longer than {time:?}");
        time *= 2;
    }
}

/// Returns the bytes that a number of kB says.
fn kilobytes(text: &str) -> u64 {
    let number = text.trim().trim_end_matches(" kB").parse::<u64>();
    number.expect("a number of kB") * 1024
}

/// Waits for a condition, which must hold within two minutes.
#[track_caller]
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    assert!(comes_true(holds), "waited in vain until {what}");
}

/// Waits for a condition, for two minutes at the most. Returns whether it holds then.
pub fn comes_true(holds: impl FnMut() -> bool) -> bool {
    comes_true_within(PATIENCE, holds)
}

/// As [`comes_true`], for this long at the most: for those who then try something else.
pub fn comes_true_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        // Before the look, so that the last one is not an old one: the whole machine may stop in between.
        let is_last = begun.elapsed() >= limit;
        let is_so = holds();
        if is_so || is_last {
            return is_so;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until what `see` returns is right, for two minutes at the most, and returns it. Otherwise panics with what it returned last.
#[track_caller]
pub fn wait_for_value<T: Debug>(
    what: &str,
    mut see: impl FnMut() -> T,
    mut is_right: impl FnMut(&T) -> bool,
) -> T {
    let mut latest = None;
    let is_seen = comes_true(|| {
        let seen = see();
        let is_it = is_right(&seen);
        latest = Some(seen);
        is_it
    });
    match latest {
        Some(seen) if is_seen => seen,
        seen => panic!("waited in vain until {what}: {seen:?}"),
    }
}
