//! Which type holds all cells of a column: what was seen is summed up, and the summary names the smallest type.

use tapeline_bcsv::ColumnType;

use crate::number::{decimal, double, float, special};

/// What an empty cell is in a column of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmptyCells {
    /// NaN; columns of whole numbers become floats.
    #[default]
    Nan,
    /// Text: the column becomes one of strings.
    String,
    /// An error.
    Stop,
}

/// The rules of inference.
#[derive(Debug, Clone, Default)]
pub struct Types {
    /// What empty cells are.
    pub empty: EmptyCells,
    /// Texts that count as empty in columns of numbers, such as `NA`.
    pub nulls: Vec<Vec<u8>>,
    /// The decimal separator.
    pub point: u8,
}

impl Types {
    pub(crate) fn is_empty(&self, text: &[u8]) -> bool {
        text.is_empty() || self.nulls.iter().any(|null| null == text)
    }
}

/// What was seen of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    empties: bool,
    bools: bool,
    /// Whole numbers: smallest (if negative) and largest.
    ints: bool,
    min: i64,
    max: u64,
    /// All whole numbers are exact as floats.
    ints_f32: bool,
    ints_f64: bool,
    /// Other numbers, all kept by a binary32, or only by a double.
    floats: bool,
    doubles: bool,
    text: bool,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            empties: false,
            bools: false,
            ints: false,
            min: 0,
            max: 0,
            ints_f32: true,
            ints_f64: true,
            floats: false,
            doubles: false,
            text: false,
        }
    }
}

impl Summary {
    /// Look at a cell.
    pub(crate) fn see(&mut self, text: &[u8], types: &Types) {
        if self.text {
            return;
        }
        match decimal(text, types.point) {
            Some((found, end)) if end == text.len() => {
                if found.integer && !(found.negative && found.mantissa == 0) {
                    match i64::try_from(found.mantissa) {
                        _ if !found.whole => self.text = true,
                        Ok(magnitude) if found.negative => self.int(-magnitude),
                        _ if found.negative => {
                            if found.mantissa == 1 << 63 {
                                self.int(i64::MIN);
                            } else {
                                self.text = true;
                            }
                        }
                        Ok(value) => self.int(value),
                        Err(_) => self.large(found.mantissa),
                    }
                } else if float(&found, text, types.point).1 {
                    self.floats = true;
                } else if double(&found, text, types.point).1 {
                    self.doubles = true;
                } else {
                    self.text = true;
                }
            }
            _ if types.is_empty(text) => self.empties = true,
            _ if text == b"true" || text == b"false" => self.bools = true,
            _ if special(text).is_some() => self.floats = true,
            _ => self.text = true,
        }
    }

    pub(crate) fn int(&mut self, value: i64) {
        self.ints = true;
        self.min = self.min.min(value);
        self.max = self.max.max(u64::try_from(value).unwrap_or(0));
        self.ints_f32 &= fits_f32(value.into());
        self.ints_f64 &= fits_f64(value.into());
    }

    pub(crate) fn large(&mut self, value: u64) {
        self.ints = true;
        self.max = self.max.max(value);
        self.ints_f32 &= fits_f32(value.into());
        self.ints_f64 &= fits_f64(value.into());
    }

    /// Whole numbers between two bounds; `exact` says whether each is exact in binary32 and binary64.
    pub(crate) fn range(&mut self, min: i64, max: u64, exact: (bool, bool)) {
        self.ints = true;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        self.ints_f32 &= exact.0;
        self.ints_f64 &= exact.1;
    }

    pub(crate) fn empty(&mut self) {
        self.empties = true;
    }

    /// A column of this type was seen, and nothing more is known.
    pub(crate) fn kind(&mut self, kind: ColumnType) {
        match kind {
            ColumnType::Bool => self.bools = true,
            ColumnType::Float => self.floats = true,
            ColumnType::Double => self.doubles = true,
            ColumnType::String => self.text = true,
            _ => self.ints = true,
        }
    }

    /// All that either has seen.
    pub(crate) fn join(&mut self, other: &Self) {
        self.empties |= other.empties;
        self.bools |= other.bools;
        self.ints |= other.ints;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.ints_f32 &= other.ints_f32;
        self.ints_f64 &= other.ints_f64;
        self.floats |= other.floats;
        self.doubles |= other.doubles;
        self.text |= other.text;
    }

    /// Only empty cells so far, or none at all.
    pub(crate) fn is_blank(&self) -> bool {
        !(self.bools || self.ints || self.floats || self.doubles || self.text)
    }

    /// The smallest type that holds everything seen.
    #[must_use]
    pub fn smallest(&self, empty: EmptyCells) -> ColumnType {
        let numbers = self.ints || self.floats || self.doubles;
        let gaps = self.empties && empty != EmptyCells::Stop;
        if self.text || self.is_blank() || (self.bools && numbers) {
            return ColumnType::String;
        }
        if gaps && (self.bools || empty == EmptyCells::String) {
            return ColumnType::String;
        }
        if self.bools {
            return ColumnType::Bool;
        }
        if !self.floats
            && !self.doubles
            && !gaps
            && let Some(kind) = self.smallest_int()
        {
            return kind;
        }
        if !self.doubles && self.ints_f32 {
            ColumnType::Float
        } else if self.ints_f64 {
            ColumnType::Double
        } else {
            ColumnType::String
        }
    }

    fn smallest_int(&self) -> Option<ColumnType> {
        let (min, max) = (self.min, self.max);
        if min >= 0 {
            return Some(match max {
                0..=0xFF => ColumnType::UInt8,
                0x100..=0xFFFF => ColumnType::UInt16,
                0x1_0000..=0xFFFF_FFFF => ColumnType::UInt32,
                _ => ColumnType::UInt64,
            });
        }
        let max = i64::try_from(max).ok()?;
        Some(if min >= i8::MIN.into() && max <= i8::MAX.into() {
            ColumnType::Int8
        } else if min >= i16::MIN.into() && max <= i16::MAX.into() {
            ColumnType::Int16
        } else if min >= i32::MIN.into() && max <= i32::MAX.into() {
            ColumnType::Int32
        } else {
            ColumnType::Int64
        })
    }
}

/// Whether a whole number is exact in 24 bits of mantissa.
pub(crate) fn fits_f32(value: i128) -> bool {
    fits(value, 24)
}

/// Whether a whole number is exact in 53 bits of mantissa.
pub(crate) fn fits_f64(value: i128) -> bool {
    fits(value, 53)
}

fn fits(value: i128, bits: u32) -> bool {
    let magnitude = value.unsigned_abs();
    magnitude == 0 || 128 - magnitude.leading_zeros() - magnitude.trailing_zeros() <= bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(cells: &[&str]) -> ColumnType {
        let types = Types {
            point: b'.',
            ..Types::default()
        };
        let mut seen = Summary::default();
        cells
            .iter()
            .for_each(|cell| seen.see(cell.as_bytes(), &types));
        seen.smallest(types.empty)
    }

    #[test]
    fn the_smallest_type_that_holds_all_cells() {
        use ColumnType as T;
        for (cells, expected) in [
            (&["true", "false"][..], T::Bool),
            (&["true", "1"], T::String),
            (&["true", ""], T::String),
            (&["0", "255"], T::UInt8),
            (&["256"], T::UInt16),
            (&["65536"], T::UInt32),
            (&["4294967296"], T::UInt64),
            (&["18446744073709551615"], T::UInt64),
            (&["18446744073709551616"], T::String),
            (&["-1", "127"], T::Int8),
            (&["-1", "128"], T::Int16),
            (&["-32769"], T::Int32),
            (&["-1", "4294967295"], T::Int64),
            (&["-9223372036854775808"], T::Int64),
            (&["-9223372036854775809"], T::String),
            (&["-1", "18446744073709551615"], T::String),
            (&["-1", "9223372036854775808"], T::Float), // a power of two
            (&["-0"], T::Float),
            (&["1.5", "2"], T::Float),
            (&["1.5", "16777217"], T::Double),
            (&["1.5", "9007199254740993"], T::String),
            (&["0.123456789"], T::Double),
            (&["nan", "1"], T::Float),
            (&["1", ""], T::Float),
            (&["16777217", ""], T::Double),
            (&["", ""], T::String),
            (&["007"], T::String),
            (&["+5"], T::String),
            (&["1e400"], T::String),
            (&["1 "], T::String),
        ] {
            assert_eq!(kind(cells), expected, "{cells:?}");
        }
    }
}
