//! Puts a configuration into force, keeps it in force, and takes it down.
//!
//! [`up`] makes one directory of pins for each interface, complete but for the link, then attaches and pins the links. A
//! process that is killed meanwhile leaves directories under another name, which the next one removes, or interfaces
//! without a link, to which the next one attaches the program.

mod attach;
pub mod attachment;
mod bring_up;
mod complete;
mod cut_off;
mod damaged;
pub mod down;
pub mod entry;
mod exchange;
pub mod framing;
mod native;
pub mod owned;
mod pinning;
pub mod pins;
pub mod program;
pub mod reload;
pub mod repair;
mod replace;
pub mod request;
pub mod requirements;
pub mod settle;
mod tcx;
pub mod unguarded;
pub mod up;
pub mod xdp;

use self::{pins::root::PinRoot, program::ENTRIES};
use super::chain::into;
use crate::config::{Attach, Config};

/// Returns, for each interface of a configuration that is sure to refuse native mode, or may lose replies in it, the consequence
/// and the reason.
pub fn native_warnings(config: &Config) -> Vec<String> {
    native::warnings(config, program::can_take_frags(config), &|name| {
        tcx::hindrance(config, name).is_none()
    })
}

/// Returns, for each interface of a configuration that carries another XDP program, what `up` will do about it. What can only be
/// asked with more privileges is left out.
pub fn taken_warnings(config: &Config, root: &PinRoot) -> Vec<String> {
    let is_ours = |program| ENTRIES.iter().any(|name| xdp::is_called(program, name));
    let warning = |name: &String| {
        let present = xdp::attached(framing::index_of(name).ok()?).ok()??;
        // One that calls ours by an array belongs there.
        if !xdp::is_known(present.program)
            || is_ours(present.program)
            || into::of(&root.of(name)).is_some()
        {
            return None;
        }
        let taken = attach::taken(name, present);
        Some(match (config.attach, tcx::hindrance(config, name)) {
            (Attach::Tcx, _) => return None,
            (Attach::Auto, None) => format!("`up` will attach to {name} at TCX: {taken}"),
            (_, hindrance) => format!(
                "`up` will refuse {name}: {}",
                attach::beside(present, name, hindrance)
            ),
        })
    };
    config.interfaces.iter().filter_map(warning).collect()
}

/// Returns the MTU of an interface at which its frames come in several buffers, and the largest at which they do not.
pub fn native_limit(name: &str) -> Option<(u32, u32)> {
    native::Facts::read(name).beyond_one_buffer()
}
