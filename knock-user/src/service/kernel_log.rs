//! Development only: prints what a kernel program built with its `log` feature logs of every packet.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;

use crate::datapath::Datapath;

/// How often the log is read.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints the program's log for as long as the service runs.
pub fn follow(datapath: &Datapath) -> Result<()> {
    let pin = datapath.program_pin().context("no program is pinned")?;
    let program =
        ProgramInfo::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let mut log = EbpfLogger::init_from_id(program.id())
        .context("the kernel program logs nothing; build it with `--features log`")?;
    tokio::spawn(async move {
        loop {
            log.flush();
            tokio::time::sleep(PAUSE).await;
        }
    });
    Ok(())
}
