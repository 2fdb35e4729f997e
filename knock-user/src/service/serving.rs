//! A thread that serves beside the service, until it is not wanted any more.

use std::thread;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use crate::runtime::runtime;

/// Such a thread, with an event loop of its own. Ends it when dropped.
pub struct Serving {
    /// The thread goes on until this is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Serving {
    /// Starts one with this name. `serve` is to end when it is told to, or by itself.
    pub fn start<F: Future<Output = ()>>(
        name: &str,
        serve: impl FnOnce(oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Result<Self> {
        let runtime = runtime()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(serve(stopped)))
            .with_context(|| format!("cannot start the thread {name:?}"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn goes_on(&self) -> bool {
        let thread = self.thread.as_ref();
        thread.is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}
