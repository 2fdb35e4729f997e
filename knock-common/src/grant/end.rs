//! Ending a grant before its time.

use super::{GrantKey, HOST, give::Terms, table};
use crate::{Address, Env, set::NO_SLOT};

/// The most slots that a key can have: one is usual, and a command that was stopped while it gave the same grant may have left
/// a second.
const SLOTS: usize = 2;

/// Ends the grant that this user has at a gate for `source`, whichever host of the fleet has given it. Returns whether there was
/// one. Flows that began under it go on if the gate keeps them.
#[inline(always)]
pub fn by_user<E: Env, A: Address>(env: &E, source: &A, terms: &Terms, now: u64) -> bool {
    let Some(rules) = env.gate(terms.gate) else {
        return false;
    };
    let key = GrantKey::new(*source, super::length::<A>(rules), terms.gate);
    let mut has_ended = false;
    let mut seen = NO_SLOT;
    for _ in 0..SLOTS {
        let Some(found) = table::find_except(env, &key, seen) else {
            break;
        };
        if found.earned.user() & !HOST == terms.user && found.until > now {
            table::end(env, found, now);
            has_ended = true;
        }
        seen = found.slot;
    }
    has_ended
}
