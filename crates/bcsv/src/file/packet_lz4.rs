//! Packet LZ4 streaming (format 6.5): as packet raw, each row an LZ4 block; the history starts afresh in every packet.

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
        return super::packet::append(row, out);
    }
    let mut block = Vec::new();
    // Rows are far below the library's limit, so it does not refuse.
    let _ = linked.compress(row, effort, &mut block);
    super::packet::append(&block, out)
}
