//! The CRC extension of aarch64: one chain, 8 bytes per instruction.

use std::arch::aarch64::{__crc32cb, __crc32cd};

#[inline]
pub(crate) fn available() -> bool {
    std::arch::is_aarch64_feature_detected!("crc")
}

/// Moves the register on over `bytes`; only when [`available`] says so.
#[inline]
pub(crate) fn raw(register: u32, bytes: &[u8]) -> u32 {
    debug_assert!(available());
    // SAFETY: the only caller has asked `available` first.
    unsafe { chain(register, bytes) }
}

#[target_feature(enable = "crc")]
fn chain(register: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words.iter().fold(register, |crc, word| {
        __crc32cd(crc, u64::from_le_bytes(*word))
    });
    rest.iter().fold(crc, |crc, byte| __crc32cb(crc, *byte))
}
