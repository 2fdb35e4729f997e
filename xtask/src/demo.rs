//! `cargo xtask demo`: shows a gate at work, or a fleet of hosts, step by step, and checks every step.
//!
//! The demo runs in its own mount and network namespaces, with its own BPF file system. The kernel removes them with
//! the last process in them, so there is nothing to clean up, even after a failure, Ctrl-C or SIGKILL.

mod fleet;
pub(crate) mod greeting;
mod story;

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use netlab::host::namespaces;

pub(crate) use self::greeting::{Service, Visit};
use self::story::Story;
use crate::{
    build::{self, Built},
    lan::Lan,
    process,
    setup::{self, Purpose},
};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// One host with one gate
    Gate,
    /// Three hosts that open their gates together, over three etcd members
    Fleet,
}

/// Sets up, builds and shows.
pub(crate) fn run(show: Show) -> Result<()> {
    let toolchain = setup::ready(match show {
        Show::Gate => Purpose::Demo,
        Show::Fleet => Purpose::Test,
    })?;
    let Built {
        program: _,
        knockgate,
    } = build::release(&toolchain)?;
    let this = env::current_exe().context("cannot find this program's own path")?;
    // The kernel kills the stage when this process ends, for whatever reason.
    let mut command = process::as_root("setpriv", "make the demo's network namespaces")?;
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net"])
        .arg(this)
        .args(["demo-stage", "--knockgate"])
        .arg(knockgate)
        .args((show == Show::Fleet).then_some("--fleet"))
        .arg("--outside")
        .args(namespaces()?)
        // The demo does not affect an SSH session of the user, so `knockgate` need not warn.
        .env_remove("SSH_CONNECTION");
    let status = command.status().context("cannot start the demo's stage")?;
    ensure!(
        status.success(),
        "the demo failed; the lines above say why. It has left nothing behind"
    );
    Ok(())
}

/// The part of the demo that runs inside its own namespaces.
#[derive(Args)]
pub(crate) struct Stage {
    #[arg(long)]
    knockgate: PathBuf,
    /// The namespaces from which the demo was started, and which it must have left
    #[arg(long, num_args = 2, required = true)]
    outside: Vec<String>,
    /// Shows a fleet
    #[arg(long)]
    fleet: bool,
}

impl Stage {
    pub(crate) fn run(self) -> Result<()> {
        let Self {
            knockgate,
            outside,
            fleet,
        } = self;
        if fleet {
            return fleet::tell(&outside, &knockgate);
        }
        let lan = Lan::create(&outside)?;
        Story::new(&lan, &knockgate)?.tell()
    }
}
