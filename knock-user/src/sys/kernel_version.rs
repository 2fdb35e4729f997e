//! The version of the running kernel.

use std::io;

/// Major and minor number.
pub type Version = (u32, u32);

/// Returns the release as `uname -r` prints it. `/proc` is not asked, since it does not follow `personality(2)`.
pub fn release() -> io::Result<String> {
    // SAFETY: all zeros is a valid `utsname`, and the call fills it or fails.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        if libc::uname(&raw mut name) != 0 {
            return Err(io::Error::last_os_error());
        }
        name
    };
    // A `c_char` has a sign on some processors and none on others.
    let bytes = name.release.iter().flat_map(|byte| byte.to_ne_bytes());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
}
