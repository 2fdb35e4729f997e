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
    /// 1: flows end with their grant.
    pub cut: u8,
    /// 1: denied packets get the reply of a closed port.
    pub reject: u8,
}

records! {
    GateRules: 24 {
        open_for: 0,
        session_idle: 8,
        connections: 16,
        to_prefix: 20,
        restricted: 21,
        cut: 22,
        reject: 23,
    },
}

/// What a destination port is, packed into a `u32` of the role table, which is indexed by port, UDP after TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// None of the others: a probe to it breaks a run of knocks.
    Foreign,
    /// Open: packets to it are no probes.
    Open,
    /// `placed`: not where packets are guarded, but at the gate's own destinations.
    Protected { gate: u16, placed: bool },
    /// A knock. `starts`: some sequence begins with it, and the state after it is `symbol + 1`.
    Knock { symbol: u16, starts: bool },
    /// Clients of fwknop send to it. A datagram to it is no probe.
    Fwknop,
}

/// An entry of the role table: what a port is, and which datagrams are looked at besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRole(u32);

impl PortRole {
    /// It takes authenticated knocks.
    const AUTHENTICATED: u32 = 0x200;

    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        Self(packed)
    }

    #[inline(always)]
    pub const fn role(self) -> Role {
        Role::unpack(self.0)
    }

    #[inline(always)]
    pub const fn is_authenticated(self) -> bool {
        self.0 & Self::AUTHENTICATED != 0
    }

    /// Returns the entry of a port with this role that also takes authenticated knocks.
    pub const fn authenticated(role: Role) -> u32 {
        role.pack() | Self::AUTHENTICATED
    }
}

/// Number of entries of the role table.
pub const ROLES: u32 = 2 * 65536;

impl Role {
    const KIND: u32 = 0xff;
    const STARTS: u32 = 0x100;
    const PLACED: u32 = 0x100;

    /// Returns the role of a port that a gate protects where packets are guarded.
    pub const fn protected(gate: u16) -> Self {
        Self::Protected {
            gate,
            placed: false,
        }
    }

    #[inline(always)]
    pub const fn index(udp: bool, port: u16) -> u32 {
        // Widening; `From` is not const.
        (udp as u32) << 16 | port as u32
    }

    pub const fn pack(self) -> u32 {
        match self {
            Self::Foreign => 0,
            Self::Open => 1,
            Self::Protected { gate, placed } => {
                2 | (gate as u32) << 16 | if placed { Self::PLACED } else { 0 }
            }
            Self::Knock { symbol, starts } => {
                3 | (symbol as u32) << 16 | if starts { Self::STARTS } else { 0 }
            }
            Self::Fwknop => 4,
        }
    }

    #[inline(always)]
    pub const fn unpack(packed: u32) -> Self {
        let id = (packed >> 16) as u16;
        match packed & Self::KIND {
            1 => Self::Open,
            2 => Self::Protected {
                gate: id,
                placed: packed & Self::PLACED != 0,
            },
            3 => Self::Knock {
                symbol: id,
                starts: packed & Self::STARTS != 0,
            },
            4 => Self::Fwknop,
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
            Role::Protected {
                gate: 0,
                placed: true,
            },
            Role::Protected {
                gate: u16::MAX,
                placed: false,
            },
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
        let protected = |placed| Role::Protected { gate: 513, placed };
        for role in [Role::Foreign, Role::Open, protected(false), protected(true)] {
            let entry = PortRole::unpack(PortRole::authenticated(role));
            assert!(entry.is_authenticated());
            assert_eq!(entry.role(), role);
            assert!(!PortRole::unpack(role.pack()).is_authenticated());
        }
    }

    #[test]
    fn an_empty_role_table_means_foreign() {
        assert_eq!(Role::unpack(0), Role::Foreign);
    }
}
