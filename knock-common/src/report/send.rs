//! Sending a report, or leaving it out and counting it.

use super::subject;
use crate::{Env, HashTable as _, event::Event, keys::SourceKey};

/// Returns whether another report of this [class](super::class) may be sent now; counts it as left out otherwise.
///
/// Called before the report is built, since under a flood most are left out.
#[inline(always)]
pub fn wants<E: Env>(env: &E, class: u32) -> bool {
    env.report_budget(class)
        .is_some_and(|budget| budget.wants(class, env.second()))
}

/// Sends a report of this class, for which [`wants`] has returned true.
#[inline(never)]
pub fn send<E: Env>(env: &E, class: u32, event: &Event) {
    let Some(budget) = env.report_budget(class) else {
        return;
    };
    if let Some(pause) = budget.samples(class)
        && is_repeated(env, &subject(event, class), event.time, pause)
    {
        budget.sampled_out(class);
        return;
    }
    budget.count(env.send(event));
}

/// Returns whether something with this subject has been reported within the last `pause`, ns. If not, it is now.
#[inline(always)]
fn is_repeated<E: Env>(env: &E, subject: &SourceKey, now: u64, pause: u64) -> bool {
    if let Some(last) = env.reported().find(subject) {
        // Where the entry has just been given to another subject, that one's next report comes later than it could.
        if now.wrapping_sub(*last) < pause {
            return true;
        }
        *last = now;
        return false;
    }
    // Where it cannot be remembered, it is reported again sooner.
    env.reported().insert(subject, &now);
    false
}
