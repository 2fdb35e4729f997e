//! What keeps the records of a fleet, as the rest sees it: it takes writes, and tells of what others have written.

use std::time::Duration;

/// A record as the engine keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Without the prefix of the fleet.
    pub key: String,
    pub value: Vec<u8>,
    /// Where its last change stands in the order of all changes.
    pub revision: i64,
}

/// What an engine tells a host. After [`Message::Lost`], and at the beginning, the next are [`Message::State`], any number
/// of [`Message::Grants`], and [`Message::Current`]: all that there is at one revision. Then each change after that revision
/// comes once, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Every record but the grants.
    State(Vec<Entry>),
    /// Some of the grants.
    Grants(Vec<Entry>),
    /// Everything has been told.
    Current,
    /// Records that were written. Those that were deleted mean nothing.
    Changed(Vec<Entry>),
    /// What comes next has not been heard of, or may be late.
    Lost { why: String },
    /// What became of the write with this number.
    Answered { id: u64, outcome: Outcome },
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Its [`Condition`] did not hold; nothing was written.
    Refused,
    /// The same: a record that [grows](Condition::Grows) is as far as that already.
    Same,
    /// It may have been written or not.
    Failed {
        why: String,
    },
}

/// Records that are written together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// For [`Message::Answered`].
    pub id: u64,
    pub condition: Condition,
    pub puts: Vec<Put>,
}

/// When a write is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// The record with this key was last changed at this revision; 0: there is none.
    Unchanged {
        key: String,
        revision: i64,
    },
    /// There is no record with the key of the first [`Put`], or its value is smaller than this, byte by byte. One that begins with
    /// this is as far.
    Grows {
        to: Vec<u8>,
    },
}

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Without the prefix of the fleet.
    pub key: String,
    pub value: Vec<u8>,
    /// For how long it is of use to anybody. The engine may delete it some time after that.
    pub useful: Duration,
}

/// An engine.
pub trait Engine {
    /// Waits for the next message. Nothing is lost where this is dropped before it is done.
    fn next(&mut self) -> impl Future<Output = Message> + Send;

    /// Hands over a write, which is answered by a [`Message::Answered`], or not at all where [`Message::Lost`] comes first.
    /// Returns `false` where there are too many already.
    fn write(&mut self, write: Write) -> bool;

    /// Has everything told anew, after a [`Message::Lost`].
    fn begin_anew(&mut self, why: &str);
}
