//! Large buffers that outlive their reader or writer, so that the next one does not ask the system for fresh pages.
//!
//! A fresh page costs a fault of half a microsecond, which is more than filling it. Every read of a table would need
//! some thousands of them for buffers that it throws away; here they stay, up to [`KEPT_BYTES`] for the process.

use std::sync::{Mutex, PoisonError};

/// Bytes kept for the process: packets of the default size in both forms, for two threads.
const KEPT_BYTES: usize = 40 << 20;
/// Smaller buffers are left to the allocator, which keeps them itself.
const LEAST_BYTES: usize = 256 << 10;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer with room for `bytes`, with any content, if one is kept that is not far too large.
pub(crate) fn find(bytes: usize) -> Option<Vec<u8>> {
    if bytes < LEAST_BYTES {
        return None;
    }
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fitting = spare.iter().enumerate();
    let fitting = fitting.filter(|(_, buffer)| (bytes..=4 * bytes).contains(&buffer.capacity()));
    let (place, _) = fitting.min_by_key(|(_, buffer)| buffer.capacity())?;
    Some(spare.swap_remove(place))
}

/// A buffer with room for `bytes`, with any content; a new and empty one if none is kept.
pub(crate) fn take(bytes: usize) -> Vec<u8> {
    find(bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
}

/// Give a buffer back, of any content.
pub(crate) fn give(buffer: Vec<u8>) {
    if !(LEAST_BYTES..=KEPT_BYTES / 2).contains(&buffer.capacity()) {
        return;
    }
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept: usize = spare.iter().map(Vec::capacity).sum();
    if kept + buffer.capacity() <= KEPT_BYTES {
        spare.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_fits() {
        for _ in 0..100 {
            give(vec![1; 3 << 20]);
        }
        let kept: usize = SPARE
            .lock()
            .map_or(0, |spare| spare.iter().map(Vec::capacity).sum::<usize>());
        assert!(kept <= KEPT_BYTES, "{kept}");
        assert!(take(2 << 20).capacity() >= 2 << 20);
        assert_eq!(
            take(KEPT_BYTES).len(),
            0,
            "a buffer of that size is never kept"
        );
    }
}
