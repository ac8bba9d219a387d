//! One error for the whole crate: an opaque struct with a public kind and a position.
//!
//! [`Error::class`] sorts the kinds into the families that callers act on; the bindings map it with an
//! exhaustive match.

use std::sync::Arc;
use std::{fmt, io};

use crate::schema::ColumnType;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Numbers are in the fields; the message is built from them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused.
    Io(Arc<io::Error>),
    /// The file does not start like a BCSV file.
    NotBcsv,
    /// A version that this crate does not read.
    UnsupportedVersion {
        /// Major, minor, patch as found.
        found: [u8; 3],
    },
    /// Reserved header flags are set: the rows may be coded in a way we do not know.
    UnknownFlags {
        /// The unknown bits.
        bits: u16,
    },
    /// The requested combination does not exist in the requested format version.
    UnsupportedOption {
        /// Which one.
        what: &'static str,
    },
    /// A header field is impossible.
    HeaderField {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// The file ends inside its header.
    HeaderCut {
        /// Bytes the header needs.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A type code that is no column type.
    ColumnTypeCode {
        /// Column number.
        column: usize,
        /// The code.
        code: u8,
    },
    /// Bytes where a packet header should be are none.
    PacketHeader,
    /// A packet's first row is not the one expected.
    FirstRow {
        /// Row number expected.
        expected: u64,
        /// Row number found.
        found: u64,
    },
    /// The payload of a packet does not fit its checksum.
    PacketChecksum {
        /// As stored.
        expected: u64,
        /// As computed.
        found: u64,
    },
    /// A row of a stream file does not fit its checksum.
    RowChecksum {
        /// As stored.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// The bytes of a row contradict the row codec.
    Row {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Framing (length prefix, terminator, sizes) is wrong.
    Framing {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file ends inside something.
    Truncated {
        /// Inside what.
        inside: &'static str,
    },
    /// LZ4 data are damaged.
    Lz4,
    /// The footer is missing or damaged.
    Footer {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Rows are missing between two packets, or at the end.
    RowsMissing {
        /// First missing row.
        first: u64,
        /// Row after the last missing one.
        stop: u64,
    },
    /// Reading would need more memory than allowed.
    Limit {
        /// What is too big.
        what: &'static str,
        /// Bytes or items needed.
        needed: u64,
        /// Bytes or items allowed.
        limit: u64,
    },
    /// A row or a batch has the wrong number of columns.
    ColumnCount {
        /// Columns of the file.
        expected: usize,
        /// Columns given.
        found: usize,
    },
    /// Columns of a batch differ in length.
    ColumnLength {
        /// Column number.
        column: usize,
        /// Rows expected.
        expected: usize,
        /// Rows found.
        found: usize,
    },
    /// A value does not have the column's type.
    ValueType {
        /// Column number.
        column: usize,
        /// Its type.
        expected: ColumnType,
        /// What was given.
        found: &'static str,
    },
    /// A string value is over 65,535 bytes.
    StringTooLong {
        /// Column number.
        column: usize,
        /// Its length.
        bytes: usize,
    },
    /// An encoded row is over the limit of the format.
    RowTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A schema that cannot be written.
    Schema {
        /// Column number.
        column: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Too many columns, or too long names.
    SchemaSize {
        /// What is too big.
        what: &'static str,
        /// How big.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The file to append to has another schema or other options.
    AppendMismatch {
        /// What differs.
        what: &'static str,
    },
    /// No column has this name.
    NoSuchColumn {
        /// The name.
        name: String,
    },
    /// The row does not exist.
    RowOutOfRange {
        /// Row number asked for.
        row: u64,
        /// Rows there are.
        rows: u64,
    },
    /// A packed buffer is not a whole number of rows.
    PackedLength {
        /// Its length.
        bytes: usize,
        /// Bytes per row.
        row_bytes: usize,
    },
    /// The writer has been finished.
    Closed,
    /// An earlier sync failed; what it should have made durable may be lost.
    SyncFailed,
}

/// The families of errors that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The bytes are wrong.
    Corrupt,
    /// Right, but from a version or codec that we do not know.
    Unsupported,
    /// The caller's columns or values do not fit.
    Schema,
    /// The operating system refused.
    Io,
    /// A row number outside the file.
    OutOfRange,
    /// The writer was used after its end.
    Closed,
}

/// An error with its place in the file, where known.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    offset: Option<u64>,
    packet: Option<u64>,
    rows_before: Option<u64>,
}

impl Error {
    /// An error without a position.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            offset: None,
            packet: None,
            rows_before: None,
        }))
    }

    /// The same error at this byte of the file, unless it already has one.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// The same error in this packet, with this many rows before it, unless already known.
    #[must_use]
    pub fn in_packet(mut self, packet: u64, rows_before: u64) -> Self {
        self.0.packet.get_or_insert(packet);
        self.0.rows_before.get_or_insert(rows_before);
        self
    }

    /// The same error with this many good rows before it, unless already known.
    #[must_use]
    pub fn after_rows(mut self, rows_before: u64) -> Self {
        self.0.rows_before.get_or_insert(rows_before);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Byte in the file, if known.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Packet number, if known.
    #[must_use]
    pub fn packet(&self) -> Option<u64> {
        self.0.packet
    }

    /// Good rows before the fault; for a failed write, rows the file keeps.
    #[must_use]
    pub fn rows_before(&self) -> Option<u64> {
        self.0.rows_before
    }

    /// The family of the kind.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        use ErrorKind as K;
        match &self.0.kind {
            K::Io(_) | K::SyncFailed => ErrorClass::Io,
            K::UnsupportedVersion { .. } | K::UnknownFlags { .. } | K::UnsupportedOption { .. } => {
                ErrorClass::Unsupported
            }
            K::NotBcsv
            | K::HeaderField { .. }
            | K::HeaderCut { .. }
            | K::ColumnTypeCode { .. }
            | K::PacketHeader
            | K::FirstRow { .. }
            | K::PacketChecksum { .. }
            | K::RowChecksum { .. }
            | K::Row { .. }
            | K::Framing { .. }
            | K::Truncated { .. }
            | K::Lz4
            | K::Footer { .. }
            | K::RowsMissing { .. }
            | K::Limit { .. } => ErrorClass::Corrupt,
            K::ColumnCount { .. }
            | K::ColumnLength { .. }
            | K::ValueType { .. }
            | K::StringTooLong { .. }
            | K::RowTooLong { .. }
            | K::Schema { .. }
            | K::SchemaSize { .. }
            | K::AppendMismatch { .. }
            | K::NoSuchColumn { .. }
            | K::PackedLength { .. } => ErrorClass::Schema,
            K::RowOutOfRange { .. } => ErrorClass::OutOfRange,
            K::Closed => ErrorClass::Closed,
        }
    }

    /// The operating system's error, for [`ErrorClass::Io`].
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.0.kind {
            ErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::new(ErrorKind::Io(Arc::new(error)))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Io(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.kind)?;
        if let Some(offset) = self.0.offset {
            write!(f, ", at byte {offset}")?;
        }
        if let Some(packet) = self.0.packet {
            write!(f, ", packet {packet}")?;
        }
        if let Some(rows) = self.0.rows_before {
            write!(f, ", {rows} rows before it")?;
        }
        Ok(())
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ErrorKind as K;
        match self {
            K::Io(error) => write!(f, "{error}"),
            K::NotBcsv => write!(f, "not a BCSV file"),
            K::UnsupportedVersion { found: [a, b, c] } => {
                write!(
                    f,
                    "format version {a}.{b}.{c} is not supported (1.3.0 and 1.4 to 1.255 are)"
                )
            }
            K::UnknownFlags { bits } => write!(
                f,
                "unknown header flags {bits:#06x}: the file needs a newer reader"
            ),
            K::UnsupportedOption { what } => {
                write!(f, "not possible in this format version: {what}")
            }
            K::HeaderField {
                field,
                found,
                limit,
            } => write!(
                f,
                "header field {field} is {found}, at most {limit} is possible"
            ),
            K::HeaderCut { needed, found } => write!(
                f,
                "the file ends inside its header ({found} of {needed} bytes)"
            ),
            K::ColumnTypeCode { column, code } => {
                write!(f, "column {column} has the unknown type code {code}")
            }
            K::PacketHeader => write!(f, "bad packet header"),
            K::FirstRow { expected, found } => {
                write!(f, "packet starts with row {found}, expected {expected}")
            }
            K::PacketChecksum { expected, found } => {
                write!(f, "packet checksum is {found:016x}, stored {expected:016x}")
            }
            K::RowChecksum { expected, found } => {
                write!(f, "row checksum is {found:08x}, stored {expected:08x}")
            }
            K::Row { what } => write!(f, "bad row: {what}"),
            K::Framing { what } => write!(f, "bad framing: {what}"),
            K::Truncated { inside } => write!(f, "the file ends inside {inside}"),
            K::Lz4 => write!(f, "damaged LZ4 data"),
            K::Footer { what } => write!(f, "bad footer: {what}"),
            K::RowsMissing { first, stop } => {
                write!(f, "rows {first} to {stop} (exclusive) are missing")
            }
            K::Limit {
                what,
                needed,
                limit,
            } => {
                write!(f, "{what} would need {needed} bytes, the limit is {limit}")
            }
            K::ColumnCount { expected, found } => {
                write!(f, "{found} columns given, the file has {expected}")
            }
            K::ColumnLength {
                column,
                expected,
                found,
            } => {
                write!(
                    f,
                    "column {column} has {found} rows, the others have {expected}"
                )
            }
            K::ValueType {
                column,
                expected,
                found,
            } => {
                write!(
                    f,
                    "column {column} is {expected}, the value given is {found}"
                )
            }
            K::StringTooLong { column, bytes } => {
                write!(
                    f,
                    "string of {bytes} bytes in column {column}, at most 65535 are possible"
                )
            }
            K::RowTooLong { bytes, limit } => write!(
                f,
                "the encoded row has {bytes} bytes, at most {limit} are possible"
            ),
            K::Schema { column, what } => write!(f, "column {column}: {what}"),
            K::SchemaSize { what, found, limit } => {
                write!(f, "{found} {what}, at most {limit} are possible")
            }
            K::AppendMismatch { what } => write!(f, "cannot append: the file has another {what}"),
            K::NoSuchColumn { name } => write!(f, "no column is named {name:?}"),
            K::RowOutOfRange { row, rows } => {
                write!(f, "row {row} does not exist, the file has {rows}")
            }
            K::PackedLength { row_bytes: 0, .. } => {
                write!(
                    f,
                    "packed rows hold only numbers and bools, and at least one"
                )
            }
            K::PackedLength { bytes, row_bytes } => {
                write!(
                    f,
                    "{bytes} bytes are not a whole number of packed rows of {row_bytes} bytes"
                )
            }
            K::Closed => write!(f, "the writer is closed"),
            K::SyncFailed => write!(
                f,
                "an earlier sync to disk failed, rows since the last good sync may be lost"
            ),
        }
    }
}
