//! Neighbours: the program that gets what ours passes ([`next`]), and the array of another's by which ours is called
//! ([`into`]). One hands packets on to the other by a tail call.
//!
//! The kernel lets only programs of one [`kind`] do so. What the neighbours are decides which entry for Ethernet is
//! loaded; where no entry can do it, nothing is changed, and the error says what can be done.

mod in_the_way;
pub mod into;
pub mod kind;
pub mod next;
mod pin;

use std::path::PathBuf;

use anyhow::{Result, bail};

use self::{
    into::{IntoSlot, OpenArray},
    kind::{Kind, of_array, of_program},
};
use super::install::{
    framing::{Framing, framing, index_of},
    native_limit,
    pins::root::PinRoot,
    program,
};
use crate::{
    config::{Attach, Config},
    datapath::compile::{applied::Applied, rejects},
};

pub use self::next::{NextState, Renewed};

/// Returns whether the entry for Ethernet has to take frames in several buffers, as the neighbours do or do not; `None`
/// where there is none that matters. Fails where none of the entries goes with them all.
pub fn frags(applied: &Applied) -> Result<Option<bool>> {
    frags_of(&applied.config, applied.circumstances.into.as_ref())
}

/// As [`frags`], of the array alone into which ours is put: without what it takes, ours cannot be there at all.
pub fn frags_of_array(into: Option<&IntoSlot>) -> Result<Option<bool>> {
    let array = into.map(IntoSlot::open_to_look).transpose()?.flatten();
    let kind = array.map(|of| of_array(&of.array)).transpose()?.flatten();
    Ok(kind.map(|kind| kind.frags))
}

/// As [`frags`], of a configuration that is not in force yet.
pub fn frags_of(config: &Config, into: Option<&IntoSlot>) -> Result<Option<bool>> {
    let mut wanted: Option<(bool, String)> = None;
    for (framing, kind, who) in neighbours(config, into)? {
        kind.require_attach_type(&who)?;
        match framing {
            Framing::BareIp if kind.frags => bail!(
                "{who} take frames in several buffers (`xdp.frags`), and ours does not on an interface without link \
                 header, where frames come in one: load the other without frags"
            ),
            Framing::BareIp => continue,
            Framing::Ethernet => {}
        }
        match &wanted {
            Some((frags, other)) if *frags != kind.frags => bail!(
                "{} take frames in several buffers (`xdp.frags`), and {} do not: ours cannot go with both; load both with \
                 frags, or both without",
                if *frags { other } else { &who },
                if *frags { &who } else { other },
            ),
            _ => wanted = Some((kind.frags, who)),
        }
    }
    let Some((frags, who)) = wanted else {
        return Ok(None);
    };
    if frags && rejects(config) {
        bail!(
            "{who} take frames in several buffers (`xdp.frags`), and ours cannot while a gate has `deny = \"reject\"`: \
             load the other without frags, or set `deny = \"drop\"`"
        );
    }
    // What calls ours has the frames to itself.
    if !frags
        && into.is_none()
        && !matches!(config.attach, Attach::Generic | Attach::Tcx)
        && program::can_take_frags(config)
    {
        for name in &config.interfaces {
            if let Some((mtu, largest)) = native_limit(name) {
                bail!(
                    "at an MTU of {mtu}, frames of {name} come in several buffers, and {who} do not take them: load the \
                     other with frags (`SEC(\"xdp.frags\")`), lower the MTU (`ip link set dev {name} mtu {largest}`), or \
                     set `attach = \"generic\"`"
                );
            }
        }
    }
    Ok(Some(frags))
}

/// Returns the kind of each neighbour that there is, with what messages call it, and how its packets begin.
fn neighbours(config: &Config, into: Option<&IntoSlot>) -> Result<Vec<(Framing, Kind, String)>> {
    let mut found = Vec::new();
    for name in &config.interfaces {
        let framing = index_of(name).and_then(|index| framing(name, index));
        // Reported when the interface cannot be guarded.
        let framing = framing.unwrap_or(Framing::Ethernet);
        let Some((_, pin)) = config.next_of(name) else {
            continue;
        };
        if let Some(program) = next::open(pin)? {
            let who = format!("programs like the one pinned at {}", pin.display());
            let kind = of_program(&program).map_err(|error| error.context(next::wrong(pin)))?;
            found.push((framing, kind, who));
        }
    }
    if let Some(into) = into
        && let Some(OpenArray { array, .. }) = into.open_to_look()?
        && let Some(kind) = of_array(&array)?
    {
        let who = format!("the programs of the array pinned at {}", into.pin.display());
        let mut framings = into::framings(config);
        if framings.is_empty() {
            // None of the interfaces is there yet, and the entry for these is loaded meanwhile.
            framings.insert(Framing::Ethernet);
        }
        for framing in framings {
            found.push((framing, kind, who.clone()));
        }
    }
    Ok(found)
}

/// Refuses a configuration on which something is to follow that is not there.
pub fn require_next(config: &Config) -> Result<()> {
    for name in &config.interfaces {
        if let Some((_, pin)) = config.next_of(name)
            && next::open(pin)?.is_none()
        {
            bail!(next::missing(name, pin));
        }
    }
    Ok(())
}

/// Returns why `up` would refuse the programs that follow, or leave them out. What is up under `root` stays where it is.
pub fn fault(config: &Config, root: &PinRoot) -> Option<String> {
    let into = config
        .interfaces
        .iter()
        .find_map(|name| into::of(&root.of(name)));
    let missing = require_next(config);
    let fault = missing
        .and_then(|()| frags_of(config, into.as_ref()).map(drop))
        .err()?;
    let is_unknown = fault.is::<super::NotPermitted>()
        || fault
            .downcast_ref::<std::io::Error>()
            .is_some_and(super::error::is_denied);
    (!is_unknown).then(|| format!("{fault:#}"))
}

/// An array that a command names: where it is pinned, and its slot unless the first free one is to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntoArgument {
    pub pin: PathBuf,
    pub slot: Option<u32>,
}
