//! File codecs: how encoded rows are framed, compressed and checked (format 6).
//!
//! Each file of this folder has the two directions of one codec: append a row, and find the rows in what was
//! stored. [`Framer`] is the writing side over all of them: it opens and closes packets, counts rows and bytes,
//! and keeps the index. It never waits and never touches a file; bytes ready to be stored lie in [`Framer::out`].
//!
//! To add a codec: a file here, an arm in [`Framer::append`], [`Framer::close_packet`] and in the reader's walk, a
//! line in [`crate::FileCodec::ALL`], vectors.

pub(crate) mod packet;
pub(crate) mod packet_lz4;
pub(crate) mod packet_lz4_batch;
pub(crate) mod stream;
pub(crate) mod stream_lz4;

use tapeline_lz4::{Effort, StreamEncoder};

use crate::checksum::Hasher;
use crate::error::Result;
use crate::footer::{Footer, IndexEntry};
use crate::header::{FileCodec, Header};
use crate::limits::MAX_ROW_BYTES;
use crate::packet::encode_header;
use crate::vle;

/// How hard LZ4 tries at each level (format 9).
pub(crate) fn effort(codec: FileCodec, level: u8) -> Effort {
    let level = i32::from(level.clamp(1, 9));
    if codec == FileCodec::PacketLz4Batch && level >= 6 {
        Effort::High { level: level + 3 }
    } else {
        Effort::Fast {
            acceleration: 10 - level,
        }
    }
}

/// A batch packet that is full: to be compressed and stored.
#[derive(Debug, Default)]
pub(crate) struct FullPacket {
    /// Its first row.
    pub first_row: u64,
    /// Rows in it.
    pub rows: u64,
    /// The payload, terminator included.
    pub payload: Vec<u8>,
}

/// Turns encoded rows into the body of a file.
pub(crate) struct Framer {
    codec: FileCodec,
    effort: Effort,
    packet_bytes: u64,
    index_wanted: bool,
    linked: Option<StreamEncoder>,
    /// Of the open packet, up to `hashed` in `out`.
    hasher: Hasher,
    hashed: usize,
    /// Bytes and rows in the open packet; `None` between packets.
    open: Option<u64>,
    packet_first_row: u64,
    rows: u64,
    /// Byte in the file where `out` (or the next batch packet) starts.
    pub offset: u64,
    /// Bytes to be stored at `offset`.
    pub out: Vec<u8>,
    /// Batch: the payload of the open packet.
    payload: Vec<u8>,
    entries: Vec<IndexEntry>,
}

impl Framer {
    /// A framer for the body of a file with this header, going on behind `entries` and `rows` at `offset`.
    pub(crate) fn new(header: &Header, offset: u64, entries: Vec<IndexEntry>, rows: u64) -> Self {
        let codec = header.file_codec();
        Self {
            codec,
            effort: effort(codec, header.compression_level),
            packet_bytes: header.packet_bytes.into(),
            index_wanted: header.has_index(),
            linked: matches!(codec, FileCodec::StreamLz4 | FileCodec::PacketLz4)
                .then(StreamEncoder::new),
            hasher: Hasher::default(),
            hashed: 0,
            open: None,
            packet_first_row: rows,
            rows,
            offset,
            out: Vec::new(),
            payload: Vec::new(),
            entries,
        }
    }

    /// Use these buffers, whatever is in them.
    pub(crate) fn with_buffers(mut self, mut out: Vec<u8>, mut payload: Vec<u8>) -> Self {
        out.clear();
        payload.clear();
        (self.out, self.payload) = (out, payload);
        self
    }

    /// The buffers, for others to use: nothing is written any more.
    pub(crate) fn buffers(&mut self) -> (Vec<u8>, Vec<u8>) {
        (
            std::mem::take(&mut self.out),
            std::mem::take(&mut self.payload),
        )
    }

    /// A framer that only collects rows, uncompressed, to see how long they become.
    pub(crate) fn trial(header: &Header) -> Self {
        Self {
            codec: FileCodec::Packet,
            packet_bytes: u64::MAX,
            linked: None,
            ..Self::new(header, 0, Vec::new(), 0)
        }
    }

    /// Rows of the file so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The file codec.
    pub(crate) fn codec(&self) -> FileCodec {
        self.codec
    }

    /// Start over with empty buffers at byte 0 and this row; packets are closed.
    pub(crate) fn renew(&mut self, first_row: u64) {
        self.offset = 0;
        self.out.clear();
        self.hashed = 0;
        self.entries.clear();
        self.open = None;
        self.rows = first_row;
        self.packet_first_row = first_row;
    }

    /// Rows stored elsewhere follow: up to `rows` in all, in these packets, up to byte `end`. No packet is open and
    /// nothing waits to be stored.
    pub(crate) fn extend(&mut self, rows: u64, entries: &[IndexEntry], end: u64) {
        self.rows = rows;
        self.entries.extend_from_slice(entries);
        self.offset = end;
    }

    /// Whether rows are stored as they are, behind a length each: [`Framer::append_plain`].
    pub(crate) fn takes_plain_rows(&self) -> bool {
        matches!(self.codec, FileCodec::Packet | FileCodec::PacketLz4Batch)
    }

    /// Append up to `rows` rows of `row_bytes` bytes each, which `fill` writes all at once: it gets the region, the
    /// distance between rows, the place of a row behind its length, and the number of rows. Returns that number: the
    /// packet may be full before.
    pub(crate) fn append_plain(
        &mut self,
        row_bytes: usize,
        rows: usize,
        fill: impl FnOnce(&mut [u8], usize, usize, usize),
    ) -> Result<usize> {
        crate::value::check_row_bytes(row_bytes)?;
        if self.open.is_none() {
            self.open_packet();
        }
        let mut prefix = Vec::new();
        vle::encode(row_bytes as u64, &mut prefix);
        let stride = prefix.len() + row_bytes;
        let filled = self.open.unwrap_or(0);
        let room = self
            .packet_bytes
            .saturating_sub(filled)
            .div_ceil(stride as u64);
        let rows = rows.min(usize::try_from(room).unwrap_or(usize::MAX));
        let out = if self.codec == FileCodec::PacketLz4Batch {
            &mut self.payload
        } else {
            &mut self.out
        };
        let start = out.len();
        out.resize(start + rows * stride, 0);
        let region = out.get_mut(start..).unwrap_or_default();
        for row in region.chunks_exact_mut(stride) {
            if let Some(to) = row.get_mut(..prefix.len()) {
                to.copy_from_slice(&prefix);
            }
        }
        fill(region, stride, prefix.len(), rows);
        self.open = Some(filled + (rows * stride) as u64);
        self.rows += rows as u64;
        Ok(rows)
    }

    /// Whether the open packet takes no more rows: it must be closed before the next one.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.open.is_some_and(|filled| filled >= self.packet_bytes)
    }

    /// How much of the open packet is filled, from 0 to 1 (and a row).
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn filled(&self) -> f64 {
        self.open.unwrap_or(0) as f64 / self.packet_bytes.max(1) as f64
    }

    /// Whether a packet is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the row codec starts afresh when no packet is open: in packets always, in streams never.
    pub(crate) fn restarts(&self) -> bool {
        self.codec.has_packets()
    }

    /// Plaintext that the next row of a stream may refer to (for appending to a stream).
    pub(crate) fn set_history(&mut self, history: &[u8]) {
        if let Some(linked) = &mut self.linked {
            linked.set_history(history);
        }
    }

    /// Append an encoded row, opening a packet if none is open.
    ///
    /// # Errors
    ///
    /// `RowTooLong`; nothing has changed then.
    #[inline]
    pub(crate) fn append(&mut self, row: &[u8]) -> Result<()> {
        crate::value::check_row_bytes(row.len())?;
        if self.codec.has_packets() && self.open.is_none() {
            self.open_packet();
        }
        let start = self.out.len();
        let filled = match self.codec {
            FileCodec::Stream => stream::append(row, &mut self.out),
            FileCodec::Packet => packet::append(row, &mut self.out),
            FileCodec::PacketLz4Batch => packet::append(row, &mut self.payload),
            FileCodec::StreamLz4 | FileCodec::PacketLz4 => self.append_linked(row)?,
        };
        if let Some(open) = &mut self.open {
            *open += filled as u64;
        }
        debug_assert!(self.out.len() >= start);
        self.rows += 1;
        Ok(())
    }

    fn append_linked(&mut self, row: &[u8]) -> Result<usize> {
        let Some(linked) = &mut self.linked else {
            return Ok(0);
        };
        // A row that may come out too long is tried on the side, so that a refusal leaves no trace in the history.
        if tapeline_lz4::bound(row.len()) > MAX_ROW_BYTES {
            let history = linked.history().to_vec();
            let mut block = Vec::new();
            let bytes = linked
                .compress(row, self.effort, &mut block)
                .unwrap_or(usize::MAX);
            if let Err(error) = crate::value::check_row_bytes(bytes) {
                linked.set_history(&history);
                return Err(error);
            }
            linked.set_history(&history);
        }
        Ok(if self.codec == FileCodec::StreamLz4 {
            stream_lz4::append(row, linked, self.effort, &mut self.out)
        } else {
            packet_lz4::append(row, linked, self.effort, &mut self.out)
        })
    }

    fn open_packet(&mut self) {
        self.packet_first_row = self.rows;
        self.open = Some(0);
        if self.codec == FileCodec::PacketLz4Batch {
            self.payload.clear();
            return;
        }
        if let Some(linked) = &mut self.linked {
            linked.reset();
        }
        self.entries.push(IndexEntry {
            offset: self.offset + self.out.len() as u64,
            first_row: self.rows,
        });
        self.out.extend_from_slice(&encode_header(self.rows));
        self.hasher = Hasher::default();
        self.hashed = self.out.len();
    }

    /// Close the open packet. Batch: returns it, to be compressed by [`packet_lz4_batch::seal`] and then
    /// registered with [`Framer::sealed`]; the buffer of `recycled` takes its place.
    pub(crate) fn close_packet(&mut self, recycled: Vec<u8>) -> Option<FullPacket> {
        self.open.take()?;
        if self.codec == FileCodec::PacketLz4Batch {
            packet::terminate(&mut self.payload);
            let payload = std::mem::replace(&mut self.payload, recycled);
            self.payload.clear();
            let first_row = self.packet_first_row;
            return Some(FullPacket {
                first_row,
                rows: self.rows - first_row,
                payload,
            });
        }
        packet::terminate(&mut self.out);
        self.hash();
        let digest = self.hasher.digest();
        self.out.extend_from_slice(&digest.to_le_bytes());
        self.hashed = self.out.len();
        None
    }

    /// A batch packet has its place in the file.
    pub(crate) fn sealed(&mut self, first_row: u64, offset: u64) {
        self.entries.push(IndexEntry { offset, first_row });
    }

    fn hash(&mut self) {
        if self.open.is_some() || self.hashed < self.out.len() {
            self.hasher
                .update(self.out.get(self.hashed..).unwrap_or_default());
            self.hashed = self.out.len();
        }
    }

    /// Forget the first `bytes` of `out`: they are stored.
    pub(crate) fn stored(&mut self, bytes: usize) {
        if matches!(self.codec, FileCodec::Packet | FileCodec::PacketLz4) && self.open.is_some() {
            self.hash();
        }
        let bytes = bytes.min(self.out.len());
        self.out.drain(..bytes);
        self.hashed = self.hashed.saturating_sub(bytes);
        self.offset += bytes as u64;
    }

    /// The footer; nothing for streams. All packets are closed.
    pub(crate) fn footer(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.codec.has_packets() {
            let entries = if self.index_wanted {
                self.entries.clone()
            } else {
                Vec::new()
            };
            Footer {
                entries,
                rows: self.rows,
            }
            .encode(&mut out);
        }
        out
    }

    /// Packets so far.
    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }
}
