//! Which registers a lost packet may have changed, as of the end of a segment: `{segment}.doubts.bcsv`.
//!
//! A keyframe tells the values at the start of a segment, not which of them are in doubt; that is what the end of the
//! segment before it says here. A row for each such register: `type u8, src_id i32, offset u16, since_us u64`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tapeline_bcsv::{
    ColumnType, ReadOptions, Reader, RowWriter, Schema, Selection, Value, WriteOptions,
};

use crate::registers::touch::SourceKey;

/// One register in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Whose.
    pub source: SourceKey,
    /// Which.
    pub offset: u16,
    /// Time of the first packet behind the gap, µs.
    pub since_us: u64,
}

/// Writes them under the final name once they are whole and durable.
///
/// # Errors
/// As the operating system gave it.
pub fn write(path: &Path, doubts: impl Iterator<Item = Doubt>) -> io::Result<()> {
    let part = path.with_extension("bcsv.part");
    let mut file = encode(BufWriter::new(File::create(&part)?), doubts)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    std::fs::rename(&part, path)
}

/// Writes them to a file that is open.
///
/// # Errors
/// As the file gave it.
pub fn encode<W: Write>(file: W, doubts: impl Iterator<Item = Doubt>) -> io::Result<W> {
    let schema = Schema::from_pairs([
        ("type", ColumnType::UInt8),
        ("src_id", ColumnType::Int32),
        ("offset", ColumnType::UInt16),
        ("since_us", ColumnType::UInt64),
    ])
    .map_err(io::Error::other)?;
    let options = WriteOptions::default();
    let mut rows = RowWriter::new(file, &schema, &options).map_err(io::Error::other)?;
    for doubt in doubts {
        rows.write_row(&[
            Value::UInt8(doubt.source.0),
            Value::Int32(doubt.source.1),
            Value::UInt16(doubt.offset),
            Value::UInt64(doubt.since_us),
        ])
        .map_err(io::Error::other)?;
    }
    rows.finish().map_err(io::Error::other)
}

/// Reads them; `None` when they are not there or not whole.
#[must_use]
pub fn read(path: &Path) -> Option<Vec<Doubt>> {
    let reader = Reader::open(path, ReadOptions::default()).ok()?;
    if reader.complete().ok()? != Some(true) {
        return None;
    }
    let mut doubts = Vec::new();
    for batch in reader.batches(&Selection::default(), 65_536).ok()? {
        let batch = batch.ok()?;
        for row in 0..batch.rows {
            let columns: [_; 4] = std::array::from_fn(|column| batch.value(column, row));
            let [
                Some(Value::UInt8(source_type)),
                Some(Value::Int32(src_id)),
                Some(Value::UInt16(offset)),
                Some(Value::UInt64(since_us)),
            ] = columns
            else {
                return None;
            };
            doubts.push(Doubt {
                source: (source_type, src_id),
                offset,
                since_us,
            });
        }
    }
    Some(doubts)
}
