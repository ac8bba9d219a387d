//! Columns that the caller owns, to be written; and turning them into row images.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::MAX_STRING_BYTES;
use crate::row::RowStrings;
use crate::row::tile::{TILE_ROWS, tile_rows, turn_bits};
use crate::schema::{ColumnType, Layout, Schema, Slot};

/// A borrowed column, in Arrow's buffer layouts.
#[derive(Debug, Clone, Copy)]
pub enum ColumnView<'a> {
    /// Bits, least significant first, from bit `offset` on.
    Bool {
        /// The bits.
        bits: &'a [u8],
        /// First bit.
        offset: usize,
    },
    /// A byte per bool; anything but 0 is true.
    BoolBytes(&'a [u8]),
    /// `uint8`
    UInt8(&'a [u8]),
    /// `uint16`
    UInt16(&'a [u16]),
    /// `uint32`
    UInt32(&'a [u32]),
    /// `uint64`
    UInt64(&'a [u64]),
    /// `int8`
    Int8(&'a [i8]),
    /// `int16`
    Int16(&'a [i16]),
    /// `int32`
    Int32(&'a [i32]),
    /// `int64`
    Int64(&'a [i64]),
    /// `float`
    Float(&'a [f32]),
    /// `double`
    Double(&'a [f64]),
    /// Strings with 32-bit offsets (one more than rows).
    String {
        /// Start of each string, and the end of the last.
        offsets: &'a [i32],
        /// What the offsets point into.
        bytes: &'a [u8],
    },
    /// Strings with 64-bit offsets (one more than rows).
    LargeString {
        /// Start of each string, and the end of the last.
        offsets: &'a [i64],
        /// What the offsets point into.
        bytes: &'a [u8],
    },
}

impl<'a> ColumnView<'a> {
    /// The column type it is written as.
    #[must_use]
    pub fn kind(&self) -> ColumnType {
        match self {
            Self::Bool { .. } | Self::BoolBytes(_) => ColumnType::Bool,
            Self::UInt8(_) => ColumnType::UInt8,
            Self::UInt16(_) => ColumnType::UInt16,
            Self::UInt32(_) => ColumnType::UInt32,
            Self::UInt64(_) => ColumnType::UInt64,
            Self::Int8(_) => ColumnType::Int8,
            Self::Int16(_) => ColumnType::Int16,
            Self::Int32(_) => ColumnType::Int32,
            Self::Int64(_) => ColumnType::Int64,
            Self::Float(_) => ColumnType::Float,
            Self::Double(_) => ColumnType::Double,
            Self::String { .. } | Self::LargeString { .. } => ColumnType::String,
        }
    }

    /// Rows; for bits, as many as there could be.
    fn rows(&self) -> usize {
        match self {
            Self::Bool { bits, offset } => (bits.len() * 8).saturating_sub(*offset),
            Self::BoolBytes(values) | Self::UInt8(values) => values.len(),
            Self::UInt16(values) => values.len(),
            Self::UInt32(values) => values.len(),
            Self::UInt64(values) => values.len(),
            Self::Int8(values) => values.len(),
            Self::Int16(values) => values.len(),
            Self::Int32(values) => values.len(),
            Self::Int64(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::String { offsets, .. } => offsets.len().saturating_sub(1),
            Self::LargeString { offsets, .. } => offsets.len().saturating_sub(1),
        }
    }

    #[inline]
    fn string(&self, row: usize) -> &'a [u8] {
        match *self {
            Self::String { offsets, bytes } => match offsets.get(row..) {
                Some([from, to, ..]) => bytes
                    .get(index((*from).into())..index((*to).into()))
                    .unwrap_or_default(),
                _ => &[],
            },
            Self::LargeString { offsets, bytes } => match offsets.get(row..) {
                Some([from, to, ..]) => bytes.get(index(*from)..index(*to)).unwrap_or_default(),
                _ => &[],
            },
            _ => &[],
        }
    }

    /// Call `each` for `rows` strings from `start` on: all bytes from the start of the string, and its length.
    #[inline]
    pub(crate) fn each_string(&self, start: usize, rows: usize, each: impl FnMut(&'a [u8], usize)) {
        match *self {
            Self::String { offsets, bytes } => strings(offsets, bytes, start, rows, each),
            Self::LargeString { offsets, bytes } => strings(offsets, bytes, start, rows, each),
            _ => {}
        }
    }

    /// Eight bools from `row` on.
    #[inline]
    fn eight(&self, row: usize) -> u8 {
        match *self {
            Self::Bool { bits, offset } => {
                let at = row + offset;
                let byte = |i: usize| u16::from(bits.get(i).copied().unwrap_or(0));
                let pair = byte(at / 8) | byte(at / 8 + 1) << 8;
                (pair >> (at % 8)).to_le_bytes()[0]
            }
            Self::BoolBytes(values) => {
                let eight = values.get(row..).unwrap_or_default().iter().take(8);
                eight
                    .enumerate()
                    .fold(0, |byte, (bit, value)| byte | u8::from(*value != 0) << bit)
            }
            _ => 0,
        }
    }
}

fn index(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Rows to be written, as columns in layout order.
#[derive(Debug, Clone)]
pub struct BatchView<'a> {
    /// Rows.
    pub rows: usize,
    /// One view per column of the schema.
    pub columns: Vec<ColumnView<'a>>,
}

impl BatchView<'_> {
    /// Whether this can be written with this schema: types, lengths, string offsets and lengths.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        let expected = schema.len();
        if self.columns.len() != expected {
            return Err(Error::new(ErrorKind::ColumnCount {
                expected,
                found: self.columns.len(),
            }));
        }
        for (column, (view, spec)) in self.columns.iter().zip(schema.columns()).enumerate() {
            if view.kind() != spec.kind {
                return Err(Error::new(ErrorKind::ValueType {
                    column,
                    expected: spec.kind,
                    found: view.kind().name(),
                }));
            }
            let bits = matches!(view, ColumnView::Bool { .. });
            if view.rows() < self.rows || (!bits && view.rows() != self.rows) {
                return Err(Error::new(ErrorKind::ColumnLength {
                    column,
                    expected: self.rows,
                    found: view.rows(),
                }));
            }
            match *view {
                ColumnView::String { offsets, bytes } => check_strings(column, offsets, bytes)?,
                ColumnView::LargeString { offsets, bytes } => {
                    check_strings(column, offsets, bytes)?
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes of all strings.
    pub(crate) fn string_bytes(&self) -> usize {
        let bytes = |view: &ColumnView<'_>| match *view {
            ColumnView::String {
                offsets: [first, .., last],
                ..
            } => index((*last - *first).into()),
            ColumnView::LargeString {
                offsets: [first, .., last],
                ..
            } => index(*last - *first),
            _ => 0,
        };
        self.columns.iter().map(bytes).sum()
    }
}

fn check_strings<T: Copy + Into<i64>>(column: usize, offsets: &[T], bytes: &[u8]) -> Result<()> {
    let mut longest = 0_i64;
    let mut before = offsets.first().map_or(0, |offset| (*offset).into());
    let mut wrong = before < 0;
    for offset in offsets {
        let offset = (*offset).into();
        wrong |= offset < before;
        longest = longest.max(offset.wrapping_sub(before));
        before = offset;
    }
    if wrong || index(before) > bytes.len() {
        return Err(Error::new(ErrorKind::Schema {
            column,
            what: "string offsets that do not ascend within their bytes",
        }));
    }
    if longest > MAX_STRING_BYTES as i64 {
        return Err(Error::new(ErrorKind::StringTooLong {
            column,
            bytes: index(longest),
        }));
    }
    Ok(())
}

fn strings<'a, T: Copy + Into<i64>>(
    offsets: &[T],
    bytes: &'a [u8],
    start: usize,
    rows: usize,
    mut each: impl FnMut(&'a [u8], usize),
) {
    let offsets = offsets.get(start..).unwrap_or_default();
    for pair in offsets.windows(2).take(rows) {
        if let [from, to] = *pair {
            let (from, to) = (index(from.into()), index(to.into()));
            let rest = bytes.get(from..).unwrap_or_default();
            each(rest, to.saturating_sub(from).min(rest.len()));
        }
    }
}

/// The strings of a row of a batch.
pub(crate) struct ViewStrings<'v, 'a> {
    pub columns: &'v [ColumnView<'a>],
    pub row: usize,
}

impl RowStrings for ViewStrings<'_, '_> {
    #[inline]
    fn string(&self, i: usize) -> &[u8] {
        self.columns
            .get(i)
            .map_or(&[], |column| column.string(self.row))
    }
}

/// Turns blocks of rows from columns into images. The stride is an odd number of cache lines, so that a column of the
/// block does not fall on one cache set.
pub(crate) struct Scatter {
    stride: usize,
    rows: usize,
    tile: Vec<u8>,
    image_bytes: usize,
}

impl Scatter {
    pub(crate) fn new(layout: &Layout) -> Self {
        let stride = (layout.image_bytes.div_ceil(64) | 1) * 64;
        let rows = tile_rows(stride, TILE_ROWS);
        Self {
            stride,
            rows,
            tile: vec![0; stride * rows],
            image_bytes: layout.image_bytes,
        }
    }

    /// Rows of a block.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Fill the block with `rows` (at most [`Scatter::rows`]) rows from `start` on; then look at [`Scatter::image`].
    pub(crate) fn fill(
        &mut self,
        layout: &Layout,
        columns: &[ColumnView<'_>],
        start: usize,
        rows: usize,
    ) {
        let stride = self.stride;
        let tile = self
            .tile
            .get_mut(..rows.min(self.rows) * stride)
            .unwrap_or_default();
        for (slot, view) in layout.slots.iter().zip(columns) {
            if let Slot::Number { at, .. } = *slot {
                macro_rules! scatter {
                    ($values:expr) => {
                        for (image, value) in tile
                            .chunks_exact_mut(stride)
                            .zip($values.get(start..).unwrap_or_default())
                        {
                            if let Some(to) =
                                image.get_mut(at..).and_then(|rest| rest.first_chunk_mut())
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
            if let Some(to) = tile.get_mut(row * stride + byte) {
                *to = bits;
            }
        });
    }

    /// Row `row` of the block.
    #[inline]
    pub(crate) fn image(&self, row: usize) -> &[u8] {
        self.tile
            .get(row * self.stride..row * self.stride + self.image_bytes)
            .unwrap_or_default()
    }
}

/// Bools of `rows` rows from `start` on: eight columns of eight rows are turned in a register. `put` gets the row, the
/// byte among the bools and its value.
pub(crate) fn scatter_bools(
    layout: &Layout,
    columns: &[ColumnView<'_>],
    start: usize,
    rows: usize,
    mut put: impl FnMut(usize, usize, u8),
) {
    if layout.bools == 0 {
        return;
    }
    let bools: Vec<&ColumnView<'_>> = layout
        .slots
        .iter()
        .zip(columns)
        .filter(|(slot, _)| matches!(slot, Slot::Bool(_)))
        .map(|(_, view)| view)
        .collect();
    for (byte, eight) in bools.chunks(8).enumerate() {
        for block in (0..rows).step_by(8) {
            let mut word = [0; 8];
            for (to, view) in word.iter_mut().zip(eight) {
                *to = view.eight(start + block);
            }
            let turned = turn_bits(u64::from_le_bytes(word)).to_le_bytes();
            for (row, bits) in turned.into_iter().enumerate().take(rows - block) {
                put(block + row, byte, bits);
            }
        }
    }
}
