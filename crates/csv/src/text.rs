//! Columns to text: CSV or JSON lines.
//!
//! Floats are the shortest digits that read back as the same value, in the notation of Python's `repr`: `0.1`, `2.0`,
//! `1e-05`, `1e+16`, `nan`, `inf`. So a number column stays one of floats when the text is read again, and what Python
//! programs wrote comes back byte by byte. A CSV cell is quoted only if it holds a delimiter, a quote or a line end.

use tapeline_bcsv::{BatchView, ColumnView};

use crate::error::{Error, ErrorKind, Result};
use crate::sniff::Dialect;

/// The kind of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextFormat {
    /// Comma-separated values.
    Csv {
        /// Delimiter and decimal separator.
        dialect: Dialect,
        /// The first record has the names.
        header: bool,
        /// What NaN is written as.
        nan: String,
    },
    /// One JSON object per line. NaN is `null`, an infinity `1e999` (JSON has no word for it; readers make one of it).
    JsonLines,
}

/// Writes rows of a table as text into a buffer.
#[derive(Debug, Clone)]
pub struct TextWriter {
    format: TextFormat,
    /// What comes before each cell of a row: the delimiter, or the key.
    before: Vec<Vec<u8>>,
    header: Vec<u8>,
    special: [bool; 256],
    delimiter: u8,
    point: u8,
    nan: Vec<u8>,
    json: bool,
    /// An empty string needs quotes, for an empty line would not be seen.
    alone: bool,
}

impl TextWriter {
    /// A writer for tables with these columns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Option`] if the delimiter cannot be told from other text.
    pub fn new(format: TextFormat, names: &[String]) -> Result<Self> {
        let mut writer = Self {
            before: Vec::new(),
            header: Vec::new(),
            special: [false; 256],
            delimiter: b',',
            point: b'.',
            nan: b"null".to_vec(),
            json: format == TextFormat::JsonLines,
            alone: names.len() == 1,
            format,
        };
        if let TextFormat::Csv { dialect, nan, .. } = &writer.format {
            let Dialect { delimiter, point } = *dialect;
            if delimiter == point
                || !delimiter.is_ascii()
                || matches!(delimiter, b'"' | b'\n' | b'\r' | b'0'..=b'9' | b'-')
            {
                let what = format!("{:?} cannot be the delimiter", char::from(delimiter));
                return Err(Error::new(ErrorKind::Option { what }));
            }
            writer.nan = nan.clone().into_bytes();
            (writer.delimiter, writer.point) = (delimiter, point);
            for byte in [delimiter, b'"', b'\n', b'\r'] {
                if let Some(special) = writer.special.get_mut(usize::from(byte)) {
                    *special = true;
                }
            }
        }
        for (number, name) in names.iter().enumerate() {
            let mut before = Vec::new();
            if writer.json {
                before.push(if number == 0 { b'{' } else { b',' });
                json_string(name, &mut before);
                before.push(b':');
            } else {
                if number > 0 {
                    before.push(writer.delimiter);
                    writer.header.push(writer.delimiter);
                }
                let mut cell = Vec::new();
                writer.csv_string(name.as_bytes(), &mut cell);
                writer.header.append(&mut cell);
            }
            writer.before.push(before);
        }
        writer.header.push(b'\n');
        Ok(writer)
    }

    /// What the text starts with.
    pub fn header(&self, out: &mut Vec<u8>) {
        if matches!(self.format, TextFormat::Csv { header: true, .. }) {
            out.extend_from_slice(&self.header);
        }
    }

    /// Append rows `from..to` of a batch.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotUtf8`] for a string that JSON cannot hold.
    pub fn rows(
        &self,
        batch: &BatchView<'_>,
        from: usize,
        to: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut numbers = Numbers::default();
        for row in from..to {
            for (column, before) in batch.columns.iter().zip(&self.before) {
                match before.as_slice() {
                    [] => {}
                    [byte] => out.push(*byte),
                    bytes => out.extend_from_slice(bytes),
                }
                self.cell(column, row, &mut numbers, out)?;
            }
            if self.json {
                out.extend_from_slice(if self.before.is_empty() {
                    b"{}\n"
                } else {
                    b"}\n"
                });
            } else {
                out.push(b'\n');
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn cell(
        &self,
        column: &ColumnView<'_>,
        row: usize,
        numbers: &mut Numbers,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        macro_rules! whole {
            ($values:expr) => {
                whole($values.get(row).copied().unwrap_or_default().into(), out)
            };
        }
        macro_rules! signed {
            ($values:expr) => {{
                let value = i64::from($values.get(row).copied().unwrap_or_default());
                if value < 0 {
                    out.push(b'-');
                }
                whole(value.unsigned_abs(), out);
            }};
        }
        match column {
            ColumnView::UInt8(values) => whole!(values),
            ColumnView::UInt16(values) => whole!(values),
            ColumnView::UInt32(values) => whole!(values),
            ColumnView::UInt64(values) => whole!(values),
            ColumnView::Int8(values) => signed!(values),
            ColumnView::Int16(values) => signed!(values),
            ColumnView::Int32(values) => signed!(values),
            ColumnView::Int64(values) => signed!(values),
            ColumnView::Float(values) => {
                let value = values.get(row).copied().unwrap_or_default();
                // In this range both notations are the same.
                if (1e-3..1e7).contains(&value.abs()) {
                    let text = numbers.float.format_finite(value).as_bytes();
                    self.plain(text, out);
                } else if value.is_finite() {
                    self.rewritten(numbers.float.format_finite(value), out);
                } else {
                    self.not_finite(value.into(), out);
                }
            }
            ColumnView::Double(values) => {
                let value = values.get(row).copied().unwrap_or_default();
                if (1e-3..1e15).contains(&value.abs()) {
                    let text = numbers.float.format_finite(value).as_bytes();
                    self.plain(text, out);
                } else if value.is_finite() {
                    self.rewritten(numbers.float.format_finite(value), out);
                } else {
                    self.not_finite(value, out);
                }
            }
            ColumnView::Bool { bits, offset } => {
                let at = row + offset;
                let set = bits
                    .get(at / 8)
                    .is_some_and(|byte| byte >> (at % 8) & 1 == 1);
                out.extend_from_slice(if set { b"true" } else { b"false" });
            }
            ColumnView::BoolBytes(values) => {
                let set = values.get(row).is_some_and(|byte| *byte != 0);
                out.extend_from_slice(if set { b"true" } else { b"false" });
            }
            ColumnView::String { offsets, bytes } => {
                let at = |i: usize| offsets.get(i).and_then(|at| usize::try_from(*at).ok());
                self.string(slice(bytes, at(row), at(row + 1)), out)?;
            }
            ColumnView::LargeString { offsets, bytes } => {
                let at = |i: usize| offsets.get(i).and_then(|at| usize::try_from(*at).ok());
                self.string(slice(bytes, at(row), at(row + 1)), out)?;
            }
        }
        Ok(())
    }

    /// A number as printed, with the decimal separator of this text.
    #[inline]
    fn plain(&self, text: &[u8], out: &mut Vec<u8>) {
        let from = out.len();
        append(text, out);
        if self.point != b'.' {
            let written = out.get_mut(from..).unwrap_or_default();
            if let Some(point) = written.iter_mut().find(|byte| **byte == b'.') {
                *point = self.point;
            }
        }
    }

    /// A number as printed by `zmij`, in Python's notation.
    #[cold]
    fn rewritten(&self, text: &str, out: &mut Vec<u8>) {
        if let Some(text) = python_notation(text) {
            self.plain(text.as_bytes(), out);
        } else {
            self.plain(text.as_bytes(), out);
        }
    }

    #[cold]
    fn not_finite(&self, value: f64, out: &mut Vec<u8>) {
        let text: &[u8] = match (value.is_nan(), self.json, value > 0.0) {
            (true, ..) => &self.nan,
            (_, true, true) => b"1e999",
            (_, true, false) => b"-1e999",
            (_, false, true) => b"inf",
            (_, false, false) => b"-inf",
        };
        if self.json {
            out.extend_from_slice(text);
        } else {
            self.csv_string(text, out);
        }
    }

    #[inline]
    fn string(&self, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if self.json {
            let text = std::str::from_utf8(text).map_err(|_| Error::new(ErrorKind::NotUtf8))?;
            json_string(text, out);
        } else {
            self.csv_string(text, out);
        }
        Ok(())
    }

    #[inline]
    fn csv_string(&self, text: &[u8], out: &mut Vec<u8>) {
        let special = |byte: &u8| {
            self.special
                .get(usize::from(*byte))
                .copied()
                .unwrap_or(false)
        };
        let from = out.len();
        append(text, out);
        // A byte order mark at the start of the text would be taken for one.
        let quoted = text.iter().any(special)
            || (text.is_empty() && self.alone)
            || text.starts_with(b"\xEF\xBB\xBF");
        if quoted {
            out.truncate(from);
            out.push(b'"');
            for byte in text {
                if *byte == b'"' {
                    out.push(b'"');
                }
                out.push(*byte);
            }
            out.push(b'"');
        }
    }
}

#[derive(Default)]
struct Numbers {
    float: zmij::Buffer,
}

/// Append a whole number: blocks of eight digits, each made at once, without a loop over digits.
#[inline(always)]
fn whole(value: u64, out: &mut Vec<u8>) {
    if value < BLOCK {
        first_block(value, out);
    } else {
        blocks(value, out);
    }
}

const BLOCK: u64 = 100_000_000;

#[inline(never)]
fn blocks(value: u64, out: &mut Vec<u8>) {
    let (high, low) = (value / BLOCK, value % BLOCK);
    if high < BLOCK {
        first_block(high, out);
    } else {
        first_block(high / BLOCK, out);
        next_block(high % BLOCK, out);
    }
    next_block(low, out);
}

/// All eight digits.
#[inline(always)]
fn next_block(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&(eight_digits(value) | 0x3030_3030_3030_3030).to_le_bytes());
}

/// Without zeros in front.
#[inline(always)]
fn first_block(value: u64, out: &mut Vec<u8>) {
    let digits = eight_digits(value);
    // The lowest byte is the first digit; the last one is written even if it is 0.
    let zeros = (digits | 1 << 56).trailing_zeros() / 8;
    let end = out.len() + 8 - zeros as usize;
    let shown = (digits | 0x3030_3030_3030_3030) >> (8 * zeros);
    out.extend_from_slice(&shown.to_le_bytes());
    out.truncate(end);
}

/// Append some bytes; up to 32 of them as two overlapping pieces of fixed size, which needs no call.
#[inline(always)]
fn append(bytes: &[u8], out: &mut Vec<u8>) {
    macro_rules! two_pieces {
        ($size:literal) => {
            if let (Some(first), Some(last)) =
                (bytes.first_chunk::<$size>(), bytes.last_chunk::<$size>())
            {
                let end = out.len() + bytes.len() - $size;
                out.extend_from_slice(first);
                out.truncate(end);
                out.extend_from_slice(last);
            }
        };
    }
    match bytes.len() {
        0..4 => bytes.iter().for_each(|byte| out.push(*byte)),
        4..8 => two_pieces!(4),
        8..16 => two_pieces!(8),
        16..=32 => two_pieces!(16),
        _ => out.extend_from_slice(bytes),
    }
}

/// The digits of a number below 10^8 as bytes, the first in the lowest.
#[inline(always)]
fn eight_digits(value: u64) -> u64 {
    // Halves of four digits, then of two, then of one; each division is a multiplication in all lanes at once.
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    let tops = ((fours * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let twos = tops | ((fours - 100 * tops) << 16);
    let tops = ((twos * 103) >> 10) & 0x000F_000F_000F_000F;
    tops | ((twos - 10 * tops) << 8)
}

#[inline]
fn slice(bytes: &[u8], from: Option<usize>, to: Option<usize>) -> &[u8] {
    match (from, to) {
        (Some(from), Some(to)) => bytes.get(from..to).unwrap_or_default(),
        _ => &[],
    }
}

/// `repr` writes exponents below -4 and from 16 on, with a sign and two digits; `None` if the text is that already.
fn python_notation(text: &str) -> Option<String> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None if text.starts_with("0.0000") || text.len() > 17 => (text, 0),
        None => return None,
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{before}{behind}");
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return None;
    }
    // The number is 0.DIGITS * 10^place.
    let place = i32::try_from(before.len()).ok()? + exponent - i32::try_from(zeros).ok()?;
    let (first, rest) = digits.split_at(1);
    let count = i32::try_from(digits.len()).ok()?;
    Some(if place <= -4 || place > 16 {
        let power = place - 1;
        let fraction = if rest.is_empty() {
            String::new()
        } else {
            format!(".{rest}")
        };
        let mark = if power < 0 { '-' } else { '+' };
        format!("{sign}{first}{fraction}e{mark}{:02}", power.abs())
    } else if place <= 0 {
        format!(
            "{sign}0.{}{digits}",
            "0".repeat(usize::try_from(-place).ok()?)
        )
    } else if place >= count {
        format!(
            "{sign}{digits}{}.0",
            "0".repeat(usize::try_from(place - count).ok()?)
        )
    } else {
        let (whole, fraction) = digits.split_at(usize::try_from(place).ok()?);
        format!("{sign}{whole}.{fraction}")
    })
}

/// A JSON string.
fn json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1F => b"",
            _ => continue,
        };
        out.extend_from_slice(text.as_bytes().get(from..at).unwrap_or_default());
        if escaped.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(escaped);
        }
        from = at + 1;
    }
    out.extend_from_slice(text.as_bytes().get(from..).unwrap_or_default());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn csv(
        point: u8,
        delimiter: u8,
        names: &[&str],
        columns: Vec<ColumnView<'_>>,
        rows: usize,
    ) -> String {
        let format = TextFormat::Csv {
            dialect: Dialect { delimiter, point },
            header: true,
            nan: "nan".to_owned(),
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let writer = TextWriter::new(format, &names).unwrap();
        let mut out = Vec::new();
        writer.header(&mut out);
        writer
            .rows(&BatchView { rows, columns }, 0, rows, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_in_pythons_notation() {
        let values = [
            0.0,
            -0.0,
            1.0,
            0.1,
            1e15,
            1e16,
            123456789012345680.0,
            1e-4,
            1e-5,
            1.5e-5,
            1e22,
            5e-324,
            f64::NAN,
            f64::NEG_INFINITY,
            0.00012,
            1234567.0,
            9007199254740993.0,
            1.7976931348623157e308,
        ];
        let text = csv(
            b'.',
            b',',
            &["x"],
            vec![ColumnView::Double(&values)],
            values.len(),
        );
        let expected = [
            "x",
            "0.0",
            "-0.0",
            "1.0",
            "0.1",
            "1000000000000000.0",
            "1e+16",
            "1.2345678901234568e+17",
            "0.0001",
            "1e-05",
            "1.5e-05",
            "1e+22",
            "5e-324",
            "nan",
            "-inf",
            "0.00012",
            "1234567.0",
            "9007199254740992.0",
            "1.7976931348623157e+308",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let text = csv(
            b',',
            b';',
            &["x"],
            vec![ColumnView::Float(&[0.1, 1e20, 16777216.0])],
            3,
        );
        assert_eq!(text, "x\n0,1\n1e+20\n16777216,0\n");
    }

    #[test]
    fn whole_numbers_of_every_length() {
        let mut value = 1_u64;
        let mut out = Vec::new();
        for _ in 0..2000 {
            value = value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            for shift in 0..64 {
                out.clear();
                whole(value >> shift, &mut out);
                assert_eq!(out, (value >> shift).to_string().as_bytes());
            }
        }
        for value in (0..100_000).chain((1..20).flat_map(|n| [10_u64.pow(n) - 1, 10_u64.pow(n)])) {
            out.clear();
            whole(value, &mut out);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }

    #[test]
    fn quotes_only_where_needed() {
        let text = "plaina,bq\"l\n";
        let offsets = [0, 5, 8, 10, 12, 12];
        let strings = ColumnView::String {
            offsets: &offsets,
            bytes: text.as_bytes(),
        };
        assert_eq!(
            csv(b'.', b',', &["s"], vec![strings], 5),
            "s\nplain\n\"a,b\"\n\"q\"\"\"\n\"l\n\"\n\"\"\n"
        );
    }
}
