//! The hashes of the format: XXH32 and XXH64, seed 0 (format 1).

use xxhash_rust::xxh64::Xxh64;

/// XXH32 of some bytes.
pub(crate) fn xxh32(bytes: &[u8]) -> u32 {
    xxhash_rust::xxh32::xxh32(bytes, 0)
}

/// XXH64 of some bytes.
#[must_use]
pub fn xxh64(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, 0)
}

/// XXH64 of bytes that arrive in pieces.
#[derive(Clone)]
pub(crate) struct Hasher(Xxh64);

impl Default for Hasher {
    fn default() -> Self {
        Self(Xxh64::new(0))
    }
}

impl Hasher {
    /// Take the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes so far.
    pub(crate) fn digest(&self) -> u64 {
        self.0.digest()
    }
}
