//! Reads the tables into rows for people and scripts.

pub mod address;
pub mod chain;
pub mod counters;
pub mod destinations;
pub mod grants;
pub mod progress;
pub mod sessions;
pub mod snapshot;
pub mod sources;
