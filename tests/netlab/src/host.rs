//! This machine: programs, privileges, file systems, and the namespaces that a process runs in.

use std::{
    env,
    ffi::CString,
    fs, io, mem,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    ptr,
};

/// Where programs and tables are pinned.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Returns whether this process runs as root.
pub fn is_root() -> bool {
    // A process's folder in /proc belongs to its effective user.
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Returns the full path of a program. Searches the folders of root's programs too, which a user's PATH on Debian
/// lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

/// Returns whether this is a file that may be executed.
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// If the command cannot be started, or fails; the message then contains its standard error.
pub fn output(command: &mut Command) -> io::Result<String> {
    let done = command.output().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start {command:?}: {error}"))
    })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(io::Error::other(format!(
            "{command:?} failed ({}): {}",
            done.status,
            said.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Mounts a file system without a device, such as `tmpfs` or `bpf`, over a folder.
pub fn mount(kind: &str, folder: &str) -> io::Result<()> {
    let [kind_name, folder_name] = [kind, folder].map(CString::new);
    let (kind_name, folder_name) = (kind_name?, folder_name?);
    // SAFETY: the strings end in a NUL and live through the call; these file systems take no data.
    let mounted = unsafe {
        libc::mount(
            kind_name.as_ptr(),
            folder_name.as_ptr(),
            kind_name.as_ptr(),
            0,
            ptr::null(),
        )
    };
    if mounted != 0 {
        let error = io::Error::last_os_error();
        let message = format!("cannot mount a {kind} file system at {folder}: {error}");
        return Err(io::Error::new(error.kind(), message));
    }
    Ok(())
}

/// Mounts a BPF file system at [`BPFFS`] unless one is mounted there: a second one on top would hide the pins in
/// the first. Only its owner may look into it, as into the one that systemd mounts.
pub fn ensure_bpffs() -> io::Result<()> {
    fs::create_dir_all(BPFFS)?;
    // SAFETY: statfs is plain data, for which all zeroes is a value.
    let mut found: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: both pointers are valid for the call, and the path ends in a NUL.
    if unsafe { libc::statfs(c"/sys/fs/bpf".as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if found.f_type == libc::BPF_FS_MAGIC {
        Ok(())
    } else {
        mount("bpf", BPFFS)?;
        fs::set_permissions(BPFFS, fs::Permissions::from_mode(0o700))
    }
}

/// Returns the mount and the network namespace of this process, as the kernel names them.
pub fn namespaces() -> io::Result<[String; 2]> {
    let name = |path: &str| {
        let link = fs::read_link(path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read {path}: {error}"))
        })?;
        io::Result::Ok(link.to_string_lossy().into_owned())
    };
    Ok([name("/proc/self/ns/mnt")?, name("/proc/self/ns/net")?])
}

/// Checks that this process has left these namespaces, so that it mounts and configures nothing in them.
///
/// # Errors
/// If it is still in one of them.
pub fn ensure_outside(namespaces_before: &[String]) -> io::Result<()> {
    if namespaces()?
        .iter()
        .any(|own| namespaces_before.contains(own))
    {
        return Err(io::Error::other(
            "this process has no namespaces of its own",
        ));
    }
    Ok(())
}

/// Returns the CPUs that the calling thread may use.
pub fn cpus() -> io::Result<Vec<usize>> {
    // SAFETY: cpu_set_t is a bit field, for which all zeroes is a value.
    let mut allowed: libc::cpu_set_t = unsafe { mem::zeroed() };
    let size = size_of_val(&allowed);
    // SAFETY: the set is valid for writes of the size given.
    if unsafe { libc::sched_getaffinity(0, size, &raw mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let every = 0..libc::CPU_SETSIZE.unsigned_abs() as usize;
    // SAFETY: every CPU asked about lies within the set.
    Ok(every
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) })
        .collect())
}

/// Restricts the calling thread, and what it starts from now on, to these CPUs. Allocates nothing, since it also runs
/// between fork and exec.
pub fn keep_to(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: cpu_set_t is a bit field, for which all zeroes is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for cpu in cpus {
        // SAFETY: CPU_SET panics where the number lies outside of the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the set is valid for reads of the size given.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_and_only_if_executable() {
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program("no-such-program-anywhere"), None);
        assert!(!is_executable(Path::new("/etc/passwd")));
        assert!(!is_executable(Path::new("/")));
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let failed = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]));
        let message = failed.expect_err("it exits 3").to_string();
        assert!(message.contains("exit status: 3): broken"), "{message}");
    }

    #[test]
    fn a_process_is_in_its_own_namespaces() {
        let own = namespaces().expect("/proc is mounted");
        assert!(ensure_outside(&own).is_err());
        assert!(ensure_outside(&["net:[0]".to_owned()]).is_ok());
    }
}
