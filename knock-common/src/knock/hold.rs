//! One CPU at a time reads and changes what is known of a source.

use core::ops::{Deref, DerefMut};

use super::progress::Progress;
use crate::{Address, Env};

impl Progress {
    /// Has this CPU alone read and change what is known of `source`, until it is let go. `None`: another
    /// CPU does, or it has been given to another source.
    #[inline(always)]
    pub fn hold<'e, E: Env, A: Address>(
        &'e mut self,
        env: &'e E,
        source: &A,
    ) -> Option<Held<'e, E>> {
        let tag = Self::tag_of(source);
        if !env.compare_exchange(&mut self.tag, tag, Self::HELD) {
            return None;
        }
        let whole = self.address == source.padded();
        let held = Held {
            env,
            progress: self,
            tag,
        };
        whole.then_some(held)
    }

    /// Takes the place from whoever had it. `None`: another CPU is changing it.
    #[inline(always)]
    pub fn take<'e, E: Env>(&'e mut self, env: &'e E) -> Option<Held<'e, E>> {
        let tag = self.tag;
        if tag == Self::HELD || !env.compare_exchange(&mut self.tag, tag, Self::HELD) {
            return None;
        }
        Some(Held {
            env,
            progress: self,
            // Nobody's, until it is said whose it is.
            tag: 0,
        })
    }
}

/// A place that this CPU alone reads and changes, until this value goes.
///
/// It is held by its tag, which is taken and given back by compare-and-exchange. These are full barriers on
/// every machine (the kernel's BPF compilers see to that), where plain loads and stores may be seen in any
/// order: so whoever holds a place sees all that was written by those who held it before. Nobody waits for a
/// place: a knock that finds it held is lost, as it might have been on the wire.
pub struct Held<'e, E: Env> {
    env: &'e E,
    progress: &'e mut Progress,
    /// What it will have when it is let go.
    tag: u64,
}

impl<E: Env> Held<'_, E> {
    /// It will belong to the source with this tag; 0: to nobody.
    #[inline(always)]
    pub const fn give_to(&mut self, tag: u64) {
        self.tag = tag;
    }

    #[inline(always)]
    pub const fn tag(&self) -> u64 {
        self.tag
    }

    /// What the place's tag is meanwhile.
    #[cfg(test)]
    pub const fn progress_tag(&self) -> u64 {
        self.progress.tag
    }
}

impl<E: Env> Deref for Held<'_, E> {
    type Target = Progress;

    #[inline(always)]
    fn deref(&self) -> &Progress {
        self.progress
    }
}

impl<E: Env> DerefMut for Held<'_, E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Progress {
        self.progress
    }
}

impl<E: Env> Drop for Held<'_, E> {
    #[inline(always)]
    fn drop(&mut self) {
        let Self { env, progress, tag } = self;
        env.compare_exchange(&mut progress.tag, Progress::HELD, *tag);
    }
}
