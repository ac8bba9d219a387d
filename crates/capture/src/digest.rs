//! XXH3-128 of a file while it is written, in the canonical form of the manifest.

use twox_hash::xxhash3_128::Hasher;

/// A running digest.
pub(crate) struct Digest(Box<Hasher>);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(Box::new(Hasher::new()))
    }

    #[inline]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// 32 hexadecimal digits, most significant first.
    pub(crate) fn hex(&self) -> String {
        format!("{:032x}", self.0.finish_128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_that_of_the_reference() {
        // XXH3_128bits of nothing, from the algorithm's published test values.
        assert_eq!(Digest::new().hex(), "99aa06d3014798d86001c324468d497f");
        let mut pieces = Digest::new();
        let mut whole = Digest::new();
        let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        whole.update(&bytes);
        bytes.chunks(777).for_each(|c| pieces.update(c));
        assert_eq!(pieces.hex(), whole.hex());
    }
}
