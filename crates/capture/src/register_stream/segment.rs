//! One segment of a register log: packets in order of arrival, and an index row for each block.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Map;
use tapeline_bcsv::{ColumnType, Value};
use tapeline_sys::clock;

use super::beside::{Beside, Touched};
use super::shared::RegisterShared;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::fs::{Dir, DiskFile};
use crate::index_file::{IndexFile, reader};
use crate::manifest::{IndexEntry, SegmentEntry, compact_time};
use crate::sink::Closing;
use crate::sink::segment::PART;

/// Columns of an index row (spec/register-packets.md 3).
const COLUMNS: [(&str, ColumnType); 8] = [
    ("offset", ColumnType::UInt64),
    ("length", ColumnType::UInt64),
    ("packets", ColumnType::UInt32),
    ("first_timestamp_us", ColumnType::UInt64),
    ("last_timestamp_us", ColumnType::UInt64),
    ("first_received_ns", ColumnType::UInt64),
    ("xxh64", ColumnType::UInt64),
    ("keyframe", ColumnType::Bool),
];

/// One row of the index, without its offset and hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) length: u64,
    pub(super) packets: u32,
    /// Least and greatest timestamp.
    pub(super) first_us: u64,
    pub(super) last_us: u64,
    pub(super) received_ns: u64,
    pub(super) xxh64: u64,
    pub(super) keyframe: bool,
}

/// Writes an index.
pub(super) struct LogIndex {
    file: IndexFile,
    offset: u64,
}

impl LogIndex {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> std::result::Result<Self, String> {
        Ok(Self {
            file: IndexFile::new(file, COLUMNS)?,
            offset: 0,
        })
    }

    pub(super) fn row(&mut self, row: &Row) -> std::result::Result<(), String> {
        self.file.row(&[
            Value::UInt64(self.offset),
            Value::UInt64(row.length),
            Value::UInt32(row.packets),
            Value::UInt64(row.first_us),
            Value::UInt64(row.last_us),
            Value::UInt64(row.received_ns),
            Value::UInt64(row.xxh64),
            Value::Bool(row.keyframe),
        ])?;
        self.offset += row.length;
        Ok(())
    }

    pub(super) fn finish(self, name: String) -> std::result::Result<IndexEntry, String> {
        self.file.finish(name)
    }
}

/// Rows of an index, as far as they can be read and follow each other.
pub(super) fn read_rows(file: Arc<dyn DiskFile>) -> Vec<Row> {
    let mut rows = Vec::new();
    let Some(reader) = reader(file) else {
        return rows;
    };
    let Ok(batches) = reader.batches(&tapeline_bcsv::Selection::default(), 4096) else {
        return rows;
    };
    let mut offset = 0;
    for batch in batches {
        let Ok(batch) = batch else { break };
        for at in 0..batch.rows {
            let wide = |column| match batch.value(column, at) {
                Some(Value::UInt64(value)) => value,
                _ => u64::MAX,
            };
            let (Some(Value::UInt32(packets)), Some(Value::Bool(keyframe))) =
                (batch.value(2, at), batch.value(7, at))
            else {
                return rows;
            };
            if wide(0) != offset || wide(1) == 0 || wide(1) == u64::MAX {
                return rows;
            }
            offset += wide(1);
            rows.push(Row {
                length: wide(1),
                packets,
                first_us: wide(3),
                last_us: wide(4),
                received_ns: wide(5),
                xxh64: wide(6),
                keyframe,
            });
        }
    }
    rows
}

/// What a segment's manifest entry is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogAccount {
    pub(super) packets: u64,
    pub(super) registers: u64,
    pub(super) keyframes: u64,
    pub(super) keyframe_bytes: u64,
    pub(super) first_us: Option<u64>,
    pub(super) last_us: u64,
}

impl LogAccount {
    pub(super) fn add(&mut self, row: &Row, registers: u64) {
        if row.keyframe {
            self.keyframes += u64::from(row.packets);
            self.keyframe_bytes += row.length;
        } else {
            self.packets += u64::from(row.packets);
            self.registers += registers;
            if row.packets > 0 {
                self.first_us = Some(self.first_us.unwrap_or(u64::MAX).min(row.first_us));
                self.last_us = self.last_us.max(row.last_us);
            }
        }
    }

    pub(super) fn entry(
        &self,
        number: u64,
        name: String,
        bytes: u64,
        digest: String,
        index: IndexEntry,
    ) -> SegmentEntry {
        let first_us = self.first_us.unwrap_or(0);
        let mut extra = Map::new();
        for (field, value) in [
            ("packets", self.packets),
            ("registers", self.registers),
            ("keyframes", self.keyframes),
            ("keyframe_bytes", self.keyframe_bytes),
            ("first_timestamp_us", first_us),
            ("last_timestamp_us", self.last_us),
        ] {
            extra.insert(field.into(), value.into());
        }
        SegmentEntry {
            name,
            number,
            bytes,
            frames: self.packets,
            first_sequence: 0,
            last_sequence: 0,
            first_timestamp_ns: first_us.saturating_mul(1000),
            last_timestamp_ns: self.last_us.saturating_mul(1000),
            xxh3_128: digest,
            index,
            extra,
        }
    }
}

/// A data file that several threads sync: the writer for whoever waits, the keeper from time to time and at the end,
/// the image thread before it says what the log holds.
/// The system tells of a failed sync once, so the first one to hear of it must stop the others from believing theirs.
struct Synced {
    file: Arc<dyn DiskFile>,
    failed: Mutex<bool>,
    /// Of any file of the stream.
    any_failed: Arc<AtomicBool>,
}

impl DiskFile for Synced {
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.file.append(slices)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        let result = self.file.sync_data();
        if result.is_err() {
            *failed = true;
            self.any_failed.store(true, Ordering::Release);
        }
        result
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// A log segment being written.
pub(super) struct LogSegment {
    dir: Arc<dyn Dir>,
    stem: String,
    extension: &'static str,
    pub(super) number: u64,
    data: Arc<dyn DiskFile>,
    unclosed: Arc<Mutex<Vec<Arc<dyn DiskFile>>>>,
    index: LogIndex,
    digest: Digest,
    pub(super) bytes: u64,
    pub(super) account: LogAccount,
    pub(super) beside: Beside,
}

impl LogSegment {
    pub(super) fn create(dir: &Arc<dyn Dir>, number: u64, shared: &RegisterShared) -> Result<Self> {
        let (name, kind) = (&shared.name, shared.kind);
        let stem = format!("{name}_{number:06}_{}", compact_time(clock::realtime_ns()));
        let at = |file: &str| dir.path().join(file);
        let data_name = format!("{stem}.{}{PART}", kind.extension());
        let index_name = format!("{stem}.idx.bcsv{PART}");
        let data = dir
            .create(&data_name)
            .map_err(|e| Error::io("making a segment", &at(&data_name), e))?;
        let index = dir
            .create(&index_name)
            .and_then(|file| LogIndex::new(file).map_err(io::Error::other))
            .map_err(|e| Error::io("making an index", &at(&index_name), e))?;
        dir.sync()
            .map_err(|e| Error::io("syncing the directory", dir.path(), e))?;
        let data: Arc<dyn DiskFile> = Arc::new(Synced {
            file: data,
            failed: Mutex::new(false),
            any_failed: Arc::clone(&shared.sync_failed),
        });
        let unclosed = Arc::clone(&shared.unclosed);
        unclosed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&data));
        Ok(Self {
            dir: Arc::clone(dir),
            stem,
            extension: kind.extension(),
            number,
            data,
            unclosed,
            index,
            digest: Digest::new(),
            bytes: 0,
            account: LogAccount::default(),
            beside: Beside::default(),
        })
    }

    pub(super) fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.data)
    }

    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.stem, self.extension)
    }

    pub(super) fn part_path(&self) -> PathBuf {
        self.dir.path().join(format!("{}{PART}", self.name()))
    }

    /// The file's path once it has its name.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join(self.name())
    }

    /// Append whole packets; on an error `self.bytes` is what was there before.
    pub(super) fn append(&mut self, slices: &[IoSlice<'_>], bytes: u64) -> Result<()> {
        self.data
            .append(slices)
            .map_err(|e| Error::io("writing", &self.part_path(), e))?;
        for slice in slices {
            self.digest.update(slice);
        }
        self.bytes += bytes;
        Ok(())
    }

    pub(super) fn row(&mut self, row: &Row, registers: u64, touched: Touched) -> Result<()> {
        self.account.add(row, registers);
        self.beside.row(self.index.offset, row.length, touched);
        let written = self.index.row(row).and_then(|()| {
            if row.keyframe {
                // Recovery knows our packets from received ones by these rows.
                self.index.file.flush()
            } else {
                Ok(())
            }
        });
        written.map_err(|e| Error::index(&self.part_path(), e))
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.data
            .sync_data()
            .map_err(|e| Error::io("syncing", &self.part_path(), e))
    }

    /// Make the index rows so far durable.
    pub(super) fn sync_index(&self) -> Result<()> {
        self.index
            .file
            .sync()
            .map_err(|e| Error::io("syncing the index of", &self.part_path(), e))
    }

    /// After a failed write: cut to `bytes`. The segment is left `.part`.
    pub(super) fn abandon_at(&mut self, bytes: u64) -> Result<()> {
        self.bytes = bytes;
        self.data
            .truncate(bytes)
            .map_err(|e| Error::io("cutting", &self.part_path(), e))
    }

    pub(super) fn bytes_on_disk(&self) -> Result<u64> {
        self.data
            .len()
            .map_err(|e| Error::io("looking at", &self.part_path(), e))
    }
}

impl Closing for LogSegment {
    fn close(self: Box<Self>) -> Result<SegmentEntry> {
        let path = self.part_path();
        let (name, index_name) = (self.name(), format!("{}.idx.bcsv", self.stem));
        let index = self
            .index
            .finish(index_name.clone())
            .map_err(|e| Error::index(&path, e))?;
        self.data
            .sync_data()
            .map_err(|e| Error::io("syncing", &path, e))?;
        self.unclosed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|file| !Arc::ptr_eq(file, &self.data));
        // Before the log has its name: whoever finds that looks for them, and makes those that are not there.
        self.beside
            .leave(&*self.dir, &self.stem)
            .map_err(|e| Error::io("writing the touch index of", &path, e))?;
        for name in [&index_name, &name] {
            let from = format!("{name}{PART}");
            self.dir
                .rename(&from, name, false)
                .map_err(|e| Error::io("renaming", &self.dir.path().join(from), e))?;
        }
        self.dir
            .sync()
            .map_err(|e| Error::io("syncing the directory", self.dir.path(), e))?;
        Ok(self
            .account
            .entry(self.number, name, self.bytes, self.digest.hex(), index))
    }
}

/// Hash of a block's bytes.
pub(super) fn block_hash(bytes: &[u8]) -> u64 {
    tapeline_crc::xxh64(bytes)
}
