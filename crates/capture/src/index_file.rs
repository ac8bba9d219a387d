//! The BCSV file beside a segment that says where in it what is: written row by row, hashed on its way to the disk.
//!
//! Flat rows in raw packets of 64 KiB: small against the data, and a packet of it is readable on its own.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use tapeline_bcsv::{
    ColumnType, FileCodec, ReadAt, ReadOptions, Reader, RowCodec, RowWriter, Schema, Value,
    WriteOptions,
};

use crate::digest::Digest;
use crate::fs::DiskFile;
use crate::manifest::IndexEntry;

/// Writes one.
pub(crate) struct IndexFile {
    rows: RowWriter<Hashing>,
    file: Arc<dyn DiskFile>,
    count: u64,
}

impl IndexFile {
    /// Write the header.
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        columns: impl IntoIterator<Item = (&'static str, ColumnType)>,
    ) -> Result<Self, String> {
        let options = WriteOptions {
            row_codec: RowCodec::Flat,
            file_codec: FileCodec::Packet,
            packet_bytes: 64 << 10,
            ..WriteOptions::default()
        };
        let sink = Hashing {
            file: Arc::clone(&file),
            digest: Digest::new(),
            bytes: 0,
        };
        let rows = Schema::from_pairs(columns)
            .and_then(|schema| RowWriter::new(sink, &schema, &options))
            .map_err(|e| e.to_string())?;
        Ok(Self {
            rows,
            file,
            count: 0,
        })
    }

    pub(crate) fn row(&mut self, values: &[Value<'_>]) -> Result<(), String> {
        self.rows.write_row(values).map_err(|e| e.to_string())?;
        self.count += 1;
        Ok(())
    }

    /// Make the rows so far readable after a kill.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        self.rows.flush().map_err(|e| e.to_string())
    }

    /// Make what was passed to the disk durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Write the footer and make the file durable; its entry in the manifest, by its final name.
    pub(crate) fn finish(self, name: String) -> Result<IndexEntry, String> {
        let sink = self.rows.finish().map_err(|e| e.to_string())?;
        self.file.sync_data().map_err(|e| e.to_string())?;
        Ok(IndexEntry {
            name,
            bytes: sink.bytes,
            rows: self.count,
            xxh3_128: sink.digest.hex(),
        })
    }
}

/// Hashes what passes to the file.
struct Hashing {
    file: Arc<dyn DiskFile>,
    digest: Digest,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.append(&[IoSlice::new(buf)])?;
        self.digest.update(buf);
        self.bytes += buf.len() as u64;
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Open one; None when it is not one.
pub(crate) fn reader(file: Arc<dyn DiskFile>) -> Option<Reader> {
    Reader::from_source(Arc::new(Source(file)), ReadOptions::default()).ok()
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
