//! `knockgate fleet key`: keys that sign what the hosts of a fleet tell each other.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use jiff::Timestamp;

use crate::{commands::host::new_file, fleet::keys::FleetKey};

/// Make keys of a fleet
///
/// Its hosts sign with such a key what they tell each other: who runs the etcd members can open no gate.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    New(NewArgs),
}

/// Write a new key into a file of mode 0600; overwrite none
///
/// The file is to be copied to every host of the fleet, and named in `keys` of [fleet].
#[derive(Debug, Clone, clap::Args)]
struct NewArgs {
    /// The file, such as /etc/knockgate/fleet/fleet.key
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::New(args) => new(args, &mut io::stdout().lock()),
    }
}

fn new(args: &NewArgs, out: &mut impl Write) -> Result<()> {
    let key = FleetKey::random()?;
    // By seconds: people read it.
    let created = Timestamp::from_second(Timestamp::now().as_second())?;
    new_file::create(&args.file, &key.to_text(created))?;
    let file = args.file.display();
    let id = base16ct::lower::encode_string(&key.id);
    writeln!(
        out,
        "{file} has the new key {id}.\nCopy it to every host of the fleet, mode 0600, before one of them has it first in \
         `keys` of [fleet]: until then, the others refuse what it signs."
    )
    .context("the key is written, but standard output is closed")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::fleet::keys::Keyring;

    #[test]
    fn a_key_is_written_for_its_owner_alone_and_never_over_another_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("fleet/fleet.key");
        let args = NewArgs { file: file.clone() };
        let mut out = Vec::new();
        new(&args, &mut out).expect("a new file");
        let ring = Keyring::load(std::slice::from_ref(&file)).expect("of mode 0600");
        let id = base16ct::lower::encode_string(&ring.ids().next().expect("one"));
        let printed = String::from_utf8(out).expect("UTF-8");
        assert!(printed.contains(&format!("the new key {id}.")), "{printed}");
        let text = fs::read_to_string(&file).expect("readable");
        let secret = text.split('"').nth(1).expect("it has one");
        assert_eq!(secret.len(), 64);
        assert!(!printed.contains(secret));
        let mode = file.metadata().expect("it was made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = new(&args, &mut Vec::new()).expect_err("it exists");
        assert!(error.to_string().contains("never overwritten"), "{error}");
        assert_eq!(fs::read_to_string(&file).expect("readable"), text);
    }
}
