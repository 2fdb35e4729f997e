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
            serving: None,
            failed: Complaint::default(),
        }
    }

    /// Listens where this configuration says, and nowhere else.
    pub fn apply(&mut self, config: &Config) {
        let wanted = &config.metrics.listen;
        if *wanted != self.wanted {
            self.serving = None;
            self.failed.settle();
            self.wanted.clone_from(wanted);
        }
        self.retry();
    }

    /// Listens where it should and does not: the address may have been taken, or not been there yet.
    pub fn retry(&mut self) {
        let Some(listen) = &self.wanted else { return };
        if self.serving.as_ref().is_some_and(Serving::goes_on) {
            return;
        }
        match self.start(listen) {
            Ok(serving) => {
                tracing::info!("metrics are at {}", address(listen));
                self.serving = Some(serving);
                self.failed.settle();
            }
            Err(error) => {
                if let Some(error) = self.failed.about(&error) {
                    tracing::error!(
                        "{error}; the service runs without metrics, and will try again"
                    );
                }
            }
        }
    }
}

impl Endpoint {
    fn start(&self, listen: &Listen) -> Result<Serving> {
        let source = Source {
            root: self.root.clone(),
            hook_failures: self.hook_failures.clone(),
            fleet: self.fleet.clone(),
        };
        let listener = Listener::bind(listen)?;
        Serving::start("metrics", |stopped| http::serve(listener, source, stopped))
    }
}

/// What a client is given to read from.
fn address(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => format!("http://{address}{}", http::PATH),
        Listen::Unix(_) => format!("{listen}, path {}", http::PATH),
    }
}
