//! Whether another ICMP error may be sent.

use super::{
    ReplySettings,
    rate_limit::{GlobalIcmpBucket, IcmpBucket},
};
use crate::{Env, HashTable as _, keys::SourceKey};

/// How often another CPU may come first at the bucket of all destinations.
const TRIES: u32 = 4;

/// Takes one ICMP error to `to` from this host's buckets. Returns its identification, or `None` where it may not be sent.
#[inline(always)]
pub fn permit<E: Env>(env: &E, to: &SourceKey) -> Option<u16> {
    let settings = env.reply_settings()?;
    let (interval, limit) = if to.family == 4 {
        (settings.interval4, 1)
    } else {
        (settings.interval6, 2)
    };
    let limited = settings.limited & limit != 0;
    let now = env.now();
    // As Linux does, the bucket of all is looked at first, so that a flood from many addresses makes no entries.
    if limited {
        GlobalIcmpBucket(*env.icmp_global()?).filled(now, settings)?;
    }
    let random = env.random();
    let buckets = env.icmp_buckets();
    if buckets.find(to).is_none() {
        buckets.insert(to, &IcmpBucket::new(now, interval, random));
    }
    // Where the entry has just been given to another destination, or is used on another CPU too, one error more or less
    // is sent.
    let bucket = buckets.find(to)?;
    let before = bucket.since;
    if limited && !bucket.take(now, interval) {
        return None;
    }
    bucket.since = now;
    if limited && !take(env, settings, now) {
        return None;
    }
    Some(bucket.identify(before, now, settings.tick, random))
}

/// Takes an error from the bucket of all destinations; false where none is left.
#[inline(always)]
fn take<E: Env>(env: &E, settings: &ReplySettings, now: u64) -> bool {
    let Some(global) = env.icmp_global() else {
        return false;
    };
    for _ in 0..TRIES {
        let current = *global;
        let Some(filled) = GlobalIcmpBucket(current).filled(now, settings) else {
            return false;
        };
        if env.compare_exchange(global, current, filled.less(env.random()).0) {
            return true;
        }
    }
    false
}
