//! Names of the events and reasons that the service finds by itself. Those of the kernel program are
//! [`Kind`](knock_common::event::Kind)'s and [`Cause`](knock_common::event::Cause)'s.

/// The instance is up.
pub const GATE_UP: &str = "gate.up";
/// The instance has been taken down.
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

/// A source keeps failing.
pub const ALERT: &str = "alert";
/// The program of a hook could not be run, failed, or took too long.
pub const HOOK_FAILED: &str = "hook.failed";

/// This host knows what the other hosts of its fleet know.
pub const FLEET_JOINED: &str = "fleet.joined";
/// This host misses what the other hosts of its fleet say.
pub const FLEET_ISOLATED: &str = "fleet.isolated";
/// What another host has said is not used.
pub const FLEET_REFUSED: &str = "fleet.refused";

/// All events of the service.
pub const EVENTS: [&str; 12] = [
    GATE_UP,
    GATE_DOWN,
    INTERFACE_GUARDED,
    INTERFACE_LOST,
    CONFIG_APPLIED,
    CONFIG_REJECTED,
    EVENTS_LOST,
    ALERT,
    HOOK_FAILED,
    FLEET_JOINED,
    FLEET_ISOLATED,
    FLEET_REFUSED,
];

/// Why a gate was closed: the grant came to its end.
pub const EXPIRED: &str = "expired";
/// Why a gate was closed: the grant was taken away.
pub const REVOKED: &str = "revoked";

/// Why a hook failed: the program is missing or cannot be run.
pub const NOT_STARTED: &str = "not_started";
/// Why a hook failed: the program ended with a status other than 0.
pub const EXIT_STATUS: &str = "exit_status";
/// Why a hook failed: a signal ended the program.
pub const SIGNAL: &str = "signal";
/// Why a hook failed: the program took too long and was ended.
pub const TIME_LIMIT: &str = "time_limit";
/// Why a hook failed: too many were waiting.
pub const QUEUE_FULL: &str = "queue_full";
/// Why a hook failed: the service ended first.
pub const STOPPED: &str = "stopped";

/// All reasons of [`HOOK_FAILED`].
pub const HOOK_REASONS: [&str; 6] = [
    NOT_STARTED,
    EXIT_STATUS,
    SIGNAL,
    TIME_LIMIT,
    QUEUE_FULL,
    STOPPED,
];
