//! Values as people write them, in the configuration, in profiles and on the command line.

mod duration;
mod name;
mod nearest;
mod port;

pub use self::{
    duration::{HumanDuration, parse_duration},
    port::{Port, Protocol},
};
pub(crate) use self::{name::parse_name, nearest::nearest};
