//! Writing rows to any byte sink: no seeking, no threads. Files are written by [`crate::FileWriter`].

use std::io::Write;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::file::Framer;
use crate::file::packet_lz4_batch::Sealer;
use crate::header::{FileCodec, FormatVersion, Header, RowCodec};
use crate::limits::MAX_ROW_BYTES;
use crate::row::{RowEncoder, RowStrings};
use crate::schema::{Layout, Schema};
use crate::value::{RowBuffer, Value};

/// How to write a file.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteOptions {
    /// How rows are coded.
    pub row_codec: RowCodec,
    /// How they are framed and compressed.
    pub file_codec: FileCodec,
    /// 1 to 9; ignored where nothing is compressed.
    pub compression_level: u8,
    /// A packet is closed once it holds this many bytes: clamped to 64 KiB to 1 GiB, a multiple of 1,024.
    pub packet_bytes: u32,
    /// List the packets in the footer.
    pub index: bool,
    /// Header layout.
    pub version: FormatVersion,
    /// Version stamp, where it must differ from that of `version` (byte-exact copies).
    pub stamp: Option<[u8; 3]>,
    /// Creation time in seconds since 1970 UTC; 0 is "unknown". `None`: now.
    pub created_s: Option<u64>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            row_codec: RowCodec::Delta,
            file_codec: FileCodec::PacketLz4Batch,
            compression_level: 1,
            packet_bytes: 8 << 20,
            index: true,
            version: FormatVersion::default(),
            stamp: None,
            created_s: None,
        }
    }
}

impl WriteOptions {
    /// The header that these options lead to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnsupportedOption`].
    pub fn header(&self, schema: Schema) -> Result<Header> {
        let now = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        let created_s = self.created_s.unwrap_or_else(now);
        let mut header = Header::new(schema, self, created_s)?;
        if let Some(stamp) = self.stamp {
            header.version = stamp;
        }
        Ok(header)
    }
}

/// Rows to a byte sink, in the order written, in any codec. Compresses on the calling thread.
///
/// Bytes go out in pieces of 64 KiB or more and at [`RowWriter::flush`]. The sink's own start counts as byte 0
/// of the file. A write error leaves the sink in an unknown state: stop using the writer then.
pub struct RowWriter<W: Write> {
    sink: W,
    row: RowBuffer,
    coder: RowCoder,
    sealer: Sealer,
}

/// Bytes kept back before they are handed to the sink.
const PIECE_BYTES: usize = 64 << 10;

impl<W: Write> RowWriter<W> {
    /// Write the header and be ready for rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnsupportedOption`], [`ErrorKind::Io`].
    pub fn new(mut sink: W, schema: &Schema, options: &WriteOptions) -> Result<Self> {
        let header = options.header(schema.clone())?;
        let bytes = header.encode();
        sink.write_all(&bytes)?;
        let framer = Framer::new(&header, bytes.len() as u64, Vec::new(), 0);
        let row = RowBuffer::new(schema);
        let coder = RowCoder::new(&header, framer);
        Ok(Self {
            sink,
            row,
            coder,
            sealer: Sealer::default(),
        })
    }

    /// Write one row of values in layout order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ColumnCount`], [`ErrorKind::ValueType`], [`ErrorKind::StringTooLong`],
    /// [`ErrorKind::RowTooLong`]: the file is as if the row had never been offered. [`ErrorKind::Io`].
    pub fn write_row(&mut self, values: &[Value<'_>]) -> Result<()> {
        self.row.fill(values)?;
        if self.coder.framer.is_full() {
            self.close_packet()?;
        }
        self.coder.encode(&self.row)?;
        if self.coder.framer.out.len() >= PIECE_BYTES {
            self.push()
        } else {
            Ok(())
        }
    }

    /// Make every row so far readable in the sink: closes the open packet. Unlike the reference, no empty packet is
    /// opened, so flushing often costs nothing when there are no new rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn flush(&mut self) -> Result<()> {
        self.close_packet()?;
        self.push()?;
        Ok(self.sink.flush()?)
    }

    /// Close the last packet, write the footer and give the sink back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn finish(mut self) -> Result<W> {
        self.close_packet()?;
        self.push()?;
        self.sink.write_all(&self.coder.framer.footer())?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    /// Rows accepted so far.
    #[must_use]
    pub fn rows_written(&self) -> u64 {
        self.coder.framer.rows()
    }

    /// Bytes of the file handed to the sink so far.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.coder.framer.offset
    }

    /// The sink, for example to sync it after [`RowWriter::flush`].
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.sink
    }

    fn close_packet(&mut self) -> Result<()> {
        let framer = &mut self.coder.framer;
        if let Some(full) = framer.close_packet(Vec::new()) {
            self.push()?;
            let framer = &mut self.coder.framer;
            self.sealer.seal(&full, self.coder.effort, &mut framer.out);
            framer.sealed(full.first_row, framer.offset);
            return self.push();
        }
        Ok(())
    }

    fn push(&mut self) -> Result<()> {
        let framer = &mut self.coder.framer;
        self.sink.write_all(&framer.out)?;
        framer.stored(framer.out.len());
        Ok(())
    }
}

/// Encodes rows and frames them: what all writers share.
pub(crate) struct RowCoder {
    pub encoder: RowEncoder,
    pub framer: Framer,
    pub effort: tapeline_lz4::Effort,
    scratch: Vec<u8>,
}

impl RowCoder {
    pub(crate) fn new(header: &Header, framer: Framer) -> Self {
        let layout = Arc::new(Layout::new(&header.schema));
        Self {
            encoder: RowEncoder::new(header.row_codec(), layout),
            framer,
            effort: crate::file::effort(header.file_codec(), header.compression_level),
            scratch: Vec::new(),
        }
    }

    /// Encode and frame a row; the open packet, if any, has room. A refused row leaves no trace.
    #[inline]
    pub(crate) fn encode(&mut self, row: &RowBuffer) -> Result<()> {
        if row.columns() != self.encoder.columns() {
            return Err(Error::new(ErrorKind::ColumnCount {
                expected: self.encoder.columns(),
                found: row.columns(),
            }));
        }
        self.encode_image(row.image(), row, row.string_bytes())
    }

    /// As [`RowCoder::encode`], for an image and strings that fit the schema.
    #[inline]
    pub(crate) fn encode_image(
        &mut self,
        image: &[u8],
        strings: &impl RowStrings,
        string_bytes: usize,
    ) -> Result<()> {
        if !self.framer.is_open() && self.framer.restarts() {
            self.encoder.restart();
        }
        self.scratch.clear();
        // Only a row near the limit can be refused once it is encoded; then the codec's memory must be put back.
        if tapeline_lz4::bound(self.encoder.bound(string_bytes)) <= MAX_ROW_BYTES {
            self.encoder.encode(image, strings, &mut self.scratch);
            return self.framer.append(&self.scratch);
        }
        let before = self.encoder.clone();
        self.encoder.encode(image, strings, &mut self.scratch);
        let result = self.framer.append(&self.scratch);
        if result.is_err() {
            self.encoder = before;
        }
        result
    }
}

#[cfg(test)]
mod tests;
