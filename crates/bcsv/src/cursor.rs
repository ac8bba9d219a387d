//! One packet (or one piece of a stream) in memory: verified, then decoded row by row or into columns.
//!
//! [`Cursor::open`] reads the bytes and checks every hash before anything is decoded. Rows are then found in pieces
//! of bounded size, so that a packet of repeats (one byte each) or a highly compressed one does not blow up. The
//! buffers are reused from packet to packet.

mod checks;

use std::sync::Arc;

use tapeline_lz4::WINDOW_BYTES;

use crate::error::{Error, ErrorKind, Result};
use crate::file::packet::{Walk, walk};
use crate::file::packet_lz4_batch::PREFIX_BYTES;
use crate::header::{FileCodec, Header, RowCodec};
use crate::limits::Limits;
use crate::packet::{HEADER_BYTES, TRAILER_BYTES, decode_header};
use crate::pool;
use crate::row::RowDecoder;
use crate::row::tile::Gather;
use crate::schema::Layout;
use crate::source::{Buffer, ReadAt};

pub(crate) use self::checks::{StreamRow, batch_sizes, check_plain_bytes, stream_row};
use self::checks::{check_hash, inflate};

/// What all readers of a file share.
pub(crate) struct FileFacts {
    pub source: Arc<dyn ReadAt>,
    pub header: Header,
    pub layout: Arc<Layout>,
    pub body_at: u64,
    pub limits: Limits,
}

impl FileFacts {
    pub(crate) fn file_codec(&self) -> FileCodec {
        self.header.file_codec()
    }

    pub(crate) fn decoder(&self) -> RowDecoder {
        RowDecoder::new(self.header.row_codec(), Arc::clone(&self.layout))
    }
}

/// Where decoding of a stream can start without what lies before.
#[derive(Clone)]
pub(crate) struct Checkpoint {
    pub decoder: RowDecoder,
    /// The last 64 KiB of plaintext, for LZ4.
    pub history: Vec<u8>,
}

/// A place between two rows of an open unit, to go back to.
pub(crate) struct Mark {
    /// Rows of the unit before it.
    pub row: u64,
    at: usize,
    checkpoint: Checkpoint,
}

impl Mark {
    /// Bytes in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.checkpoint.decoder.held_bytes() + self.checkpoint.history.len()
    }
}

/// A packet, or a piece of a stream.
#[derive(Clone)]
pub(crate) struct Unit {
    pub offset: u64,
    pub end: u64,
    pub first_row: u64,
    pub rows: u64,
    pub checkpoint: Option<Arc<Checkpoint>>,
}

/// Rows found at a time, unless told otherwise.
const PIECE_ROWS: usize = 8192;
/// Plaintext of linked LZ4 blocks decoded at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Where the rows of the open unit come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    /// From the bytes as stored.
    Stored,
    /// From the decompressed packet.
    Batch,
    /// From blocks decompressed piece by piece.
    Linked,
}

/// See the module.
pub(crate) struct Cursor {
    facts: Arc<FileFacts>,
    decoder: RowDecoder,
    stored: Buffer,
    plain: Vec<u8>,
    kind: Plain,
    /// Range of `stored` (or of `plain` for batch packets) with framed rows, and the position in it.
    at: usize,
    end: usize,
    /// Rows found and not yet decoded.
    rows: Vec<(u32, u32)>,
    next: usize,
    blocks: Vec<(u32, u32)>,
    unit_offset: u64,
    finished: bool,
    /// Rows decoded or skipped in the open unit.
    done: u64,
    piece_rows: usize,
}

impl Drop for Cursor {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.plain));
    }
}

impl Cursor {
    pub(crate) fn new(facts: Arc<FileFacts>) -> Self {
        Self {
            decoder: facts.decoder(),
            facts,
            stored: Buffer::default(),
            plain: Vec::new(),
            kind: Plain::Stored,
            at: 0,
            end: 0,
            rows: Vec::new(),
            next: 0,
            blocks: Vec::new(),
            unit_offset: 0,
            finished: true,
            done: 0,
            piece_rows: PIECE_ROWS,
        }
    }

    /// Find fewer rows at a time, for more marks.
    pub(crate) fn find_rows_at_a_time(&mut self, rows: usize) {
        self.piece_rows = rows;
    }

    /// Read and verify a unit, and stand before its first row.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it, at its offset.
    pub(crate) fn open(&mut self, unit: &Unit) -> Result<()> {
        self.finished = true;
        self.rows.clear();
        self.next = 0;
        self.done = 0;
        self.unit_offset = unit.offset;
        let bytes = self
            .facts
            .limits
            .packet(unit.end.saturating_sub(unit.offset))
            .map_err(|error| error.at(unit.offset))?;
        let codec = self.facts.file_codec();
        let facts = Arc::clone(&self.facts);
        self.stored
            .fill_exact(&*facts.source, unit.offset, bytes, "a packet")?;
        match &unit.checkpoint {
            Some(checkpoint) => self.decoder = checkpoint.decoder.clone(),
            None => self.decoder.restart(),
        }
        self.plain.clear();
        if codec.has_packets() {
            self.open_packet(codec, unit.first_row)
                .map_err(|error| error.at(unit.offset))?;
        } else {
            (self.at, self.end) = (0, bytes);
            self.kind = if codec == FileCodec::Stream {
                Plain::Stored
            } else {
                Plain::Linked
            };
            if let (Some(checkpoint), Plain::Linked) = (&unit.checkpoint, self.kind) {
                self.plain.extend_from_slice(&checkpoint.history);
            }
        }
        self.finished = false;
        Ok(())
    }

    fn open_packet(&mut self, codec: FileCodec, first_row: u64) -> Result<()> {
        let bytes = self.stored.bytes();
        let found = decode_header(bytes).ok_or_else(|| Error::new(ErrorKind::PacketHeader))?;
        if found != first_row {
            return Err(Error::new(ErrorKind::FirstRow {
                expected: first_row,
                found,
            }));
        }
        if codec == FileCodec::PacketLz4Batch {
            return self.open_batch();
        }
        let body_end = bytes
            .len()
            .checked_sub(8)
            .filter(|end| *end >= HEADER_BYTES + TRAILER_BYTES - 8);
        let (Some(body_end), Some(stored)) = (body_end, bytes.last_chunk::<8>()) else {
            return Err(Error::new(ErrorKind::Truncated { inside: "a packet" }));
        };
        let body = bytes.get(HEADER_BYTES..body_end).unwrap_or_default();
        check_hash(u64::from_le_bytes(*stored), body)?;
        (self.at, self.end) = (HEADER_BYTES, body_end);
        self.kind = if codec == FileCodec::Packet {
            Plain::Stored
        } else {
            Plain::Linked
        };
        Ok(())
    }

    fn open_batch(&mut self) -> Result<()> {
        let bytes = self.stored.bytes();
        let (plain_bytes, stored_bytes) = batch_sizes(bytes)?;
        let plain_bytes = check_plain_bytes(&self.facts, plain_bytes, stored_bytes)?;
        let (Some(block), Some(hash)) = (
            bytes.get(PREFIX_BYTES..bytes.len() - 8),
            bytes.last_chunk::<8>(),
        ) else {
            return Err(Error::new(ErrorKind::Truncated { inside: "a packet" }));
        };
        if block.len() as u64 != stored_bytes {
            return Err(Error::new(ErrorKind::Framing {
                what: "its stored size contradicts the index",
            }));
        }
        let hash = u64::from_le_bytes(*hash);
        if let Some(literals) = tapeline_lz4::literals_of(block) {
            if literals.len() != plain_bytes {
                return Err(Error::new(ErrorKind::Lz4));
            }
            check_hash(hash, literals)?;
            let start = PREFIX_BYTES + block.len() - literals.len();
            (self.at, self.end, self.kind) = (start, PREFIX_BYTES + block.len(), Plain::Stored);
        } else {
            if self.plain.capacity() < plain_bytes {
                // As much as the block can become, whatever it says.
                let room = plain_bytes.min(block.len().saturating_mul(255));
                pool::give(std::mem::replace(&mut self.plain, pool::take(room)));
                self.plain.clear();
            }
            match tapeline_lz4::decompress(block, plain_bytes, &mut self.plain) {
                Ok(found) if found == plain_bytes => {}
                _ => return Err(Error::new(ErrorKind::Lz4)),
            }
            check_hash(hash, &self.plain)?;
            (self.at, self.end, self.kind) = (0, plain_bytes, Plain::Batch);
        }
        Ok(())
    }

    /// Find the next rows. `false`: there are none.
    fn refill(&mut self) -> Result<bool> {
        self.rows.clear();
        self.next = 0;
        if self.finished {
            return Ok(false);
        }
        match (self.facts.file_codec().has_packets(), self.kind) {
            (true, Plain::Linked) => self.refill_linked()?,
            (true, _) => {
                let bytes = if self.kind == Plain::Batch {
                    self.plain.as_slice()
                } else {
                    self.stored.bytes()
                };
                let framed = bytes.get(..self.end).unwrap_or_default();
                let end = walk(framed, &mut self.at, self.piece_rows, &mut self.rows)?;
                self.ended(end)?;
            }
            (false, _) => self.refill_stream()?,
        }
        Ok(!self.rows.is_empty())
    }

    fn ended(&mut self, walk: Walk) -> Result<()> {
        match walk {
            Walk::Enough => Ok(()),
            Walk::Terminator if self.at == self.end => {
                self.finished = true;
                Ok(())
            }
            Walk::Terminator => Err(Error::new(ErrorKind::Framing {
                what: "bytes behind the terminator",
            })),
            Walk::Cut => Err(Error::new(ErrorKind::Framing {
                what: "no terminator",
            })),
        }
    }

    fn refill_linked(&mut self) -> Result<()> {
        self.make_room();
        while self.rows.len() < self.piece_rows && self.plain.len() < PIECE_BYTES + WINDOW_BYTES {
            self.blocks.clear();
            let framed = self.stored.bytes().get(..self.end).unwrap_or_default();
            let end = walk(framed, &mut self.at, 64, &mut self.blocks)?;
            for (start, stop) in &self.blocks {
                let block = framed
                    .get(*start as usize..*stop as usize)
                    .unwrap_or_default();
                self.rows.push(inflate(block, &mut self.plain)?);
            }
            self.ended(end)?;
            if self.finished {
                break;
            }
        }
        Ok(())
    }

    /// Keep the history and what the decoder remembers, and drop the rest of the plaintext.
    fn make_room(&mut self) {
        if self.plain.len() > WINDOW_BYTES {
            self.decoder.carry(&self.plain);
            self.plain.drain(..self.plain.len() - WINDOW_BYTES);
        } else if self.done > 0 {
            self.decoder.carry(&self.plain);
        }
    }

    fn refill_stream(&mut self) -> Result<()> {
        if self.kind == Plain::Linked {
            self.make_room();
        }
        let bytes = self.stored.bytes();
        while self.rows.len() < self.piece_rows && self.plain.len() < PIECE_BYTES + WINDOW_BYTES {
            if self.at >= self.end {
                self.finished = true;
                break;
            }
            match stream_row(bytes, self.at, &self.facts)? {
                StreamRow::Whole { start, end, next } => {
                    if self.kind == Plain::Linked {
                        let block = bytes.get(start..end).unwrap_or_default();
                        self.rows.push(inflate(block, &mut self.plain)?);
                    } else {
                        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
                        self.rows.push((narrow(start), narrow(end)));
                    }
                    self.at = next;
                }
                StreamRow::Cut => return Err(Error::new(ErrorKind::Truncated { inside: "a row" })),
            }
        }
        Ok(())
    }

    fn plain(&self) -> &[u8] {
        if self.kind == Plain::Stored {
            self.stored.bytes()
        } else {
            &self.plain
        }
    }

    /// Pass over up to `count` rows; returns how many there were.
    ///
    /// # Errors
    ///
    /// Corrupt rows.
    pub(crate) fn skip(&mut self, count: u64) -> Result<u64> {
        // Flat rows stand alone; the others build on the rows before.
        let alone =
            self.facts.header.row_codec() == RowCodec::Flat && self.facts.layout.columns() > 0;
        self.pass(count, !alone)
    }

    /// [`Cursor::skip`], looking into every row; [`Cursor::done`] says how many were good.
    ///
    /// # Errors
    ///
    /// Corrupt rows.
    pub(crate) fn check(&mut self, count: u64) -> Result<u64> {
        self.pass(count, true)
    }

    fn pass(&mut self, count: u64, decode: bool) -> Result<u64> {
        let mut skipped = 0;
        while skipped < count {
            if self.next >= self.rows.len() && !self.refill().map_err(|error| self.place(error))? {
                break;
            }
            let waiting = self.rows.get(self.next..).unwrap_or_default();
            let taken = waiting
                .len()
                .min(usize::try_from(count - skipped).unwrap_or(usize::MAX));
            if decode {
                let plain = if self.kind == Plain::Stored {
                    self.stored.bytes()
                } else {
                    &self.plain
                };
                for (number, (start, end)) in waiting.iter().take(taken).enumerate() {
                    let decoded = self.decoder.decode(plain, *start as usize, *end as usize);
                    if let Err(error) = decoded {
                        self.done += number as u64;
                        return Err(error.at(self.unit_offset));
                    }
                }
            }
            self.next += taken;
            self.done += taken as u64;
            skipped += taken as u64;
        }
        Ok(skipped)
    }

    /// Count the rows of the open unit by their framing only.
    pub(crate) fn skip_framing(&mut self) -> Result<u64> {
        let mut rows = 0;
        while self.refill().map_err(|error| self.place(error))? {
            rows += self.rows.len() as u64;
        }
        Ok(rows)
    }

    /// Decode up to `count` rows into columns; returns how many there were.
    ///
    /// # Errors
    ///
    /// Corrupt rows; the rows before have been collected.
    pub(crate) fn take(&mut self, count: usize, gather: &mut Gather) -> Result<usize> {
        let mut taken = 0;
        while taken < count {
            if self.next >= self.rows.len() && !self.refill().map_err(|error| self.place(error))? {
                break;
            }
            let stop = self.rows.len().min(self.next.saturating_add(count - taken));
            let plain = if self.kind == Plain::Stored {
                self.stored.bytes()
            } else {
                &self.plain
            };
            let rows = self.rows.get(self.next..stop).unwrap_or_default();
            if let Err((number, error)) =
                gather.decode(&mut self.decoder, &self.facts.layout, plain, rows)
            {
                self.done += number as u64;
                return Err(error.at(self.unit_offset));
            }
            self.done += rows.len() as u64;
            taken += rows.len();
            self.next = stop;
        }
        Ok(taken)
    }

    /// After the last row that the index knows: there must be no other.
    ///
    /// # Errors
    ///
    /// The packet holds more rows than the index says.
    pub(crate) fn expect_end(&mut self) -> Result<()> {
        if self.next < self.rows.len() || self.refill().map_err(|error| self.place(error))? {
            return Err(self.place(Error::new(ErrorKind::Framing {
                what: "a packet has more rows than the index says",
            })));
        }
        Ok(())
    }

    fn place(&self, error: Error) -> Error {
        error.at(self.unit_offset)
    }

    /// The bytes of the open unit, as stored.
    pub(crate) fn stored_bytes(&self) -> &[u8] {
        self.stored.bytes()
    }

    /// Rows decoded or skipped since [`Cursor::open`].
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Where the decoder stands, to go on from here later.
    pub(crate) fn checkpoint(&mut self) -> Checkpoint {
        let mut decoder = self.decoder.clone();
        decoder.carry(self.plain());
        let history = if self.kind == Plain::Linked {
            self.plain
                .get(self.plain.len().saturating_sub(WINDOW_BYTES)..)
                .unwrap_or_default()
                .to_vec()
        } else {
            Vec::new()
        };
        Checkpoint { decoder, history }
    }

    /// Rows found and not yet passed.
    pub(crate) fn waiting(&self) -> u64 {
        self.rows.len().saturating_sub(self.next) as u64
    }

    /// This place. No rows are waiting.
    pub(crate) fn mark(&mut self) -> Mark {
        debug_assert_eq!(self.waiting(), 0);
        Mark {
            row: self.done,
            at: self.at,
            checkpoint: self.checkpoint(),
        }
    }

    /// Go to a mark of the open unit.
    pub(crate) fn go_back(&mut self, mark: &Mark) {
        self.decoder.clone_from(&mark.checkpoint.decoder);
        if self.kind == Plain::Linked {
            self.plain.clear();
            self.plain.extend_from_slice(&mark.checkpoint.history);
        }
        self.rows.clear();
        (self.next, self.at, self.done) = (0, mark.at, mark.row);
        self.finished = false;
    }

    /// Bytes in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.stored.held_bytes() + self.plain.capacity() + 8 * self.rows.capacity()
    }

    /// Use a buffer for the next unit if it is the larger one.
    pub(crate) fn lend_stored(&mut self, spare: &mut Buffer) {
        if spare.held_bytes() > self.stored.held_bytes() {
            std::mem::swap(&mut self.stored, spare);
        }
    }

    /// Give up the stored bytes if the open unit does not need them any more.
    pub(crate) fn return_stored(&mut self, spare: &mut Buffer) {
        if self.kind == Plain::Batch {
            let stored = std::mem::take(&mut self.stored);
            if stored.held_bytes() > spare.held_bytes() {
                *spare = stored;
            }
        }
    }
}
