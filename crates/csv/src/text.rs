//! Columns to text: CSV or JSON lines.
//!
//! Floats are the shortest digits that read back as the same value, in the notation of Python's `repr`: `0.1`, `2.0`,
//! `1e-05`, `1e+16`, `nan`, `inf`. So a number column stays one of floats when the text is read again, and what Python
//! programs wrote comes back byte by byte. A CSV cell is quoted only if it holds a delimiter, a quote or a line end.

mod sheet;

use tapeline_bcsv::{BatchView, ColumnView};
use tapeline_sys::vector::widest;

use self::sheet::{CELL_BYTES, Cell, Fill, LONG, Sheet};
use crate::error::{Error, ErrorKind, Result};
use crate::print::{Hint, NUMBER_BYTES, Page, SLACK_BYTES};
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

/// What printing needs and can keep from batch to batch of the same columns.
#[derive(Default)]
pub(crate) struct Scratch {
    sheet: Sheet,
    hints: Vec<Hint>,
}

impl Scratch {
    fn of(&mut self, columns: usize) -> (&mut Sheet, &mut [Hint]) {
        if self.hints.len() != columns || self.sheet.rows == 0 {
            self.sheet = Sheet::new(columns);
            self.hints = vec![Hint::default(); columns];
        }
        (&mut self.sheet, &mut self.hints)
    }
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
    /// Bytes that a row takes at most without its long cells.
    fixed: usize,
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
            fixed: 0,
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
                let mut cell = vec![0; 2 * name.len() + 2 + SLACK_BYTES];
                let mut page = Page::new(&mut cell, 0);
                writer.csv_string(name.as_bytes(), &mut page);
                let end = page.end().unwrap_or(0);
                writer.header.extend(cell.iter().take(end));
            }
            writer.before.push(before);
        }
        writer.header.push(b'\n');
        let cells = writer.before.iter().map(|before| before.len());
        writer.fixed = cells.sum::<usize>() + names.len() * CELL_BYTES + 3 + SLACK_BYTES;
        Ok(writer)
    }

    /// How many columns there are.
    pub(crate) fn columns(&self) -> usize {
        self.before.len()
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
        self.rows_with(&mut Scratch::default(), batch, from, to, out)
    }

    /// The same with memory that served before, for the columns of this writer.
    ///
    /// # Errors
    ///
    /// As [`Self::rows`].
    pub(crate) fn rows_with(
        &self,
        scratch: &mut Scratch,
        batch: &BatchView<'_>,
        from: usize,
        to: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (sheet, hints) = scratch.of(batch.columns.len());
        let mut at = out.len();
        let mut first = from;
        while first < to {
            let rows = first..to.min(first + sheet.rows);
            first = rows.end;
            widest(Fill {
                text: self,
                batch,
                rows: rows.clone(),
                sheet,
                hints,
            });
            for (row, cells) in rows.zip(sheet.cells.chunks(sheet.columns.max(1))) {
                self.row(batch, row, cells, out, &mut at)?;
            }
        }
        out.truncate(at);
        Ok(())
    }

    /// Put a row together.
    #[inline]
    fn row(
        &self,
        batch: &BatchView<'_>,
        row: usize,
        cells: &[Cell],
        out: &mut Vec<u8>,
        at: &mut usize,
    ) -> Result<()> {
        make_room(out, *at + self.fixed);
        let mut page = Page::new(out, *at);
        for (place, (column, before)) in batch.columns.iter().zip(&self.before).enumerate() {
            if self.json {
                page.bytes(before);
            }
            match cells.get(place) {
                Some(cell) if cell.len != LONG => page.piece(cell.text, cell.len.into()),
                _ => {
                    // What its quotes and escapes take at most, and the rest of the row.
                    *at = page.end().ok_or_else(no_room)?;
                    make_room(out, *at + self.longest(column, row) + self.fixed);
                    page = Page::new(out, *at);
                    self.cell(column, row, &mut page)?;
                    if !self.json {
                        page.byte(self.after(place));
                    }
                }
            }
        }
        match (self.json, self.before.is_empty()) {
            (false, true) => page.byte(b'\n'),
            (false, false) => {}
            (true, false) => page.bytes(b"}\n"),
            (true, true) => page.bytes(b"{}\n"),
        }
        *at = page.end().ok_or_else(no_room)?;
        Ok(())
    }

    /// What comes behind the cells of a column in CSV.
    #[inline(always)]
    fn after(&self, place: usize) -> u8 {
        if place + 1 == self.before.len() {
            b'\n'
        } else {
            self.delimiter
        }
    }

    /// Bytes that a cell takes at most.
    fn longest(&self, column: &ColumnView<'_>, row: usize) -> usize {
        // A quote becomes two, in JSON any byte at most six (`\u0000`).
        let factor = if self.json { 6 } else { 2 };
        let bytes = match column {
            ColumnView::String { offsets, .. } => place(offsets, row + 1).zip(place(offsets, row)),
            ColumnView::LargeString { offsets, .. } => {
                place(offsets, row + 1).zip(place(offsets, row))
            }
            _ => None,
        };
        let bytes = bytes.map_or(0, |(to, from): (usize, usize)| to.saturating_sub(from));
        (factor * bytes).max(2 * self.nan.len()) + NUMBER_BYTES
    }

    /// Any cell.
    fn cell(&self, column: &ColumnView<'_>, row: usize, page: &mut Page<'_>) -> Result<()> {
        match column {
            ColumnView::String { offsets, bytes } => {
                let text = slice(bytes, place(offsets, row), place(offsets, row + 1));
                self.string(text, page)?;
            }
            ColumnView::LargeString { offsets, bytes } => {
                let text = slice(bytes, place(offsets, row), place(offsets, row + 1));
                self.string(text, page)?;
            }
            ColumnView::Float(values) => {
                self.not_finite(values.get(row).copied().unwrap_or_default().into(), page);
            }
            ColumnView::Double(values) => {
                self.not_finite(values.get(row).copied().unwrap_or_default(), page);
            }
            // All others fit a sheet.
            _ => {}
        }
        Ok(())
    }

    #[cold]
    fn not_finite(&self, value: f64, page: &mut Page<'_>) {
        let text: &[u8] = match (value.is_nan(), self.json, value > 0.0) {
            (true, ..) => &self.nan,
            (_, true, true) => b"1e999",
            (_, true, false) => b"-1e999",
            (_, false, true) => b"inf",
            (_, false, false) => b"-inf",
        };
        if self.json {
            page.bytes(text);
        } else {
            self.csv_string(text, page);
        }
    }

    #[inline]
    fn string(&self, text: &[u8], page: &mut Page<'_>) -> Result<()> {
        if self.json {
            let text = std::str::from_utf8(text).map_err(|_| Error::new(ErrorKind::NotUtf8))?;
            let mut written = Vec::new();
            json_string(text, &mut written);
            page.bytes(&written);
        } else {
            self.csv_string(text, page);
        }
        Ok(())
    }

    #[inline]
    fn csv_string(&self, text: &[u8], page: &mut Page<'_>) {
        if self.quoted(text) {
            page.byte(b'"');
            for byte in text {
                if *byte == b'"' {
                    page.byte(b'"');
                }
                page.byte(*byte);
            }
            page.byte(b'"');
        } else {
            page.bytes(text);
        }
    }

    /// Whether a cell needs quotes.
    #[inline]
    fn quoted(&self, text: &[u8]) -> bool {
        let special = |byte: &u8| {
            self.special
                .get(usize::from(*byte))
                .copied()
                .unwrap_or(false)
        };
        // A byte order mark at the start of the text would be taken for one.
        text.iter().any(special)
            || (text.is_empty() && self.alone)
            || text.starts_with(b"\xEF\xBB\xBF")
    }
}

/// A buffer grows by this much at a time: little enough to be still in the cache when it is written.
const GROWTH_BYTES: usize = 16 << 10;

#[inline(always)]
fn make_room(out: &mut Vec<u8>, bytes: usize) {
    if out.len() < bytes {
        out.resize(bytes + GROWTH_BYTES, 0);
    }
}

#[cold]
fn no_room() -> Error {
    let what = "a row was longer than its room".to_owned();
    Error::new(ErrorKind::Option { what })
}

#[inline(always)]
fn place<T: Copy>(offsets: &[T], at: usize) -> Option<usize>
where
    usize: TryFrom<T>,
{
    offsets.get(at).and_then(|at| usize::try_from(*at).ok())
}

#[inline]
fn slice(bytes: &[u8], from: Option<usize>, to: Option<usize>) -> &[u8] {
    match (from, to) {
        (Some(from), Some(to)) => bytes.get(from..to).unwrap_or_default(),
        _ => &[],
    }
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
