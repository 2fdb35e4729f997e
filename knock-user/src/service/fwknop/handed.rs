//! What a thread has accepted, handed on to the next one: where it could not be written down, the file does not have it, and
//! whoever has recorded it could open with it again.

use std::{
    mem,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{fwknop::seen::Seen, service::packets::Queue};

/// Packets that were accepted, between two threads; `None`: there was no thread yet, or one has them.
pub type Remembered = Arc<Mutex<Option<Seen>>>;

/// The packets that were accepted, of the thread that has them. Once it is dropped, the next one can take them.
pub struct Handed {
    pub seen: Seen,
    to: Remembered,
}

impl Handed {
    /// Takes what the thread before has left. The first one begins with what an earlier service has left at `path`, and hands it
    /// `on`: that service may not have told the fleet. `now`: Unix time.
    pub fn take(from: Remembered, path: PathBuf, now: u64, on: &Queue) -> Self {
        let left = from.lock().unwrap_or_else(PoisonError::into_inner).take();
        let seen = left.unwrap_or_else(|| {
            let seen = Seen::load(path, now);
            let mut live: Vec<_> = seen.fingerprints(now).collect();
            // Where there are too many, the oldest are left out.
            live.sort_unstable_by_key(|packet| packet.time);
            for packet in live {
                on.put(packet);
            }
            seen
        });
        Self { seen, to: from }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        *to = Some(mem::take(&mut self.seen));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fwknop::seen::KEPT;

    /// As on a full disk.
    #[test]
    fn what_could_not_be_written_down_is_known_to_the_next_thread() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("seen.fwknop");
        // It is written beside the file, which is in the way of that.
        fs::create_dir(path.with_extension("fwknop-new")).expect("writable");
        let remembered = Remembered::default();
        let packet = [b'a'; 100];
        let on = Queue::default();
        let take = || Handed::take(Arc::clone(&remembered), path.clone(), 1000, &on);
        let mut first = take();
        assert!(first.seen.add(&packet, 1000, 1000));
        drop(first);
        assert!(take().seen.has(&packet));
        assert!(!Seen::load(path.clone(), 1000).has(&packet));
        assert!(take().seen.has(&packet), "and to the one after it");
        assert_eq!(on.take(), None, "it was not left by an earlier service");
    }

    #[test]
    fn what_an_earlier_service_has_left_is_handed_on_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("seen.fwknop");
        let packet = [b'a'; 100];
        let mut earlier = Seen::load(path.clone(), 1000);
        assert!(earlier.add(&packet, 1000, 1000));
        let (remembered, on) = (Remembered::default(), Queue::default());
        for _ in 0..2 {
            let handed = Handed::take(Arc::clone(&remembered), path.clone(), 1000, &on);
            assert!(handed.seen.has(&packet));
        }
        assert_eq!(on.take(), earlier.fingerprint(&packet));
        assert_eq!(on.take(), None);
        let later = Handed::take(Remembered::default(), path, 1001 + KEPT, &on);
        assert!(later.seen.has(&packet));
        assert_eq!(on.take(), None, "nobody accepts a copy any more");
    }
}
