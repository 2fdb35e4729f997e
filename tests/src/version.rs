//! Another version of knockgate.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::need;

/// Writes another version of knockgate into a folder: its kernel programs are the same but for a byte that nothing reads.
pub fn another(folder: &Path) -> PathBuf {
    /// Of `linux/elf-em.h`.
    const BPF: [u8; 2] = [247, 0];
    /// In `e_ident`, where padding begins, and how long that is.
    const PADDING: usize = 9;
    let mut binary = fs::read(need::knockgate()).expect("it is there");
    let mut changed = 0;
    for start in 0..binary.len() - 20 {
        if binary[start..].starts_with(b"\x7fELF") && binary[start + 18..].starts_with(&BPF) {
            binary[start + PADDING] ^= 1;
            changed += 1;
        }
    }
    assert!(
        changed > 0,
        "no kernel program in {}",
        need::knockgate().display()
    );
    let path = folder.join("another-version");
    fs::write(&path, binary).expect("the temporary folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}
