//! What the service manager is told: systemd, where it has started this process.

use std::future;

use sd_notify::NotifyState;
use tokio::time::{Interval, interval};

use super::guard::Guard;

/// What the service manager has been told.
#[derive(Default)]
pub struct Readiness {
    /// It has been told that the service is ready.
    pub is_ready: bool,
    status: String,
}

impl Readiness {
    /// Tells the service manager what has changed. The service is ready once the program is in its place for every configured
    /// interface that exists and was not taken down: nothing comes in by one that does not exist. What makes an interface, or
    /// attaches the program that calls ours, may be started after this service.
    pub fn tell(&mut self, guard: &Guard) {
        if !self.is_ready && guard.is_in_place {
            self.is_ready = true;
            notify(&[NotifyState::Ready]);
        }
        if self.status != guard.summary {
            self.status.clone_from(&guard.summary);
            notify(&[NotifyState::Status(&self.status)]);
        }
    }
}

/// Tells the service manager, where one has started this process.
pub fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot notify the service manager: {error}");
    }
}

/// The timer of systemd's watchdog, at a third of its limit: one beat may come late. Never due where there is no watchdog.
pub struct Pulse(Option<Interval>);

impl Pulse {
    pub fn new() -> Self {
        Self(sd_notify::watchdog_enabled().map(|limit| interval(limit / 3)))
    }

    pub async fn beat(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => future::pending().await,
        }
    }
}
