//! One file for each command.

use std::{fs::File, io};

use anyhow::{Context as _, Result};

use crate::cli::{Cli, Command};

pub mod allow;
pub mod check;
pub mod completions;
pub mod down;
pub mod events;
pub mod grants;
pub mod init;
pub mod knock;
pub mod man;
mod output;
pub mod revoke;
pub mod run;
pub mod sessions;
pub mod sources;
pub mod stats;
pub mod status;
pub mod up;

/// Carries out what was asked.
pub fn run(cli: Cli) -> Result<()> {
    let root = cli.pin_root();
    match cli.command {
        Command::Init(args) => init::run(&args, &cli.config),
        Command::Check(args) => check::run(&args, &cli.config),
        Command::Up(args) => up::run(&args, &cli.config, &root),
        Command::Down(args) => down::run(&args, &root),
        Command::Run(args) => run::run(&args, &cli.config, &root),
        Command::Status(args) => status::run(&args, &root),
        Command::Grants(args) => grants::run(&args, &root),
        Command::Sources(args) => sources::run(&args, &root),
        Command::Sessions(args) => sessions::run(&args, &root),
        Command::Stats(args) => stats::run(&args, &root),
        Command::Events(args) => runtime()?.block_on(events::run(&args, &root)),
        Command::Allow(args) => allow::run(&args, &root),
        Command::Revoke(args) => revoke::run(&args, &root),
        Command::Knock(args) => runtime()?.block_on(knock::run(args)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Descriptors that tokio opens for a runtime, and some to spare.
const RUNTIME_FILES: usize = 10;

fn runtime() -> Result<tokio::runtime::Runtime> {
    // Where it gets some of them and not all, tokio panics.
    let room: io::Result<Vec<File>> = (0..RUNTIME_FILES)
        .map(|_| File::open("/dev/null"))
        .collect();
    room.context("cannot start the event loop")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}
