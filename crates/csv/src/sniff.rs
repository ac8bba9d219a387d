//! Delimiter, decimal separator and header, from a sample of the text.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};
use crate::number::decimal;
use crate::records;

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Between cells.
    pub delimiter: u8,
    /// Before the fraction of a number.
    pub point: u8,
}

/// What the first record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Header {
    /// The names of the columns.
    #[default]
    Names,
    /// Data.
    None,
}

/// What is known about the text; the rest is found out.
#[derive(Debug, Clone, Default)]
pub struct DialectOptions {
    /// Between cells; one ASCII character.
    pub delimiter: Option<u8>,
    /// `.` or `,`.
    pub point: Option<u8>,
    /// What the first record is.
    pub header: Header,
    /// Names for the columns, in place of those in the text.
    pub names: Option<Vec<String>>,
}

/// Names that had to change: as found, as made.
pub(crate) type Renamed = Vec<(String, String)>;

/// What was found at the start of a text.
#[derive(Debug)]
pub(crate) struct Start {
    pub dialect: Dialect,
    /// Names of all fields, unique and fit for a schema.
    pub names: Vec<String>,
    /// Names that had to change: as found, as made.
    pub renamed: Renamed,
    /// Bytes and lines before the first record of data.
    pub data_at: usize,
    pub data_line: u64,
}

const CANDIDATES: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Records looked at.
const RECORDS: usize = 200;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Look at the start of a text: whole records, or all there is.
pub(crate) fn sniff(sample: &[u8], options: &DialectOptions) -> Result<Start> {
    if sample.starts_with(b"\xFF\xFE") || sample.starts_with(b"\xFE\xFF") {
        return Err(Error::new(ErrorKind::WideEncoding));
    }
    let mark = if sample.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len()
    } else {
        0
    };
    let text = sample.get(mark..).unwrap_or_default();
    if let Some(given) = options.delimiter
        && (!given.is_ascii() || matches!(given, b'"' | b'\n' | b'\r'))
    {
        let what = "the delimiter is one ASCII character, and no quote or line end".to_owned();
        return Err(Error::new(ErrorKind::Option { what }));
    }
    let delimiter = options
        .delimiter
        .unwrap_or_else(|| find_delimiter(text, options.point));
    let point = options.point.unwrap_or_else(|| find_point(text, delimiter));
    if point == delimiter {
        let what = "the delimiter is the decimal separator".to_owned();
        return Err(Error::new(ErrorKind::Option { what }));
    }
    let start = skip_blank(text);
    if start >= text.len() && options.names.is_none() {
        return Err(Error::new(ErrorKind::NoColumns));
    }
    let (first, next) = records::record(text, start, delimiter)
        .map_err(|(kind, at)| Error::at(kind, 1 + newlines(text, at), None))?;
    let found: Vec<String> = first
        .iter()
        .map(|cell| String::from_utf8_lossy(cell).into_owned())
        .collect();
    let (found, data) = match options.header {
        Header::Names => (found, next),
        Header::None => (vec![String::new(); found.len()], start),
    };
    let (names, renamed) = make_names(found, options)?;
    Ok(Start {
        dialect: Dialect { delimiter, point },
        names,
        renamed,
        data_at: mark + data.min(text.len()),
        data_line: 1 + newlines(text, data),
    })
}

fn newlines(text: &[u8], at: usize) -> u64 {
    records::newlines(text.get(..at).unwrap_or(text))
}

/// Empty lines before the first record.
fn skip_blank(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match records::blank(text, at) {
            0 => return at,
            bytes => at += bytes,
        }
    }
}

fn make_names(found: Vec<String>, options: &DialectOptions) -> Result<(Vec<String>, Renamed)> {
    if let Some(names) = &options.names {
        if names.len() != found.len() {
            let what = format!(
                "{} names are given for {} columns",
                names.len(),
                found.len()
            );
            return Err(Error::new(ErrorKind::Option { what }));
        }
        return Ok((names.clone(), Vec::new()));
    }
    let mut seen = std::collections::HashSet::new();
    let mut renamed = Vec::new();
    let mut names = Vec::with_capacity(found.len());
    for (number, old) in found.into_iter().enumerate() {
        let trimmed = old.trim_matches([' ', '\t', '\u{b}', '\r', '\n']);
        // As readers of the format call a column without a name (format 3).
        let base = if trimmed.is_empty() {
            format!("Column_{number}")
        } else {
            trimmed.to_owned()
        };
        let mut name = base.clone();
        let mut next = 1;
        while !seen.insert(name.clone()) {
            name = format!("{base}.{next}");
            next += 1;
        }
        if name != old && options.header == Header::Names {
            renamed.push((old, name.clone()));
        }
        names.push(name);
    }
    Ok((names, renamed))
}

/// The first records; one that is cut or malformed ends them.
fn head(text: &[u8], delimiter: u8) -> Vec<Vec<Cow<'_, [u8]>>> {
    let mut rows = Vec::new();
    let mut at = 0;
    while rows.len() < RECORDS && at < text.len() {
        let blank = records::blank(text, at);
        if blank > 0 {
            at += blank;
            continue;
        }
        match records::record(text, at, delimiter) {
            Ok((cells, next)) => {
                rows.push(cells);
                at = next;
            }
            Err(_) => break,
        }
    }
    rows
}

/// The candidate that cuts all records into the same number of cells, the more the better; where none does, the one
/// that comes nearest.
fn find_delimiter(text: &[u8], point: Option<u8>) -> u8 {
    let mut best = (b',', (0.0, 0));
    for candidate in CANDIDATES {
        if point == Some(candidate) {
            continue;
        }
        let rows = head(text, candidate);
        let Some(fields) = rows.first().map(Vec::len).filter(|fields| *fields > 1) else {
            continue;
        };
        let alike = rows.iter().filter(|row| row.len() == fields).count();
        #[allow(clippy::cast_precision_loss)] // at most 200
        let share = alike as f64 / rows.len() as f64;
        if (share, fields) > best.1 {
            best = (candidate, (share, fields));
        }
    }
    best.0
}

/// A comma only if some cell can be nothing but a decimal fraction, and none has a point: `1,5` is one, `1,500` might
/// be a grouped whole number.
fn find_point(text: &[u8], delimiter: u8) -> u8 {
    if delimiter == b',' {
        return b'.';
    }
    let mut comma = false;
    for cell in head(text, delimiter).iter().skip(1).flatten() {
        let full = |point| decimal(cell, point).is_some_and(|(_, end)| end == cell.len());
        if full(b'.') && cell.contains(&b'.') {
            return b'.';
        }
        if full(b',')
            && let Some(at) = memchr::memchr(b',', cell)
        {
            let fraction = cell.len() - at - 1;
            comma |= fraction != 3 || cell.starts_with(b"0,") || cell.starts_with(b"-0,");
        }
    }
    if comma { b',' } else { b'.' }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn dialect(text: &str) -> (char, char) {
        let start = sniff(text.as_bytes(), &DialectOptions::default()).unwrap();
        (start.dialect.delimiter.into(), start.dialect.point.into())
    }

    #[test]
    fn delimiter_and_decimal_separator_are_found() {
        assert_eq!(dialect("a,b\n1.5,2\n"), (',', '.'));
        assert_eq!(dialect("a;b\n1,5;2,25\n"), (';', ','));
        assert_eq!(dialect("a;b\n1,500;2\n"), (';', '.'));
        assert_eq!(dialect("a;b\n1,5;2.5\n"), (';', '.'));
        assert_eq!(dialect("a\tb\n1\t\"x,y\"\n"), ('\t', '.'));
        assert_eq!(dialect("a|b\n1|2\n"), ('|', '.'));
        assert_eq!(dialect("a\n1\n"), (',', '.'));
        assert_eq!(dialect("name,note\nx,\"a;b;c\"\ny,\"d;e;f\"\n"), (',', '.'));
    }

    #[test]
    fn names_fit_a_schema() {
        let start = sniff(
            b"\xEF\xBB\xBFa,, a ,b\n1,2,3,4\n",
            &DialectOptions::default(),
        )
        .unwrap();
        assert_eq!(start.names, ["a", "Column_1", "a.1", "b"]);
        assert_eq!(start.renamed.len(), 2);
        assert_eq!((start.data_at, start.data_line), (12, 2));
    }
}
