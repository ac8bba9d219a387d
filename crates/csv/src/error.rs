//! One error for the crate: a kind, and the line and column of the text where there is one.

use std::fmt;

use tapeline_bcsv::ColumnType;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Where in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1; lines inside quoted cells count.
    pub line: u64,
    /// Number of the field in its record, from 0, and the column's name.
    pub column: Option<(usize, String)>,
}

/// What went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused.
    Io(std::io::Error),
    /// The BCSV file could not be read or written.
    Bcsv(tapeline_bcsv::Error),
    /// The text has no record to take the columns from.
    NoColumns,
    /// The text is UTF-16 or UTF-32.
    WideEncoding,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// A record has another number of fields than there are columns.
    Ragged {
        /// Columns.
        expected: usize,
        /// Fields.
        found: usize,
    },
    /// The text ends inside a quoted cell.
    OpenQuote,
    /// Text between a closing quote and the next delimiter.
    AfterQuote,
    /// A carriage return inside a cell that is not quoted.
    BareReturn,
    /// A string over the format's limit.
    LongString {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A record longer than a chunk may become.
    LongRecord {
        /// The limit in bytes.
        limit: usize,
    },
    /// A cell does not fit the type that was asked for.
    NoFit {
        /// The type.
        kind: ColumnType,
        /// The cell, shortened.
        text: String,
    },
    /// An empty cell, where they are not allowed.
    EmptyCell {
        /// The type of the column.
        kind: ColumnType,
    },
    /// A column that the text does not have.
    UnknownColumn {
        /// As asked for.
        name: String,
    },
    /// Options that contradict each other or the text.
    Option {
        /// What is wrong.
        what: String,
    },
    /// The caller asked to stop.
    Cancelled,
}

/// See [`ErrorKind`].
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    place: Option<Place>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind, place: None }
    }

    pub(crate) fn at(kind: ErrorKind, line: u64, column: Option<(usize, String)>) -> Self {
        Self {
            kind,
            place: Some(Place { line, column }),
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Where in the text.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io(error))
    }
}

impl From<tapeline_bcsv::Error> for Error {
    fn from(error: tapeline_bcsv::Error) -> Self {
        Self::new(ErrorKind::Bcsv(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "line {}", place.line)?;
            if let Some((field, name)) = &place.column {
                write!(f, ", column {} ({name:?})", field + 1)?;
            }
            f.write_str(": ")?;
        }
        match &self.kind {
            ErrorKind::Io(error) => error.fmt(f),
            ErrorKind::Bcsv(error) => error.fmt(f),
            ErrorKind::NoColumns => f.write_str("the text is empty; it has no columns"),
            ErrorKind::WideEncoding => {
                f.write_str("the text is UTF-16 or UTF-32; convert it to UTF-8 first")
            }
            ErrorKind::NotUtf8 => f.write_str("the text is not UTF-8; convert it to UTF-8 first"),
            ErrorKind::Ragged { expected, found } => write!(
                f,
                "the record has {found} fields, the table {expected} columns; skip or pad such records if that is right"
            ),
            ErrorKind::OpenQuote => f.write_str("the text ends inside a quoted cell"),
            ErrorKind::AfterQuote => {
                f.write_str("text follows a closing quote; a quote inside a quoted cell is doubled")
            }
            ErrorKind::BareReturn => {
                f.write_str("a carriage return without a newline inside a cell that is not quoted")
            }
            ErrorKind::LongString { bytes, limit } => {
                write!(f, "the cell has {bytes} bytes; a string holds {limit}")
            }
            ErrorKind::LongRecord { limit } => write!(
                f,
                "the record has more than {limit} bytes; a quote may be missing"
            ),
            ErrorKind::NoFit { kind, text } => write!(f, "{text:?} does not fit {kind}"),
            ErrorKind::EmptyCell { kind } => {
                write!(f, "an empty cell, which {kind} cannot hold")
            }
            ErrorKind::UnknownColumn { name } => write!(f, "there is no column {name:?}"),
            ErrorKind::Option { what } => f.write_str(what),
            ErrorKind::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Io(error) => Some(error),
            ErrorKind::Bcsv(error) => Some(error),
            _ => None,
        }
    }
}
