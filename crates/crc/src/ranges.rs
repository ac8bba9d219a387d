//! CRC32C of any range of a stream in constant time, each byte hashed once.
//!
//! The register is linear: with Q(i) the register, from zero, after the stream's bytes up to i,
//! that of the bytes a..b is Q(b) + Q(a) x^(8(b-a)). Q is kept every 64 bytes; between two marks it
//! is found by hashing the few bytes from the mark on (for b) or up to the mark (for a, so that no
//! byte before a is needed), which costs less than keeping Q everywhere.

use std::ops::Range;

use crate::{crc32c, marks};

/// Distance of the marks in bytes. The marks are a sixteenth of the bytes they cover.
const MARK_BYTES: usize = 64;
/// Below this a range is hashed as it is; it is then sure to hold a mark and what follows it.
const SHORT_BYTES: usize = 4 * MARK_BYTES;
/// Marks are set so far ahead when the bytes are there: one by one they would cost thrice.
const AHEAD_BYTES: usize = 4096;

/// Checksums of ranges of a stream of which a part is at hand.
///
/// Made for ranges that start ever later: marks before the start of the last one are forgotten. It
/// holds at most a sixteenth of the longest range asked for, plus a constant.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// Where the first mark stands, in bytes from the start of the stream.
    first: u64,
    /// Q at `first + 64 k`.
    marks: Vec<u32>,
}

impl Ranges {
    /// No marks yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: 0,
            marks: Vec::new(),
        }
    }

    /// Forgets the stream.
    pub fn clear(&mut self) {
        self.marks.clear();
    }

    /// Bytes of memory that the marks take.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        4 * self.marks.len()
    }

    /// CRC32C of `bytes[range]`. `bytes` is the part of the stream that starts at byte `bytes_at`;
    /// None if it does not hold the whole range.
    pub fn crc32c(&mut self, bytes: &[u8], bytes_at: u64, range: Range<usize>) -> Option<u32> {
        let start = range.start;
        let whole = bytes.get(range)?;
        if whole.len() < SHORT_BYTES {
            return Some(crc32c(whole));
        }
        // Places relative to the first mark. A range before it wraps to a place beyond all marks.
        let mut place = usize::try_from((bytes_at + start as u64).wrapping_sub(self.first))
            .unwrap_or(usize::MAX);
        if place > self.marked_bytes() || self.marks.is_empty() {
            self.marks.clear();
            self.marks.push(0);
            self.first = bytes_at + start as u64;
            place = 0;
        }
        if (place + whole.len()) / MARK_BYTES >= self.marks.len() {
            place = self.forget_before(place);
            let marked = start + self.marked_bytes() - place;
            let there = bytes.len().min(start + whole.len() + AHEAD_BYTES);
            marks(&mut self.marks, bytes.get(marked..there)?.as_chunks().0);
        }
        let first_mark = place.div_ceil(MARK_BYTES);
        let last_mark = (place + whole.len()) / MARK_BYTES;
        let before_mark = whole.get(..first_mark * MARK_BYTES - place)?;
        let after_mark = whole.get(last_mark * MARK_BYTES - place..)?;
        let marks = [*self.marks.get(first_mark)?, *self.marks.get(last_mark)?];
        Some(crate::range(
            marks,
            before_mark,
            after_mark,
            whole.len() as u64,
        ))
    }

    /// Bytes from the first mark to the last; 0 without any.
    fn marked_bytes(&self) -> usize {
        MARK_BYTES * self.marks.len().saturating_sub(1)
    }

    /// Drops the marks before `place` once they are half of all, so that each is moved at most
    /// once, and gives the place relative to the first one that is left.
    fn forget_before(&mut self, place: usize) -> usize {
        let dead = place / MARK_BYTES;
        if dead <= 64 || dead < self.marks.len() / 2 || dead >= self.marks.len() {
            return place;
        }
        self.marks.drain(..dead);
        self.first += (MARK_BYTES * dead) as u64;
        place - MARK_BYTES * dead
    }
}
