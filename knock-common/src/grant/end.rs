//! Ending a grant before its time.

use super::{GrantKey, give::Terms, table};
use crate::{Address, Env, set::NO_SLOT};

/// The most slots that a key can have: one is usual, and a command that was stopped while it gave the same grant may have left
/// a second.
const SLOTS: usize = 2;

/// Ends the grant that this user has at a gate for `source`, if there is one. Flows that began under it go on if the gate
/// keeps them.
#[inline(always)]
pub fn by_user<E: Env, A: Address>(env: &E, source: &A, terms: &Terms, now: u64) {
    let Some(rules) = env.gate(terms.gate) else {
        return;
    };
    let key = GrantKey::new(*source, super::length::<A>(rules), terms.gate);
    let mut seen = NO_SLOT;
    for _ in 0..SLOTS {
        let Some(found) = table::find_except(env, &key, seen) else {
            break;
        };
        if found.earned.user() == terms.user && found.until > now {
            table::end(env, found, now);
        }
        seen = found.slot;
    }
}
