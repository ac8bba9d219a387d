//! Cells of some rows, each in a place of its own, printed column by column.
//!
//! Where a cell of the text begins is known only when the one before it has been printed. Printed to places of equal
//! size, cells do not wait for each other, and the type of the column is looked at once; putting a row together then is
//! one copy of fixed size per cell. Cells that do not fit, or need a closer look, are left to the writer.

use std::ops::Range;

use tapeline_bcsv::{BatchView, ColumnView};
use tapeline_sys::vector::Work;

use super::{TextWriter, place};
use crate::print::{Doubles, Floats, Hint, LANES, Page, Wholes, map};

/// Room of a cell: the longest number, what comes behind it, and what is written of pieces that are cut.
pub(super) const CELL_BYTES: usize = 32;
/// Cells of a sheet: half of the second cache level at most.
const CELLS: usize = 4096;
/// The length of a cell that is left to the writer.
pub(super) const LONG: u8 = u8::MAX;

#[derive(Clone)]
pub(super) struct Cell {
    pub text: [u8; CELL_BYTES],
    pub len: u8,
}

/// Row by row.
#[derive(Default)]
pub(super) struct Sheet {
    pub cells: Vec<Cell>,
    pub columns: usize,
    pub rows: usize,
}

impl Sheet {
    pub(super) fn new(columns: usize) -> Self {
        // Whole groups of numbers.
        let rows = (CELLS / columns.max(1)).clamp(LANES, 256) / LANES * LANES;
        let cell = Cell {
            text: [0; CELL_BYTES],
            len: LONG,
        };
        Self {
            cells: vec![cell; rows * columns.max(1)],
            columns,
            rows,
        }
    }
}

/// Print some rows into the sheet.
pub(super) struct Fill<'a, 'b> {
    pub text: &'a TextWriter,
    pub batch: &'a BatchView<'b>,
    pub rows: Range<usize>,
    pub sheet: &'a mut Sheet,
    pub hints: &'a mut [Hint],
}

impl Work for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let columns = self.batch.columns.iter().zip(self.hints);
        for (number, (column, hint)) in columns.enumerate() {
            let cells = self.sheet.cells.chunks_exact_mut(self.sheet.columns);
            let cells = cells.filter_map(|row| row.get_mut(number));
            fill(self.text, column, self.rows.clone(), hint, number, cells);
        }
    }
}

#[inline(always)]
fn fill<'a>(
    text: &TextWriter,
    column: &ColumnView<'_>,
    rows: Range<usize>,
    hint: &mut Hint,
    number: usize,
    cells: impl Iterator<Item = &'a mut Cell>,
) {
    let (point, after) = (text.point, text.after(number));
    // JSON has keys before its cells and nothing behind them.
    let behind = u8::from(!text.json);
    macro_rules! whole {
        ($values:expr, $type:ty, $of:path, $size:expr) => {{
            let values = $values.get(rows).unwrap_or_default();
            let group = |values: &[$type; LANES]| {
                #[allow(unused_comparisons)] // of those without a sign
                let negative = map(values, |value| value < 0);
                $of(negative, &map(values, $size))
            };
            let put = |group: &Wholes<_>, lane, _: &_, cell: &mut _| Some(group.put(lane, cell));
            numbers(values, cells, (after, behind), group, put);
        }};
    }
    macro_rules! few_digits {
        ($values:expr, $type:ty) => {
            whole!($values, $type, Wholes::of_few_digits, |value| i32::from(
                value
            )
            .unsigned_abs())
        };
    }
    macro_rules! float {
        ($values:expr, $type:ty, $group:ident, $print:ident) => {{
            let values = $values.get(rows).unwrap_or_default();
            let put = |group: &$group, lane, value: &$type, cell: &mut _| {
                group.put(lane, point, cell).or_else(|| {
                    let mut page = Page::new(cell, 0);
                    value.is_finite().then(|| {
                        page.$print(*value, point, hint);
                        page.at()
                    })
                })
            };
            numbers(values, cells, (after, behind), $group::of, put);
        }};
    }
    macro_rules! copy {
        ($offsets:expr, $bytes:expr) => {
            for (cell, row) in cells.zip(rows) {
                let (from, to) = (place($offsets, row), place($offsets, row + 1));
                cell.len = copied(text, $bytes, from, to, after, &mut cell.text);
            }
        };
    }
    match column {
        ColumnView::UInt8(values) => few_digits!(values, u8),
        ColumnView::UInt16(values) => few_digits!(values, u16),
        ColumnView::UInt32(values) => whole!(values, u32, Wholes::of_32_bits, |value| value),
        ColumnView::UInt64(values) => whole!(values, u64, Wholes::of_64_bits, |value| value),
        ColumnView::Int8(values) => few_digits!(values, i8),
        ColumnView::Int16(values) => few_digits!(values, i16),
        ColumnView::Int32(values) => {
            whole!(values, i32, Wholes::of_32_bits, i32::unsigned_abs);
        }
        ColumnView::Int64(values) => {
            whole!(values, i64, Wholes::of_64_bits, i64::unsigned_abs);
        }
        ColumnView::Float(values) => float!(values, f32, Floats, float),
        ColumnView::Double(values) => float!(values, f64, Doubles, double),
        ColumnView::Bool { bits, offset } => {
            for (cell, row) in cells.zip(rows) {
                let at = row + offset;
                let byte = bits.get(at / 8).copied().unwrap_or(0);
                cell.len = truth(byte >> (at % 8) & 1 == 1, after, behind, &mut cell.text);
            }
        }
        ColumnView::BoolBytes(values) => {
            let values = values.get(rows).unwrap_or_default();
            for (cell, value) in cells.zip(values) {
                cell.len = truth(*value != 0, after, behind, &mut cell.text);
            }
        }
        ColumnView::String { offsets, bytes } => copy!(offsets, bytes),
        ColumnView::LargeString { offsets, bytes } => copy!(offsets, bytes),
    }
}

/// Numbers in groups: `put` writes one of a group and says how long it is, or leaves it to the writer.
#[inline(always)]
fn numbers<'a, T: Copy + Default, G>(
    values: &[T],
    mut cells: impl Iterator<Item = &'a mut Cell>,
    (after, behind): (u8, u8),
    group: impl Fn(&[T; LANES]) -> G,
    mut put: impl FnMut(&G, usize, &T, &mut [u8; CELL_BYTES]) -> Option<usize>,
) {
    let (groups, rest) = values.as_chunks();
    let mut last = [T::default(); LANES];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    // What is written to cells behind the last one is not looked at.
    for values in groups.iter().chain((!rest.is_empty()).then_some(&last)) {
        let group = group(values);
        for ((lane, value), cell) in values.iter().enumerate().zip(cells.by_ref()) {
            let at = put(&group, lane, value, &mut cell.text);
            cell.len = at.map_or(LONG, |at| {
                let mut page = Page::new(&mut cell.text, at);
                finish(&mut page, after, behind)
            });
        }
    }
}

/// Put what comes behind a cell there; returns how long it is.
#[inline(always)]
fn finish(page: &mut Page<'_>, after: u8, behind: u8) -> u8 {
    page.piece([after], behind.into());
    u8::try_from(page.at()).unwrap_or(LONG)
}

#[inline(always)]
fn truth(value: bool, after: u8, behind: u8, to: &mut [u8; CELL_BYTES]) -> u8 {
    let (word, len) = if value {
        (*b"true\0\0\0\0", 4)
    } else {
        (*b"false\0\0\0", 5)
    };
    let mut page = Page::new(to, 0);
    page.piece(word, len);
    finish(&mut page, after, behind)
}

/// A short string that is written as it is; `LONG` for all others.
#[inline(always)]
fn copied(
    text: &TextWriter,
    bytes: &[u8],
    from: Option<usize>,
    to: Option<usize>,
    after: u8,
    cell: &mut [u8; CELL_BYTES],
) -> u8 {
    let (Some(from), Some(to)) = (from, to) else {
        return LONG;
    };
    let Some(source) = bytes
        .get(from..)
        .and_then(|rest| rest.first_chunk::<CELL_BYTES>())
    else {
        return LONG;
    };
    let Some(len) = u8::try_from(to.checked_sub(from).unwrap_or(usize::MAX))
        .ok()
        .filter(|len| *len < 31)
    else {
        return LONG;
    };
    // A byte order mark may be among those that begin with its first byte.
    if text.json || (len == 0 && text.alone) || source.first() == Some(&0xEF) {
        return LONG;
    }
    let mut special = 0;
    for (byte, i) in source.iter().zip(0_u8..) {
        let odd = (*byte == text.delimiter) | (*byte == b'"') | (*byte == b'\n') | (*byte == b'\r');
        special |= u8::from(odd & (i < len));
    }
    if special != 0 {
        return LONG;
    }
    *cell = *source;
    if let Some(behind) = cell.get_mut(usize::from(len)) {
        *behind = after;
    }
    len + 1
}
