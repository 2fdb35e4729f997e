//! Is this kernel new enough?

use std::io;

use anyhow::{Context as _, Result, bail};

/// The oldest kernel that has everything the program uses, and what the newest of that is.
const OLDEST: (u32, u32) = (5, 12);
const BROUGHT: &str = "atomic fetch-and-add and compare-and-exchange in BPF programs";

/// Refuses kernels before [`OLDEST`], naming what they lack.
pub fn require() -> Result<()> {
    let release = release().context("cannot read the kernel's release")?;
    match parse(&release) {
        Some(version) if version < OLDEST => bail!(
            "this kernel ({release}) is too old: knockgate needs {BROUGHT}, which came with Linux \
             {}.{}",
            OLDEST.0,
            OLDEST.1
        ),
        // An unreadable release is no reason to refuse: the kernel itself will.
        _ => Ok(()),
    }
}

/// Is it this version of Linux or a newer one? Yes where it can't be told.
pub fn is_at_least(major: u32, minor: u32) -> bool {
    let version = release().ok().as_deref().and_then(parse);
    version.is_none_or(|version| version >= (major, minor))
}

/// The release as `uname -r` prints it; not from /proc, which knows no personalities.
fn release() -> io::Result<String> {
    // SAFETY: all zeros is a valid `utsname`, and the call fills it or fails.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        if libc::uname(&raw mut name) != 0 {
            return Err(io::Error::last_os_error());
        }
        name
    };
    let bytes: Vec<u8> = name
        .release
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| byte.cast_unsigned())
        .collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
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
        assert!(parse("5.11").unwrap() < OLDEST);
        assert!(parse("5.12").unwrap() >= OLDEST);
    }
}
