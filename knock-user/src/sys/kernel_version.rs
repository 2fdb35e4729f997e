//! The version of the running kernel.

use std::io;

/// Major and minor number.
pub type Version = (u32, u32);

/// Returns the release as `uname -r` prints it. `/proc` is not asked, since it does not follow `personality(2)`.
pub fn release() -> io::Result<String> {
    Ok(text(&name()?.release))
}

/// Returns whether this kernel was built with `CONFIG_PREEMPT_RT`, which what `uname -v` prints says
/// (`init/Makefile` of the kernel's source).
pub fn is_real_time() -> io::Result<bool> {
    Ok(says_real_time(&text(&name()?.version)))
}

fn says_real_time(version: &str) -> bool {
    version.split_whitespace().any(|word| word == "PREEMPT_RT")
}

fn name() -> io::Result<libc::utsname> {
    // SAFETY: all zeros is a valid `utsname`, and the call fills it or fails.
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        if libc::uname(&raw mut name) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(name)
    }
}

fn text(field: &[libc::c_char]) -> String {
    // A `c_char` has a sign on some processors and none on others.
    let bytes = field.iter().flat_map(|byte| byte.to_ne_bytes());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads the version out of a release such as `6.12.38-amd64`.
pub fn parse(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Returns whether this kernel has this version or a newer one; `true` where its version cannot be read.
pub fn is_at_least(version: Version) -> bool {
    let running = release().ok().as_deref().and_then(parse);
    running.is_none_or(|running| running >= version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(parse("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(parse("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(parse("2.6.78"), Some((2, 6)));
        assert_eq!(parse("vmlinux"), None);
    }

    #[test]
    fn a_real_time_kernel_is_told_from_others() {
        for (version, is_real_time) in [
            ("#1 SMP PREEMPT_RT Debian 6.12.57-1 (2025-11-05)", true),
            (
                "#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)",
                false,
            ),
            ("#1 SMP Debian 6.1.119-1 (2024-11-22)", false),
        ] {
            assert_eq!(says_real_time(version), is_real_time, "{version}");
        }
    }
}
