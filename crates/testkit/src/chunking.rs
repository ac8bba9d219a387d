//! Streams cut into pieces in every way that has ever found a bug.

use crate::Random;

/// Calls `check` with the whole of `bytes` cut in several ways: whole, 64 KiB pieces, byte by
/// byte, and at random with pieces of 0 to 7, 0 to 100 and 0 to 5000 bytes (reliability goal S1).
pub fn every_chunking(bytes: &[u8], mut check: impl FnMut(&[&[u8]])) {
    check(&[bytes]);
    check(&bytes.chunks(1 << 16).collect::<Vec<_>>());
    check(&bytes.chunks(1).collect::<Vec<_>>());
    let mut random = Random::new(bytes.len() as u64);
    for largest in [7, 100, 5000] {
        check(&cut(bytes, largest, &mut random));
    }
}

/// Cuts `bytes` into pieces of 0 to `largest` bytes.
pub fn cut<'a>(bytes: &'a [u8], largest: usize, random: &mut Random) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(random.index(largest + 1).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}
