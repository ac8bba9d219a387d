//! Rows to columns: blocks of rows, small enough for the first cache levels, are turned round.
//!
//! A block (tile) holds the images of some rows; its stride is an odd number of cache lines, so that a column of
//! it does not fall on one cache set. Columns not asked for are never touched. Flat rows need no tile: their
//! columns are gathered straight from the stored bytes, block by block.

use super::held::Held;
use super::{RowDecoder, Span};
use crate::batch::{Batch, Bitmap, Column};
use crate::error::{Error, ErrorKind, Result};
use crate::header::RowCodec;
use crate::schema::{ColumnType, Layout, Schema, Slot};

/// Rows of a tile at least, whatever it takes.
const LEAST_ROWS: usize = 32;
/// Rows of a tile if it can be so. Each column is read or written in one piece per tile, and a piece of two cache lines,
/// as 32 floats are, waits for memory twice as long as one of 1 KiB, which the machine fetches ahead.
pub(crate) const TILE_ROWS: usize = 256;
/// Flat rows lie in the packet already, and need no tile.
const FLAT_ROWS: usize = 1024;
/// Narrow rows: a tile stays near the first cache level.
const SMALL_TILE_BYTES: usize = 64 << 10;
/// Wide rows: it fits into the second.
const LARGE_TILE_BYTES: usize = 1 << 20;

/// Rows of `row_bytes` that are turned at a time; a multiple of eight.
pub(crate) fn tile_rows(row_bytes: usize, most: usize) -> usize {
    let row_bytes = row_bytes.max(1);
    let wide = (LARGE_TILE_BYTES / row_bytes).min(TILE_ROWS);
    let narrow = SMALL_TILE_BYTES / row_bytes;
    narrow.max(wide).clamp(LEAST_ROWS, most) / 8 * 8
}

/// A byte of bools, and per bit the place among the columns asked for.
pub(super) type BoolByte = (usize, [Option<usize>; 8]);

/// Collects the columns asked for.
pub(crate) struct Gather {
    codec: RowCodec,
    /// Per column asked for.
    wanted: Vec<Slot>,
    /// Bool bytes of which some column is asked for: byte, and per bit the place in `wanted`.
    bool_bytes: Vec<BoolByte>,
    numbers: bool,
    /// Numbers of the strings asked for, and their places in `wanted`.
    strings: Vec<(usize, usize)>,
    stride: usize,
    tile_rows: usize,
    tile: Vec<u8>,
    spans: Vec<Span>,
    /// For rows that change little.
    held: Option<Held>,
    columns: Vec<Column>,
    kinds: Vec<ColumnType>,
    rows: usize,
    /// Bytes of a string column in one batch.
    text_limit: usize,
}

/// Offsets of strings are 31 bits wide. A packet can become longer: strings that do not change take no bytes in it.
const TEXT_BYTES: usize = i32::MAX as usize;

impl Gather {
    /// For these columns (all if `None`) of a file.
    pub(crate) fn new(
        schema: &Schema,
        layout: &Layout,
        codec: RowCodec,
        wanted: Option<&[usize]>,
    ) -> Self {
        let columns: Vec<usize> =
            wanted.map_or_else(|| (0..schema.len()).collect(), <[usize]>::to_vec);
        let columns: Vec<usize> = columns
            .into_iter()
            .filter(|column| *column < schema.len())
            .collect();
        let kinds = columns
            .iter()
            .filter_map(|column| schema.columns().get(*column))
            .map(|spec| spec.kind)
            .collect();
        let wanted: Vec<Slot> = columns
            .iter()
            .filter_map(|column| layout.slots.get(*column))
            .copied()
            .collect();
        let mut bool_bytes: Vec<BoolByte> = Vec::new();
        let mut strings = Vec::new();
        let mut numbers = false;
        for (place, slot) in wanted.iter().enumerate() {
            match *slot {
                // A byte may be listed twice when a column is asked for twice.
                Slot::Bool(i) => {
                    let free = |entry: &&mut (usize, [Option<usize>; 8])| {
                        entry.0 == i / 8 && entry.1.get(i % 8) == Some(&None)
                    };
                    match bool_bytes.iter_mut().find(free) {
                        Some((_, places)) => places
                            .iter_mut()
                            .skip(i % 8)
                            .take(1)
                            .for_each(|slot| *slot = Some(place)),
                        None => {
                            let mut places = [None; 8];
                            places
                                .iter_mut()
                                .skip(i % 8)
                                .take(1)
                                .for_each(|slot| *slot = Some(place));
                            bool_bytes.push((i / 8, places));
                        }
                    }
                }
                Slot::Number { .. } => numbers = true,
                Slot::String(i) => strings.push((i, place)),
            }
        }
        let lines = layout.image_bytes.div_ceil(64) | 1;
        let stride = lines * 64;
        let tile_rows = tile_rows(stride, TILE_ROWS);
        let held =
            (codec == RowCodec::Zoh).then(|| Held::new(layout, &wanted, &bool_bytes, &strings));
        Self {
            codec,
            wanted,
            bool_bytes,
            numbers,
            strings,
            stride,
            tile_rows,
            tile: Vec::new(),
            spans: Vec::new(),
            held,
            columns: Vec::new(),
            kinds,
            rows: 0,
            text_limit: TEXT_BYTES,
        }
    }

    /// Start a batch with room for this many rows.
    pub(crate) fn begin(&mut self, rows: usize) {
        self.rows = 0;
        self.columns = self
            .kinds
            .iter()
            .map(|kind| Column::with_capacity(*kind, rows))
            .collect();
    }

    /// The batch collected.
    pub(crate) fn finish(&mut self, first_row: u64) -> Batch {
        Batch {
            first_row,
            rows: std::mem::take(&mut self.rows),
            columns: std::mem::take(&mut self.columns),
        }
    }

    /// Bytes of a row in memory without its strings, as far as asked for.
    pub(crate) fn row_bytes(&self) -> usize {
        self.kinds
            .iter()
            .map(|kind| kind.width().max(1))
            .sum::<usize>()
            .max(1)
    }

    /// Whether rows change so little that columns are filled from change to change.
    pub(super) fn holds(&self, rows: &[(u32, u32)]) -> bool {
        self.held.as_ref().is_some_and(|held| held.suits(rows))
    }

    /// Decode rows of a plaintext and append them to the batch. On an error the rows before it have been
    /// appended, and the row's number in `rows` is given; unless it is one of [`ErrorKind::Limit`], after which the batch
    /// is of no use.
    pub(crate) fn decode(
        &mut self,
        decoder: &mut RowDecoder,
        layout: &Layout,
        plain: &[u8],
        rows: &[(u32, u32)],
    ) -> std::result::Result<(), (usize, Error)> {
        self.append(decoder, layout, plain, rows)?;
        let longest = self.columns.iter().map(|column| match column {
            Column::String(text) => text.bytes.len(),
            _ => 0,
        });
        let (needed, limit) = (longest.max().unwrap_or(0), self.text_limit);
        if needed > limit {
            let kind = ErrorKind::Limit {
                what: "a string column of a packet, which can be read in parts,",
                needed: needed as u64,
                limit: limit as u64,
            };
            return Err((0, Error::new(kind)));
        }
        Ok(())
    }

    fn append(
        &mut self,
        decoder: &mut RowDecoder,
        layout: &Layout,
        plain: &[u8],
        rows: &[(u32, u32)],
    ) -> std::result::Result<(), (usize, Error)> {
        if self.codec == RowCodec::Flat && layout.columns() > 0 {
            return self.decode_flat(layout, plain, rows);
        }
        if self.holds(rows)
            && let Some(held) = &mut self.held
        {
            let (good, failed) = held.decode(decoder, layout, plain, rows, &mut self.columns);
            self.rows += good;
            return failed.map_or(Ok(()), |error| Err((good, error)));
        }
        let stride = self.stride;
        if self.tile.len() < stride * self.tile_rows {
            self.tile = vec![0; stride * self.tile_rows];
        }
        for (number, block) in rows.chunks(self.tile_rows).enumerate() {
            self.spans.clear();
            let mut done = 0;
            let mut failed = None;
            for ((start, end), image) in block.iter().zip(self.tile.chunks_exact_mut(stride)) {
                if let Err(error) = decoder.decode(plain, *start as usize, *end as usize) {
                    failed = Some((number * self.tile_rows + done, error));
                    break;
                }
                if (self.numbers || !self.bool_bytes.is_empty())
                    && let Some(image) = image.get_mut(..decoder.image().len())
                {
                    image.copy_from_slice(decoder.image());
                }
                if !self.strings.is_empty() {
                    self.spans.extend_from_slice(decoder.strings());
                }
                done += 1;
            }
            self.turn(done);
            for (i, place) in &self.strings {
                if let Some(Column::String(text)) = self.columns.get_mut(*place) {
                    let strings = self
                        .spans
                        .chunks_exact(layout.strings.max(1))
                        .filter_map(|row| row.get(*i));
                    strings.for_each(|span| span.append(plain, decoder.carried(), text));
                }
            }
            self.rows += done;
            if let Some(failed) = failed {
                return Err(failed);
            }
        }
        Ok(())
    }

    /// Append the tile's numbers and bools to the columns.
    fn turn(&mut self, rows: usize) {
        let tile = self.tile.get(..rows * self.stride).unwrap_or_default();
        for (slot, column) in self.wanted.iter().zip(&mut self.columns) {
            if let Slot::Number { at, .. } = *slot {
                gather_strided(tile, self.stride, at, column);
            }
        }
        gather_bools(
            &self.bool_bytes,
            rows,
            |row, byte| tile.get(row * self.stride + byte).copied().unwrap_or(0),
            &mut self.columns,
        );
    }

    /// Flat rows: from the stored bytes to the columns.
    fn decode_flat(
        &mut self,
        layout: &Layout,
        plain: &[u8],
        rows: &[(u32, u32)],
    ) -> std::result::Result<(), (usize, Error)> {
        let fixed = layout.flat_fixed_bytes();
        let mut good = rows.len();
        let mut failed = None;
        for (number, (start, end)) in rows.iter().enumerate() {
            let bytes = (end - start) as usize;
            let fits = if layout.strings == 0 {
                bytes == fixed
            } else {
                bytes >= fixed
            };
            if !fits {
                (good, failed) = (
                    number,
                    Some((number, super::bad("its length contradicts its content"))),
                );
                break;
            }
        }
        let rows = rows.get(..good).unwrap_or_default();
        let block_rows = tile_rows(fixed, FLAT_ROWS);
        let scalars_at = layout.bool_bytes();
        for (number, block) in rows.chunks(block_rows).enumerate() {
            // Rows of equal length lie at equal distances: one slice, cut at that distance.
            let (first, second) = (
                block.first().copied().unwrap_or_default(),
                block.get(1).copied(),
            );
            let distance = second.map_or(fixed, |second| (second.0 - first.0) as usize);
            let regular = layout.strings == 0
                && block
                    .windows(2)
                    .all(|pair| matches!(pair, [a, b] if (b.0 - a.0) as usize == distance));
            let start = first.0 as usize;
            let region = plain
                .get(start..start + distance * (block.len() - 1) + fixed)
                .unwrap_or_default();
            for (slot, column) in self.wanted.iter().zip(&mut self.columns) {
                if let Slot::Number { flat_at, .. } = *slot {
                    if regular {
                        gather_strided(region, distance, scalars_at + flat_at, column);
                    } else {
                        gather_scattered(plain, block, scalars_at + flat_at, column);
                    }
                }
            }
            let mask = layout.last_bool_mask();
            let last = layout.bool_bytes().wrapping_sub(1);
            let bool_byte = |row: usize, byte: usize| {
                let at = block.get(row).map_or(0, |row| row.0 as usize);
                let bits = plain.get(at + byte).copied().unwrap_or(0);
                if byte == last { bits & mask } else { bits }
            };
            gather_bools(&self.bool_bytes, block.len(), bool_byte, &mut self.columns);
            if layout.strings > 0 {
                self.spans.clear();
                for (row, (start, end)) in block.iter().enumerate() {
                    if let Err(error) = flat_strings(
                        layout,
                        plain,
                        *start as usize,
                        *end as usize,
                        &mut self.spans,
                    ) {
                        // Numbers of rows from here on have been appended already; the batch is cut back.
                        self.rows += row;
                        self.append_strings(layout, plain, row);
                        self.cut();
                        return Err((number * block_rows + row, error));
                    }
                }
                self.append_strings(layout, plain, block.len());
            }
            self.rows += block.len();
        }
        failed.map_or(Ok(()), Err)
    }

    fn append_strings(&mut self, layout: &Layout, plain: &[u8], rows: usize) {
        for (i, place) in &self.strings {
            if let Some(Column::String(text)) = self.columns.get_mut(*place) {
                let strings = self
                    .spans
                    .chunks_exact(layout.strings)
                    .take(rows)
                    .filter_map(|row| row.get(*i));
                strings.for_each(|span| span.append(plain, &[], text));
            }
        }
    }

    /// Cut all columns back to the rows counted.
    fn cut(&mut self) {
        for column in &mut self.columns {
            crate::batch::for_numbers!(column,
                values => values.truncate(self.rows),
                bits => {
                    bits.bytes.truncate(self.rows.div_ceil(8));
                    bits.len = self.rows;
                    if let (Some(last), used @ 1..) = (bits.bytes.last_mut(), self.rows % 8) {
                        *last &= (1 << used) - 1;
                    }
                },
                text => text.offsets.truncate(self.rows + 1));
        }
    }
}

/// The strings of a flat row, appended to `spans`.
fn flat_strings(
    layout: &Layout,
    plain: &[u8],
    start: usize,
    end: usize,
    spans: &mut Vec<Span>,
) -> Result<()> {
    let lengths_at = start + layout.bool_bytes() + layout.scalar_bytes;
    let mut at = lengths_at + 2 * layout.strings;
    let lengths = plain.get(lengths_at..at).unwrap_or_default();
    for pair in lengths.chunks_exact(2) {
        let len = pair
            .first_chunk()
            .map_or(0, |pair| usize::from(u16::from_le_bytes(*pair)));
        spans.push(Span::new(at, len));
        at += len;
    }
    if at == end {
        Ok(())
    } else {
        Err(super::bad("its length contradicts its content"))
    }
}

/// Numbers at equal distances.
fn gather_strided(region: &[u8], distance: usize, at: usize, column: &mut Column) {
    macro_rules! gather {
        ($values:ident, $type:ty) => {{
            const W: usize = size_of::<$type>();
            let rows = region.chunks_exact(distance.max(1));
            // The last row may be shorter than the distance; it is taken on its own.
            let last = rows.remainder();
            let value = |row: &[u8]| {
                // All rows are equally long, so this is decided once for all of them.
                row.get(at..at + W)
                    .and_then(|bytes| bytes.first_chunk::<W>())
                    .map_or(Default::default(), |bytes| <$type>::from_le_bytes(*bytes))
            };
            $values.extend(rows.map(value));
            if !last.is_empty() {
                $values.push(value(last));
            }
        }};
    }
    numbers!(column, gather);
}

/// Numbers anywhere.
fn gather_scattered(plain: &[u8], rows: &[(u32, u32)], at: usize, column: &mut Column) {
    macro_rules! gather {
        ($values:ident, $type:ty) => {{
            const W: usize = size_of::<$type>();
            $values.extend(rows.iter().map(|(start, _)| {
                let bytes = plain
                    .get(*start as usize + at..)
                    .and_then(|rest| rest.first_chunk::<W>());
                bytes.map_or(Default::default(), |bytes| <$type>::from_le_bytes(*bytes))
            }));
        }};
    }
    numbers!(column, gather);
}

/// Run a macro for the vector and element type of a number column.
macro_rules! numbers {
    ($column:expr, $macro:ident) => {
        match $column {
            Column::UInt8(values) => $macro!(values, u8),
            Column::UInt16(values) => $macro!(values, u16),
            Column::UInt32(values) => $macro!(values, u32),
            Column::UInt64(values) => $macro!(values, u64),
            Column::Int8(values) => $macro!(values, i8),
            Column::Int16(values) => $macro!(values, i16),
            Column::Int32(values) => $macro!(values, i32),
            Column::Int64(values) => $macro!(values, i64),
            Column::Float(values) => $macro!(values, f32),
            Column::Double(values) => $macro!(values, f64),
            Column::Bool(_) | Column::String(_) => {}
        }
    };
}
pub(super) use numbers;

/// Bools: eight rows of eight columns are one 8 by 8 bit matrix, turned in a register.
fn gather_bools(
    bytes: &[(usize, [Option<usize>; 8])],
    rows: usize,
    stored: impl Fn(usize, usize) -> u8,
    columns: &mut [Column],
) {
    for (byte, places) in bytes {
        let aligned = places.iter().flatten().all(
            |place| matches!(columns.get(*place), Some(Column::Bool(bits)) if bits.len % 8 == 0),
        );
        let blocks = if aligned { rows / 8 } else { 0 };
        for block in 0..blocks {
            let eight = std::array::from_fn(|i| stored(block * 8 + i, *byte));
            let turned = turn_bits(u64::from_le_bytes(eight)).to_le_bytes();
            for (place, values) in places.iter().zip(turned) {
                if let Some(bits) = place.and_then(|place| bitmap(columns, place)) {
                    bits.push_eight(values);
                }
            }
        }
        for row in blocks * 8..rows {
            let values = stored(row, *byte);
            for (bit, place) in places.iter().enumerate() {
                if let Some(bits) = place.and_then(|place| bitmap(columns, place)) {
                    bits.push(values >> bit & 1 == 1);
                }
            }
        }
    }
}

fn bitmap(columns: &mut [Column], place: usize) -> Option<&mut Bitmap> {
    match columns.get_mut(place) {
        Some(Column::Bool(bits)) => Some(bits),
        _ => None,
    }
}

/// Transpose an 8 by 8 bit matrix (byte r, bit c becomes byte c, bit r): three rounds of swapping blocks.
#[inline]
pub(crate) fn turn_bits(mut word: u64) -> u64 {
    for (shift, mask) in [
        (7, 0x00AA_00AA_00AA_00AA),
        (14, 0x0000_CCCC_0000_CCCC),
        (28, 0x0000_0000_F0F0_F0F0),
    ] {
        let swap = (word ^ (word >> shift)) & mask;
        word ^= swap ^ (swap << shift);
    }
    word
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

    use std::sync::Arc;

    use super::*;
    use crate::row::{RowEncoder, RowStrings};
    use crate::schema::ColumnSpec;

    struct One(Vec<u8>);

    impl RowStrings for One {
        fn string(&self, _: usize) -> &[u8] {
            &self.0
        }
    }

    /// A string that does not change takes no bytes of the file, and its full length in each row of a batch.
    #[test]
    fn strings_longer_than_offsets_reach_are_refused() {
        let schema = Schema::new(vec![ColumnSpec::new("text", ColumnType::String)]).unwrap();
        let layout = Arc::new(Layout::new(&schema));
        let rows = 300;
        for codec in [RowCodec::Zoh, RowCodec::Delta] {
            let mut encoder = RowEncoder::new(codec, Arc::clone(&layout));
            let (mut plain, mut places) = (Vec::new(), Vec::new());
            for _ in 0..rows {
                let start = plain.len() as u32;
                encoder.encode(&[], &One(vec![b'x'; 100]), &mut plain);
                places.push((start, plain.len() as u32));
            }
            for (limit, fits) in [(100 * rows, true), (100 * rows - 1, false)] {
                let mut decoder = RowDecoder::new(codec, Arc::clone(&layout));
                let mut gather = Gather::new(&schema, &layout, codec, None);
                gather.text_limit = limit;
                gather.begin(rows);
                let decoded = gather.decode(&mut decoder, &layout, &plain, &places);
                let refused = |(_, error): (_, Error)| matches!(error.kind(), ErrorKind::Limit { needed, .. } if *needed > limit as u64);
                assert_eq!(decoded.is_err_and(refused), !fits, "{codec:?}");
            }
        }
    }

    #[test]
    fn bits_are_transposed() {
        for (row, column) in [(0, 0), (0, 7), (7, 0), (3, 5), (6, 6), (1, 4)] {
            assert_eq!(
                turn_bits(1 << (8 * row + column)),
                1 << (8 * column + row),
                "{row} {column}"
            );
        }
    }
}
