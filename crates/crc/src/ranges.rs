//! CRC32C of any range of a stream in constant time, each byte hashed once.
//!
//! The register is linear: with Q(i) the register, from zero, after the stream's bytes up to i,
//! that of the bytes a..b is Q(b) + Q(a) x^(8(b-a)). Q is kept every 64 bytes; the few bytes between
//! a range's ends and the marks inside it are hashed, which costs less than keeping Q everywhere
//! and needs no byte from before the range.

use std::ops::Range;

use crate::{Shift, crc32c, marks, moved, range};

/// Distance of the marks in bytes. The marks are a sixteenth of the bytes they cover.
const MARK_BYTES: usize = 64;
/// Below this a range is hashed as it is; it is then sure to hold a mark and what follows it.
const SHORT_BYTES: usize = 4 * MARK_BYTES;
/// Shifts remembered; a power of two.
const SHIFTS: usize = 8;
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
    /// Shifts used before, by the number of marks, which is never 0.
    shifts: [(usize, Shift); SHIFTS],
}

impl Ranges {
    /// No marks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

    /// CRC32C of `bytes[part]`. `bytes` is the part of the stream that starts at byte `bytes_at`;
    /// None if it does not hold the whole part.
    pub fn crc32c(&mut self, bytes: &[u8], bytes_at: u64, part: Range<usize>) -> Option<u32> {
        let start = part.start;
        let whole = bytes.get(part)?;
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
        Some(range(
            marks,
            before_mark,
            after_mark,
            self.shift(last_mark - first_mark),
        ))
    }

    /// The shift by so many marks; ranges of one length come in series, with one mark more or less.
    #[inline]
    fn shift(&mut self, distance: usize) -> Shift {
        let known = &mut self.shifts[distance % SHIFTS];
        if known.0 != distance {
            *known = (distance, Shift::by((MARK_BYTES * distance) as u64));
        }
        known.1
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

/// The checksum of a range that moves on through a stream without changing its length: costs the bytes that it moves
/// by, twice, whatever its length.
#[derive(Clone, Copy, Debug)]
pub struct MovingRange {
    bytes: u64,
    /// Over `bytes` bytes.
    shift: Shift,
    /// The register of all ones after `bytes` zero bytes.
    ones: u32,
    /// Registers, from a common start at or before the range, at its start and at its end.
    registers: [u32; 2],
}

impl MovingRange {
    /// For ranges of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes,
            shift: Shift::by(bytes),
            ones: crate::shift(!0, bytes),
            registers: [0; 2],
        }
    }

    /// The length.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts it over a range of which the checksum is known.
    pub const fn place(&mut self, crc: u32) {
        self.registers = [0, !crc ^ self.ones];
    }

    /// Moves it on and returns the checksum of what it is over then. `out` are the bytes that it leaves behind, `new`
    /// as many behind what was its end.
    #[inline]
    pub fn advance(&mut self, out: &[u8], new: &[u8]) -> u32 {
        moved(&mut self.registers, out, new, self.shift)
    }
}
