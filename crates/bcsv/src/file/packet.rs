//! Packet raw (format 6.4): header, `VLE(len) row` for each row, terminator, XXH64 of all after the header.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_ROW_BYTES;
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

/// How a walk over rows ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// At the terminator; the position is behind it.
    Terminator,
    /// As many rows as asked for.
    Enough,
    /// The bytes end before the next row does; the position is at its length prefix.
    Cut,
}

/// Collect the ranges of up to `max_rows` rows, from `at` on. A length of 0 gives an empty range.
pub(crate) fn walk(
    bytes: &[u8],
    at: &mut usize,
    max_rows: usize,
    rows: &mut Vec<(u32, u32)>,
) -> Result<Walk> {
    for _ in 0..max_rows {
        let Some(length) = bytes.get(*at..).and_then(vle::decode) else {
            return Ok(Walk::Cut);
        };
        if length.value > MAX_ROW_BYTES as u64 {
            if length.value == vle::TERMINATOR {
                *at += length.bytes;
                return Ok(Walk::Terminator);
            }
            return Err(Error::new(ErrorKind::Framing {
                what: "an impossible row length",
            }));
        }
        let start = *at + length.bytes;
        let end =
            usize::try_from(length.value).map_or(usize::MAX, |bytes| start.saturating_add(bytes));
        if end > bytes.len() {
            return Ok(Walk::Cut);
        }
        // Packets in memory are below 4 GiB (limits).
        rows.push((
            u32::try_from(start).unwrap_or(u32::MAX),
            u32::try_from(end).unwrap_or(u32::MAX),
        ));
        *at = end;
    }
    Ok(Walk::Enough)
}
