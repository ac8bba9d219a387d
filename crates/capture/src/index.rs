//! The index of a segment: a BCSV file with a row for each periodic (spec/frame-stream.md 7).
//!
//! Flat rows in raw packets of 64 KiB: small against the data, and a packet of it is readable on its own.

use std::io::{self, Write};
use std::sync::Arc;

use tapeline_bcsv::{
    ColumnType, FileCodec, ReadAt, ReadOptions, Reader, RowCodec, RowWriter, Schema, Selection,
    Value, WriteOptions,
};
use tapeline_wire::assemble::{COMPLETE, INCOMPLETE, IndexRow, LATE};

use crate::digest::Digest;
use crate::fs::{Appender, DiskFile};

/// Columns in file order; the last three describe the frames, the rest is u64.
const COLUMNS: [(&str, ColumnType); 11] = [
    ("periodic", ColumnType::UInt64),
    ("first_sequence", ColumnType::UInt64),
    ("last_sequence", ColumnType::UInt64),
    ("first_timestamp_ns", ColumnType::UInt64),
    ("last_timestamp_ns", ColumnType::UInt64),
    ("first_received_ns", ColumnType::UInt64),
    ("offset", ColumnType::UInt64),
    ("length", ColumnType::UInt64),
    ("frames_expected", ColumnType::UInt32),
    ("frames_present", ColumnType::UInt32),
    ("status", ColumnType::UInt8),
];

/// Writes one.
pub(crate) struct IndexWriter {
    rows: RowWriter<Hashing>,
    file: Arc<dyn DiskFile>,
}

impl IndexWriter {
    /// Write the header.
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Result<Self, String> {
        let options = WriteOptions {
            row_codec: RowCodec::Flat,
            file_codec: FileCodec::Packet,
            packet_bytes: 64 << 10,
            ..WriteOptions::default()
        };
        let sink = Hashing {
            file: Appender(Arc::clone(&file)),
            digest: Digest::new(),
            bytes: 0,
        };
        let rows = Schema::from_pairs(COLUMNS)
            .and_then(|schema| RowWriter::new(sink, &schema, &options))
            .map_err(|e| e.to_string())?;
        Ok(Self { rows, file })
    }

    /// Append a row; its bytes begin at `offset` of the `.dat`.
    pub(crate) fn row(&mut self, row: &IndexRow, offset: u64) -> Result<(), String> {
        self.rows
            .write_row(&[
                Value::UInt64(row.periodic),
                Value::UInt64(row.first_sequence),
                Value::UInt64(row.last_sequence),
                Value::UInt64(row.first_timestamp_ns),
                Value::UInt64(row.last_timestamp_ns),
                Value::UInt64(row.first_received_ns),
                Value::UInt64(offset),
                Value::UInt64(row.length),
                Value::UInt32(row.frames_expected),
                Value::UInt32(row.frames_present),
                Value::UInt8(row.status),
            ])
            .map_err(|e| e.to_string())
    }

    /// Write the footer and make the file durable; its digest and size.
    pub(crate) fn finish(self) -> Result<(String, u64), String> {
        let sink = self.rows.finish().map_err(|e| e.to_string())?;
        self.file.sync_data().map_err(|e| e.to_string())?;
        Ok((sink.digest.hex(), sink.bytes))
    }
}

/// Hashes what passes to the file.
struct Hashing {
    file: Appender,
    digest: Digest,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.digest.update(buf.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Rows of an index file; None when it is not one, or not a whole one.
pub(crate) fn rows(file: Arc<dyn DiskFile>) -> Option<u64> {
    let reader = Reader::from_source(Arc::new(Source(file)), ReadOptions::default()).ok()?;
    (reader.complete().ok()? == Some(true))
        .then(|| reader.num_rows().ok())
        .flatten()
}

/// What the rows of indexes add up to, by the names of the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Periodics {
    pub(crate) complete: u64,
    pub(crate) incomplete: u64,
    pub(crate) frames_late: u64,
}

impl Periodics {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            complete: self.complete + other.complete,
            incomplete: self.incomplete + other.incomplete,
            frames_late: self.frames_late + other.frames_late,
        }
    }
}

/// Count the rows of an index file; None when it is not one, or not a whole one.
pub(crate) fn periodics(file: Arc<dyn DiskFile>) -> Option<Periodics> {
    let reader = Reader::from_source(Arc::new(Source(file)), ReadOptions::default()).ok()?;
    if reader.complete().ok()? != Some(true) {
        return None;
    }
    let mut found = Periodics::default();
    for batch in reader.batches(&Selection::default(), 4096).ok()? {
        let batch = batch.ok()?;
        for row in 0..batch.rows {
            let Some(Value::UInt32(present)) = batch.value(9, row) else {
                return None;
            };
            match batch.value(10, row) {
                Some(Value::UInt8(COMPLETE)) => found.complete += 1,
                Some(Value::UInt8(INCOMPLETE)) => found.incomplete += 1,
                Some(Value::UInt8(LATE)) => found.frames_late += u64::from(present),
                _ => return None,
            }
        }
    }
    Some(found)
}

/// A file of the recorder's disk, for the reader.
struct Source(Arc<dyn DiskFile>);

impl ReadAt for Source {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
    fn size(&self) -> io::Result<u64> {
        self.0.len()
    }
}
