//! `cargo xtask instructions`: counts the instructions that the program takes, by verdict.

use anyhow::Result;
use clap::Args;

use crate::test;

#[derive(Args)]
pub(crate) struct Options {
    /// Rewrite the table in docs/development/instructions.md
    #[arg(long)]
    update: bool,
}

/// The variable that makes the suite write its page.
const UPDATE_VARIABLE: &str = "KNOCKGATE_UPDATE_INSTRUCTIONS";

/// Sets up, builds and runs the suite that counts them, and shows its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options { update } = options;
    let arguments = ["--test", "instructions", "--", "--nocapture"];
    let variable = update.then(|| (UPDATE_VARIABLE, "1".to_owned()));
    test::run_with(&arguments.map(Into::into), variable.as_slice())
}
