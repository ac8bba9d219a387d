//! CRC32C (Castagnoli, reflected polynomial 0x82F63B78): one-shot, streaming, combining and range queries.
//!
//! All functions take and give the finished checksum (what stands on the wire), never the raw
//! register; `update(0, bytes)` equals `crc32c(bytes)`.

#![allow(unsafe_code)]

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Returns the CRC32C of `bytes`.
#[must_use]
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    update(0, bytes)
}

/// Returns the CRC32C of what `crc` covers followed by `bytes`.
#[must_use]
#[inline]
pub fn update(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        return x86::update(crc, bytes);
    }
    portable::update(crc, bytes)
}
