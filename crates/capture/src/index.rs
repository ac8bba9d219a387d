//! The index of a segment: a BCSV file with a row for each periodic (spec/frame-stream.md 7).

use std::sync::Arc;

use tapeline_bcsv::{ColumnType, Selection, Value};
use tapeline_wire::assemble::{COMPLETE, INCOMPLETE, IndexRow, LATE};

use crate::fs::DiskFile;
use crate::index_file::{IndexFile, reader};
use crate::manifest::IndexEntry;

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
pub(crate) struct IndexWriter(IndexFile);

impl IndexWriter {
    /// Write the header.
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Result<Self, String> {
        IndexFile::new(file, COLUMNS).map(Self)
    }

    /// Append a row; its bytes begin at `offset` of the `.dat`.
    pub(crate) fn row(&mut self, row: &IndexRow, offset: u64) -> Result<(), String> {
        self.0.row(&[
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
    }

    /// Write the footer and make the file durable; its entry in the manifest, by its final name.
    pub(crate) fn finish(self, name: String) -> Result<IndexEntry, String> {
        self.0.finish(name)
    }
}

/// Rows of an index file; None when it is not one, or not a whole one.
pub(crate) fn rows(file: Arc<dyn DiskFile>) -> Option<u64> {
    let reader = reader(file)?;
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
    let reader = reader(file)?;
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
