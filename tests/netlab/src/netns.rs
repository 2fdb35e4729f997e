//! Throw-away network namespaces, and code and commands that run inside one.

use std::{
    cell::Cell,
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd, RawFd},
        linux::fs::MetadataExt,
        unix::process::CommandExt,
    },
    panic,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
};

use crate::host;

/// A network namespace. Dropping it removes the namespace and kills every process in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: File,
    cpu: Option<usize>,
    kill_at_exit: bool,
}

impl Netns {
    /// Makes a namespace with its loopback up. No other process may use the name.
    pub fn create(name: &str) -> io::Result<Self> {
        ip(&format!("netns add {name}"))?;
        let path = path_of(name);
        let handle = File::open(&path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot open {}: {error}", path.display()),
            )
        })?;
        let netns = Self {
            name: name.to_owned(),
            handle,
            cpu: None,
            kill_at_exit: false,
        };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Restricts the threads of [`Netns::run`], and commands, to one CPU, so that their packets arrive in order: a veth
    /// pair keeps the order only among packets of one CPU.
    #[must_use]
    pub fn on_cpu(mut self, cpu: usize) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Has the kernel kill commands when the thread that started them ends, for whatever reason.
    #[must_use]
    pub fn with_kill_at_exit(mut self) -> Self {
        self.kill_at_exit = true;
        self
    }

    /// Returns its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of this namespace. Sockets that it makes stay in the namespace wherever they are
    /// used later.
    ///
    /// # Panics
    /// If `work` does, or if this process may not enter the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let (handle, cpu) = (self.handle.as_raw_fd(), self.cpu);
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                enter(handle, cpu).expect("root may enter a namespace that it made");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// As [`Netns::run`], on the calling thread and on any CPU: for work that is done too often to start threads.
    pub fn here<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Returns to the namespace that the thread came from, even if `work` panics.
        struct Home(File);

        impl Drop for Home {
            fn drop(&mut self) {
                enter(self.0.as_raw_fd(), None)
                    .expect("a thread may go back to where it came from");
            }
        }

        let home = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
        let _home = Home(home);
        enter(self.handle.as_raw_fd(), None).expect("root may enter a namespace that it made");
        work()
    }

    /// Returns a command that will run in this namespace, without standard input.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let (handle, cpu, kill_at_exit) = (self.handle.as_raw_fd(), self.cpu, self.kill_at_exit);
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec this makes system calls only; the namespace's descriptor is still open in
        // the child, as `self` outlives every use that is made of the command.
        unsafe {
            command.pre_exec(move || {
                enter(handle, cpu)?;
                if kill_at_exit && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// Runs `ip` commands in this namespace, one a line.
    ///
    /// # Errors
    /// At the first that fails, with what `ip` said; those behind it are not run.
    pub fn ip(&self, commands: &str) -> io::Result<()> {
        batch(self.command("ip"), commands)
    }

    /// Sets a value below `/proc/sys/net`, such as `ipv4/ip_forward`.
    pub fn set(&self, setting: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/net/{setting}");
        self.run(|| fs::write(&path, value))
            .map_err(|error| io::Error::new(error.kind(), format!("cannot set {path}: {error}")))
    }

    /// Returns the index of an interface of this namespace.
    pub fn index_of(&self, interface: &str) -> io::Result<u32> {
        self.run(|| index_of(interface))
    }

    /// Returns the ids of the other processes in this namespace.
    pub fn processes(&self) -> Vec<u32> {
        let home = self
            .handle
            .metadata()
            .expect("an open namespace has metadata")
            .st_ino();
        fs::read_dir("/proc")
            .expect("/proc is mounted")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&pid| pid != process::id())
            .filter(|pid| {
                fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|net| net.st_ino() == home)
            })
            .collect()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A namespace exists as long as a process runs in it; every process in this one belongs to this process.
        for pid in self.processes() {
            if let Ok(pid) = pid.try_into() {
                // SAFETY: kill takes no pointers.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        // A failure here must not hide the failure that is being reported.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Runs `ip` commands in the namespace of this process, one a line.
///
/// # Errors
/// At the first that fails, with what `ip` said; those behind it are not run.
pub fn ip(commands: &str) -> io::Result<()> {
    batch(Command::new("ip"), commands)
}

/// Returns the index of an interface in the calling thread's namespace.
pub fn index_of(interface: &str) -> io::Result<u32> {
    let name = CString::new(interface)?;
    // SAFETY: the name ends in a NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => {
            let error = io::Error::last_os_error();
            let message = format!("no interface {interface}: {error}");
            Err(io::Error::new(error.kind(), message))
        }
        index => Ok(index),
    }
}

/// Moves the calling thread into a new namespace that forwards nothing; further calls do nothing. Threads that it
/// starts from then on are in that namespace too.
///
/// # Panics
/// If this process may not make namespaces.
pub fn isolate_thread() {
    thread_local! {
        static ISOLATED: Cell<bool> = const { Cell::new(false) };
    }
    if ISOLATED.replace(true) {
        return;
    }
    // SAFETY: takes no pointers, and concerns this thread alone.
    let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(moved, 0, "root may make namespaces");
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        // `/proc/sys/net` is the calling thread's; `/proc/net` would be the main thread's.
        let path = format!("/proc/sys/net/{setting}");
        fs::write(&path, "0").unwrap_or_else(|error| panic!("cannot set {path}: {error}"));
    }
}

/// Has one `ip` run all of these commands: starting a process takes longer than a command.
fn batch(mut ip: Command, commands: &str) -> io::Result<()> {
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run `ip`: {error}")))?;
    let written = child
        .stdin
        .take()
        .map(|mut input| input.write_all(commands.as_bytes()));
    let done = child.wait_with_output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(io::Error::other(format!(
            "`ip {commands}` failed: {}",
            said.trim()
        )));
    }
    written.unwrap_or(Ok(()))
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Moves the calling thread into a namespace and to a CPU. Allocates nothing, since it also runs between
/// fork and exec.
fn enter(handle: RawFd, cpu: Option<usize>) -> io::Result<()> {
    // SAFETY: setns takes no pointers; a descriptor of another kind is an error, not a danger.
    if unsafe { libc::setns(handle, libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    cpu.map_or(Ok(()), |cpu| host::keep_to(&[cpu]))
}
