//! One segment: a `.dat` of whole frames and its `.idx.bcsv`, both `.part` until they are closed.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tapeline_sys::clock;
use tapeline_wire::assemble::IndexRow;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::fs::{Dir, DiskFile};
use crate::index::IndexWriter;
use crate::manifest::{IndexEntry, SegmentEntry, compact_time};

/// Suffix of what is not finished.
pub(crate) const PART: &str = ".part";

/// A segment being written.
pub(crate) struct Segment {
    dir: Arc<dyn Dir>,
    stem: String,
    number: u64,
    dat: Arc<dyn DiskFile>,
    index: IndexWriter,
    digest: Digest,
    bytes: u64,
    account: Account,
    pub(crate) opened: Instant,
}

/// What the rows of a segment add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    pub(crate) frames: u64,
    pub(crate) rows: u64,
    pub(crate) row_bytes: u64,
    first_sequence: u64,
    last_sequence: u64,
    first_timestamp_ns: u64,
    last_timestamp_ns: u64,
}

impl Account {
    pub(crate) fn add(&mut self, row: &IndexRow) {
        if self.rows == 0 {
            self.first_sequence = row.first_sequence;
            self.first_timestamp_ns = row.first_timestamp_ns;
        }
        self.first_sequence = self.first_sequence.min(row.first_sequence);
        self.last_sequence = self.last_sequence.max(row.last_sequence);
        self.first_timestamp_ns = self.first_timestamp_ns.min(row.first_timestamp_ns);
        self.last_timestamp_ns = self.last_timestamp_ns.max(row.last_timestamp_ns);
        self.frames += u64::from(row.frames_present);
        self.row_bytes += row.length;
        self.rows += 1;
    }

    /// The manifest's entry of a segment with this account.
    pub(crate) fn entry(
        &self,
        number: u64,
        name: String,
        bytes: u64,
        digest: String,
        index: IndexEntry,
    ) -> SegmentEntry {
        SegmentEntry {
            name,
            number,
            bytes,
            frames: self.frames,
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence,
            first_timestamp_ns: self.first_timestamp_ns,
            last_timestamp_ns: self.last_timestamp_ns,
            xxh3_128: digest,
            index,
            extra: serde_json::Map::new(),
        }
    }
}

impl Segment {
    /// Make both files. The directory is synced, so that the names survive a power cut.
    pub(crate) fn create(dir: &Arc<dyn Dir>, name: &str, number: u64) -> Result<Self> {
        let stem = format!("{name}_{number:06}_{}", compact_time(clock::realtime_ns()));
        let dat_name = format!("{stem}.dat{PART}");
        let index_name = format!("{stem}.idx.bcsv{PART}");
        let at = |file: &str| dir.path().join(file);
        let dat = dir
            .create(&dat_name)
            .map_err(|e| Error::io("making a segment", &at(&dat_name), e))?;
        let index = dir
            .create(&index_name)
            .and_then(|file| IndexWriter::new(file).map_err(io::Error::other))
            .map_err(|e| Error::io("making an index", &at(&index_name), e))?;
        dir.sync()
            .map_err(|e| Error::io("syncing the directory", dir.path(), e))?;
        Ok(Self {
            dir: Arc::clone(dir),
            stem,
            number,
            dat,
            index,
            digest: Digest::new(),
            bytes: 0,
            account: Account::default(),
            opened: Instant::now(),
        })
    }

    /// Bytes written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The data file, for syncing it from another thread.
    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.dat)
    }

    pub(crate) fn part_path(&self) -> PathBuf {
        self.dir.path().join(self.part_name())
    }

    pub(crate) fn part_name(&self) -> String {
        format!("{}.dat{PART}", self.stem)
    }

    /// Append frames; `slices` hold `bytes` in all. On an error `self.bytes` is what was there before.
    pub(crate) fn append(&mut self, slices: &[IoSlice<'_>], bytes: u64) -> Result<()> {
        for slice in slices.iter() {
            self.digest.update(slice);
        }
        self.dat
            .append(slices)
            .map_err(|e| Error::io("writing", &self.part_path(), e))?;
        self.bytes += bytes;
        Ok(())
    }

    /// Append an index row for bytes that were appended.
    pub(crate) fn row(&mut self, row: &IndexRow) -> Result<()> {
        let offset = self.account.row_bytes;
        self.account.add(row);
        self.index
            .row(row, offset)
            .map_err(|e| Error::index(&self.part_path(), e))
    }

    /// Make what was written survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        self.dat
            .sync_data()
            .map_err(|e| Error::io("syncing", &self.part_path(), e))
    }

    /// After a failed write: cut to `bytes`, so that the file ends with a whole frame. The segment is left `.part`.
    pub(crate) fn abandon_at(&mut self, bytes: u64) -> Result<()> {
        self.bytes = bytes;
        self.dat
            .truncate(bytes)
            .map_err(|e| Error::io("cutting", &self.part_path(), e))
    }

    /// Bytes in the file, whatever was meant to be there.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64> {
        self.dat
            .len()
            .map_err(|e| Error::io("looking at", &self.part_path(), e))
    }
}

impl super::Closing for Segment {
    fn close(self: Box<Self>) -> Result<SegmentEntry> {
        let path = self.part_path();
        let (dat_name, index_name) = (
            format!("{}.dat", self.stem),
            format!("{}.idx.bcsv", self.stem),
        );
        let index = self
            .index
            .finish(index_name.clone())
            .map_err(|e| Error::index(&path, e))?;
        self.dat
            .sync_data()
            .map_err(|e| Error::io("syncing", &path, e))?;
        // The index first: a `.dat` with its final name always has an index beside it.
        for name in [&index_name, &dat_name] {
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
            .entry(self.number, dat_name, self.bytes, self.digest.hex(), index))
    }
}
