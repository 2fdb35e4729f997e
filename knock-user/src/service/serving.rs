//! A thread that serves beside the service, until it is not wanted any more.

use std::thread;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use super::record::Record;
use crate::runtime::runtime;

/// An event that such a thread tells of, and the [class](knock_common::report::class) of its budget, if there is one.
pub type Said = (Option<u32>, Record);

/// Such a thread, with an event loop of its own. Ends it when dropped.
pub struct Serving {
    /// The thread goes on until this is dropped.
    stop: Option<watch::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Tells such a thread when it is to end. Clones tell the same.
#[derive(Clone)]
pub struct Stopped(watch::Receiver<()>);

impl Stopped {
    /// Waits until it is to end.
    pub async fn wait(&mut self) {
        while self.0.changed().await.is_ok() {}
    }

    pub fn has_come(&self) -> bool {
        self.0.has_changed().is_err()
    }
}

impl Serving {
    /// Starts one with this name. `serve` is to end when it is told to, or by itself; then the service waits for it.
    pub fn start<F: Future<Output = ()>>(
        name: &str,
        serve: impl FnOnce(Stopped) -> F + Send + 'static,
    ) -> Result<Self> {
        let runtime = runtime()?;
        let (stop, stopped) = watch::channel(());
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(serve(Stopped(stopped))))
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    /// As where a name is resolved by servers that do not answer.
    #[test]
    fn it_ends_while_a_call_of_its_own_still_blocks() {
        let (go_on, wait) = mpsc::channel::<()>();
        let (say, begun) = mpsc::channel();
        let serving = Serving::start("test", |mut stopped| async move {
            let blocked = tokio::task::spawn_blocking(move || {
                say.send(()).expect("it is waited for");
                // Far longer than the rest takes.
                let _ = wait.recv_timeout(Duration::from_mins(1));
            });
            tokio::select! {
                () = stopped.wait() => {}
                _ = blocked => {}
            }
        });
        begun.recv().expect("it has begun");
        drop(serving.expect("started"));
        go_on.send(()).expect("the call goes on");
    }
}
