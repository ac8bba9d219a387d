//! Columns in memory: plain buffers that become Arrow arrays without a copy.

use crate::schema::ColumnType;
use crate::value::Value;

/// Bits, least significant first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bitmap {
    /// Eight values to a byte; unused bits of the last byte are zero.
    pub bytes: Vec<u8>,
    /// Values.
    pub len: usize,
}

impl Bitmap {
    /// Value `i`.
    #[must_use]
    pub fn get(&self, i: usize) -> bool {
        self.bytes
            .get(i / 8)
            .is_some_and(|byte| byte >> (i % 8) & 1 == 1)
    }

    /// Append a value.
    #[inline]
    pub fn push(&mut self, value: bool) {
        let bit = self.len % 8;
        if bit == 0 {
            self.bytes.push(u8::from(value));
        } else if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(value) << bit;
        }
        self.len += 1;
    }

    /// Append a value so many times.
    pub(crate) fn append(&mut self, value: bool, times: usize) {
        let end = self.len + times;
        while self.len < end && !self.len.is_multiple_of(8) {
            self.push(value);
        }
        let whole = (end - self.len) / 8;
        let byte = if value { 0xFF } else { 0 };
        self.bytes.resize(self.bytes.len() + whole, byte);
        self.len += 8 * whole;
        while self.len < end {
            self.push(value);
        }
    }

    /// Append eight values; the length is a multiple of eight.
    #[inline]
    pub(crate) fn push_eight(&mut self, values: u8) {
        self.bytes.push(values);
        self.len += 8;
    }
}

/// Room made for strings that may come, at most.
const EXPECTED_BYTES: usize = 16 << 20;

/// Strings behind each other, as in Arrow's `Utf8` (or `Binary`, if [`StringColumn::is_utf8`] says no).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringColumn {
    /// Start of each string, and the end of the last.
    pub offsets: Vec<i32>,
    /// All strings.
    pub bytes: Vec<u8>,
}

impl Default for StringColumn {
    fn default() -> Self {
        Self {
            offsets: vec![0],
            bytes: Vec::new(),
        }
    }
}

impl StringColumn {
    /// String `i`.
    #[must_use]
    pub fn get(&self, i: usize) -> &[u8] {
        let at = |i: usize| self.offsets.get(i).and_then(|at| usize::try_from(*at).ok());
        match (at(i), at(i + 1)) {
            (Some(from), Some(to)) => self.bytes.get(from..to).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Append a string. Batches are bounded far below 2 GiB, so offsets fit.
    #[inline]
    pub(crate) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.offsets
            .push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    /// [`StringColumn::push`] of a part of `source`: a short one is copied as sixteen bytes and cut, without a call.
    #[inline]
    pub(crate) fn push_from(&mut self, source: &[u8], at: usize, bytes: usize) {
        match source.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
            Some(sixteen) if bytes <= 16 => {
                let end = self.bytes.len() + bytes;
                self.bytes.extend_from_slice(sixteen);
                self.bytes.truncate(end);
                self.offsets.push(i32::try_from(end).unwrap_or(i32::MAX));
            }
            _ => self.push(source.get(at..at + bytes).unwrap_or_default()),
        }
    }

    /// Make room for so many bytes of the next `rows` strings, and for those that the others will have if they are alike.
    pub(crate) fn expect(&mut self, bytes: usize, rows: usize) {
        if self.bytes.capacity() - self.bytes.len() < bytes {
            let left = self.offsets.capacity() - self.offsets.len();
            let others = bytes / rows.max(1) * left.saturating_sub(rows);
            self.bytes
                .reserve_exact(bytes + (others + others / 8).min(EXPECTED_BYTES));
        }
    }

    /// Append the last string, of so many bytes, so many times more.
    pub(crate) fn repeat_last(&mut self, bytes: usize, times: usize) {
        let start = self.bytes.len().saturating_sub(bytes);
        let end = self.bytes.len() + times * bytes;
        self.bytes.reserve(times * bytes);
        // In pieces that double.
        while self.bytes.len() < end {
            let more = (end - self.bytes.len()).min(self.bytes.len() - start);
            self.bytes.extend_from_within(start..start + more);
        }
        let offset = |n: usize| i32::try_from(start + (n + 1) * bytes).unwrap_or(i32::MAX);
        self.offsets.extend((1..=times).map(offset));
    }

    /// Whether each string is UTF-8.
    #[must_use]
    pub fn is_utf8(&self) -> bool {
        if self.bytes.is_ascii() {
            return true;
        }
        let Ok(text) = std::str::from_utf8(&self.bytes) else {
            return false;
        };
        self.offsets
            .iter()
            .all(|at| usize::try_from(*at).is_ok_and(|at| text.is_char_boundary(at)))
    }
}

/// The values of one column in a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// `bool`
    Bool(Bitmap),
    /// `uint8`
    UInt8(Vec<u8>),
    /// `uint16`
    UInt16(Vec<u16>),
    /// `uint32`
    UInt32(Vec<u32>),
    /// `uint64`
    UInt64(Vec<u64>),
    /// `int8`
    Int8(Vec<i8>),
    /// `int16`
    Int16(Vec<i16>),
    /// `int32`
    Int32(Vec<i32>),
    /// `int64`
    Int64(Vec<i64>),
    /// `float`
    Float(Vec<f32>),
    /// `double`
    Double(Vec<f64>),
    /// `string`
    String(StringColumn),
}

/// Run an expression for the vector of a number column.
macro_rules! for_numbers {
    ($column:expr, $values:ident => $numbers:expr, $bits:ident => $bools:expr, $text:ident => $strings:expr) => {
        match $column {
            Column::Bool($bits) => $bools,
            Column::UInt8($values) => $numbers,
            Column::UInt16($values) => $numbers,
            Column::UInt32($values) => $numbers,
            Column::UInt64($values) => $numbers,
            Column::Int8($values) => $numbers,
            Column::Int16($values) => $numbers,
            Column::Int32($values) => $numbers,
            Column::Int64($values) => $numbers,
            Column::Float($values) => $numbers,
            Column::Double($values) => $numbers,
            Column::String($text) => $strings,
        }
    };
}
pub(crate) use for_numbers;

impl Column {
    /// An empty column with room for this many rows.
    #[must_use]
    pub fn with_capacity(kind: ColumnType, rows: usize) -> Self {
        match kind {
            ColumnType::Bool => Self::Bool(Bitmap {
                bytes: Vec::with_capacity(rows.div_ceil(8)),
                len: 0,
            }),
            ColumnType::UInt8 => Self::UInt8(Vec::with_capacity(rows)),
            ColumnType::UInt16 => Self::UInt16(Vec::with_capacity(rows)),
            ColumnType::UInt32 => Self::UInt32(Vec::with_capacity(rows)),
            ColumnType::UInt64 => Self::UInt64(Vec::with_capacity(rows)),
            ColumnType::Int8 => Self::Int8(Vec::with_capacity(rows)),
            ColumnType::Int16 => Self::Int16(Vec::with_capacity(rows)),
            ColumnType::Int32 => Self::Int32(Vec::with_capacity(rows)),
            ColumnType::Int64 => Self::Int64(Vec::with_capacity(rows)),
            ColumnType::Float => Self::Float(Vec::with_capacity(rows)),
            ColumnType::Double => Self::Double(Vec::with_capacity(rows)),
            ColumnType::String => {
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                Self::String(StringColumn {
                    offsets,
                    bytes: Vec::new(),
                })
            }
        }
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ColumnType {
        match self {
            Self::Bool(_) => ColumnType::Bool,
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
            Self::String(_) => ColumnType::String,
        }
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        for_numbers!(self, values => values.len(), bits => bits.len, text => text.offsets.len().saturating_sub(1))
    }

    /// No rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a row; `None` behind the end.
    #[must_use]
    pub fn value(&self, row: usize) -> Option<Value<'_>> {
        Some(match self {
            Self::Bool(bits) if row < bits.len => Value::Bool(bits.get(row)),
            Self::Bool(_) => return None,
            Self::UInt8(values) => Value::UInt8(*values.get(row)?),
            Self::UInt16(values) => Value::UInt16(*values.get(row)?),
            Self::UInt32(values) => Value::UInt32(*values.get(row)?),
            Self::UInt64(values) => Value::UInt64(*values.get(row)?),
            Self::Int8(values) => Value::Int8(*values.get(row)?),
            Self::Int16(values) => Value::Int16(*values.get(row)?),
            Self::Int32(values) => Value::Int32(*values.get(row)?),
            Self::Int64(values) => Value::Int64(*values.get(row)?),
            Self::Float(values) => Value::Float(*values.get(row)?),
            Self::Double(values) => Value::Double(*values.get(row)?),
            Self::String(text) if row < self.len() => Value::String(text.get(row)),
            Self::String(_) => return None,
        })
    }
}

/// Rows of a file as columns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Row number in the file of the first row.
    pub first_row: u64,
    /// Rows.
    pub rows: usize,
    /// The columns asked for, in the order asked for.
    pub columns: Vec<Column>,
}

impl Batch {
    /// The value of a column (as numbered in this batch) in a row of this batch.
    #[must_use]
    pub fn value(&self, column: usize, row: usize) -> Option<Value<'_>> {
        self.columns.get(column)?.value(row)
    }
}
