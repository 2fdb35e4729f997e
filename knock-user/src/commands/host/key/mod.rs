//! `knockgate key`: keys for authenticated knocks.

mod in_force;
mod list;
mod make;
mod period;
mod person;
mod reset;
mod revoke;
mod rotate_host;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Result, anyhow, bail};
use clap::Subcommand;

use crate::{
    config::Config,
    datapath::{NotPermitted, PinRoot, keys::Held},
    keys::{Folder, KeyName, KeySet, Lock},
    values::nearest,
};

/// Make, list and end keys for authenticated knocks
///
/// A key opens gates by one UDP datagram, which nobody else can make and which opens only once. Where the gates are up,
/// every change is in force at once.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    New(make::NewArgs),
    List(list::Args),
    Revoke(revoke::Args),
    Rotate(make::RotateArgs),
    Reset(reset::Args),
    RotateHost(rotate_host::Args),
}

impl Args {
    /// Returns whether it changes no key.
    pub fn only_prints(&self) -> bool {
        matches!(self.command, Command::List(_))
    }
}

pub fn run(args: &Args, config: &Path, root: &PinRoot) -> Result<()> {
    // Its warnings are those of `check`.
    let config = Config::load_quietly(config)?;
    let store = Store {
        folder: Folder::open(&config.knock.keys),
        config: &config,
        root,
    };
    carry_out(&args.command, &store, &mut io::stdout().lock()).map_err(denied)
}

/// Does what is asked, and writes to `out` what is printed only once.
fn carry_out(command: &Command, store: &Store<'_>, out: &mut impl Write) -> Result<()> {
    match command {
        Command::New(args) => make::new(args, store, out),
        Command::List(args) => list::run(args, store),
        Command::Revoke(args) => revoke::run(args, store),
        Command::Rotate(args) => make::rotate(args, store, out),
        Command::Reset(args) => reset::run(args, store),
        Command::RotateHost(args) => rotate_host::run(args, store, out),
    }
}

/// Returns the error with the exit status that it has where a permission is missing.
fn denied(error: anyhow::Error) -> anyhow::Error {
    let io = error.downcast_ref::<io::Error>();
    if io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied) {
        let what = format!("to use the keys ({error:#})");
        let needs = "the owner of the folder, or CAP_DAC_OVERRIDE";
        return NotPermitted { what, needs }.into();
    }
    error
}

/// Says of a secret that it was not printed.
const NOT_PRINTED: &str = "nothing was changed, since what belongs to it could not be printed";

/// Says of a secret that has been printed what it waits for.
const IN_FORCE_LATER: &str =
    "what was printed is kept, but it is not in force yet: `knockgate reload` puts it into force";

/// Where keys are kept, and what they are for.
struct Store<'c> {
    folder: Folder,
    config: &'c Config,
    root: &'c PinRoot,
}

impl Store<'_> {
    /// Returns all keys, and the right to change them. Where anything is up, nothing keeps a change from coming into force
    /// then: what would is an error here, before anything is written or printed.
    fn change(&self) -> Result<Change<'_>> {
        let lock = self.folder.lock()?;
        let held = Held::of(self.root)?;
        if let Some(datapath) = held.datapath() {
            in_force::require_folder(self.config, datapath)?;
        }
        let set = self.folder.load()?;
        Ok(Change {
            store: self,
            lock,
            held,
            set,
        })
    }

    /// Refuses the name of a gate that the configuration does not have.
    fn require_gate(&self, name: &str) -> Result<()> {
        let gates = || self.config.gates.iter().map(|gate| gate.name.as_str());
        if gates().any(|gate| gate == name) {
            return Ok(());
        }
        let advice = match nearest(name, gates()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the gates are {}", gates().collect::<Vec<_>>().join(", ")),
        };
        bail!("the configuration has no gate {name:?}; {advice}")
    }
}

/// The right to change keys, in the folder and in what is up. Changes follow one another.
struct Change<'s> {
    store: &'s Store<'s>,
    lock: Lock,
    held: Held,
    /// All keys; as they are to be, where they are changed.
    set: KeySet,
}

impl Change<'_> {
    /// Puts the keys into force where the gates are up, once they are in the folder. `fresh`: the slots of those that the command
    /// has made itself.
    fn put_into_force(self, fresh: &[u16]) -> Result<()> {
        // What has come up meanwhile has read the keys of before.
        let mut held = self.held.again()?;
        if let Some(datapath) = held.datapath() {
            in_force::require_folder(self.store.config, datapath)?;
        }
        match held.apply(&self.set, fresh)? {
            0 => {}
            1 => tracing::info!("a grant has ended with it"),
            ended => tracing::info!("{ended} grants have ended with it"),
        }
        Ok(())
    }
}

/// Returns the gates that a key opens: those of its own file, then those that name it.
fn gates_of(config: &Config, name: &KeyName, own: &[String]) -> Vec<String> {
    let mut all = own.to_vec();
    for gate in &config.gates {
        if gate.keys.contains(name) && !all.contains(&gate.name) {
            all.push(gate.name.clone());
        }
    }
    all
}

/// Returns the error for a name that no key has.
fn no_such_key(name: &KeyName, set: &KeySet) -> anyhow::Error {
    let names: Vec<String> = set.keys.iter().map(|key| key.name.to_string()).collect();
    let text = name.to_string();
    let near = nearest(&text, names.iter().map(String::as_str));
    let advice = near.map_or_else(
        || "`knockgate key list` shows all".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    anyhow!("there is no key {name}; {advice}")
}

#[cfg(test)]
mod tests;
