//! Stream LZ4 (format 6.2): as stream raw, each row an LZ4 block; the history runs through the whole file.

use tapeline_lz4::{Effort, StreamEncoder};

/// Append a row; returns the bytes it took.
#[inline]
pub(super) fn append(
    row: &[u8],
    linked: &mut StreamEncoder,
    effort: Effort,
    out: &mut Vec<u8>,
) -> usize {
    if row.is_empty() {
        return super::stream::append(row, out);
    }
    let mut block = Vec::new();
    // Rows are far below the library's limit, so it does not refuse.
    let _ = linked.compress(row, effort, &mut block);
    super::stream::append(&block, out)
}
