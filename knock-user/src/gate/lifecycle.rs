//! Bringing the gate up and taking it down.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    programs::{ProgramError, Xdp, XdpMode, links::FdLink},
};

use super::{
    NEEDS_TO_LOAD, NotPermitted, PinRoot, answering, capability,
    interface::{self, Attached},
    is_denied, kernel_version, pins, program,
    tables::{OpenGate, is_whole, other_layout, pin_name},
};
use crate::config::{Attach, Config};

/// One interface that the gate has been put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub interface: String,
    pub attached: Attached,
}

/// Loads the program for `config`, attaches it to its interfaces and pins everything, or changes
/// nothing. When this returns, the kernel enforces alone.
pub fn up(config: &Config, root: &PinRoot) -> Result<Vec<Mounted>> {
    kernel_version::require()?;
    if config.interfaces.is_empty() {
        bail!(
            "no interface to guard: name one with `-i IFACE`, or with `interfaces = [...]` in the \
             configuration"
        );
    }
    let indices = config
        .interfaces
        .iter()
        .map(|name| interface::index(name))
        .collect::<Result<Vec<_>>>()?;
    capability::require()?;
    root.make()?;
    let _lock = root.lock()?;
    let undo = Undo::new(root);
    refuse_if_up(root)?;

    let mut ebpf = program::load(config)?;
    let mut mounted = Vec::new();
    for (name, index) in config.interfaces.iter().zip(indices) {
        let directory = undo.directory(name)?;
        pin_tables(&mut ebpf, &directory)?;
        let xdp = program::program(&mut ebpf)?;
        xdp.pin(directory.join(pins::PROGRAM))
            .with_context(|| format!("cannot pin the program in {}", directory.display()))?;
        let (link, attached) = attach(xdp, name, index, way(config, name))?;
        link.pin(directory.join(pins::LINK))
            .with_context(|| format!("cannot pin the link in {}", directory.display()))?;
        mounted.push(Mounted {
            interface: name.clone(),
            attached,
        });
    }
    undo.keep();
    Ok(mounted)
}

/// Detaches and removes what is pinned: for the interfaces named, or all where none is. Says which
/// it were. Needs no configuration, and nothing being up is fine.
pub fn down(root: &PinRoot, interfaces: &[String]) -> Result<Vec<String>> {
    let present = root.interfaces()?;
    if present.is_empty() {
        root.tidy();
        return Ok(Vec::new());
    }
    let _lock = root.lock()?;
    let wanted: Vec<String> = root
        .interfaces()?
        .into_iter()
        .filter(|name| interfaces.is_empty() || interfaces.contains(name))
        .collect();
    for name in &wanted {
        root.remove(name)?;
    }
    root.tidy();
    Ok(wanted)
}

fn refuse_if_up(root: &PinRoot) -> Result<()> {
    let present = root.interfaces()?;
    let Some(first) = present.first() else {
        return Ok(());
    };
    let directory = root.of(first);
    if !is_whole(&directory) {
        return Err(other_layout(&directory));
    }
    OpenGate::at(root)?;
    bail!(
        "a gate is up already on {} (pins in {}); take it down first with `knockgate down`",
        present.join(", "),
        root.path().display()
    )
}

fn pin_tables(ebpf: &mut Ebpf, directory: &Path) -> Result<()> {
    for (name, map) in ebpf.maps() {
        // Read-only data goes with the program; the rest is ours by name.
        if name.starts_with('.') {
            continue;
        }
        map.pin(directory.join(pin_name(name)))
            .with_context(|| format!("cannot pin the table {name} in {}", directory.display()))?;
    }
    Ok(())
}

/// How the program is to be put on an interface. A veth sends answers back natively only where its peer
/// takes XDP frames, which can't be seen from here; in generic mode every interface sends them.
fn way(config: &Config, name: &str) -> Attach {
    let is_veth = || answering::driver(name).is_ok_and(|driver| driver == "veth");
    if !answering::rejects(config) || config.attach == Attach::Generic || !is_veth() {
        return config.attach;
    }
    if config.attach == Attach::Native {
        tracing::warn!(
            "{name} is a veth: with `attach = \"native\"`, what `deny = \"reject\"` answers gets lost \
             unless the other end carries an XDP program; `attach = \"generic\"` doesn't need one"
        );
        return Attach::Native;
    }
    tracing::warn!(
        "{name} is a veth, which may lose what `deny = \"reject\"` answers in native mode; attached in \
         generic mode"
    );
    Attach::Generic
}

/// Attaches by a link of the kernel's, the only kind that outlives this process.
fn attach(xdp: &mut Xdp, name: &str, index: u32, wanted: Attach) -> Result<(FdLink, Attached)> {
    // Asked beforehand: an interface that carries a program in one mode refuses the other.
    if let Some(present) = interface::attached(index)? {
        bail!(
            "the interface {name} already carries an XDP program that is not this gate's: {}; \
             remove it first (`ip link set dev {name} xdp off`, or by the program that put it there)",
            interface::describe(present)
        );
    }
    match wanted {
        Attach::Native => Ok((link(xdp, name, index, XdpMode::Driver)?, Attached::Native)),
        Attach::Generic => Ok((link(xdp, name, index, XdpMode::Skb)?, Attached::Generic)),
        Attach::Auto => match link(xdp, name, index, XdpMode::Driver) {
            Ok(link) => Ok((link, Attached::Native)),
            Err(error) if error.is::<NotPermitted>() => Err(error),
            Err(error) => {
                tracing::warn!(
                    "{name} takes no native XDP program ({error:#}); attached in generic mode, \
                     which costs more for each packet"
                );
                Ok((link(xdp, name, index, XdpMode::Skb)?, Attached::Generic))
            }
        },
    }
}

fn link(xdp: &mut Xdp, name: &str, index: u32, mode: XdpMode) -> Result<FdLink> {
    let id = xdp
        .attach_to_if_index(index, mode)
        .map_err(|error| match &error {
            ProgramError::SyscallError(call) if is_denied(&call.io_error) => {
                anyhow!(NotPermitted {
                    what: format!("to attach a program to {name}"),
                    needs: NEEDS_TO_LOAD,
                })
            }
            ProgramError::SyscallError(call) => {
                anyhow!("cannot attach to {name}: {}", call.io_error)
            }
            _ => anyhow!(error).context(format!("cannot attach to {name}")),
        })?;
    let link = xdp.take_link(id)?;
    // aya attaches by netlink where the kernel refuses a link. Such an attachment can't be pinned
    // and would be left behind by no one; dropping it detaches.
    FdLink::try_from(link).map_err(|_| {
        anyhow!("the driver of {name} takes XDP programs only in a way that cannot be pinned")
    })
}

/// Takes back what has been pinned, unless told to keep it.
struct Undo<'r> {
    root: &'r PinRoot,
    made: std::cell::RefCell<Vec<String>>,
}

impl<'r> Undo<'r> {
    fn new(root: &'r PinRoot) -> Self {
        Self {
            root,
            made: std::cell::RefCell::default(),
        }
    }

    /// Makes the directory of an interface, to be removed with all in it.
    fn directory(&self, interface: &str) -> Result<PathBuf> {
        let directory = self.root.of(interface);
        pins::make_directory(&directory)?;
        self.made.borrow_mut().push(interface.to_owned());
        Ok(directory)
    }

    fn keep(self) {
        self.made.borrow_mut().clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for interface in self.made.get_mut().drain(..) {
            if let Err(error) = self.root.remove(&interface) {
                tracing::warn!("{error:#}");
            }
        }
        self.root.tidy();
    }
}
