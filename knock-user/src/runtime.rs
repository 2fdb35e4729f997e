//! The event loop of commands that wait for something, and of the metrics' thread.

use std::{fs::File, io};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

/// Descriptors that tokio opens for a runtime, and some to spare.
const RUNTIME_FILES: usize = 10;

/// Starts an event loop on this thread.
pub fn runtime() -> Result<Runtime> {
    // Opened first, since tokio panics where it gets some of its descriptors and not all.
    let room: io::Result<Vec<File>> = (0..RUNTIME_FILES)
        .map(|_| File::open("/dev/null"))
        .collect();
    room.context("cannot start the event loop")?;
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}
