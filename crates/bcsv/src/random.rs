//! Single rows: a packet stays in memory once it has been read and verified, with marks to go on from.
//!
//! Rows of most codecs build on the rows before them, and all of them lie at places that only the rows before tell. So
//! while a packet is walked, what the decoder remembers is noted every few hundred rows ([`Mark`]); the next row asked
//! for is decoded from the mark before it. Packets leave in the order of their last use, when they exceed
//! [`crate::Limits::cache_bytes`] together; their buffers serve the next one.

use std::sync::Arc;

use crate::batch::Batch;
use crate::cursor::{Cursor, FileFacts, Mark, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::header::FileCodec;
use crate::row::tile::Gather;
use crate::source::Buffer;

/// Bytes of rows between two marks.
const MARK_BYTES: usize = 128 << 10;
/// Rows between two marks; rows of linked blocks are found 64 at a time.
const MARK_ROWS: (usize, usize) = (64, 1024);

/// Of linked blocks a mark takes a window of 64 KiB besides, so there are fewer of them.
const LINKED_FACTOR: usize = 4;

/// What tells packets apart: where it is, and its first row.
type Key = (u64, u64, u64);

fn key(unit: &Unit) -> Key {
    (unit.offset, unit.end, unit.first_row)
}

/// A verified packet.
pub(crate) struct Kept {
    key: Key,
    cursor: Cursor,
    gather: Gather,
    marks: Vec<Mark>,
}

/// The packets kept, least recently used first. One that is being read is not among them.
#[derive(Default)]
pub(crate) struct Rows {
    packets: Vec<Kept>,
    /// For the stored form of the next packet, where that is not what rows are decoded from.
    spare: Buffer,
}

impl Rows {
    /// Take out the packet of a unit; if it is not there one to be opened, whose buffers may have been used.
    pub(crate) fn take(&mut self, facts: &Arc<FileFacts>, unit: &Unit) -> Kept {
        let wanted = key(unit);
        if let Some(place) = self.packets.iter().position(|kept| kept.key == wanted) {
            return self.packets.remove(place);
        }
        let bytes = self.bytes().saturating_add(unit.end - unit.offset);
        let mut kept = if bytes > facts.limits.cache_bytes && !self.packets.is_empty() {
            self.packets.remove(0)
        } else {
            Kept::new(facts)
        };
        kept.key = (0, 0, 0);
        kept.cursor.lend_stored(&mut self.spare);
        kept
    }

    /// Keep a packet, as the one used last.
    pub(crate) fn put(&mut self, mut kept: Kept, limit: u64) {
        kept.cursor.return_stored(&mut self.spare);
        // Two callers may have read the same packet.
        self.packets.retain(|other| other.key != kept.key);
        self.packets.push(kept);
        while self.packets.len() > 1 && self.bytes() > limit {
            self.packets.remove(0);
        }
    }

    fn bytes(&self) -> u64 {
        let bytes = self.packets.iter().map(|kept| kept.bytes() as u64);
        bytes.sum::<u64>() + self.spare.held_bytes() as u64
    }
}

impl Kept {
    fn new(facts: &Arc<FileFacts>) -> Self {
        let row_bytes = facts.layout.flat_fixed_bytes() + 16 * facts.layout.strings;
        let mut piece_rows = (MARK_BYTES / row_bytes.max(1)).clamp(MARK_ROWS.0, MARK_ROWS.1);
        if matches!(
            facts.file_codec(),
            FileCodec::PacketLz4 | FileCodec::StreamLz4
        ) {
            piece_rows *= LINKED_FACTOR;
        }
        let mut cursor = Cursor::new(Arc::clone(facts));
        cursor.find_rows_at_a_time(piece_rows);
        Self {
            key: (0, 0, 0),
            cursor,
            gather: Gather::new(
                &facts.header.schema,
                &facts.layout,
                facts.header.row_codec(),
                None,
            ),
            marks: Vec::new(),
        }
    }

    fn bytes(&self) -> usize {
        let marks: usize = self.marks.iter().map(Mark::held_bytes).sum();
        self.cursor.held_bytes() + marks
    }

    /// Row number `row` of the unit as a batch of one row.
    ///
    /// # Errors
    ///
    /// What is wrong with the unit. The packet must not be kept then.
    pub(crate) fn row(&mut self, unit: &Unit, row: u64) -> Result<Batch> {
        if self.key != key(unit) {
            self.marks.clear();
            self.cursor.open(unit)?;
            self.key = key(unit);
        }
        self.go_to(unit, row)?;
        self.gather.begin(1);
        if self.cursor.take(1, &mut self.gather)? == 0 {
            return Err(missing(unit, row));
        }
        if row + 1 == unit.rows {
            self.cursor.expect_end()?;
        }
        Ok(self.gather.finish(unit.first_row + row))
    }

    /// Stand before a row.
    fn go_to(&mut self, unit: &Unit, row: u64) -> Result<()> {
        let before = self.marks.partition_point(|mark| mark.row <= row);
        let mark = before.checked_sub(1).and_then(|last| self.marks.get(last));
        let done = self.cursor.done();
        if let Some(mark) = mark.filter(|mark| done > row || mark.row > done) {
            self.cursor.go_back(mark);
        }
        while self.cursor.done() < row {
            let waiting = self.cursor.waiting();
            let done = self.cursor.done();
            if waiting == 0 && self.marks.last().is_none_or(|last| last.row < done) {
                self.marks.push(self.cursor.mark());
            }
            // Not beyond the end of what has been found, where the next mark may be set.
            let step = (row - done).min(waiting.max(1));
            if self.cursor.skip(step)? < step {
                return Err(missing(unit, row));
            }
        }
        if self.marks.is_empty() {
            // The first row was asked for first: nothing has been decoded.
            self.marks.push(self.cursor.mark());
        }
        Ok(())
    }
}

fn missing(unit: &Unit, row: u64) -> Error {
    Error::new(ErrorKind::RowsMissing {
        first: unit.first_row + row,
        stop: unit.first_row + row + 1,
    })
}
