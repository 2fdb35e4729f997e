//! Commands of which a test sees every system call, to count them, or to act or kill the command between two of them.

use std::{
    io, mem,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    ptr,
};

// Of `enum bpf_cmd`.
const LOOKUP_ELEM: u64 = 1;
const UPDATE_ELEM: u64 = 2;
const DELETE_ELEM: u64 = 3;
const OBJ_PIN: u64 = 6;
const UPDATE_BATCH: u64 = 26;
const LINK_CREATE: u64 = 28;
const LINK_UPDATE: u64 = 29;
const LINK_DETACH: u64 = 34;

/// A system call that a command is about to make.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    number: libc::c_long,
    first: u64,
}

impl Call {
    /// Creates, renames or removes a pin, or attaches, replaces or detaches a program.
    pub fn changes_pins(&self) -> bool {
        match self.number {
            libc::SYS_bpf => matches!(
                self.first,
                OBJ_PIN | LINK_CREATE | LINK_UPDATE | LINK_DETACH
            ),
            libc::SYS_mkdirat | libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_unlinkat => {
                true
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir | libc::SYS_rename | libc::SYS_unlink | libc::SYS_rmdir => true,
            _ => false,
        }
    }

    /// Gives a file another name, or has two change names.
    pub fn renames(&self) -> bool {
        match self.number {
            libc::SYS_renameat | libc::SYS_renameat2 => true,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => true,
            _ => false,
        }
    }

    /// Locks a file or a folder.
    pub fn locks(&self) -> bool {
        self.number == libc::SYS_flock
    }

    /// Removes a file or a pin.
    pub fn removes(&self) -> bool {
        match self.number {
            libc::SYS_unlinkat => true,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink => true,
            _ => false,
        }
    }

    /// Has a link carry another program.
    pub fn changes_a_link(&self) -> bool {
        self.number == libc::SYS_bpf && self.first == LINK_UPDATE
    }

    /// Waits until every packet has been judged that is being judged now.
    pub fn waits_for_packets(&self) -> bool {
        self.number == libc::SYS_membarrier
    }

    /// Writes or removes entries of a table.
    pub fn changes_a_table(&self) -> bool {
        let writes = self.number == libc::SYS_bpf && self.first == UPDATE_BATCH;
        writes || self.changes_an_entry()
    }

    /// Writes or removes one entry of a table.
    pub fn changes_an_entry(&self) -> bool {
        self.number == libc::SYS_bpf && matches!(self.first, UPDATE_ELEM | DELETE_ELEM)
    }

    /// Reads, writes or removes one entry of a table.
    pub fn is_about_one_entry(&self) -> bool {
        self.number == libc::SYS_bpf
            && matches!(self.first, LOOKUP_ELEM | UPDATE_ELEM | DELETE_ELEM)
    }
}

/// Runs a command and kills it right before the `nth` system call, counted from 0, that changes pins or attachments.
/// Returns false if the command made fewer such calls and ended by itself.
pub fn killed_before(command: Command, nth: usize) -> bool {
    killed_at_call(command, nth, Call::changes_pins)
}

/// As [`killed_before`], of the calls that are `wanted`.
pub fn killed_at_call(command: Command, nth: usize, wanted: impl Fn(&Call) -> bool) -> bool {
    let mut calls = 0;
    let status = run(command, |call| {
        calls += usize::from(wanted(&call));
        calls <= nth
    });
    status.is_none()
}

/// Runs a command to its end, and calls `act` right before the first system call that is `wanted`, while the command stands still.
/// Returns the exit status.
pub fn interrupted(
    command: Command,
    wanted: impl Fn(&Call) -> bool,
    act: impl FnOnce(),
) -> Option<i32> {
    let mut act = Some(act);
    let status = run(command, |call| {
        if wanted(&call)
            && let Some(act) = act.take()
        {
            act();
        }
        true
    });
    assert!(act.is_none(), "it made no such call");
    status.expect("it goes on").code()
}

/// Runs a command and kills it right before the `nth` system call of its first thread, counted from 0. Returns false if it
/// made fewer and ended by itself.
pub fn killed_at(command: Command, nth: usize) -> bool {
    let mut calls = 0;
    let status = run(command, |_| {
        calls += 1;
        calls <= nth
    });
    status.is_none()
}

/// Runs a command to its end. Returns how many of the system calls of its first thread are `wanted`.
pub fn count(command: Command, wanted: impl Fn(&Call) -> bool) -> usize {
    let mut calls = 0;
    let status = run(command, |call| {
        calls += usize::from(wanted(&call));
        true
    });
    assert!(status.is_some(), "it goes on");
    calls
}

/// Runs a command as long as `goes_on` holds for the system calls of its first thread, then kills it before that call.
/// Returns its status if it ended by itself.
#[expect(clippy::zombie_processes, reason = "it is waited for by its id")]
fn run(mut command: Command, mut goes_on: impl FnMut(Call) -> bool) -> Option<ExitStatus> {
    let shown = format!("{command:?}");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: one system call without pointers, between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let none = ptr::null_mut::<libc::c_void>();
            match libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    let pid = child.id().try_into().expect("a process id is positive");
    // It stops at its exec.
    assert!(wait(pid).is_none(), "{shown} has ended before its exec");
    trace(
        libc::PTRACE_SETOPTIONS,
        pid,
        libc::PTRACE_O_TRACESYSGOOD.cast_unsigned().into(),
    );
    loop {
        trace(libc::PTRACE_SYSCALL, pid, 0);
        if let Some(status) = wait(pid) {
            return Some(status);
        }
        if is_at_call(pid) && !next_call(pid).is_none_or(&mut goes_on) {
            // SAFETY: kill takes no pointers; the child has not been waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            while wait(pid).is_none() {}
            return None;
        }
    }
}

/// Returns whether the child, which has stopped, is at a system call.
fn is_at_call(pid: libc::pid_t) -> bool {
    // SAFETY: the structure is plain data, filled by the call below.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the structure outlives the call.
    let asked = unsafe {
        libc::ptrace(
            libc::PTRACE_GETSIGINFO,
            pid,
            ptr::null_mut::<libc::c_void>(),
            &raw mut info,
        )
    };
    asked == 0 && info.si_code == (libc::SIGTRAP | 0x80)
}

/// Returns the system call that the child is about to make; `None` where it comes back from one.
fn next_call(pid: libc::pid_t) -> Option<Call> {
    // SAFETY: the structure is plain data, filled by the call below.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes no more than the size that it is given.
    let asked = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info) };
    if asked <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel has said that this is the member.
    let entry = unsafe { info.u.entry };
    Some(Call {
        number: entry.nr.try_into().ok()?,
        first: entry.args[0],
    })
}

fn trace(request: libc::c_uint, pid: libc::pid_t, data: u64) {
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take a number and no pointer.
    let done = unsafe { libc::ptrace(request, pid, none, data) };
    assert_eq!(done, 0, "ptrace: {}", io::Error::last_os_error());
}

/// Waits until the child stops or ends. Returns the status if it has ended.
fn wait(pid: libc::pid_t) -> Option<ExitStatus> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "{}", io::Error::last_os_error());
    let stopped = libc::WIFSTOPPED(status);
    (!stopped).then(|| ExitStatus::from_raw(status))
}
