//! Applies the configuration file to what is up.

use anyhow::Result;

use super::{
    pins::root::PinRoot,
    up::{Absent, Request, Up, up},
};
use crate::{
    config::{Config, SshSession},
    datapath::open::Datapath,
};

/// Puts the configuration into force that `load` reads, in place of what is up. Interfaces that were named on the command
/// line stay as they are: `load` is given them. Where the file names none, those that are guarded stay as well. Fails with
/// [`NothingUp`](crate::datapath::NothingUp). `session`: must not be cut off.
pub fn reload(
    root: &PinRoot,
    session: Option<SshSession>,
    load: impl FnOnce(Option<&[String]>) -> Result<Config>,
) -> Result<(Config, Up)> {
    let datapath = Datapath::open(root)?;
    let interfaces = &datapath.config().interfaces;
    let named_interfaces = datapath.applied.circumstances.named_interfaces;
    let mut config = load(named_interfaces.then_some(interfaces))?;
    if config.interfaces.is_empty() {
        config.interfaces.clone_from(interfaces);
    }
    let request = Request {
        named_interfaces,
        session,
        ..Request::new(Absent::Await)
    };
    let up = up(&config, root, &request)?;
    Ok((config, up))
}
