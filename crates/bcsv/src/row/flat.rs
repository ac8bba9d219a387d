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
    for i in 0..layout.strings {
        let len = u16::try_from(strings.string(i).len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_le_bytes());
    }
    for i in 0..layout.strings {
        out.extend_from_slice(strings.string(i));
    }
}

/// Rows with strings, one behind the other, made column by column: the strings of a column lie together in memory.
#[derive(Default)]
pub(crate) struct StringRows {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// Where the next string of each row goes.
    next: Vec<usize>,
    /// Pieces of an image that lie together in the row as well.
    runs: Vec<(usize, usize)>,
}

/// Most rows at a time: they stay in the second cache level.
pub(crate) const BLOCK_ROWS: usize = 64;
/// Longest string that is copied in pieces.
const SHORT_BYTES: usize = 64;

impl StringRows {
    /// Encode `rows` rows from `start` on. `image` gives the bools and numbers of a row.
    pub(crate) fn fill<'i>(
        &mut self,
        layout: &Layout,
        strings: &[ColumnView<'_>],
        (start, rows): (usize, usize),
        image: impl Fn(usize) -> &'i [u8],
    ) {
        let fixed = layout.flat_fixed_bytes();
        let (bytes, ends, next) = (&mut self.bytes, &mut self.ends, &mut self.next);
        ends.clear();
        ends.resize(rows, fixed);
        for column in strings {
            let mut end = ends.iter_mut();
            column.each_string(start, rows, |_, len| {
                if let Some(end) = end.next() {
                    *end += len;
                }
            });
        }
        next.clear();
        let mut at = 0;
        for end in &mut *ends {
            next.push(at + fixed);
            at += *end;
            *end = at;
        }
        if bytes.len() < at {
            bytes.resize(at, 0);
        }
        image_runs(layout, &mut self.runs);
        for (row, strings_at) in next.iter().enumerate() {
            let image = image(row);
            let mut at = strings_at - fixed;
            for (from, to) in &self.runs {
                let end = at + to - from;
                if let (Some(to), Some(from)) = (bytes.get_mut(at..end), image.get(*from..*to)) {
                    to.copy_from_slice(from);
                }
                at = end;
            }
        }
        for (i, column) in strings.iter().enumerate() {
            let length_at = layout.bool_bytes() + layout.scalar_bytes + 2 * i;
            let (mut places, mut row_at) = (next.iter_mut().zip(ends.iter()), 0);
            column.each_string(start, rows, |string, len| {
                let Some((at, end)) = places.next() else {
                    return;
                };
                let stored = u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
                if let Some(to) = bytes
                    .get_mut(row_at + length_at..)
                    .and_then(|rest| rest.first_chunk_mut())
                {
                    *to = stored;
                }
                if let Some(to) = bytes.get_mut(*at..*end) {
                    copy_string(string, len, to);
                }
                *at += len;
                row_at = *end;
            });
        }
    }

    /// The rows, without the lengths before them.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        let row = |(start, end): (&usize, &usize)| self.bytes.get(*start..*end).unwrap_or_default();
        starts.zip(&self.ends).map(row)
    }
}

/// Copy the first `len` bytes of `from` to the front of `to`. Short strings are copied 16 bytes at a time where there is
/// room for more, which later columns overwrite: a copy of a fixed size is an instruction, one of any size a call.
#[inline]
fn copy_string(from: &[u8], len: usize, to: &mut [u8]) {
    let pieces = len.div_ceil(16);
    if len <= SHORT_BYTES && 16 * pieces <= from.len().min(to.len()) {
        let to = to.as_chunks_mut::<16>().0.iter_mut();
        for (to, from) in to.zip(from.as_chunks::<16>().0).take(pieces) {
            *to = *from;
        }
    } else if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
        to.copy_from_slice(from);
    }
}

/// The parts of an image that make the first part of a row, neighbours joined.
fn image_runs(layout: &Layout, runs: &mut Vec<(usize, usize)>) {
    runs.clear();
    runs.push((0, layout.bool_bytes()));
    for slot in &layout.slots {
        if let Slot::Number { at, width, .. } = *slot {
            match runs.last_mut() {
                Some((_, end)) if *end == at => *end += width,
                _ => runs.push((at, at + width)),
            }
        }
    }
}

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
