//! A text as chunks of whole records, from anything that can be read.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::records;

/// How far the work is, and whether it is still wanted; shared with whoever shows progress.
#[derive(Debug, Default)]
pub struct Cancel {
    cancelled: AtomicBool,
    done: AtomicU64,
}

impl Cancel {
    /// Ask the work to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Bytes or rows done so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, by: u64) -> Result<()> {
        self.done.fetch_add(by, Ordering::Relaxed);
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled));
        }
        Ok(())
    }

    /// Say how much is done.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`] if the work is no longer wanted.
    pub fn step(&self, done: u64) -> Result<()> {
        self.done.store(done, Ordering::Relaxed);
        self.advance(0)
    }

    pub(crate) fn restart(&self) {
        self.done.store(0, Ordering::Relaxed);
    }
}

/// Bytes of a chunk: large against the cost of handing it over, small against memory.
const CHUNK_BYTES: usize = 2 << 20;
/// Longest record: a row of the format has at most 16 MiB, in text four times that.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// Whole records, ending with a newline.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub number: usize,
    pub first_line: u64,
    pub bytes: Vec<u8>,
}

/// See the module.
pub(crate) struct Chunks<R> {
    source: R,
    delimiter: u8,
    /// Empty lines are no records.
    skips_blank: bool,
    chunk_bytes: usize,
    line: u64,
    number: usize,
    /// The start of a record that the last chunk did not have the end of.
    carry: Vec<u8>,
    ended: bool,
    /// Records still to be left out, and then to be taken.
    skip: u64,
    take: Option<u64>,
}

impl<R: Read> Chunks<R> {
    /// Chunks of what `source` has from here on.
    pub(crate) fn new(source: R, delimiter: u8, fields: usize, line: u64) -> Self {
        Self {
            source,
            delimiter,
            skips_blank: fields > 1,
            chunk_bytes: CHUNK_BYTES,
            line,
            number: 0,
            carry: Vec::new(),
            ended: false,
            skip: 0,
            take: None,
        }
    }

    /// Only the records from `start` to `stop`.
    pub(crate) fn rows(mut self, start: u64, stop: Option<u64>) -> Self {
        self.skip = start;
        self.take = stop.map(|stop| stop.saturating_sub(start));
        self
    }

    #[cfg(test)]
    pub(crate) fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// The number of the next chunk.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The next chunk, in a buffer that served before; `None` at the end.
    pub(crate) fn next(&mut self, mut buffer: Vec<u8>) -> Result<Option<Chunk>> {
        loop {
            buffer.clear();
            if self.take == Some(0) || !self.fill(&mut buffer)? {
                return Ok(None);
            }
            let mut first_line = self.line;
            self.line += records::newlines(&buffer);
            if self.skip > 0 || self.take.is_some() {
                let (from, to) = self.select(&buffer);
                first_line += records::newlines(buffer.get(..from).unwrap_or_default());
                buffer.truncate(to);
                buffer.drain(..from);
            }
            if !buffer.is_empty() {
                self.number += 1;
                return Ok(Some(Chunk {
                    number: self.number - 1,
                    first_line,
                    bytes: buffer,
                }));
            }
        }
    }

    /// Whole records, or false.
    fn fill(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.append(&mut self.carry);
        let mut wanted = self.chunk_bytes;
        while !self.ended {
            let missing = wanted.saturating_sub(buffer.len()).max(1) as u64;
            let read = (&mut self.source).take(missing).read_to_end(buffer)?;
            self.ended = (read as u64) < missing;
            if self.ended {
                break;
            }
            if let Some(end) = records::last_record_end(buffer, self.delimiter) {
                self.carry
                    .extend_from_slice(buffer.get(end..).unwrap_or_default());
                buffer.truncate(end);
                return Ok(true);
            }
            if buffer.len() > MAX_RECORD_BYTES {
                let limit = MAX_RECORD_BYTES;
                return Err(Error::at(ErrorKind::LongRecord { limit }, self.line, None));
            }
            wanted = buffer.len() * 2;
        }
        if buffer.is_empty() {
            return Ok(false);
        }
        if records::ends_in_quotes(buffer, self.delimiter) {
            let end = records::last_record_end(buffer, self.delimiter).unwrap_or(0);
            let before = buffer.get(..end).unwrap_or_default();
            let line = self.line + records::newlines(before);
            return Err(Error::at(ErrorKind::OpenQuote, line, None));
        }
        if buffer.last() != Some(&b'\n') {
            buffer.push(b'\n');
        }
        Ok(true)
    }

    /// The range of the records wanted.
    fn select(&mut self, buffer: &[u8]) -> (usize, usize) {
        let mut at = 0;
        while self.skip > 0 && at < buffer.len() {
            self.skip -= self.step(buffer, &mut at);
        }
        let from = at;
        while self.take.is_some_and(|take| take > 0) && at < buffer.len() {
            let records = self.step(buffer, &mut at);
            self.take = self.take.map(|take| take - records);
        }
        (
            from,
            if self.take.is_some() {
                at
            } else {
                buffer.len()
            },
        )
    }

    /// Go over a record (1) or an empty line (0).
    fn step(&self, buffer: &[u8], at: &mut usize) -> u64 {
        let blank = if self.skips_blank {
            records::blank(buffer, *at)
        } else {
            0
        };
        if blank > 0 {
            *at += blank;
            return 0;
        }
        *at = records::record_end(buffer, *at, self.delimiter).unwrap_or(buffer.len());
        1
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn chunks_of_any_size_hold_whole_records() {
        let text = "a,\"x\n\"\"y\"\nbb,5\" pipe\n\n\"c,\r\n\",d\r\nlast,1";
        for size in 1..text.len() + 2 {
            let mut chunks = Chunks::new(text.as_bytes(), b',', 2, 1).chunk_bytes(size);
            let (mut all, mut lines) = (Vec::new(), 1);
            while let Some(chunk) = chunks.next(Vec::new()).unwrap() {
                assert_eq!(chunk.first_line, lines);
                lines += records::newlines(&chunk.bytes);
                let mut at = 0;
                while at < chunk.bytes.len() {
                    at = records::record(&chunk.bytes, at, b',').unwrap().1;
                }
                assert_eq!(at, chunk.bytes.len());
                all.extend(chunk.bytes);
            }
            assert_eq!(all, format!("{text}\n").into_bytes());
        }
    }

    #[test]
    fn an_open_quote_is_an_error_with_its_line() {
        let mut chunks = Chunks::new(&b"a,b\nc,\"d\n"[..], b',', 2, 1);
        let error = chunks.next(Vec::new()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::OpenQuote));
        assert_eq!(error.place().unwrap().line, 2);
    }

    #[test]
    fn rows_are_chosen_by_number() {
        let text = "0,a\n1,\"\n\"\n\n2,c\n3,d\n4,e\n";
        for size in 1..30 {
            let mut chunks = Chunks::new(text.as_bytes(), b',', 2, 1)
                .chunk_bytes(size)
                .rows(1, Some(4));
            let mut all = Vec::new();
            while let Some(chunk) = chunks.next(Vec::new()).unwrap() {
                all.extend(chunk.bytes);
            }
            let all = String::from_utf8(all).unwrap();
            assert_eq!(all.trim_start_matches('\n'), "1,\"\n\"\n\n2,c\n3,d\n");
        }
    }
}
