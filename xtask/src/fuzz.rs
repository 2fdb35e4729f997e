//! `cargo xtask fuzz`: compares the program with its model, for a given time.

mod guided;

use anyhow::Result;
use clap::Args;

use crate::test;

#[derive(Args)]
pub(crate) struct Options {
    /// Minutes to look for a packet that the two judge differently; with --guided, for each target
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Use cargo-fuzz, which looks on the host, guided by the code that each input reaches
    #[arg(long)]
    guided: bool,
    /// Keep the inputs that reach code that no other does in knock-common/fuzz/corpus
    #[arg(long, requires = "guided")]
    update: bool,
}

/// The variable with the minutes that the oracle continues.
const MINUTES_VARIABLE: &str = "KNOCKGATE_FUZZ_MINUTES";

/// The test that continues for that time.
const TEST: &str = "program_agrees_with_the_model_for_as_long_as_asked";

/// Sets up, builds and runs that test, which prints its progress, or the fuzz targets.
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
    test::run_with(&arguments.map(Into::into), &[variable])
}
