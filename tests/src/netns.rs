//! Throw-away network namespaces, and code that runs inside one.

use std::{
    cell::Cell,
    ffi::{CString, OsStr},
    fs::{self, File},
    io, mem,
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

/// A network namespace that goes when this value goes.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: File,
}

impl Netns {
    /// Makes a namespace with its loopback up. The name must be this process's own.
    pub fn create(name: &str) -> Self {
        ip(&["netns", "add", name]);
        let path = path_of(name);
        let handle = File::open(&path)
            .unwrap_or_else(|error| panic!("can't open {}: {error}", path.display()));
        let netns = Self {
            name: name.to_owned(),
            handle,
        };
        ip(&["-n", name, "link", "set", "lo", "up"]);
        netns
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `inside` on a thread of this namespace. Sockets it makes stay in the namespace wherever they
    /// are used later. All such threads run on one CPU, so that what they send arrives in that order.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let handle = self.handle.as_raw_fd();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                enter(handle).expect("root may enter a namespace that it made");
                inside()
            });
            thread
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Runs `inside` on this very thread, on any CPU: for what is done too often to start a thread for it.
    pub fn here<T>(&self, inside: impl FnOnce() -> T) -> T {
        /// Goes back to where the thread came from, also where `inside` panics.
        struct Home(File);

        impl Drop for Home {
            fn drop(&mut self) {
                into(self.0.as_raw_fd()).expect("a thread may go back to where it came from");
            }
        }

        let home = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
        let _home = Home(home);
        into(self.handle.as_raw_fd()).expect("root may enter a namespace that it made");
        inside()
    }

    /// A command that will run in this namespace, on the CPU that [`Netns::run`] uses.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let handle = self.handle.as_raw_fd();
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec `enter` makes system calls only; the namespace's descriptor is
        // still open in the child, as `self` outlives every use that a suite makes of the command.
        unsafe { command.pre_exec(move || enter(handle)) };
        command
    }

    /// Index of an interface in this namespace.
    pub fn index_of(&self, interface: &str) -> u32 {
        let name = CString::new(interface).expect("no NUL in it");
        // SAFETY: the name ends in a NUL.
        let index = self.run(|| unsafe { libc::if_nametoindex(name.as_ptr()) });
        assert_ne!(index, 0, "there is no interface {interface}");
        index
    }

    /// The processes whose home is this namespace.
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
        // A namespace lives as long as anything runs in it; everything in this one is the suite's own.
        for pid in self.processes() {
            if let Ok(pid) = pid.try_into() {
                // SAFETY: kill takes no pointers.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        // A failure here must not hide the one that the test is reporting.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Moves the calling thread into a namespace of its own, once, where nothing is forwarded. Threads that it
/// starts from then on are there too.
pub fn isolate() {
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
        // The calling thread's, where `/proc/sys` is its process's main thread's.
        let path = format!("/proc/sys/net/{setting}");
        fs::write(&path, "0").unwrap_or_else(|error| panic!("can't set {path}: {error}"));
    }
}

/// Runs `ip` with these arguments and panics with what it said where it fails.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("`ip` can be run");
    assert!(
        output.status.success(),
        "`ip {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Takes the calling thread into a namespace.
fn into(handle: RawFd) -> io::Result<()> {
    // SAFETY: setns takes no pointers; a descriptor of another kind is an error, not a danger.
    if unsafe { libc::setns(handle, libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes the calling thread into a namespace and keeps it on one CPU: a veth pair keeps packets in order
/// for each CPU only. Allocates nothing, since it also runs between fork and exec.
fn enter(handle: RawFd) -> io::Result<()> {
    into(handle)?;
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: cpu_set_t is a bit field, for which all zeroes is a value.
    let (mut allowed, mut one): (libc::cpu_set_t, libc::cpu_set_t) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    // SAFETY: the set is valid for writes of the size given; every CPU asked about lies within it.
    unsafe {
        if libc::sched_getaffinity(0, size, &raw mut allowed) != 0 {
            return Err(io::Error::last_os_error());
        }
        let first = (0..libc::CPU_SETSIZE.unsigned_abs() as usize)
            .find(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .unwrap_or(0);
        libc::CPU_SET(first, &mut one);
        if libc::sched_setaffinity(0, size, &raw const one) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
