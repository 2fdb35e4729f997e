//! Serves the metrics to Prometheus: a thread of its own, which reads the kernel's tables when it is asked. The service
//! itself goes on reading events meanwhile, and ends or goes on without it.

mod http;
mod listener;

use anyhow::Result;

use super::{complaint::Complaint, failures::HookFailures, fleet::Counts, serving::Serving};
use crate::{
    config::{Config, Listen},
    datapath::PinRoot,
};
use http::Source;
use listener::Listener;

/// What hands out the metrics, if the configuration says so.
pub struct Endpoint {
    root: PinRoot,
    hook_failures: HookFailures,
    fleet: Counts,
    wanted: Option<Listen>,
    /// Listens there, and waits for a thread.
    listener: Option<Listener>,
    serving: Option<Serving>,
    /// Why it does not serve, as it was last reported.
    failed: Complaint,
}

impl Endpoint {
    pub fn new(root: &PinRoot, hook_failures: HookFailures, fleet: Counts) -> Self {
        Self {
            root: root.clone(),
            hook_failures,
            fleet,
            wanted: None,
            listener: None,
            serving: None,
            failed: Complaint::default(),
        }
    }

    /// Serves where this configuration says, and nowhere else.
    pub fn apply(&mut self, config: &Config) {
        self.listen(config);
        self.retry();
    }

    /// Listens where this configuration says, and nowhere else. The thread that serves there is started by [`Endpoint::retry`].
    pub fn listen(&mut self, config: &Config) {
        let wanted = &config.metrics.listen;
        if *wanted != self.wanted {
            self.serving = None;
            self.listener = None;
            self.failed.settle();
            self.wanted.clone_from(wanted);
        }
        if let Err(error) = self.bind() {
            self.report(&error);
        }
    }

    /// Serves where it should and does not: the address may have been taken, or not been there yet.
    pub fn retry(&mut self) {
        if let Err(error) = self.bind().and_then(|()| self.start()) {
            self.report(&error);
        }
    }

    fn bind(&mut self) -> Result<()> {
        let is_served = self.serving.as_ref().is_some_and(Serving::goes_on);
        if let (Some(listen), None, false) = (&self.wanted, &self.listener, is_served) {
            self.listener = Some(Listener::bind(listen)?);
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let (Some(listen), Some(listener)) = (&self.wanted, self.listener.take()) else {
            return Ok(());
        };
        let source = Source {
            root: self.root.clone(),
            hook_failures: self.hook_failures.clone(),
            fleet: self.fleet.clone(),
        };
        let serve = |stopped| http::serve(listener, source, stopped);
        self.serving = Some(Serving::start("metrics", serve)?);
        self.failed.settle();
        tracing::info!("metrics are at {}", address(listen));
        Ok(())
    }

    fn report(&mut self, error: &anyhow::Error) {
        if let Some(error) = self.failed.about(error) {
            tracing::error!("{error}; the service runs without metrics, and will try again");
        }
    }
}

/// What a client is given to read from.
fn address(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => format!("http://{address}{}", http::PATH),
        Listen::Unix(_) => format!("{listen}, path {}", http::PATH),
    }
}
