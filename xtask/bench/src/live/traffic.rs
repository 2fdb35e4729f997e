//! The packets that are sent: sources, ports, and how many knocks each source makes.

use super::targets::Allowed;
use crate::{
    frame::{self, Transport},
    instance::knocks,
    programs::Traffic,
};

/// The first address of sources without grants.
pub const STRANGERS: u32 = 0x0b00_0000;
/// The first address of sources that knock.
const NEWCOMERS: u32 = 0x3000_0000;
/// Number of sources of denied and unguarded packets.
pub const CROWD: u32 = 65_536;

/// Sources that knock: how many, and how many knocks each.
pub struct Newcomers {
    /// A part of the wire's name.
    pub wire: &'static str,
    pub name: &'static str,
    pub traffic: Traffic,
    pub allowed: Allowed,
}

pub fn newcomers() -> [Newcomers; 3] {
    let traffic = |first, sources, steps| Traffic {
        first: NEWCOMERS + first,
        sources,
        steps,
        ports: knocks(),
        // A source's next first knock has another source port, so it is not a duplicate.
        hold: 15,
        ..Traffic::default()
    };
    // The figures below include a bare drop of 64 ns, since the gate in C drops knocks.
    let allowed = |most: f64, minimal: f64| Allowed {
        most: most - 64.0,
        minimal: minimal - 64.0,
    };
    [
        Newcomers {
            wire: "few",
            name: "first knock, 32,768 sources",
            traffic: traffic(0, 32_768, 1),
            allowed: allowed(120.0, 103.0),
        },
        Newcomers {
            wire: "many",
            name: "first knock, 1,048,576 sources",
            traffic: traffic(0x0100_0000, 1 << 20, 1),
            allowed: allowed(300.0, 274.0),
        },
        Newcomers {
            wire: "whole",
            name: "whole knocks, ever new sources",
            traffic: traffic(0x0200_0000, 0, 3),
            allowed: allowed(280.0, 244.0),
        },
    ]
}

pub fn datagram(port: u16) -> Vec<u8> {
    frame::ipv4(Transport::Udp, STRANGERS, 40000, port)
}

/// Returns traffic to one port, with a constant source port.
pub fn steady(first: u32, sources: u32, port: u16) -> Traffic {
    Traffic {
        first,
        sources,
        steps: 1,
        ports: [port; 4],
        hold: 31,
        ..Traffic::default()
    }
}
