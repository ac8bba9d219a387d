//! Packet raw (format 6.4): header, `VLE(len) row` for each row, terminator, XXH64 of all after the header.

use crate::vle;

/// Append a row; returns the bytes it took.
#[inline]
pub(super) fn append(row: &[u8], out: &mut Vec<u8>) -> usize {
    let start = out.len();
    vle::encode(row.len() as u64, out);
    out.extend_from_slice(row);
    out.len() - start
}

/// Append the terminator.
pub(super) fn terminate(out: &mut Vec<u8>) {
    out.extend_from_slice(&vle::TERMINATOR_BYTES);
}
