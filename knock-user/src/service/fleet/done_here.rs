//! Revocations that a command has carried out at this host before it told the fleet, in a file: to carry them out again, when
//! the engine tells of them, would end what this host has given since. Also those of which the fleet is not told: what they end
//! is not given again by a command that is at work.

use std::{fs, io, path::PathBuf};

use crate::{datapath::PinRoot, service::memory::state_file, sys::state_directory};

/// The engine tells of each within moments, or once this host's service runs again. Of those before, it ends more than it need.
const KEPT: usize = 256;

/// The file of a pin root. Who reads or writes it holds the lock of the root.
pub struct DoneHere {
    path: PathBuf,
}

impl DoneHere {
    pub fn of(root: &PinRoot) -> Self {
        Self::at(state_file(root, "revoked"))
    }

    const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Notes the revocation with this [nonce](crate::fleet::record::Revocation::nonce).
    pub fn add(&self, nonce: u64) -> io::Result<()> {
        let mut nonces = self.nonces();
        nonces.push(nonce);
        let newest = nonces.len().saturating_sub(KEPT);
        state_directory::save(&self.path, &nonces[newest..])
    }

    pub fn has(&self, nonce: u64) -> bool {
        self.nonces().contains(&nonce)
    }

    /// Returns the nonce of the newest.
    pub fn last(&self) -> Option<u64> {
        self.nonces().last().copied()
    }

    fn nonces(&self) -> Vec<u64> {
        let text = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let done = DoneHere::at(folder.path().join("new/state.revoked"));
        assert!(!done.has(0));
        assert_eq!(done.last(), None);
        for nonce in 0..=KEPT as u64 {
            done.add(u64::MAX - nonce).expect("written");
        }
        assert_eq!(done.last(), Some(u64::MAX - KEPT as u64));
        assert!(!done.has(u64::MAX));
        assert!(done.has(u64::MAX - 1));
        assert!(done.has(u64::MAX - KEPT as u64));
    }
}
