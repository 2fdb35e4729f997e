//! Names of the events and reasons that the service finds by itself. Those of the kernel program are
//! [`Kind`](knock_common::event::Kind)'s and [`Cause`](knock_common::event::Cause)'s.

/// A gate is up.
pub const GATE_UP: &str = "gate.up";
/// A gate has been taken down.
pub const GATE_DOWN: &str = "gate.down";
/// An interface is guarded, for the first time or again.
pub const INTERFACE_GUARDED: &str = "interface.guarded";
/// An interface is no longer guarded.
pub const INTERFACE_LOST: &str = "interface.lost";
/// A configuration has been put into force in place of another one.
pub const CONFIG_APPLIED: &str = "config.applied";
/// A configuration file could not be applied; the one in force stays.
pub const CONFIG_REJECTED: &str = "config.rejected";
/// Events were left out.
pub const EVENTS_LOST: &str = "events.lost";

/// All events of the service.
pub const EVENTS: [&str; 7] = [
    GATE_UP,
    GATE_DOWN,
    INTERFACE_GUARDED,
    INTERFACE_LOST,
    CONFIG_APPLIED,
    CONFIG_REJECTED,
    EVENTS_LOST,
];

/// Why a gate was closed: the grant came to its end.
pub const EXPIRED: &str = "expired";
/// Why a gate was closed: the grant was taken away.
pub const REVOKED: &str = "revoked";
