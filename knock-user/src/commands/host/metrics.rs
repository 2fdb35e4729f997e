//! `knockgate metrics`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use crate::{
    datapath::{NothingUp, PinRoot},
    metrics::{Reading, textfile},
};

/// Print metrics in the text format of Prometheus
///
/// The same as `knockgate run` serves at /metrics, but for hooks that failed and the fleet; needs no service. Where nothing is up,
/// exits with 5 and prints nothing, but writes `knockgate_up 0` to the file of --textfile.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Replace this file instead of printing, for the node exporter's textfile collector
    ///
    /// The file is replaced at once, with mode 0644. Its name must end with .prom for the collector to read it.
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

pub fn run(args: &Args, root: &PinRoot) -> Result<()> {
    let reading = Reading::take(root)?;
    let nothing_up = reading.snapshot.is_none();
    if let Some(file) = &args.textfile {
        textfile::write(file, &text(reading)?)?;
    } else if !nothing_up {
        let mut out = io::stdout().lock();
        out.write_all(text(reading)?.as_bytes())?;
        out.flush()?;
    }
    if nothing_up {
        return Err(NothingUp.into());
    }
    Ok(())
}

fn text(reading: Reading) -> Result<String> {
    reading.into_text().context("cannot write the metrics")
}
