//! SSE4.2 path.

use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};

#[inline]
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("sse4.2")
}

/// Must only be called when [`available`] says so.
#[inline]
pub(crate) fn update(crc: u32, bytes: &[u8]) -> u32 {
    debug_assert!(available());
    // SAFETY: the only caller has asked `available` first.
    unsafe { update_sse42(crc, bytes) }
}

#[target_feature(enable = "sse4.2")]
fn update_sse42(crc: u32, bytes: &[u8]) -> u32 {
    let mut c = u64::from(!crc);
    let (words, rest) = bytes.as_chunks::<8>();
    for w in words {
        c = _mm_crc32_u64(c, u64::from_le_bytes(*w));
    }
    #[allow(clippy::cast_possible_truncation)] // the instruction leaves the upper half zero
    let mut c = c as u32;
    for &b in rest {
        c = _mm_crc32_u8(c, b);
    }
    !c
}
