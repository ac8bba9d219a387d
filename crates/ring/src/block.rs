//! The owned handle of one block of the ring's memory.

use std::{ptr::NonNull, slice, sync::Arc};

use tapeline_sys::memory::Region;

/// A block that its holder alone may read and write, with a tag that travels with the bytes.
///
/// Held as long as is useful (by assembly, for example); it goes back by
/// [`Consumer::recycle`](crate::Consumer::recycle). A block that is dropped instead is missing from the ring from
/// then on, its memory stays valid until the last handle is gone.
pub struct Block<T> {
    /// What the two sides tell each other about the bytes. Kept when the block is recycled, so that buffers in it
    /// are used again; whoever fills the block resets it.
    pub tag: T,
    start: NonNull<u8>,
    block_bytes: usize,
    filled: usize,
    /// What `publish` added to the bytes in flight, to be subtracted by `recycle`.
    pub(crate) published: usize,
    memory: Arc<Region>,
}

// SAFETY: the block is the only handle to its range of the region (they are made once, disjoint, and cannot be
// cloned), and the region is kept alive by `memory`.
unsafe impl<T: Send> Send for Block<T> {}
// SAFETY: `&Block` gives `&[u8]` and `&T` only.
unsafe impl<T: Sync> Sync for Block<T> {}

impl<T> Block<T> {
    /// Cuts `memory` into blocks of `block_bytes`, each handed out once.
    pub(crate) fn cut(
        memory: &Arc<Region>,
        block_bytes: usize,
        blocks: usize,
        mut tag: impl FnMut() -> T,
    ) -> Vec<Self> {
        debug_assert!(
            block_bytes
                .checked_mul(blocks)
                .is_some_and(|bytes| bytes <= memory.bytes())
        );
        (0..blocks)
            .map(|index| Self {
                tag: tag(),
                // SAFETY: the offset is inside the region: the caller made it for `blocks * block_bytes`.
                start: unsafe { memory.start().add(index * block_bytes) },
                block_bytes,
                filled: 0,
                published: 0,
                memory: Arc::clone(memory),
            })
            .collect()
    }

    pub(crate) fn belongs_to(&self, memory: &Arc<Region>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    /// All bytes of the block. What no one wrote yet is zero, or left from the block's last round.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range is inside the region, initialised (zeroed when it was made), and ours while `&self` lives.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.block_bytes) }
    }

    /// All bytes of the block, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.block_bytes) }
    }

    /// The bytes in use, from the start: what [`set_filled`](Self::set_filled) said last, 0 in a claimed block.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Says how many bytes, from the start, are in use. More than the block has is taken as all of it.
    pub fn set_filled(&mut self, bytes: usize) {
        self.filled = bytes.min(self.block_bytes);
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block")
            .field("tag", &self.tag)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}
