//! Packets of fwknop's clients that were accepted, between the thread that lets these clients in and that of the fleet.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::fwknop::seen::Fingerprint;

/// Packets that wait on a way; where there are more, the oldest are left out.
const MOST: usize = 16_384;

/// The two ways. Clones share them.
#[derive(Clone, Default)]
pub struct Packets {
    /// What this host has accepted: the fleet is told of it.
    pub here: Queue,
    /// What other hosts have accepted: copies are refused.
    pub elsewhere: Queue,
}

/// One way. Nobody waits to put something on it, also where nobody takes it off.
#[derive(Clone, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<VecDeque<Fingerprint>>,
    added: Notify,
}

impl Queue {
    pub fn put(&self, packet: Fingerprint) {
        let mut waiting = self.waiting();
        if waiting.len() == MOST {
            waiting.pop_front();
        }
        waiting.push_back(packet);
        self.0.added.notify_one();
    }

    /// Takes the first, if there is one.
    pub fn take(&self) -> Option<Fingerprint> {
        self.waiting().pop_front()
    }

    /// Waits for the first. Nothing is lost where this is dropped before it is done.
    pub async fn next(&self) -> Fingerprint {
        loop {
            if let Some(packet) = self.take() {
                return packet;
            }
            self.0.added.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Fingerprint>> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fwknop::seen::END, runtime::runtime};

    fn packet(time: u64) -> Fingerprint {
        Fingerprint {
            hash: [0; 32],
            end: [b'A'; END],
            time,
        }
    }

    #[test]
    fn the_oldest_are_left_out_where_nobody_takes_them() {
        let queue = Queue::default();
        let last = MOST as u64 + 2;
        for time in 0..=last {
            queue.put(packet(time));
        }
        assert_eq!(queue.take(), Some(packet(3)));
        let rest = std::iter::from_fn(|| queue.take()).last();
        assert_eq!(rest, Some(packet(last)));
    }

    #[test]
    fn what_is_put_by_another_thread_is_taken() {
        let queue = Queue::default();
        let other = queue.clone();
        let putting =
            std::thread::spawn(move || (0..1000).for_each(|time| other.put(packet(time))));
        let runtime = runtime().expect("an event loop");
        for time in 0..1000 {
            assert_eq!(runtime.block_on(queue.next()), packet(time));
        }
        putting.join().expect("it has ended");
    }
}
