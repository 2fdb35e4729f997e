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
/// Events were left out.
pub const EVENTS_LOST: &str = "events.lost";

/// All events of the service.
pub const EVENTS: [&str; 5] = [
    GATE_UP,
    GATE_DOWN,
    INTERFACE_GUARDED,
    INTERFACE_LOST,
    EVENTS_LOST,
];

/// Why a gate was closed: the grant came to its end.
pub const EXPIRED: &str = "expired";
/// Why a gate was closed: the grant was taken away.
pub const REVOKED: &str = "revoked";
