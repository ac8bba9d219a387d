//! The upper face: feed and finish over a buffer of its own.

use super::counters::FrameCounters;
use super::layout::FrameLayout;
use super::scanner::{FrameRef, FrameScanner};

/// A valid frame, lent for the time of the call.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where its magic starts, in bytes from the start of the stream.
    pub offset: u64,
    /// The header's fields; its `offset` is relative to a buffer and of no use here.
    pub fields: FrameRef,
    /// Header and payload as received.
    pub bytes: &'a [u8],
    /// The payload alone.
    pub payload: &'a [u8],
}

/// Turns bytes in any chunking into frames; keeps what is not decided yet.
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    scanner: FrameScanner,
    buffer: Vec<u8>,
    found: Vec<FrameRef>,
    /// Bytes of the stream before the first one held.
    consumed: u64,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(layout: FrameLayout) -> Self {
        Self {
            scanner: FrameScanner::new(layout),
            buffer: Vec::new(),
            found: Vec::new(),
            consumed: 0,
        }
    }

    /// Takes the next bytes of the stream and hands out every frame that is complete.
    pub fn feed(&mut self, chunk: &[u8], emit: &mut impl FnMut(Frame<'_>)) {
        self.buffer.extend_from_slice(chunk);
        self.run(false, emit);
    }

    /// Says that the stream has ended; the frames that only this decides are handed out. The
    /// decoder is then ready for a new stream; counters and offsets go on.
    pub fn finish(&mut self, emit: &mut impl FnMut(Frame<'_>)) {
        self.run(true, emit);
    }

    /// Totals so far.
    #[must_use]
    pub const fn counters(&self) -> &FrameCounters {
        self.scanner.counters()
    }

    /// Bytes fed that are neither part of a frame nor discarded yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The layout it looks for.
    #[must_use]
    pub const fn layout(&self) -> &FrameLayout {
        self.scanner.layout()
    }

    fn run(&mut self, end: bool, emit: &mut impl FnMut(Frame<'_>)) {
        self.found.clear();
        let consumed = self
            .scanner
            .scan(&self.buffer, end, usize::MAX, &mut self.found);
        let header_bytes = self.scanner.layout().header_bytes();
        for frame in &self.found {
            let bytes = self.buffer.get(frame.range()).unwrap_or_default();
            emit(Frame {
                offset: self.consumed + frame.offset as u64,
                fields: *frame,
                bytes,
                payload: bytes.get(header_bytes..).unwrap_or_default(),
            });
        }
        self.buffer.drain(..consumed);
        self.consumed += consumed as u64;
    }
}
