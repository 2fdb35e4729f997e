//! The processors that the packages are for.

use std::env::consts::ARCH;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

/// A processor, by the name that Debian has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64
    Amd64,
    /// 64-bit ARM
    Arm64,
}

impl Architecture {
    /// Returns the given one, else this machine's. Fails on a machine that the packages are not for.
    pub(crate) fn or_here(given: Option<Self>) -> Result<Self> {
        given.or_else(Self::here).with_context(|| {
            format!("packages and kernels are for amd64 and arm64, and this machine is {ARCH}")
        })
    }

    /// Returns whether programs for it run on this machine.
    pub(crate) fn is_here(self) -> bool {
        Self::here() == Some(self)
    }

    /// Returns its name in Debian.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns its name in Rust and in Linux.
    pub(crate) const fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Returns the target of a Rust compiler.
    pub(crate) fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust())
    }

    /// Returns what the names of its GNU tools and the folder of its libraries have in common.
    pub(crate) fn gnu(self) -> String {
        format!("{}-linux-gnu", self.rust())
    }

    fn here() -> Option<Self> {
        let all = Self::value_variants().iter().copied();
        all.into_iter().find(|each| each.rust() == ARCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_and_targets_are_named_by_the_processor() {
        assert_eq!(Architecture::Arm64.target(), "aarch64-unknown-linux-gnu");
        assert_eq!(Architecture::Amd64.gnu(), "x86_64-linux-gnu");
    }

    #[test]
    fn a_machine_is_of_one_kind() {
        let here = Architecture::value_variants().iter();
        assert!(here.filter(|each| each.is_here()).count() <= 1);
        let given = Architecture::or_here(Some(Architecture::Arm64)).expect("it was given");
        assert_eq!(given, Architecture::Arm64);
    }
}
