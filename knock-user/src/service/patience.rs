//! Work that may fail for a while.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::complaint::Complaint;

/// How long work may keep failing. What the machine is short of may come back; with what fails for longer, a new service may
/// fare better.
const LIMIT: Duration = Duration::from_mins(1);

/// How work that is tried again and again has gone so far.
#[derive(Default)]
pub struct Patience {
    /// Since when it has failed each time.
    failing: Option<Instant>,
    complaint: Complaint,
}

impl Patience {
    /// Takes the result of a try that ended `now`. `None`: it has failed, which is reported once for each error.
    ///
    /// # Errors
    /// The error of the try, once it has failed each time for longer than [`LIMIT`].
    pub fn bear<T>(&mut self, tried: Result<T>, now: Instant) -> Result<Option<T>> {
        let error = match tried {
            Ok(done) => {
                *self = Self::default();
                return Ok(Some(done));
            }
            Err(error) => error,
        };
        let since = *self.failing.get_or_insert(now);
        if now.duration_since(since) > LIMIT {
            return Err(error);
        }
        if let Some(text) = self.complaint.about(&error) {
            tracing::warn!("{text}; the service will try again");
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn work_may_fail_for_a_while_and_not_for_ever() {
        let begun = Instant::now();
        let mut patience = Patience::default();
        let mut fails = |seconds| {
            let now = begun + Duration::from_secs(seconds);
            patience.bear::<()>(Err(anyhow!("too many open files")), now)
        };
        assert!(matches!(fails(0), Ok(None)));
        assert!(matches!(fails(60), Ok(None)));
        assert!(fails(61).is_err());
    }

    #[test]
    fn a_success_begins_anew() {
        let begun = Instant::now();
        let mut patience = Patience::default();
        for minute in 0..10 {
            let now = begun + Duration::from_mins(minute);
            let failed = patience.bear::<()>(Err(anyhow!("no memory")), now);
            assert!(matches!(failed, Ok(None)), "minute {minute}");
            let done = patience.bear(Ok(7), now + Duration::from_secs(1));
            assert!(matches!(done, Ok(Some(7))));
        }
    }
}
