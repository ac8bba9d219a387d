//! XXH3-128 of a file while it is written, in the canonical form of the manifest.

use tapeline_crc::{STRIPE_BYTES, Xxh3Stripes};
use twox_hash::XxHash3_128;

/// Up to here the algorithm is another one, which wants the whole input.
const SHORT: usize = 240;

/// A running digest.
pub(crate) struct Digest {
    stripes: Xxh3Stripes,
    bytes: u64,
    /// The first bytes, for an input that ends with them.
    short: Vec<u8>,
    /// The last stripe that was mixed in, and what came after it: at least a byte as soon as there is any, because the
    /// last stripe is not mixed in before the end.
    before: [u8; STRIPE_BYTES],
    rest: [u8; STRIPE_BYTES],
    rest_bytes: usize,
}

impl Digest {
    pub(crate) fn new() -> Self {
        Self {
            stripes: Xxh3Stripes::default(),
            bytes: 0,
            short: Vec::with_capacity(SHORT),
            before: [0; STRIPE_BYTES],
            rest: [0; STRIPE_BYTES],
            rest_bytes: 0,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let missing = SHORT - self.short.len();
        self.short
            .extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
        self.bytes += bytes.len() as u64;
        let Some((head, more)) = bytes.split_at_checked(STRIPE_BYTES - self.rest_bytes) else {
            return self.keep(bytes);
        };
        self.keep(head);
        if more.is_empty() {
            return;
        }
        self.stripes.add(&[self.rest]);
        self.before = self.rest;
        self.rest_bytes = 0;
        let (stripes, rest) = more.as_chunks::<STRIPE_BYTES>();
        // The last one stays, even if it is whole.
        let (stripes, rest) = match stripes.split_last() {
            Some((last, stripes)) if rest.is_empty() => (stripes, last.as_slice()),
            _ => (stripes, rest),
        };
        self.stripes.add(stripes);
        if let Some(last) = stripes.last() {
            self.before = *last;
        }
        self.keep(rest);
    }

    /// Append to `rest`, which has room for it.
    fn keep(&mut self, bytes: &[u8]) {
        let end = self.rest_bytes + bytes.len();
        if let Some(room) = self.rest.get_mut(self.rest_bytes..end) {
            room.copy_from_slice(bytes);
            self.rest_bytes = end;
        }
    }

    /// 32 hexadecimal digits, most significant first.
    pub(crate) fn hex(&self) -> String {
        let digest = if self.bytes <= SHORT as u64 {
            XxHash3_128::oneshot(&self.short)
        } else {
            let mut last = self.before;
            last.rotate_left(self.rest_bytes);
            let from = STRIPE_BYTES - self.rest_bytes;
            if let (Some(end), Some(rest)) =
                (last.get_mut(from..), self.rest.get(..self.rest_bytes))
            {
                end.copy_from_slice(rest);
            }
            self.stripes.clone().finish_128(&last, self.bytes)
        };
        format!("{digest:032x}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tapeline_testkit::Random;

    fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut digest = Digest::new();
        pieces.into_iter().for_each(|piece| digest.update(piece));
        digest.hex()
    }

    #[test]
    fn digest_of_nothing_is_the_published_one() {
        // XXH3_128bits of nothing, from the algorithm's published test values.
        assert_eq!(Digest::new().hex(), "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn digest_is_that_of_the_reference_at_every_length_and_in_any_pieces() {
        let mut random = Random::new(3);
        let bytes = random.bytes(100_000);
        let near = |at: usize| at - 2..at + 3;
        let lengths = (0..700)
            .chain(near(1024))
            .chain(near(2048))
            .chain(near(64 << 10));
        for length in lengths.chain([100_000]) {
            let bytes = &bytes[..length];
            let expected = format!("{:032x}", XxHash3_128::oneshot(bytes));
            assert_eq!(digest([bytes]), expected, "{length} bytes");
            for size in [1, 63, 64, 65, 777, 4096] {
                assert_eq!(digest(bytes.chunks(size)), expected, "{length} by {size}");
            }
            let (mut pieces, mut left) = (Vec::new(), bytes);
            while !left.is_empty() {
                let (piece, rest) = left.split_at(random.index(left.len().min(300)) + 1);
                pieces.push(piece);
                left = rest;
            }
            assert_eq!(digest(pieces), expected, "{length} in any pieces");
        }
    }
}
