//! Stream raw (format 6.1): `VLE(len) row XXH32(row)`, or one zero byte for an empty row, to the end of the file.

use crate::checksum::xxh32;
use crate::vle;

/// Append a row; returns the bytes it took.
#[inline]
pub(super) fn append(row: &[u8], out: &mut Vec<u8>) -> usize {
    let start = out.len();
    vle::encode(row.len() as u64, out);
    if !row.is_empty() {
        out.extend_from_slice(row);
        out.extend_from_slice(&xxh32(row).to_le_bytes());
    }
    out.len() - start
}
