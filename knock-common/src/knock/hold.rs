//! Exclusive access of one CPU to the progress of a source.

use core::ops::{Deref, DerefMut};

use super::progress::Progress;
use crate::{Address, Env};

impl Progress {
    /// Takes exclusive access to the progress of `source`. `None`: another CPU has it, or the slot has been given to
    /// another source.
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

    /// Takes exclusive access to the slot, whatever source has it. `None`: another CPU has access.
    #[inline(always)]
    pub fn take<'e, E: Env>(&'e mut self, env: &'e E) -> Option<Held<'e, E>> {
        let tag = self.tag;
        if tag == Self::HELD || !env.compare_exchange(&mut self.tag, tag, Self::HELD) {
            return None;
        }
        Some(Held {
            env,
            progress: self,
            // No source's, until `give_to` is called.
            tag: 0,
        })
    }
}

/// A slot that only this CPU reads and changes until this value is dropped.
///
/// Its tag marks it as held, and is changed by compare-and-exchange. That is a full barrier on
/// every architecture (the kernel's BPF compilers provide for that), while other CPUs may see plain loads and stores in any
/// order. So a holder sees everything that holders before it have written. No CPU waits for a
/// slot: a knock that finds it held is lost, as it might have been on the network.
pub struct Held<'e, E: Env> {
    env: &'e E,
    progress: &'e mut Progress,
    /// Its tag after it is dropped.
    tag: u64,
}

impl<E: Env> Held<'_, E> {
    /// Gives it to the source with this tag; 0: to none.
    #[inline(always)]
    pub const fn give_to(&mut self, tag: u64) {
        self.tag = tag;
    }

    #[inline(always)]
    pub const fn tag(&self) -> u64 {
        self.tag
    }

    /// Returns the slot's tag meanwhile.
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
