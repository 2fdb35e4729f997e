//! Puts a configuration into force, keeps it in force, and takes it down.
//!
//! [`up`] makes one directory of pins for each interface, complete but for the link, then attaches and pins the links. A
//! process that is killed meanwhile leaves directories under another name, which the next one removes, or interfaces
//! without a link, to which the next one attaches the program.

mod attach;
pub mod attachment;
mod cut_off;
pub mod down;
pub mod entry;
pub mod framing;
mod native;
mod pinning;
pub mod pins;
pub mod program;
pub mod reload;
pub mod repair;
mod replace;
pub mod request;
mod requirements;
mod settle;
mod tcx;
pub mod unguarded;
pub mod up;
pub mod xdp;

use crate::config::Config;

/// Returns, for each interface of a configuration that is sure to refuse native mode, or may lose replies in it, the consequence
/// and the reason.
pub fn native_warnings(config: &Config) -> Vec<String> {
    native::warnings(config, program::can_take_frags(config), &|name| {
        tcx::hindrance(config, name).is_none()
    })
}

/// Returns the MTU of an interface at which its frames come in several buffers, and the largest at which they do not.
pub fn native_limit(name: &str) -> Option<(u32, u32)> {
    native::Facts::read(name).beyond_one_buffer()
}
