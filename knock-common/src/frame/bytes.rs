//! A frame in ordinary memory.

use bytemuck::Pod;

use super::{Frame, FrameMut, extension};

impl Frame for [u8] {
    #[inline]
    fn header<T: Pod>(&self, at: usize) -> Option<&T> {
        let bytes = self.get(at..)?.get(..size_of::<T>())?;
        bytemuck::try_from_bytes(bytes).ok()
    }

    #[inline]
    fn copy<const N: usize>(&self, at: usize, to: &mut [u64; N]) -> bool {
        let bytes = bytemuck::bytes_of_mut(to);
        let found = self.get(at..).and_then(|rest| rest.get(..bytes.len()));
        found.map(|found| bytes.copy_from_slice(found)).is_some()
    }

    #[inline]
    fn length(&self) -> usize {
        self.len()
    }

    fn chain(&self, next: u8, at: usize, end: usize) -> u32 {
        extension::chain(self, next, at, end).pack()
    }
}

impl FrameMut for [u8] {
    #[inline]
    fn put<T: Pod>(&mut self, at: usize, value: T) -> Option<()> {
        let room = self.get_mut(at..at + size_of::<T>())?;
        room.copy_from_slice(bytemuck::bytes_of(&value));
        Some(())
    }
}
