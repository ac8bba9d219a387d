//! Rows to columns where little changes from row to row: what changes is noted while the rows are decoded, and then each
//! column is filled from change to change, from its first row to its last, as memory likes to be written.

use tapeline_sys::vector::{Work, widest};

use super::tile::{BoolByte, numbers};
use super::{RowDecoder, Span, bits};
use crate::batch::{Column, StringColumn};
use crate::error::Error;
use crate::schema::{Layout, Slot};

/// Rows at a time: the notes of a block stay in the second cache level, and few rows are not worth them.
const BLOCK_ROWS: (usize, usize) = (256, 8192);
/// As many, in bytes of rows that the columns take.
const BLOCK_BYTES: usize = 8 << 20;
/// Rows that take this part of their size in memory, or less, change little.
const CALM: usize = 8;

/// A value that holds from a row on.
#[derive(Clone, Copy)]
struct Change {
    /// Row in the block.
    row: u32,
    /// Where it is stored in the plaintext; strings with their length in front.
    at: u32,
}

impl Change {
    /// Where this string lies.
    #[inline(always)]
    fn span(self, plain: &[u8]) -> Span {
        let at = self.at as usize;
        Span::new(at + 2, (bits::load(plain, at) & 0xFFFF) as usize)
    }
}

/// What changes in a block of rows, noted while it is gone through.
pub(super) struct Changes {
    row: u32,
    /// The changes of each value in the order of rows: numbers in grouped order, strings, bytes of bools.
    lists: Vec<Vec<Change>>,
}

impl Changes {
    fn new(values: usize) -> Self {
        Self {
            row: 0,
            lists: vec![Vec::new(); values],
        }
    }

    /// Value `value` of the row at hand is new, and stored at `at`.
    #[inline(always)]
    pub(super) fn note(&mut self, value: usize, at: usize) {
        if let Some(list) = self.lists.get_mut(value) {
            let row = self.row;
            // Plaintext pieces are below 4 GiB (limits).
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            list.push(Change { row, at });
        }
    }

    /// A block begins.
    fn clear(&mut self) {
        self.lists.iter_mut().for_each(Vec::clear);
    }

    /// Forget what was noted of the row at hand.
    fn cut(&mut self) {
        for list in &mut self.lists {
            list.truncate(list.partition_point(|change| change.row < self.row));
        }
    }

    /// The changes of a value.
    fn of(&self, value: usize) -> &[Change] {
        self.lists.get(value).map_or(&[], Vec::as_slice)
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
            changes: Changes::new(layout.numbers.len() + layout.strings + layout.bool_bytes()),
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
            self.changes.clear();
            let mut failed = None;
            let mut good = 0;
            for (start, end) in block {
                self.changes.row = good;
                let (start, end) = (*start as usize, *end as usize);
                if let Err(error) = decoder.note(plain, start, end, &mut self.changes) {
                    self.changes.cut();
                    failed = Some(error);
                    break;
                }
                good += 1;
            }
            widest(Fill {
                held: self,
                layout,
                plain,
                carried: decoder.carried(),
                rows: good,
                columns,
            });
            self.settle(layout, plain, decoder);
            done += good as usize;
            if failed.is_some() {
                return (done, failed);
            }
        }
        (done, None)
    }

    /// Bring the decoder, whose bools are up to date, to the last row of the block.
    fn settle(&self, layout: &Layout, plain: &[u8], decoder: &mut RowDecoder) {
        for (number, (at, bytes)) in layout.numbers.iter().enumerate() {
            if let Some(last) = self.changes.of(number).last()
                && let Some(image) = decoder.image.get_mut(*at..at + bytes)
                && let Some(stored) = plain.get(last.at as usize..last.at as usize + bytes)
            {
                image.copy_from_slice(stored);
            }
        }
        for (string, span) in decoder.strings.iter_mut().enumerate() {
            if let Some(last) = self.changes.of(layout.numbers.len() + string).last() {
                *span = last.span(plain);
            }
        }
    }

    /// Append `rows` rows to the columns.
    #[inline(always)]
    fn fill(
        &self,
        layout: &Layout,
        plain: &[u8],
        carried: &[u8],
        rows: u32,
        columns: &mut [Column],
    ) {
        let strings_from = layout.numbers.len();
        let bools_from = strings_from + layout.strings;
        for (number, place) in &self.numbers {
            let at = layout.numbers.get(*number).map_or(0, |number| number.0);
            let before = self.image.get(at..).unwrap_or_default();
            if let Some(column) = columns.get_mut(*place) {
                fill_numbers(column, before, plain, self.changes.of(*number), rows);
            }
        }
        for (byte, places) in &self.bools {
            let before = self.image.get(*byte).copied().unwrap_or(0);
            let changes = self.changes.of(bools_from + byte);
            fill_bools(columns, places, before, plain, changes, rows);
        }
        for (string, place) in &self.strings {
            if let Some(Column::String(text)) = columns.get_mut(*place) {
                let before = self.spans.get(*string).copied().unwrap_or_default();
                let changes = self.changes.of(strings_from + string);
                fill_strings(text, (before, carried), plain, changes, rows);
            }
        }
    }
}

/// [`Held::fill`], compiled for wide vectors.
struct Fill<'a> {
    held: &'a Held,
    layout: &'a Layout,
    plain: &'a [u8],
    carried: &'a [u8],
    rows: u32,
    columns: &'a mut [Column],
}

impl Work for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.held.fill(
            self.layout,
            self.plain,
            self.carried,
            self.rows,
            self.columns,
        );
    }
}

/// Bytes that [`fill_strings`] appends.
fn string_bytes(before: Span, plain: &[u8], changes: &[Change], rows: u32) -> usize {
    let (mut held, mut from, mut sum) = (before.bytes(), 0, 0);
    for change in changes {
        sum += held * (change.row - from) as usize;
        (held, from) = (change.span(plain).bytes(), change.row);
    }
    sum + held * (rows - from) as usize
}

/// Bytes of a row in columns, an offset for each string among them.
fn row_bytes(layout: &Layout) -> usize {
    layout.image_bytes + size_of::<i32>() * layout.strings
}

/// Append numbers: the one at the start of `before` until it changes.
#[inline(always)]
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
                let chunk = [held; PIECE / size_of::<$type>()];
                append($values, chunk, (change.row - from) as usize, |_| {});
                (held, from) = (load(plain.get(change.at as usize..)), change.row);
            }
            $values.resize($values.len() + (rows - from) as usize, held);
        }};
    }
    numbers!(column, fill);
}

/// Bytes appended at a time: most runs are some hundred bytes long, and their lengths are hard to predict, so whole pieces
/// are stored and what is too much is cut off.
const PIECE: usize = 64;

/// Append `times` values, piece by piece; `next` makes the next piece of the one before.
#[inline(always)]
fn append<T: Copy, const N: usize>(
    values: &mut Vec<T>,
    mut piece: [T; N],
    times: usize,
    next: impl Fn(&mut [T; N]),
) {
    let end = values.len() + times;
    if values.capacity() < end + N {
        // The end of the column, where a piece too much would move it.
        for _ in 0..times / N {
            values.extend_from_slice(&piece);
            next(&mut piece);
        }
        values.extend_from_slice(piece.get(..times % N).unwrap_or_default());
        return;
    }
    while values.len() < end {
        values.extend_from_slice(&piece);
        next(&mut piece);
    }
    values.truncate(end);
}

/// Append strings: the one before, as it lies in `carried` or the plaintext, until it changes.
#[inline(always)]
fn fill_strings(
    text: &mut StringColumn,
    (mut held, carried): (Span, &[u8]),
    plain: &[u8],
    changes: &[Change],
    rows: u32,
) {
    text.expect(string_bytes(held, plain, changes, rows), rows as usize);
    let mut from = 0;
    for change in changes {
        held.append_times(plain, carried, text, (change.row - from) as usize);
        (held, from) = (change.span(plain), change.row);
    }
    held.append_times(plain, carried, text, (rows - from) as usize);
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
            let new = plain.get(change.at as usize).copied().unwrap_or(0) >> bit & 1;
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
