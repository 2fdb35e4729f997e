//! How many runs of hooks have failed, for the metrics: the kernel's tables do not know of hooks.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{names::HOOK_REASONS, record::Record};

/// Counts since the service started, in the order of [`HOOK_REASONS`]. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct HookFailures(Arc<[AtomicU64; HOOK_REASONS.len()]>);

impl HookFailures {
    /// Counts the runs that an event `hook.failed` reports.
    pub fn add(&self, failed: &Record) {
        let reason = failed.reason.as_deref();
        let mut reasons = HOOK_REASONS.iter();
        if let Some(place) = reasons.position(|known| Some(*known) == reason) {
            self.0[place].fetch_add(failed.lost.unwrap_or(1), Ordering::Relaxed);
        }
    }

    /// Returns how many there were, by reason.
    pub fn by_reason(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        HOOK_REASONS.into_iter().zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::names::{EXIT_STATUS, HOOK_FAILED, QUEUE_FULL};

    #[test]
    fn runs_are_counted_by_reason() {
        let failures = HookFailures::default();
        let failed = |reason: &str, lost| Record {
            reason: Some(reason.to_owned()),
            lost,
            ..Record::now(HOOK_FAILED)
        };
        failures.add(&failed(EXIT_STATUS, None));
        failures.clone().add(&failed(EXIT_STATUS, None));
        failures.add(&failed(QUEUE_FULL, Some(40)));
        let counted = failures.by_reason();
        assert_eq!(counted.iter().map(|(_, count)| count).sum::<u64>(), 42);
        assert!(counted.contains(&(EXIT_STATUS, 2)));
        assert!(counted.contains(&(QUEUE_FULL, 40)));
    }
}
