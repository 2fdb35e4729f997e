//! `cargo xtask fuzz`: the program against its model, for as long as one likes.

mod guided;

use anyhow::Result;
use clap::Args;

use crate::test;

#[derive(Args)]
pub(crate) struct Options {
    /// How long to look for a packet that the two judge differently; guided by coverage, for each target
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Let cargo-fuzz look, on the host, going by which code each input reaches
    #[arg(long)]
    guided: bool,
    /// Keep the inputs that reach something of their own in knock-common/fuzz/corpus
    #[arg(long, requires = "guided")]
    update: bool,
}

/// The variable by which the oracle is told how long to go on.
const MINUTES_VARIABLE: &str = "KNOCKGATE_FUZZ_MINUTES";

/// The one test that goes on for that long.
const TEST: &str = "program_agrees_with_the_model_for_as_long_as_asked";

/// Sets up, builds and runs that test, which shows what it has tried as it goes; or the fuzz targets.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options {
        minutes,
        guided,
        update,
    } = options;
    if *guided {
        return guided::run(*minutes, *update);
    }
    let arguments = ["--test", "oracle", TEST, "--", "--exact", "--nocapture"];
    let variable = (MINUTES_VARIABLE, minutes.to_string());
    test::run_with(&arguments.map(Into::into), Some(variable))
}
