//! What the configuration says of ports and gates.

use bytemuck::{Pod, Zeroable};

/// Index that stands for no gate.
pub const NO_GATE: u16 = u16::MAX;

/// The settings of a gate. Indexed by gate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct GateRules {
    /// Length of a grant, ns.
    pub open_for: u64,
    /// Time without a packet after which a session ends, ns.
    pub session_idle: u64,
    /// New connections that one grant admits; 0: any number.
    pub connections: u32,
    /// 1: grants go to the source's prefix ([`PREFIX`](crate::Address::PREFIX)).
    pub to_prefix: u8,
    /// 1: only sources in the table of permitted networks may knock.
    pub restricted: u8,
    /// 1: denied packets get the reply of a closed port.
    pub reject: u8,
    pub zero: u8,
}

records! {
    GateRules: 24 {
        open_for: 0,
        session_idle: 8,
        connections: 16,
        to_prefix: 20,
        restricted: 21,
        reject: 22,
        zero: 23,
    },
}

/// What a destination port is, packed into a `u32` of the role table, which is indexed by port, UDP after TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// None of the others: a probe to it breaks a run of knocks.
    Foreign,
    /// Open: packets to it are no probes.
    Open,
    Protected {
        gate: u16,
    },
    /// A knock. `starts`: some sequence begins with it, and the state after it is `symbol + 1`.
    Knock {
        symbol: u16,
        starts: bool,
    },
    /// Clients of fwknop send to it. A datagram to it is no probe.
    Fwknop,
}

/// An entry of the role table: what a port is, whether it takes authenticated knocks, and, if it is protected, where and for how
/// long its flows go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRole(u32);

impl PortRole {
    /// Of a port that has no role.
    pub const FOREIGN: Self = Self(Role::Foreign.pack());

    /// It takes authenticated knocks.
    const AUTHENTICATED: u32 = 0x200;
    /// Its gate protects it at destinations of its own, and not where packets are guarded.
    const PLACED: u32 = 0x400;
    /// Its flows end with their grant.
    const CUT: u32 = 0x800;

    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        Self(packed)
    }

    #[inline(always)]
    pub const fn role(self) -> Role {
        Role::unpack(self.0)
    }

    #[inline(always)]
    pub const fn is_protected(self) -> bool {
        self.0 & Role::KIND == Role::PROTECTED
    }

    #[inline(always)]
    pub const fn is_authenticated(self) -> bool {
        self.0 & Self::AUTHENTICATED != 0
    }

    #[inline(always)]
    pub const fn is_placed(self) -> bool {
        self.0 & Self::PLACED != 0
    }

    /// Returns whether its flows end with their grant, if it is a protected port.
    #[inline(always)]
    pub const fn is_cut(self) -> bool {
        self.0 & Self::CUT != 0
    }

    /// Returns the gate, if it is a protected port. Not an `Option`: the compiler would copy what is in none, and the
    /// verifier refuses a copy of a register that was never written.
    #[inline(always)]
    pub const fn gate(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Returns the entry as it is in the table.
    pub const fn packed(self) -> u32 {
        self.0
    }

    /// Returns the entry of a port with this role.
    pub const fn of(role: Role) -> Self {
        Self(role.pack())
    }

    /// Returns the entry of such a port that also takes authenticated knocks.
    #[must_use]
    pub const fn and_authenticated(self) -> Self {
        Self(self.0 | Self::AUTHENTICATED)
    }

    /// Returns the entry of a protected port whose gate has destinations of its own.
    #[must_use]
    pub const fn and_placed(self) -> Self {
        Self(self.0 | Self::PLACED)
    }

    /// Returns the entry of a protected port whose flows end with their grant.
    #[must_use]
    pub const fn and_cut(self) -> Self {
        Self(self.0 | Self::CUT)
    }
}

/// Number of entries of the role table.
pub const ROLES: u32 = 2 * 65536;

impl Role {
    const KIND: u32 = 0xff;
    const FOREIGN: u32 = 0;
    const OPEN: u32 = 1;
    const PROTECTED: u32 = 2;
    const KNOCK: u32 = 3;
    const FWKNOP: u32 = 4;
    const STARTS: u32 = 0x100;

    #[inline(always)]
    pub const fn index(udp: bool, port: u16) -> u32 {
        // Widening; `From` is not const.
        (udp as u32) << 16 | port as u32
    }

    pub const fn pack(self) -> u32 {
        match self {
            Self::Foreign => Self::FOREIGN,
            Self::Open => Self::OPEN,
            Self::Protected { gate } => Self::PROTECTED | (gate as u32) << 16,
            Self::Knock { symbol, starts } => {
                let starts = if starts { Self::STARTS } else { 0 };
                Self::KNOCK | (symbol as u32) << 16 | starts
            }
            Self::Fwknop => Self::FWKNOP,
        }
    }

    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        let id = (packed >> 16) as u16;
        match packed & Self::KIND {
            Self::OPEN => Self::Open,
            Self::PROTECTED => Self::Protected { gate: id },
            Self::KNOCK => Self::Knock {
                symbol: id,
                starts: packed & Self::STARTS != 0,
            },
            Self::FWKNOP => Self::Fwknop,
            _ => Self::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_survive_packing() {
        for role in [
            Role::Foreign,
            Role::Open,
            Role::Fwknop,
            Role::Protected { gate: 0 },
            Role::Protected { gate: u16::MAX },
            Role::Knock {
                symbol: 0,
                starts: false,
            },
            Role::Knock {
                symbol: u16::MAX,
                starts: true,
            },
        ] {
            assert_eq!(Role::unpack(role.pack()), role);
        }
    }

    #[test]
    fn a_port_for_authenticated_knocks_keeps_its_role() {
        for role in [Role::Foreign, Role::Open, Role::Protected { gate: 513 }] {
            let entry = PortRole::of(role).and_authenticated();
            assert!(entry.is_authenticated() && !entry.is_placed());
            assert_eq!(entry.role(), role);
            assert!(!PortRole::of(role).is_authenticated());
        }
    }

    #[test]
    fn a_port_of_a_placed_gate_is_protected_by_it() {
        for gate in [0, 513, u16::MAX] {
            let role = Role::Protected { gate };
            let entry = PortRole::of(role).and_placed();
            assert!(entry.is_placed() && !entry.is_authenticated());
            assert_eq!((entry.role(), entry.gate()), (role, gate));
            assert_eq!(entry.and_authenticated().role(), role);
        }
        // A knock may be one that some sequence begins with.
        let starts = Role::Knock {
            symbol: u16::MAX,
            starts: true,
        };
        assert!(!PortRole::of(starts).is_placed());
    }

    #[test]
    fn a_port_whose_flows_are_cut_keeps_its_gate() {
        for gate in [0, 513, u16::MAX] {
            let role = Role::Protected { gate };
            let entry = PortRole::of(role).and_cut();
            assert!(entry.is_cut() && !entry.is_placed() && !entry.is_authenticated());
            assert_eq!((entry.role(), entry.gate()), (role, gate));
            assert!(!PortRole::of(role).and_placed().and_authenticated().is_cut());
        }
    }

    #[test]
    fn an_empty_role_table_means_foreign() {
        assert_eq!(Role::unpack(0), Role::Foreign);
    }
}
