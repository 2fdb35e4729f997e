//! `cargo xtask demo`: a gate at work, step by step, each step looked at before it is claimed.
//!
//! The demo runs in a mount namespace and network namespaces of its own, with a BPF file system of its
//! own. The kernel takes them away with the last process in them, so there is nothing to clean up, be it
//! after a failure, Ctrl-C or SIGKILL.

pub(crate) mod greeting;
mod story;

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use netlab::host::namespaces;

pub(crate) use self::greeting::{Service, Visit};
use self::story::Story;
use crate::{
    build::{self, Built},
    lan::Lan,
    process,
    setup::{self, Purpose},
};

/// Sets up, builds and shows.
pub(crate) fn run() -> Result<()> {
    let toolchain = setup::ready(Purpose::Demo)?;
    let Built {
        program: _,
        knockgate,
    } = build::release(&toolchain)?;
    let this = env::current_exe().context("cannot find this program's own path")?;
    // The stage ends with this process, whatever ends it.
    let mut command = process::as_root("setpriv", "make the demo's network namespaces")?;
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net"])
        .arg(this)
        .args(["demo-stage", "--knockgate"])
        .arg(knockgate)
        .arg("--outside")
        .args(namespaces()?)
        // The demo's gate guards no session of yours, so `knockgate` need not warn of one.
        .env_remove("SSH_CONNECTION");
    let status = command.status().context("cannot start the demo's stage")?;
    ensure!(
        status.success(),
        "the demo did not get to its end; the lines above say why. Nothing of it is left"
    );
    Ok(())
}

/// The part of the demo that runs inside its own namespaces.
#[derive(Args)]
pub(crate) struct Stage {
    #[arg(long)]
    knockgate: PathBuf,
    /// The namespaces that the demo was started from, and must have left
    #[arg(long, num_args = 2, required = true)]
    outside: Vec<String>,
}

impl Stage {
    pub(crate) fn run(self) -> Result<()> {
        let Self { knockgate, outside } = self;
        let lan = Lan::create(&outside)?;
        Story::new(&lan, &knockgate)?.tell()
    }
}
