//! Single values and rows: the row face's currency.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{MAX_ROW_BYTES, MAX_STRING_BYTES};
use crate::row::RowStrings;
use crate::schema::{ColumnType, Layout, Schema, Slot};

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `bool`
    Bool(bool),
    /// `uint8`
    UInt8(u8),
    /// `uint16`
    UInt16(u16),
    /// `uint32`
    UInt32(u32),
    /// `uint64`
    UInt64(u64),
    /// `int8`
    Int8(i8),
    /// `int16`
    Int16(i16),
    /// `int32`
    Int32(i32),
    /// `int64`
    Int64(i64),
    /// `float`
    Float(f32),
    /// `double`
    Double(f64),
    /// `string`
    String(&'a [u8]),
}

impl Value<'_> {
    /// The column type that holds this value.
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
}

/// A row being put together: fill it column by column, then hand it to a writer.
///
/// The setters are what bindings use to avoid a `Vec` of [`Value`]; [`RowBuffer::set`] is the general one. A
/// buffer keeps its values, so columns that do not change need not be set again, except strings: call
/// [`RowBuffer::clear_strings`] before setting the strings of the next row (unset ones are then empty).
#[derive(Debug, Clone)]
pub struct RowBuffer {
    kinds: Arc<[ColumnType]>,
    layout: Arc<Layout>,
    image: Vec<u8>,
    strings: Vec<(usize, usize)>,
    text: Vec<u8>,
    /// Runs of numbers that lie together in a packed row and in the image: place in each, and bytes.
    packed_runs: Arc<[(usize, usize, usize)]>,
}

macro_rules! number_setter {
    ($name:ident, $type:ty, $kind:pat, $label:literal) => {
        #[doc = concat!("Set a ", $label, " column.\n\n# Errors\n\n[`ErrorKind::ValueType`] if it is none.")]
        #[inline]
        pub fn $name(&mut self, column: usize, value: $type) -> Result<()> {
            match (self.kinds.get(column), self.layout.slots.get(column)) {
                (Some($kind), Some(Slot::Number { at, width, .. })) => {
                    if let Some(to) = self.image.get_mut(*at..at + width) {
                        to.copy_from_slice(&value.to_le_bytes());
                    }
                    Ok(())
                }
                _ => Err(self.mismatch(column, $label)),
            }
        }
    };
}

impl RowBuffer {
    /// A row of zeros, `false` and empty strings.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let layout = Layout::new(schema);
        Self {
            kinds: schema.columns().iter().map(|spec| spec.kind).collect(),
            image: vec![0; layout.image_bytes],
            strings: vec![(0, 0); layout.strings],
            text: Vec::new(),
            packed_runs: packed_runs(&layout),
            layout: Arc::new(layout),
        }
    }

    number_setter!(set_u8, u8, ColumnType::UInt8, "uint8");
    number_setter!(set_u16, u16, ColumnType::UInt16, "uint16");
    number_setter!(set_u32, u32, ColumnType::UInt32, "uint32");
    number_setter!(set_u64, u64, ColumnType::UInt64, "uint64");
    number_setter!(set_i8, i8, ColumnType::Int8, "int8");
    number_setter!(set_i16, i16, ColumnType::Int16, "int16");
    number_setter!(set_i32, i32, ColumnType::Int32, "int32");
    number_setter!(set_i64, i64, ColumnType::Int64, "int64");
    number_setter!(set_f32, f32, ColumnType::Float, "float");
    number_setter!(set_f64, f64, ColumnType::Double, "double");

    /// Set a bool column.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ValueType`] if it is none.
    #[inline]
    pub fn set_bool(&mut self, column: usize, value: bool) -> Result<()> {
        if let Some(Slot::Bool(i)) = self.layout.slots.get(column)
            && let Some(byte) = self.image.get_mut(i / 8)
        {
            *byte = (*byte & !(1 << (i % 8))) | (u8::from(value) << (i % 8));
            return Ok(());
        }
        Err(self.mismatch(column, "bool"))
    }

    /// Set a string column.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ValueType`] if it is none, [`ErrorKind::StringTooLong`].
    #[inline]
    pub fn set_string(&mut self, column: usize, value: &[u8]) -> Result<()> {
        let Some(Slot::String(i)) = self.layout.slots.get(column) else {
            return Err(self.mismatch(column, "string"));
        };
        if value.len() > MAX_STRING_BYTES {
            return Err(Error::new(ErrorKind::StringTooLong {
                column,
                bytes: value.len(),
            }));
        }
        if let Some(span) = self.strings.get_mut(*i) {
            *span = (self.text.len(), value.len());
        }
        self.text.extend_from_slice(value);
        Ok(())
    }

    /// Empty all strings. To be called once per row, before its strings are set.
    #[inline]
    pub fn clear_strings(&mut self) {
        self.strings.fill((0, 0));
        self.text.clear();
    }

    /// Set any column.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ValueType`], [`ErrorKind::StringTooLong`].
    #[inline]
    pub fn set(&mut self, column: usize, value: Value<'_>) -> Result<()> {
        match value {
            Value::Bool(value) => self.set_bool(column, value),
            Value::UInt8(value) => self.set_u8(column, value),
            Value::UInt16(value) => self.set_u16(column, value),
            Value::UInt32(value) => self.set_u32(column, value),
            Value::UInt64(value) => self.set_u64(column, value),
            Value::Int8(value) => self.set_i8(column, value),
            Value::Int16(value) => self.set_i16(column, value),
            Value::Int32(value) => self.set_i32(column, value),
            Value::Int64(value) => self.set_i64(column, value),
            Value::Float(value) => self.set_f32(column, value),
            Value::Double(value) => self.set_f64(column, value),
            Value::String(value) => self.set_string(column, value),
        }
    }

    /// Set all columns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ColumnCount`], and as [`RowBuffer::set`]. The row is then partly set.
    pub fn fill(&mut self, values: &[Value<'_>]) -> Result<()> {
        if values.len() != self.kinds.len() {
            return Err(Error::new(ErrorKind::ColumnCount {
                expected: self.kinds.len(),
                found: values.len(),
            }));
        }
        self.clear_strings();
        values
            .iter()
            .enumerate()
            .try_for_each(|(column, value)| self.set(column, *value))
    }

    /// Bytes of a packed row (see [`RowBuffer::fill_packed`]); `None` if there are string columns.
    #[must_use]
    pub fn packed_bytes(&self) -> Option<usize> {
        (self.layout.strings == 0).then_some(self.layout.bools + self.layout.scalar_bytes)
    }

    /// Set all columns from a packed row: columns in layout order at their native width, little-endian, without
    /// padding, a bool as one byte. That is what a packed NumPy structured array holds.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PackedLength`] if the length is wrong, or there are strings (row length 0 then).
    pub fn fill_packed(&mut self, row: &[u8]) -> Result<()> {
        let row_bytes = self.packed_bytes().unwrap_or(0);
        if row.len() != row_bytes || self.layout.strings > 0 {
            return Err(Error::new(ErrorKind::PackedLength {
                bytes: row.len(),
                row_bytes,
            }));
        }
        for (from, to, bytes) in self.packed_runs.iter() {
            copy(&mut self.image, row, *to, *from, *bytes);
        }
        if self.layout.bools > 0 {
            self.fill_packed_bools(row);
        }
        Ok(())
    }

    fn fill_packed_bools(&mut self, row: &[u8]) {
        let bools = self.layout.bool_bytes();
        self.image.iter_mut().take(bools).for_each(|byte| *byte = 0);
        let mut next = 0;
        for slot in &self.layout.slots {
            match *slot {
                Slot::Bool(i) => {
                    let value = row.get(next).is_some_and(|byte| *byte != 0);
                    if let Some(byte) = self.image.get_mut(i / 8) {
                        *byte |= u8::from(value) << (i % 8);
                    }
                    next += 1;
                }
                Slot::Number { width, .. } => next += width,
                Slot::String(_) => {}
            }
        }
    }

    /// Whether a packed row is an image as it is.
    pub(crate) fn packed_is_image(&self) -> bool {
        self.packed_bytes() == Some(self.image.len())
            && matches!(*self.packed_runs, [(0, 0, bytes)] if bytes == self.image.len())
    }

    pub(crate) fn image(&self) -> &[u8] {
        &self.image
    }

    pub(crate) fn string_bytes(&self) -> usize {
        self.strings.iter().map(|span| span.1).sum()
    }

    pub(crate) fn columns(&self) -> usize {
        self.kinds.len()
    }

    #[cold]
    fn mismatch(&self, column: usize, found: &'static str) -> Error {
        match self.kinds.get(column) {
            Some(expected) => Error::new(ErrorKind::ValueType {
                column,
                expected: *expected,
                found,
            }),
            None => Error::new(ErrorKind::ColumnCount {
                expected: self.kinds.len(),
                found: column + 1,
            }),
        }
    }
}

fn packed_runs(layout: &Layout) -> Arc<[(usize, usize, usize)]> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    let mut next = 0;
    for slot in &layout.slots {
        match *slot {
            Slot::Bool(_) => next += 1,
            Slot::Number { at, width, .. } => {
                match runs.last_mut() {
                    Some((from, to, bytes)) if *from + *bytes == next && *to + *bytes == at => {
                        *bytes += width;
                    }
                    _ => runs.push((next, at, width)),
                }
                next += width;
            }
            Slot::String(_) => {}
        }
    }
    runs.into()
}

fn copy(to: &mut [u8], from: &[u8], to_at: usize, from_at: usize, bytes: usize) {
    if let (Some(to), Some(from)) = (
        to.get_mut(to_at..to_at + bytes),
        from.get(from_at..from_at + bytes),
    ) {
        to.copy_from_slice(from);
    }
}

impl RowStrings for RowBuffer {
    #[inline]
    fn string(&self, i: usize) -> &[u8] {
        let (at, bytes) = self.strings.get(i).copied().unwrap_or_default();
        self.text.get(at..at + bytes).unwrap_or_default()
    }
}

/// Refuse an encoded row over the format's limit.
pub(crate) fn check_row_bytes(bytes: usize) -> Result<()> {
    if bytes > MAX_ROW_BYTES {
        return Err(Error::new(ErrorKind::RowTooLong {
            bytes,
            limit: MAX_ROW_BYTES,
        }));
    }
    Ok(())
}
