//! What identifies pinned tables.

use bytemuck::{Pod, Zeroable};

use crate::{
    cursor::{self, Cursor, Tickets},
    event::Event,
    grant::{Grant, MAX_LENGTHS},
    keys::{ScopedAddress, SourceKey},
    knock::{
        MAX_SEQUENCE, Outcome,
        authenticated::{
            held::Held,
            key::{HostSecret, Key, KeyGate, NAME},
            outcome::Outcome as AuthenticatedOutcome,
            work::Work,
        },
        automaton::{Sequence, State, Transition},
        fwknop,
        progress::{Progress, ProgressSet, WAYS},
    },
    next,
    record::{Record, fingerprint},
    reject::{Link, LinkKey, ReplySettings, rate_limit::IcmpBucket, reply::ReplyBuffer},
    report::{Budget, class},
    row,
    rules::{GateRules, ROLES},
    scattered::Room,
    seed::Seed,
    session::{
        HOLDERS, HolderCount, Session,
        recent::{self, Recent},
    },
    set::Set,
    time::TICK_SHIFT,
    verdict::{Counter, Reason},
};

/// Version of the tables' layout. Pins of another version are refused, never reinterpreted.
pub const LAYOUT: u32 = 23;

/// [`SHAPE`] of this layout.
const RECORDED: u64 = 17_893_791_080_339_081_608;

/// The records of the pinned tables, and the counts that their sizes and contents depend on.
const SHAPE: u64 = fingerprint(&[
    Grant::SHAPE,
    Set::SHAPE,
    Session::SHAPE,
    HolderCount::SHAPE,
    Recent::SHAPE,
    recent::ENTRIES as u64,
    SourceKey::SHAPE,
    ScopedAddress::SHAPE,
    Progress::SHAPE,
    ProgressSet::SHAPE,
    Sequence::SHAPE,
    State::SHAPE,
    Transition::SHAPE,
    GateRules::SHAPE,
    Counter::SHAPE,
    Budget::SHAPE,
    Cursor::SHAPE,
    Tickets::SHAPE,
    ReplySettings::SHAPE,
    LinkKey::SHAPE,
    Link::SHAPE,
    IcmpBucket::SHAPE,
    Key::SHAPE,
    HostSecret::SHAPE,
    KeyGate::SHAPE,
    Held::SHAPE,
    Meta::SHAPE,
    Event::SHAPE,
    MAX_SEQUENCE as u64,
    MAX_LENGTHS as u64,
    WAYS as u64,
    row::SLOTS as u64,
    HOLDERS as u64,
    ROLES as u64,
    TICK_SHIFT as u64,
    CONFIG_CHUNK as u64,
    cursor::COUNT as u64,
    class::COUNT as u64,
    Reason::COUNT as u64,
    Outcome::COUNT as u64,
    NAME as u64,
    HostSecret::COUNT as u64,
    AuthenticatedOutcome::COUNT as u64,
    fwknop::Head::SHAPE,
    fwknop::Outcome::COUNT as u64,
    size_of::<Work>() as u64,
    size_of::<Room>() as u64,
    size_of::<ReplyBuffer>() as u64,
    next::MOST as u64,
]);

const _: () = assert!(
    SHAPE == RECORDED,
    "a record or a count of the pinned tables has changed: raise LAYOUT, and set RECORDED to the length that the \
     compiler finds for `FOUND`"
);

/// Where they differ, the compiler shows both numbers here.
const FOUND: [(); RECORDED as usize] = [(); SHAPE as usize];
const _: [(); RECORDED as usize] = FOUND;

/// Bytes of one entry of the configuration table, which holds the configuration as it was applied.
pub const CONFIG_CHUNK: usize = 4096;

/// Identifies a set of pins. The first thing that is read of them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Zeroable, Pod)]
pub struct Meta {
    /// [`LAYOUT`].
    pub layout: u32,
    /// Bytes of JSON in the chunks of the configuration table.
    pub config_length: u32,
    /// When the instance came up, ns of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// For commands that look up or change grants and sessions.
    pub seed: Seed,
    /// How many configurations have been replaced in place since then.
    pub generation: u32,
    pub zero: u32,
}

records!(Meta: 40 { layout: 0, config_length: 4, since: 8, seed: 16, generation: 32, zero: 36 });
