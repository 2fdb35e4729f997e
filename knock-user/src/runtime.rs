//! The event loop of commands that wait for something, and of the metrics' thread.

use std::{fs::File, io, ops::Deref};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

/// Descriptors that tokio opens for a runtime, and some to spare.
const RUNTIME_FILES: usize = 10;

/// An event loop. Where it ends, nothing waits for what its blocking calls still do: a name that is being resolved can
/// take minutes.
pub struct EventLoop(Option<Runtime>);

impl Deref for EventLoop {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken when it is dropped")
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts an event loop on this thread.
pub fn runtime() -> Result<EventLoop> {
    // Opened first, since tokio panics where it gets some of its descriptors and not all.
    let room: io::Result<Vec<File>> = (0..RUNTIME_FILES)
        .map(|_| File::open("/dev/null"))
        .collect();
    room.context("cannot start the event loop")?;
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime
        .map(|runtime| EventLoop(Some(runtime)))
        .context("cannot start the event loop")
}
