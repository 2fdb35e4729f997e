//! Attaches the program to an interface by a BPF link, and pins the link.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::Ebpf;

use super::{
    attachment,
    framing::{Framing, framing, index_of},
    native,
    pins::{
        access,
        directory::{self, LINK},
        root::PinRoot,
    },
    program::{self, ENTRIES},
    xdp::{self, Attached},
};
use crate::{
    config::{Attach, Config},
    datapath::{
        chain::next,
        compile::{applied::Applied, rejects},
        error::{NEEDS_TO_LOAD, NotPermitted, is_denied},
        tables::{Access, PinDirectory},
    },
    sys::{
        bpf::{self, XdpLink},
        ethtool,
    },
};

/// An interface that the program has been attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    pub interface: String,
    pub attached: Attached,
}

/// Attaches the program pinned for interface `name` to it, and pins the link.
pub(super) fn guard(root: &PinRoot, name: &str, applied: &Applied) -> Result<Attached> {
    guard_in(&root.of(name), name, applied)
}

/// As [`guard`], with the program pinned in the directory `pins`.
pub(super) fn guard_in(pins: &Path, name: &str, applied: &Applied) -> Result<Attached> {
    let config = &applied.config;
    let index = index_of(name)?;
    // Read now, since an interface may be made again as another kind.
    let framing = framing(name, index)?;
    let pin = pins.join(directory::program(framing));
    if !pin.exists() {
        let mut ebpf = program::load_onto(pins, applied, framing)?;
        pin_programs(&mut ebpf, pins)?;
        access::level(pins, directory::program(framing));
    }
    let program = bpf::open(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let tables = PinDirectory {
        path: pins.to_owned(),
        access: Access::Change,
    };
    next::prepare(&tables, config, name, index, framing)?;
    if let Some(into) = &applied.circumstances.into {
        into.enter(&program, &attachment::programs(pins)?)?;
        let carried = xdp::attached(index)?;
        if carried.is_none() {
            tracing::warn!(
                "{name} carries no XDP program at present, so nothing calls what is in {into}: attach the one that does"
            );
        }
        return Ok(carried.map_or(Attached::Uncalled, |by| by.attached));
    }
    make_room(pins, index)?;
    let (link, attached) = attach(&program, name, index, config)?;
    bpf::pin(&link, &pins.join(LINK))
        .with_context(|| format!("cannot pin the link in {}", pins.display()))?;
    access::level(pins, LINK);
    Ok(attached)
}

/// Removes links that are on no interface any more, and one that carries another program on the interface `index`. One
/// whose interface has been renamed keeps guarding it, and gets another pin.
pub(super) fn make_room(directory: &Path, index: u32) -> Result<()> {
    let cannot = || format!("cannot change the pins in {}", directory.display());
    let programs = attachment::programs(directory)?;
    for path in directory::links(directory)? {
        let link = bpf::xdp_link(&path).with_context(cannot)?;
        let is_replaced = |link: &XdpLink| {
            link.interface.is_some_and(|on| on.get() == index) && !programs.contains(&link.program)
        };
        if link.as_ref().is_some_and(is_replaced) {
            // Removing the pin is not enough: the kernel detaches the program only some time later.
            bpf::detach_link(&path).with_context(cannot)?;
            fs::remove_file(&path).with_context(cannot)?;
            continue;
        }
        match link.and_then(|link| link.interface) {
            None => fs::remove_file(&path).with_context(cannot)?,
            Some(_) if !path.ends_with(LINK) => {}
            Some(index) => {
                let mut other = directory.join(format!("{LINK}%{index}"));
                // Two network namespaces may use the same index.
                while other.exists() {
                    other.as_mut_os_string().push("%");
                }
                fs::rename(&path, other).with_context(cannot)?;
            }
        }
    }
    Ok(())
}

/// Pins the entries that have been loaded.
pub(super) fn pin_programs(ebpf: &mut Ebpf, directory: &Path) -> Result<()> {
    let [usual, frags, ip] = ENTRIES;
    for (entry, framing) in [
        (usual, Framing::Ethernet),
        (frags, Framing::Ethernet),
        (ip, Framing::BareIp),
    ] {
        if let Some(program) = program::loaded(ebpf, entry) {
            program
                .pin(directory.join(directory::program(framing)))
                .with_context(|| format!("cannot pin the program in {}", directory.display()))?;
        }
    }
    Ok(())
}

/// Returns the mode to attach an interface in. A veth sends replies back natively only where its peer takes XDP frames,
/// which cannot be seen from here; in generic mode every interface sends them.
fn mode_of(config: &Config, name: &str) -> Attach {
    let is_veth = || ethtool::driver(name).is_ok_and(|driver| driver == "veth");
    if !rejects(config) || config.attach == Attach::Generic || !is_veth() {
        return config.attach;
    }
    if config.attach == Attach::Native {
        tracing::warn!(
            "{name} is a veth: with `attach = \"native\"`, the replies of `deny = \"reject\"` get lost \
             unless the other end carries an XDP program; `attach = \"generic\"` does not need one"
        );
        return Attach::Native;
    }
    tracing::warn!(
        "{name} is a veth, which may lose the replies of `deny = \"reject\"` in native mode; attached in \
         generic mode"
    );
    Attach::Generic
}

/// Attaches by a BPF link, the only kind of attachment that outlives this process.
fn attach(
    program: impl AsFd,
    name: &str,
    index: u32,
    config: &Config,
) -> Result<(OwnedFd, Attached)> {
    // Checked first, since an interface that carries a program in one mode refuses the other with another error.
    if let Some(present) = xdp::attached(index)? {
        bail!(
            "the interface {name} already carries an XDP program that is not knockgate's: {}; \
             remove it first (`ip link set dev {name} xdp off`, or by the program that put it there) and name it as `next`, \
             so that it gets what passes; or, if it calls programs by an array, put knockgate's into that: `--into PIN`",
            xdp::describe(present)
        );
    }
    let frags = program::can_take_frags(config);
    let link = |attached| link(program.as_fd(), name, index, attached, frags);
    match mode_of(config, name) {
        Attach::Native => Ok((link(Attached::Native)?, Attached::Native)),
        Attach::Generic => Ok((link(Attached::Generic)?, Attached::Generic)),
        Attach::Auto => match link(Attached::Native) {
            Ok(link) => Ok((link, Attached::Native)),
            Err(error) if error.is::<NotPermitted>() => Err(error),
            Err(error) => {
                let link = link(Attached::Generic)?;
                tracing::warn!(
                    "{error:#}; attached in generic mode, which costs more for each packet"
                );
                Ok((link, Attached::Generic))
            }
        },
    }
}

fn link(
    program: impl AsFd,
    name: &str,
    index: u32,
    attached: Attached,
    frags: bool,
) -> Result<OwnedFd> {
    bpf::link_xdp(program, index, attached == Attached::Native).map_err(|error| {
        if is_denied(&error) {
            return NotPermitted {
                what: format!("to attach a program to {name}"),
                needs: NEEDS_TO_LOAD,
            }
            .into();
        }
        match attached {
            Attached::Native => anyhow!(
                "cannot attach to {name} in native mode: {}",
                native::refusal(name, frags, &error)
            ),
            Attached::Generic | Attached::Uncalled => anyhow!("cannot attach to {name}: {error}"),
        }
    })
}
