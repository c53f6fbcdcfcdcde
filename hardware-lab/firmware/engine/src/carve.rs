//! Takes typed arrays from the tail of a byte buffer: the engine's tables live in the same arena as its tensors, and
//! nothing is allocated after loading.

use crate::Error;
use core::mem::{align_of, size_of, take};

/// What is left of the buffer.
pub struct Carver<'a> {
    rest: &'a mut [u8],
    whole: usize,
}

impl<'a> Carver<'a> {
    /// Starts with the whole buffer.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Carver { whole: buffer.len(), rest: buffer }
    }

    /// Bytes not yet taken.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Bytes of the whole buffer.
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// Takes `n` elements, each set to `init`.
    pub fn array<T: Copy>(&mut self, n: usize, init: T) -> Result<&'a mut [T], Error> {
        let have = self.whole;
        let used = self.whole - self.rest.len();
        let too_small = |need: usize| Error::ArenaTooSmall { need: used.saturating_add(need), have };
        let size = n.checked_mul(size_of::<T>()).ok_or(too_small(usize::MAX))?;
        let base = self.rest.as_ptr() as usize;
        let start = (base + self.rest.len()).checked_sub(size).map(|end| end & !(align_of::<T>() - 1));
        let start = start.filter(|s| *s >= base).ok_or(too_small(size + align_of::<T>()))? - base;
        let (head, tail) = take(&mut self.rest).split_at_mut(start);
        self.rest = head;
        let first = tail.as_mut_ptr().cast::<T>();
        for i in 0..n {
            // SAFETY: `tail` has at least `n * size_of::<T>()` bytes from an address aligned for `T`.
            unsafe { first.add(i).write(init) };
        }
        // SAFETY: as above; every element was just written, and `tail` is borrowed for 'a and handed to nobody else.
        Ok(unsafe { core::slice::from_raw_parts_mut(first, n) })
    }

    /// Lends the rest without taking it: for tables that only planning needs.
    pub fn scratch(&mut self) -> Carver<'_> {
        Carver { whole: self.whole, rest: &mut *self.rest }
    }

    /// Ends carving and returns the head of the buffer.
    pub fn finish(self) -> &'a mut [u8] {
        self.rest
    }
}
