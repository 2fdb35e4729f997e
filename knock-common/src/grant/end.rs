//! Ending a grant before its time.

use super::{GrantKey, give::Terms, table};
use crate::{Address, Env};

/// Ends the grant that this user has at a gate for `source`, if there is one. Flows that began under it go on if the gate
/// keeps them.
#[inline(always)]
pub fn by_user<E: Env, A: Address>(env: &E, source: &A, terms: &Terms, now: u64) {
    let Some(rules) = env.gate(terms.gate) else {
        return;
    };
    let key = GrantKey::new(*source, super::length::<A>(rules), terms.gate);
    if let Some(found) = table::find(env, &key)
        && found.earned.user() == terms.user
        && found.until > now
    {
        table::end(env, found, now);
    }
}
