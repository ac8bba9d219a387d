//! Columns, their types, and where each sits in a row.
//!
//! Two column orders occur (format 8): *layout order*, as in the header, and *grouped order*: bools, then
//! numbers by type code, then strings. [`Layout`] holds both, computed once per file.
//!
//! In memory a row without its strings is an *image*: the bools, eight to a byte as in every row codec, then the
//! numbers in grouped order at their native width, little-endian. ZoH and delta code their data in exactly that
//! order, so most of their work is on contiguous bytes.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{MAX_COLUMNS, MAX_NAME_BYTES, MAX_NAMES_BYTES};

/// The twelve column types, with the codes of the header (format 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ColumnType {
    /// One bit.
    Bool = 0,
    /// Unsigned, 8 bits.
    UInt8 = 1,
    /// Unsigned, 16 bits.
    UInt16 = 2,
    /// Unsigned, 32 bits.
    UInt32 = 3,
    /// Unsigned, 64 bits.
    UInt64 = 4,
    /// Signed, 8 bits.
    Int8 = 5,
    /// Signed, 16 bits.
    Int16 = 6,
    /// Signed, 32 bits.
    Int32 = 7,
    /// Signed, 64 bits.
    Int64 = 8,
    /// IEEE 754 binary32.
    Float = 9,
    /// IEEE 754 binary64.
    Double = 10,
    /// Up to 65,535 bytes, by convention UTF-8.
    String = 11,
}

impl ColumnType {
    /// All types, by code.
    pub const ALL: [Self; 12] = [
        Self::Bool,
        Self::UInt8,
        Self::UInt16,
        Self::UInt32,
        Self::UInt64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Float,
        Self::Double,
        Self::String,
    ];

    /// The code in the header.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type of a code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The name, as in the Python API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
            Self::String => "string",
        }
    }

    /// The type of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Bytes of a value in a row image: 1 for bool, 0 for string.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::Bool | Self::UInt8 | Self::Int8 => 1,
            Self::UInt16 | Self::Int16 => 2,
            Self::UInt32 | Self::Int32 | Self::Float => 4,
            Self::UInt64 | Self::Int64 | Self::Double => 8,
            Self::String => 0,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Name and type of a column. Names are bytes; by convention, and when written by us, UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    /// As stored.
    pub name: Vec<u8>,
    /// Its type.
    pub kind: ColumnType,
}

impl ColumnSpec {
    /// A column of this name and type.
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>, kind: ColumnType) -> Self {
        Self {
            name: name.into(),
            kind,
        }
    }

    /// The name as text; bytes that are no UTF-8 become replacement characters.
    #[must_use]
    pub fn name_text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// The columns of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schema {
    columns: Vec<ColumnSpec>,
}

impl Schema {
    /// A schema to write. Names must be UTF-8, not empty, without leading or trailing blanks, and unique, so
    /// that every reader of the format shows the same names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Schema`] or [`ErrorKind::SchemaSize`].
    pub fn new(columns: Vec<ColumnSpec>) -> Result<Self> {
        let schema = Self::stored(columns)?;
        let mut seen = std::collections::HashSet::new();
        for (column, spec) in schema.columns.iter().enumerate() {
            let what = match std::str::from_utf8(&spec.name) {
                Err(_) => "the name is not UTF-8",
                Ok("") => "the name is empty",
                Ok(name)
                    if name.trim_matches([' ', '\t', '\u{b}', '\r', '\n']).len() != name.len() =>
                {
                    "the name starts or ends with a blank"
                }
                Ok(name) if !seen.insert(name) => "the name occurs twice",
                Ok(_) => continue,
            };
            return Err(Error::new(ErrorKind::Schema { column, what }));
        }
        Ok(schema)
    }

    /// [`Schema::new`] from text and types.
    ///
    /// # Errors
    ///
    /// As [`Schema::new`].
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, ColumnType)>) -> Result<Self> {
        Self::new(
            pairs
                .into_iter()
                .map(|(name, kind)| ColumnSpec::new(name, kind))
                .collect(),
        )
    }

    /// A schema as found in a file: only what the format can hold is checked.
    pub(crate) fn stored(columns: Vec<ColumnSpec>) -> Result<Self> {
        let check = |what, found, limit| {
            if found > limit {
                Err(Error::new(ErrorKind::SchemaSize { what, found, limit }))
            } else {
                Ok(())
            }
        };
        check("columns", columns.len(), MAX_COLUMNS)?;
        for spec in &columns {
            check("bytes in a column name", spec.name.len(), MAX_NAME_BYTES)?;
        }
        check(
            "bytes of column names",
            columns.iter().map(|spec| spec.name.len()).sum(),
            MAX_NAMES_BYTES,
        )?;
        Ok(Self { columns })
    }

    /// The columns in layout order.
    #[must_use]
    pub fn columns(&self) -> &[ColumnSpec] {
        &self.columns
    }

    /// Number of columns.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// No columns at all (legal).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Names made unique for lookup: empty ones become `Column_N`, repeated ones get `.1`, `.2` and so on.
    #[must_use]
    pub fn unique_names(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        // Where the search for a free number goes on: 65,535 equal names must not take 65,535 searches from 1.
        let mut numbered: std::collections::HashMap<String, u32> = std::collections::HashMap::new();
        let mut names = Vec::with_capacity(self.columns.len());
        for (number, spec) in self.columns.iter().enumerate() {
            let base = if spec.name.is_empty() {
                format!("Column_{number}")
            } else {
                spec.name_text()
            };
            let mut name = base.clone();
            while !seen.insert(name.clone()) {
                let suffix = numbered.entry(base.clone()).or_default();
                *suffix += 1;
                name = format!("{base}.{suffix}");
            }
            names.push(name);
        }
        names
    }

    /// Number of the column with this (unique) name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchColumn`].
    pub fn index_of(&self, name: &str) -> Result<usize> {
        if let Some(found) = self
            .columns
            .iter()
            .position(|spec| spec.name == name.as_bytes())
        {
            return Ok(found);
        }
        let names = self.unique_names();
        let found = names.iter().position(|unique| unique == name);
        found.ok_or_else(|| {
            Error::new(ErrorKind::NoSuchColumn {
                name: name.to_owned(),
            })
        })
    }
}

/// Where a column sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Bool number in layout order; also its bit in the image.
    Bool(usize),
    /// Number of this width at this byte of the image.
    Number {
        /// Byte in the image.
        at: usize,
        /// Bytes of a value.
        width: usize,
        /// Byte among the scalars of a flat row.
        flat_at: usize,
    },
    /// String number in layout order.
    String(usize),
}

/// Numbers of one type: contiguous in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Their type.
    pub kind: ColumnType,
    /// How many.
    pub columns: usize,
    /// First byte in the image.
    pub at: usize,
}

/// Both column orders of a schema, computed once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// Per column in layout order.
    pub slots: Vec<Slot>,
    /// Bool columns.
    pub bools: usize,
    /// String columns.
    pub strings: usize,
    /// The non-empty groups of numbers, in grouped order.
    pub groups: Vec<Group>,
    /// Per number in grouped order: byte in the image, and width.
    pub numbers: Vec<(usize, usize)>,
    /// Bytes of a row image.
    pub image_bytes: usize,
    /// Bytes of the scalars in a flat row.
    pub scalar_bytes: usize,
}

impl Layout {
    /// The layout of a schema.
    pub(crate) fn new(schema: &Schema) -> Self {
        let kinds = || schema.columns.iter().map(|spec| spec.kind);
        let bools = kinds().filter(|kind| *kind == ColumnType::Bool).count();
        let strings = kinds().filter(|kind| *kind == ColumnType::String).count();
        let mut groups = Vec::new();
        let mut at = bools.div_ceil(8);
        let mut next = [0_usize; 12];
        for kind in ColumnType::ALL
            .into_iter()
            .filter(|kind| !matches!(kind, ColumnType::Bool | ColumnType::String))
        {
            let columns = kinds().filter(|other| *other == kind).count();
            if let Some(next) = next.get_mut(usize::from(kind.code())) {
                *next = at;
            }
            if columns > 0 {
                groups.push(Group { kind, columns, at });
                at += columns * kind.width();
            }
        }
        let mut slots = Vec::with_capacity(schema.len());
        let (mut bool_number, mut string_number, mut flat_at) = (0, 0, 0);
        for kind in kinds() {
            slots.push(match kind {
                ColumnType::Bool => {
                    bool_number += 1;
                    Slot::Bool(bool_number - 1)
                }
                ColumnType::String => {
                    string_number += 1;
                    Slot::String(string_number - 1)
                }
                _ => {
                    let width = kind.width();
                    let at = next.get_mut(usize::from(kind.code())).map_or(0, |next| {
                        *next += width;
                        *next - width
                    });
                    flat_at += width;
                    Slot::Number {
                        at,
                        width,
                        flat_at: flat_at - width,
                    }
                }
            });
        }
        let mut numbers = Vec::new();
        for group in &groups {
            let width = group.kind.width();
            numbers.extend((0..group.columns).map(|i| (group.at + i * width, width)));
        }
        Self {
            slots,
            bools,
            strings,
            groups,
            numbers,
            image_bytes: at,
            scalar_bytes: flat_at,
        }
    }

    /// Bytes of the packed bools of a flat row.
    pub(crate) fn bool_bytes(&self) -> usize {
        self.bools.div_ceil(8)
    }

    /// Bytes of a flat row without the contents of its strings.
    pub(crate) fn flat_fixed_bytes(&self) -> usize {
        self.bool_bytes() + self.scalar_bytes + 2 * self.strings
    }

    /// Unused bits of the last byte of bools are zero in an image, whatever a file says.
    #[inline]
    pub(crate) fn last_bool_mask(&self) -> u8 {
        match self.bools % 8 {
            0 => 0xFF,
            used => (1 << used) - 1,
        }
    }

    /// Take the bools of a row from the first bytes of its stored form.
    #[inline]
    pub(crate) fn copy_bools(&self, stored: &[u8], image: &mut [u8]) {
        let bytes = self.bool_bytes();
        if let (Some(from), Some(to)) = (stored.get(..bytes), image.get_mut(..bytes)) {
            to.copy_from_slice(from);
            if let Some(last) = to.last_mut() {
                *last &= self.last_bool_mask();
            }
        }
    }

    /// Columns in all.
    pub(crate) fn columns(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn layout_groups_by_type() {
        use ColumnType as T;
        let kinds = [
            T::String,
            T::Float,
            T::Bool,
            T::Int16,
            T::UInt8,
            T::Float,
            T::Bool,
        ];
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let schema = Schema::from_pairs(names.into_iter().zip(kinds)).unwrap();
        let layout = Layout::new(&schema);
        assert_eq!(
            (
                layout.bools,
                layout.strings,
                layout.image_bytes,
                layout.scalar_bytes
            ),
            (2, 1, 12, 11)
        );
        assert_eq!(layout.numbers, [(1, 1), (2, 2), (4, 4), (8, 4)]);
        assert_eq!(
            layout.slots.get(5),
            Some(&Slot::Number {
                at: 8,
                width: 4,
                flat_at: 7
            })
        );
        assert_eq!(
            layout.slots.get(3),
            Some(&Slot::Number {
                at: 2,
                width: 2,
                flat_at: 4
            })
        );
    }

    #[test]
    fn unwritable_names_are_refused() {
        for names in [["a", ""], ["a", " b"], ["a", "b\t"], ["a", "a"]] {
            let pairs = names.into_iter().map(|name| (name, ColumnType::Bool));
            let error = Schema::from_pairs(pairs).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Schema { column: 1, .. }),
                "{names:?}"
            );
        }
    }

    #[test]
    fn stored_names_become_unique_for_lookup() {
        let columns = ["x", "", "x", "x"].map(|name| ColumnSpec::new(name, ColumnType::Bool));
        let schema = Schema::stored(columns.into()).unwrap();
        assert_eq!(schema.unique_names(), ["x", "Column_1", "x.1", "x.2"]);
        assert_eq!(schema.index_of("x.1").unwrap(), 2);
        assert!(schema.index_of("y").is_err());
    }
}
