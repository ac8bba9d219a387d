//! Where cells and records end.
//!
//! A cell is quoted if its first byte is a quote. Inside, a doubled quote is one quote, and delimiters and newlines are
//! text. A quote elsewhere is text too. A record ends with LF or CR LF. So whether a quote opens a cell is decided by
//! the byte before it alone, which lets [`Boundary`] jump from quote to quote.

use std::borrow::Cow;

use crate::error::ErrorKind;

pub(crate) const QUOTE: u8 = b'"';

/// Byte behind the last whole record of `bytes`, which starts with a record; `None` if no record ends.
pub(crate) fn last_record_end(bytes: &[u8], delimiter: u8) -> Option<usize> {
    let mut outside = 0; // start of the text outside quotes that is being looked at
    let mut last = None;
    loop {
        let Some(open) = next_opening_quote(bytes, outside, delimiter) else {
            let rest = bytes.get(outside..).unwrap_or_default();
            return memchr::memrchr(b'\n', rest).map_or(last, |at| Some(outside + at + 1));
        };
        let before = bytes.get(outside..open).unwrap_or_default();
        if let Some(at) = memchr::memrchr(b'\n', before) {
            last = Some(outside + at + 1);
        }
        match closing_quote(bytes, open + 1) {
            Some(close) => outside = close + 1,
            None => return last,
        }
    }
}

/// Byte behind the first record of `bytes[from..]`; `None` if it does not end.
pub(crate) fn record_end(bytes: &[u8], from: usize, delimiter: u8) -> Option<usize> {
    let mut outside = from;
    loop {
        let newline = memchr::memchr(b'\n', bytes.get(outside..)?).map(|at| outside + at);
        let open = next_opening_quote(
            bytes.get(..newline.unwrap_or(bytes.len()))?,
            outside.max(from),
            delimiter,
        );
        match (open, newline) {
            (Some(open), _) => outside = closing_quote(bytes, open + 1)? + 1,
            (None, newline) => return newline.map(|at| at + 1),
        }
    }
}

/// Whether there is an opening quote behind the last record end, whose cell is not closed.
pub(crate) fn ends_in_quotes(bytes: &[u8], delimiter: u8) -> bool {
    let mut outside = 0;
    while let Some(open) = next_opening_quote(bytes, outside, delimiter) {
        match closing_quote(bytes, open + 1) {
            Some(close) => outside = close + 1,
            None => return true,
        }
    }
    false
}

fn next_opening_quote(bytes: &[u8], from: usize, delimiter: u8) -> Option<usize> {
    let mut from = from;
    loop {
        let at = from + memchr::memchr(QUOTE, bytes.get(from..)?)?;
        let before = at.checked_sub(1).and_then(|i| bytes.get(i));
        if before.is_none_or(|b| *b == delimiter || *b == b'\n') {
            return Some(at);
        }
        from = at + 1;
    }
}

/// The quote that ends a cell whose content starts at `from`.
fn closing_quote(bytes: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let at = from + memchr::memchr(QUOTE, bytes.get(from..)?)?;
        if bytes.get(at + 1) != Some(&QUOTE) {
            return Some(at);
        }
        from = at + 2;
    }
}

/// A cell's text and the place of the byte that ends it.
pub(crate) type Cell<'a> = (Cow<'a, [u8]>, usize);

/// The cell that starts at `at`. It ends at a delimiter, at LF, at CR LF, or with the bytes.
pub(crate) fn cell(bytes: &[u8], at: usize, delimiter: u8) -> Result<Cell<'_>, ErrorKind> {
    if bytes.get(at) == Some(&QUOTE) {
        return quoted(bytes, at, delimiter);
    }
    let end = plain_end(bytes, at, delimiter)?;
    Ok((Cow::Borrowed(bytes.get(at..end).unwrap_or_default()), end))
}

fn quoted(bytes: &[u8], at: usize, delimiter: u8) -> Result<Cell<'_>, ErrorKind> {
    let close = closing_quote(bytes, at + 1).ok_or(ErrorKind::OpenQuote)?;
    let inner = bytes.get(at + 1..close).unwrap_or_default();
    let end = close + 1;
    let rest = bytes.get(end..).unwrap_or_default();
    if !(rest.is_empty()
        || rest.first() == Some(&delimiter)
        || rest.starts_with(b"\n")
        || rest.starts_with(b"\r\n"))
    {
        return Err(ErrorKind::AfterQuote);
    }
    if memchr::memchr(QUOTE, inner).is_none() {
        return Ok((Cow::Borrowed(inner), end));
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(i) = memchr::memchr(QUOTE, rest) {
        text.extend_from_slice(rest.get(..=i).unwrap_or_default());
        rest = rest.get(i + 2..).unwrap_or_default();
    }
    text.extend_from_slice(rest);
    Ok((Cow::Owned(text), end))
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Marks (top bits) of the bytes of `word` that equal `byte`; marks above the first may be false.
#[inline(always)]
pub(crate) fn equal(word: u64, byte: u8) -> u64 {
    let x = word ^ (ONES * u64::from(byte));
    x.wrapping_sub(ONES) & !x & (ONES << 7)
}

/// Where the unquoted cell that starts at `at` ends.
#[inline]
pub(crate) fn plain_end(bytes: &[u8], at: usize, delimiter: u8) -> Result<usize, ErrorKind> {
    let mut end = at;
    loop {
        match bytes.get(end..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(eight) => {
                let word = u64::from_le_bytes(*eight);
                let marks = equal(word, delimiter) | equal(word, b'\n') | equal(word, b'\r');
                if marks == 0 {
                    end += 8;
                    continue;
                }
                end += (marks.trailing_zeros() / 8) as usize;
            }
            None => {
                let rest = bytes.get(end..).unwrap_or_default();
                end += rest
                    .iter()
                    .position(|b| *b == delimiter || *b == b'\n' || *b == b'\r')
                    .unwrap_or(rest.len());
            }
        }
        return match bytes.get(end) {
            Some(b'\r') if bytes.get(end + 1) != Some(&b'\n') => Err(ErrorKind::BareReturn),
            _ => Ok(end),
        };
    }
}

/// What follows the cell that ended at `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another cell, at this place.
    Cell(usize),
    /// Another record, at this place (or the end).
    Record(usize),
}

#[inline]
pub(crate) fn next(bytes: &[u8], end: usize, delimiter: u8) -> Next {
    match bytes.get(end) {
        Some(byte) if *byte == delimiter => Next::Cell(end + 1),
        Some(b'\r') => Next::Record(end + 2),
        Some(_) => Next::Record(end + 1),
        None => Next::Record(end),
    }
}

/// The cells of a record and where the next one starts.
pub(crate) type Record<'a> = (Vec<Cow<'a, [u8]>>, usize);

/// All cells of the record at `at`, and where the next one starts.
pub(crate) fn record(
    bytes: &[u8],
    at: usize,
    delimiter: u8,
) -> Result<Record<'_>, (ErrorKind, usize)> {
    let mut cells = Vec::new();
    let mut at = at;
    loop {
        let (text, end) = cell(bytes, at, delimiter).map_err(|kind| (kind, at))?;
        cells.push(text);
        match next(bytes, end, delimiter) {
            Next::Cell(start) => at = start,
            Next::Record(start) => return Ok((cells, start)),
        }
    }
}

/// Length of the line end if there is an empty line at `at`, else 0.
#[inline]
pub(crate) fn blank(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'\n') => 1,
        Some(b'\r') if bytes.get(at + 1) == Some(&b'\n') => 2,
        _ => 0,
    }
}

/// Newlines in some bytes.
pub(crate) fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
