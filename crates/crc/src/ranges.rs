//! CRC32C of any range of a stream in constant time, each byte hashed once.
//!
//! The register is linear: with Q(i) the register, from zero, after the stream's bytes up to i,
//! that of the bytes a..b is Q(b) + Q(a) x^(8(b-a)). Q is kept every 64 bytes; between two marks it
//! is found by hashing the few bytes from the mark on (for b) or up to the mark (for a, so that no
//! byte before a is needed), which costs less than keeping Q everywhere.

use std::ops::Range;

use crate::{crc32c, marks};

/// Distance of the marks in bytes. The marks are a sixteenth of the bytes they cover.
const MARK_BYTES: u64 = 64;
/// Below this a range is hashed as it is; it is then sure to hold a mark and what follows it.
const SHORT_BYTES: u64 = 4 * MARK_BYTES;
/// Marks are set so far ahead when the bytes are there: one by one they would cost thrice.
const AHEAD_BYTES: u64 = 4096;

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

    /// Bytes of the marks held.
    #[must_use]
    pub const fn marked_bytes(&self) -> usize {
        4 * self.marks.len()
    }

    /// CRC32C of the stream's bytes `range`. `bytes` is the part of the stream that starts at byte
    /// `bytes_at`; None if it does not hold the whole range.
    pub fn crc32c(&mut self, bytes: &[u8], bytes_at: u64, range: Range<u64>) -> Option<u32> {
        let at = |place: u64| usize::try_from(place.checked_sub(bytes_at)?).ok();
        let part = |from: u64, to: u64| bytes.get(at(from)?..at(to)?);
        let whole = part(range.start, range.end)?;
        let length = whole.len() as u64;
        if length < SHORT_BYTES {
            return Some(crc32c(whole));
        }
        if self.marks.is_empty() || range.start < self.first || range.start > self.marked_to() {
            self.marks.clear();
            self.marks.push(0);
            self.first = range.start;
        }
        self.forget_before(range.start);
        if self.marked_to() + MARK_BYTES <= range.end {
            let there = bytes_at + bytes.len() as u64;
            let ahead = part(self.marked_to(), there.min(range.end + AHEAD_BYTES))?;
            marks(&mut self.marks, ahead.as_chunks().0);
        }
        let to_mark = (self.first.wrapping_sub(range.start)) % MARK_BYTES;
        let before_mark = part(range.start, range.start + to_mark)?;
        let from_mark = (range.end - self.first) % MARK_BYTES;
        let after_mark = part(range.end - from_mark, range.end)?;
        let marks = [
            self.mark(range.start + to_mark)?,
            self.mark(range.end - from_mark)?,
        ];
        Some(crate::range(marks, before_mark, after_mark, length))
    }

    /// Where the last mark stands; there must be one.
    fn marked_to(&self) -> u64 {
        self.first + MARK_BYTES * (self.marks.len() as u64).saturating_sub(1)
    }

    fn mark(&self, place: u64) -> Option<u32> {
        self.marks
            .get(usize::try_from((place - self.first) / MARK_BYTES).ok()?)
            .copied()
    }

    /// Drops the marks before `place` once they are half of all, so that each is moved once or less.
    fn forget_before(&mut self, place: u64) {
        let dead = usize::try_from((place - self.first) / MARK_BYTES).unwrap_or(0);
        if dead > 64 && dead >= self.marks.len() / 2 && dead < self.marks.len() {
            self.marks.drain(..dead);
            self.first += MARK_BYTES * dead as u64;
        }
    }
}
