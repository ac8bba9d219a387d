//! Flat001: every value of every row (format 8.1). No state.
//!
//! ```text
//! [ bools, packed ] [ numbers, layout order ] [ u16 length per string ] [ string bytes ]
//! ```

use super::{Row, RowStrings, Span, bad};
use crate::error::Result;
use crate::schema::{Layout, Slot};
use crate::view::{ColumnView, scatter_bools};

/// Append a row.
pub(super) fn encode(layout: &Layout, image: &[u8], strings: &impl RowStrings, out: &mut Vec<u8>) {
    out.extend_from_slice(image.get(..layout.bool_bytes()).unwrap_or_default());
    // Runs of columns that lie together in both orders are copied at once; in a wide file that is most of them.
    let (mut from, mut to) = (0, 0);
    for slot in &layout.slots {
        if let Slot::Number { at, width, .. } = *slot {
            if at != to {
                out.extend_from_slice(image.get(from..to).unwrap_or_default());
                from = at;
            }
            to = at + width;
        }
    }
    out.extend_from_slice(image.get(from..to).unwrap_or_default());
    let mut length_at = out.len();
    out.resize(length_at + 2 * layout.strings, 0);
    for i in 0..layout.strings {
        let string = strings.string_in_place(i);
        let len = u16::try_from(string.1).unwrap_or(u16::MAX);
        if let Some(to) = out
            .get_mut(length_at..)
            .and_then(|rest| rest.first_chunk_mut())
        {
            *to = len.to_le_bytes();
        }
        length_at += 2;
        append_string(string, out);
    }
}

/// Append the first `len` bytes. Short strings are copied 16 bytes at a time if there is enough behind them, and cut to
/// length: a copy of a fixed size is an instruction, one of any size a call.
#[inline]
fn append_string((bytes, len): (&[u8], usize), out: &mut Vec<u8>) {
    if len > SHORT_BYTES || bytes.len() < len.next_multiple_of(16) {
        out.extend_from_slice(bytes.get(..len).unwrap_or_default());
        return;
    }
    let end = out.len() + len;
    for piece in bytes.as_chunks::<16>().0.iter().take(len.div_ceil(16)) {
        out.extend_from_slice(piece);
    }
    out.truncate(end);
}

/// Longest string that is copied in pieces.
const SHORT_BYTES: usize = 64;

/// Decode a row into its image and strings.
pub(super) fn decode(
    layout: &Layout,
    row: &Row<'_>,
    image: &mut [u8],
    strings: &mut [Span],
) -> Result<()> {
    let bytes = row.plain.get(row.start..row.end).unwrap_or_default();
    if bytes.len() < layout.flat_fixed_bytes() {
        return Err(bad("it is too short"));
    }
    let (bools, rest) = bytes.split_at(layout.bool_bytes());
    layout.copy_bools(bools, image);
    for slot in &layout.slots {
        if let Slot::Number { at, width, flat_at } = *slot
            && let (Some(to), Some(from)) = (
                image.get_mut(at..at + width),
                rest.get(flat_at..flat_at + width),
            )
        {
            to.copy_from_slice(from);
        }
    }
    let lengths_at = layout.bool_bytes() + layout.scalar_bytes;
    let mut at = row.start + layout.flat_fixed_bytes();
    for (i, span) in strings.iter_mut().enumerate() {
        let len = (row.load(lengths_at + 2 * i) & 0xFFFF) as usize;
        *span = Span::new(at, len);
        at += len;
    }
    if at == row.end {
        Ok(())
    } else {
        Err(bad("its length contradicts its content"))
    }
}

/// Write `rows` rows without strings from columns, from row `start` on, straight into their places: `stride` bytes apart
/// in `region`, each `at` bytes into its place.
pub(crate) fn scatter(
    layout: &Layout,
    columns: &[ColumnView<'_>],
    start: usize,
    rows: usize,
    region: &mut [u8],
    stride: usize,
    at: usize,
) {
    let scalars_at = at + layout.bool_bytes();
    for (slot, view) in layout.slots.iter().zip(columns) {
        if let Slot::Number { flat_at, .. } = *slot {
            macro_rules! scatter {
                ($values:expr) => {
                    for (row, value) in region
                        .chunks_exact_mut(stride)
                        .zip($values.get(start..).unwrap_or_default())
                    {
                        if let Some(to) = row
                            .get_mut(scalars_at + flat_at..)
                            .and_then(|rest| rest.first_chunk_mut())
                        {
                            *to = value.to_le_bytes();
                        }
                    }
                };
            }
            match view {
                ColumnView::UInt8(values) => scatter!(values),
                ColumnView::UInt16(values) => scatter!(values),
                ColumnView::UInt32(values) => scatter!(values),
                ColumnView::UInt64(values) => scatter!(values),
                ColumnView::Int8(values) => scatter!(values),
                ColumnView::Int16(values) => scatter!(values),
                ColumnView::Int32(values) => scatter!(values),
                ColumnView::Int64(values) => scatter!(values),
                ColumnView::Float(values) => scatter!(values),
                ColumnView::Double(values) => scatter!(values),
                _ => {}
            }
        }
    }
    scatter_bools(layout, columns, start, rows, |row, byte, bits| {
        if let Some(to) = region.get_mut(row * stride + at + byte) {
            *to = bits;
        }
    });
}
