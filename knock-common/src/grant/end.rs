//! Ending a grant before its time.

use super::{GrantKey, find::is_still_of, give::Terms};
use crate::{Env, Family, HashTable as _};

/// Ends the grant that this user has at a gate for `source`, if there is one. Flows that began under it go on if the gate
/// keeps them.
#[inline(always)]
pub fn by_user<E: Env, A: Family>(env: &E, source: &A, terms: &Terms, now: u64) {
    let Some(rules) = env.gate(terms.gate) else {
        return;
    };
    let key = GrantKey::new(*source, super::length::<A>(rules), terms.gate);
    let Some(grant) = A::grants(env).find(&key) else {
        return;
    };
    let until = grant.until;
    // A renewal on another CPU and this cannot both succeed. Its slot is reused when the ring comes to it.
    if grant.user == terms.user
        && until > now
        && is_still_of(env, grant, &key, until)
        && env.compare_exchange(&mut grant.until, until, now)
    {
        grant.connections = 0;
    }
}
