//! The entries of the kernel programs: one for each place on an interface and for what packets begin with there.

use super::framing::Framing;
use crate::sys::bpf::Hook;

/// An entry of the kernel programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub hook: Hook,
    pub framing: Framing,
}

impl Entry {
    pub const ALL: [Self; 4] = [
        Self::xdp(Framing::Ethernet),
        Self::xdp(Framing::BareIp),
        Self::tcx(Framing::Ethernet),
        Self::tcx(Framing::BareIp),
    ];

    pub const fn xdp(framing: Framing) -> Self {
        Self {
            hook: Hook::Xdp,
            framing,
        }
    }

    pub const fn tcx(framing: Framing) -> Self {
        Self {
            hook: Hook::Tcx,
            framing,
        }
    }

    /// Returns its name in the object, and in the kernel's list of programs.
    pub const fn name(self) -> &'static str {
        match (self.hook, self.framing) {
            (Hook::Xdp, framing) => framing.entry(),
            (Hook::Tcx, Framing::Ethernet) => "knockgate_tcx",
            (Hook::Tcx, Framing::BareIp) => "knockgate_tcxip",
        }
    }

    /// Returns the name of its pin.
    pub const fn pin(self) -> &'static str {
        match (self.hook, self.framing) {
            (Hook::Xdp, Framing::Ethernet) => "program",
            (Hook::Xdp, Framing::BareIp) => "program_ip",
            (Hook::Tcx, Framing::Ethernet) => "program_tcx",
            (Hook::Tcx, Framing::BareIp) => "program_tcx_ip",
        }
    }
}
