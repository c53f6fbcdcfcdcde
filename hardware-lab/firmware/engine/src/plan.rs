//! Where each tensor lies in the arena: buffers that are alive at the same time must not overlap, and the peak should be
//! small. Greedy by size, first fit; pure, so that property tests can hold it to its promise.

/// Offsets are multiples of this, so that any element type may lie anywhere.
pub const ALIGNMENT: u32 = 16;

/// A piece of the arena and the operators during which it must stay intact (both ends included).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Bytes; the planner rounds up.
    pub size: u32,
    /// First operator that touches it.
    pub first: u32,
    /// Last operator that touches it.
    pub last: u32,
    /// Set by [`plan`].
    pub offset: u32,
    /// Free for the caller; survives the planner's sorting.
    pub owner: u32,
}

impl Buffer {
    fn end(&self) -> u32 {
        self.offset + rounded(self.size)
    }

    fn lives_with(&self, other: &Buffer) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

fn rounded(size: u32) -> u32 {
    size.div_ceil(ALIGNMENT) * ALIGNMENT
}

/// Sets every offset and returns the bytes needed, or none if they exceed 2 GiB. Reorders the slice.
pub fn plan(buffers: &mut [Buffer]) -> Option<u32> {
    let total: u64 = buffers.iter().map(|b| u64::from(b.size) + u64::from(ALIGNMENT)).sum();
    if total > i32::MAX as u64 {
        return None;
    }
    // Ties by lifetime and owner make the plan independent of the order that the tensors came in.
    buffers.sort_unstable_by_key(|b| (core::cmp::Reverse(b.size), b.first, b.last, b.owner));
    let mut peak = 0;
    for i in 0..buffers.len() {
        let (placed, rest) = buffers.split_at_mut(i);
        let Some(new) = rest.first_mut() else { break };
        new.offset = 0;
        while let Some(blocker) = placed
            .iter()
            .filter(|p| p.lives_with(new) && p.size > 0 && p.offset < new.end() && new.offset < p.end())
            .min_by_key(|p| p.end())
        {
            new.offset = blocker.end();
        }
        peak = peak.max(new.end());
    }
    Some(peak)
}
