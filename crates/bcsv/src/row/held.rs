//! Rows to columns where little changes from row to row: what changes is noted while the rows are decoded, and then each
//! column is filled from change to change, from its first row to its last, as memory likes to be written.

use super::tile::{BoolByte, numbers};
use super::{RowDecoder, Span};
use crate::batch::Column;
use crate::error::Error;
use crate::schema::{Layout, Slot};

/// Rows at a time: the notes of a block stay in the second cache level, and few rows are not worth them.
const BLOCK_ROWS: (usize, usize) = (256, 8192);
/// As many, in bytes of rows that the columns take.
const BLOCK_BYTES: usize = 8 << 20;
/// Rows that take this part of their size in memory, or less, change little.
const CALM: usize = 8;

/// A value that holds from a row on.
#[derive(Clone, Copy, Default)]
struct Change {
    /// Number of the value: numbers in grouped order, then bytes of bools, then strings.
    value: u32,
    /// Row in the block.
    row: u32,
    /// Where it is stored.
    span: Span,
}

/// Notes what changes while rows are decoded.
pub(super) trait Notes {
    /// A byte of bools, stored at `at` of the plaintext.
    fn bools(&mut self, byte: usize, at: usize);

    /// Number `number`, in grouped order.
    fn number(&mut self, number: usize, at: usize);

    /// String `string`.
    fn string(&mut self, string: usize, span: Span);
}

/// Nothing is noted.
impl Notes for () {
    #[inline(always)]
    fn bools(&mut self, _: usize, _: usize) {}

    #[inline(always)]
    fn number(&mut self, _: usize, _: usize) {}

    #[inline(always)]
    fn string(&mut self, _: usize, _: Span) {}
}

/// The changes of a block of rows.
#[derive(Default)]
struct Changes {
    /// Values of the layout that are numbers, and that are numbers or bytes of bools.
    numbers: usize,
    fixed: usize,
    row: u32,
    list: Vec<Change>,
}

impl Changes {
    #[inline]
    fn push(&mut self, value: usize, span: Span) {
        self.list.push(Change {
            // A layout has at most 65,535 columns.
            value: u32::try_from(value).unwrap_or(u32::MAX),
            row: self.row,
            span,
        });
    }
}

impl Notes for Changes {
    #[inline]
    fn bools(&mut self, byte: usize, at: usize) {
        self.push(self.numbers + byte, Span::new(at, 1));
    }

    #[inline]
    fn number(&mut self, number: usize, at: usize) {
        self.push(number, Span::new(at, 0));
    }

    #[inline]
    fn string(&mut self, string: usize, span: Span) {
        self.push(self.fixed + string, span);
    }
}

/// Fills columns from what changes.
pub(super) struct Held {
    /// Columns of numbers asked for: number, place among the columns.
    numbers: Vec<(usize, usize)>,
    bools: Vec<BoolByte>,
    /// Number of the string, place among the columns.
    strings: Vec<(usize, usize)>,
    /// Bytes of a row in the columns.
    row_bytes: usize,
    changes: Changes,
    /// The changes, by value and row; where those of each value end.
    sorted: Vec<Change>,
    ends: Vec<usize>,
    /// The row before the block.
    image: Vec<u8>,
    spans: Vec<Span>,
}

impl Held {
    /// For these columns of a file.
    pub(super) fn new(
        layout: &Layout,
        wanted: &[Slot],
        bools: &[BoolByte],
        strings: &[(usize, usize)],
    ) -> Self {
        let number = |at: usize| layout.numbers.partition_point(|number| number.0 < at);
        let numbers = wanted
            .iter()
            .enumerate()
            .filter_map(|(place, slot)| match *slot {
                Slot::Number { at, .. } => Some((number(at), place)),
                _ => None,
            });
        Self {
            numbers: numbers.collect(),
            bools: bools.to_vec(),
            strings: strings.to_vec(),
            row_bytes: row_bytes(layout),
            changes: Changes {
                numbers: layout.numbers.len(),
                fixed: layout.numbers.len() + layout.bool_bytes(),
                ..Changes::default()
            },
            sorted: Vec::new(),
            ends: Vec::new(),
            image: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Whether rows change so little, and are so many, that this is the way to go.
    pub(super) fn suits(&self, rows: &[(u32, u32)]) -> bool {
        let stored: usize = rows.iter().map(|(start, end)| (end - start) as usize).sum();
        rows.len() >= BLOCK_ROWS.0 && stored <= self.row_bytes * rows.len() / CALM
    }

    /// Decode rows of a plaintext and append them to the columns. Returns how many there were before the first that is
    /// wrong.
    pub(super) fn decode(
        &mut self,
        decoder: &mut RowDecoder,
        layout: &Layout,
        plain: &[u8],
        rows: &[(u32, u32)],
        columns: &mut [Column],
    ) -> (usize, Option<Error>) {
        let (least, most) = BLOCK_ROWS;
        let block_rows = (BLOCK_BYTES / self.row_bytes.max(1)).clamp(least, most);
        let mut done = 0;
        for block in rows.chunks(block_rows) {
            self.image.clone_from(&decoder.image);
            self.spans.clone_from(&decoder.strings);
            self.changes.list.clear();
            let mut failed = None;
            let mut good = 0;
            for (start, end) in block {
                self.changes.row = good;
                let (start, end) = (*start as usize, *end as usize);
                if let Err(error) = decoder.decode_noting(plain, start, end, &mut self.changes) {
                    failed = Some(error);
                    break;
                }
                good += 1;
            }
            // Of a wrong row some changes may have been noted.
            let list = &mut self.changes.list;
            list.truncate(list.partition_point(|change| change.row < good));
            self.sort(layout);
            self.fill(layout, plain, decoder.carried(), good, columns);
            done += good as usize;
            if failed.is_some() {
                return (done, failed);
            }
        }
        (done, None)
    }

    /// Sort the changes by value; those of one stay in the order of rows.
    fn sort(&mut self, layout: &Layout) {
        let list = &self.changes.list;
        self.ends.clear();
        self.ends.resize(self.changes.fixed + layout.strings, 0);
        for change in list {
            if let Some(count) = self.ends.get_mut(change.value as usize) {
                *count += 1;
            }
        }
        let mut start = 0;
        for count in &mut self.ends {
            start += std::mem::replace(count, start);
        }
        self.sorted.resize(list.len(), Change::default());
        for change in list {
            if let Some(next) = self.ends.get_mut(change.value as usize) {
                if let Some(place) = self.sorted.get_mut(*next) {
                    *place = *change;
                }
                *next += 1;
            }
        }
    }

    /// The changes of a value.
    fn of(&self, value: usize) -> &[Change] {
        let end = |value: usize| self.ends.get(value).copied().unwrap_or(0);
        let start = value.checked_sub(1).map_or(0, end);
        self.sorted.get(start..end(value)).unwrap_or_default()
    }

    /// Append `rows` rows to the columns.
    fn fill(
        &self,
        layout: &Layout,
        plain: &[u8],
        carried: &[u8],
        rows: u32,
        columns: &mut [Column],
    ) {
        for (number, place) in &self.numbers {
            let at = layout.numbers.get(*number).map_or(0, |number| number.0);
            let before = self.image.get(at..).unwrap_or_default();
            if let Some(column) = columns.get_mut(*place) {
                fill_numbers(column, before, plain, self.of(*number), rows);
            }
        }
        for (byte, places) in &self.bools {
            let before = self.image.get(*byte).copied().unwrap_or(0);
            let changes = self.of(self.changes.numbers + byte);
            fill_bools(columns, places, before, plain, changes, rows);
        }
        for (string, place) in &self.strings {
            let Some(Column::String(text)) = columns.get_mut(*place) else {
                continue;
            };
            let mut from = 0;
            let mut held = self.spans.get(*string).copied().unwrap_or_default();
            for change in self.of(self.changes.fixed + string) {
                held.append_times(plain, carried, text, (change.row - from) as usize);
                (held, from) = (change.span, change.row);
            }
            held.append_times(plain, carried, text, (rows - from) as usize);
        }
    }
}

/// Bytes of a row in columns, an offset for each string among them.
fn row_bytes(layout: &Layout) -> usize {
    layout.image_bytes + size_of::<i32>() * layout.strings
}

/// Append numbers: the one at the start of `before` until it changes.
fn fill_numbers(column: &mut Column, before: &[u8], plain: &[u8], changes: &[Change], rows: u32) {
    macro_rules! fill {
        ($values:ident, $type:ty) => {{
            let load = |bytes: Option<&[u8]>| {
                bytes
                    .and_then(|bytes| bytes.first_chunk::<{ size_of::<$type>() }>())
                    .map_or(Default::default(), |bytes| <$type>::from_le_bytes(*bytes))
            };
            let (mut held, mut from) = (load(Some(before)), 0);
            for change in changes {
                $values.resize($values.len() + (change.row - from) as usize, held);
                (held, from) = (load(plain.get(change.span.at as usize..)), change.row);
            }
            $values.resize($values.len() + (rows - from) as usize, held);
        }};
    }
    numbers!(column, fill);
}

/// Append bools: those of a byte until one changes.
fn fill_bools(
    columns: &mut [Column],
    places: &[Option<usize>; 8],
    before: u8,
    plain: &[u8],
    changes: &[Change],
    rows: u32,
) {
    for (bit, place) in places.iter().enumerate() {
        let Some(Column::Bool(bits)) = place.and_then(|place| columns.get_mut(place)) else {
            continue;
        };
        let (mut held, mut from) = (before >> bit & 1, 0);
        for change in changes {
            let new = plain.get(change.span.at as usize).copied().unwrap_or(0) >> bit & 1;
            if new != held {
                bits.append(held == 1, (change.row - from) as usize);
                (held, from) = (new, change.row);
            }
        }
        bits.append(held == 1, (rows - from) as usize);
    }
}

#[cfg(test)]
mod tests;
