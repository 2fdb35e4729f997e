//! `cargo xtask instructions`: how many instructions the program takes, by what comes of a packet.

use anyhow::Result;
use clap::Args;

use crate::test;

#[derive(Args)]
pub(crate) struct Options {
    /// Write the table in docs/development/instructions.md anew
    #[arg(long)]
    update: bool,
}

/// The variable by which the suite is told to write its page.
const UPDATE_VARIABLE: &str = "KNOCKGATE_UPDATE_INSTRUCTIONS";

/// Sets up, builds and runs the suite that counts them, and shows its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { update } = options;
    let arguments = ["--test", "instructions", "--", "--nocapture"];
    let variable = update.then(|| (UPDATE_VARIABLE, "1".to_owned()));
    test::run_with(&arguments.map(Into::into), variable)
}
