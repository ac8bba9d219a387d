//! The upper face: feed and finish over a bounded buffer of its own.
//!
//! Frames that lie whole in the caller's chunk are decoded there; only what the chunk leaves
//! undecided is copied. While something is held, the buffer takes just as much of the next chunk
//! as the scanner needs, and once the scanner has passed what was held, decoding goes on in the
//! chunk. A candidate that is refused after a long wait leaves its bytes to search through; then
//! the portions taken double, so that neither calls nor moves grow with the square of the input.
//!
//! At most one frame of the largest size, the 8 bytes after it and one read buffer
//! ([`FrameDecoder::limit_bytes`]) are held, whatever comes; memory grows with the bytes received,
//! never with a length that a header claims.

use super::counters::FrameCounters;
use super::layout::FrameLayout;
use super::scanner::{FrameRef, FrameScanner};

/// Frames found per step, so that their list stays in cache and small.
const MAX_FRAMES: usize = 4096;
/// The smallest portion taken once what is held has not led on.
const FIRST_PORTION: usize = 256;
/// The smallest read buffer. It is otherwise half a frame: then the bytes moved to the front of
/// the buffer are at most two per byte received.
const MIN_READ_BYTES: usize = 64 << 10;

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
///
/// ```
/// use tapeline_wire::frame::{FrameDecoder, FrameFields, FrameLayout};
///
/// let layout = FrameLayout::default();
/// let mut stream = Vec::new();
/// layout.encode_frame(&FrameFields { sequence: 7, ..Default::default() }, b"payload", &mut stream)?;
/// let mut decoder = FrameDecoder::new(layout);
/// let mut seen = Vec::new();
/// for byte in &stream {
///     decoder.feed(std::slice::from_ref(byte), &mut |frame| seen.push(frame.fields.sequence));
/// }
/// decoder.finish(&mut |frame| seen.push(frame.fields.sequence));
/// assert_eq!(seen, [7]);
/// # Ok::<(), tapeline_wire::frame::EncodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    scanner: FrameScanner,
    buffer: Vec<u8>,
    /// The first unconsumed byte of the buffer.
    head: usize,
    portion: usize,
    /// Frames of the last step, and where their offsets start to count.
    found: Vec<FrameRef>,
    found_in: Source,
    found_at: u64,
    /// Bytes of the stream consumed.
    consumed: u64,
    /// The buffer is empty but for the frames of the last step.
    spent: bool,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Chunk,
    Buffer { head: usize },
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(layout: FrameLayout) -> Self {
        Self {
            scanner: FrameScanner::new(layout),
            buffer: Vec::new(),
            head: 0,
            portion: 0,
            found: Vec::new(),
            found_in: Source::Chunk,
            found_at: 0,
            consumed: 0,
            spent: false,
        }
    }

    /// Takes the next bytes of the stream and hands out every frame that is complete.
    pub fn feed(&mut self, chunk: &[u8], emit: &mut impl FnMut(Frame<'_>)) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let taken = self.advance(rest);
            self.frames(rest).for_each(&mut *emit);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Says that the stream has ended; the frames that only this decides are handed out. The
    /// decoder is then ready for a new stream; counters and offsets go on.
    pub fn finish(&mut self, emit: &mut impl FnMut(Frame<'_>)) {
        self.end();
        self.frames(&[]).for_each(emit);
    }

    /// Takes some of the next bytes of the stream and returns how many. The frames found are in
    /// [`Self::frames`] until the next step. To be called until the chunk is used up; it may take
    /// nothing and still have gone on.
    pub fn advance(&mut self, chunk: &[u8]) -> usize {
        self.release();
        let held = self.buffer.len() - self.head;
        self.found_at = self.consumed;
        if held == 0 {
            self.found_in = Source::Chunk;
            let done = self.scanner.scan(chunk, false, MAX_FRAMES, &mut self.found);
            self.consumed += done as u64;
            if self.found.len() >= MAX_FRAMES {
                return done;
            }
            self.keep(chunk.get(done..).unwrap_or_default());
            return chunk.len();
        }
        let wanted = self
            .scanner
            .needed()
            .saturating_sub(held)
            .max(self.portion)
            .max(1);
        let portion = chunk.get(..wanted).unwrap_or(chunk);
        self.keep(portion);
        let head = self.head;
        self.found_in = Source::Buffer { head };
        let unread = self.buffer.get(head..).unwrap_or_default();
        let done = self
            .scanner
            .scan(unread, false, usize::MAX, &mut self.found);
        self.consumed += done as u64;
        self.head += done;
        if done >= held {
            self.spent = true;
            self.portion = 0;
            return done - held;
        }
        // Waiting for the rest of one frame is no reason to take more than that frame.
        self.portion = if done == 0 {
            0
        } else {
            (self.portion * 2).clamp(FIRST_PORTION, self.read_bytes())
        };
        portion.len()
    }

    /// The end of the stream; the frames that only this decides are in [`Self::frames`]`(&[])`.
    pub fn end(&mut self) {
        self.release();
        self.found_at = self.consumed;
        self.found_in = Source::Buffer { head: self.head };
        let unread = self.buffer.get(self.head..).unwrap_or_default();
        let done = self.scanner.scan(unread, true, usize::MAX, &mut self.found);
        self.consumed += done as u64;
        self.head += done;
        self.spent = true;
    }

    /// The frames of the last step. `chunk` is what that step was given.
    pub fn frames<'a>(&'a self, chunk: &'a [u8]) -> impl ExactSizeIterator<Item = Frame<'a>> {
        let source = match self.found_in {
            Source::Chunk => chunk,
            Source::Buffer { head } => self.buffer.get(head..).unwrap_or_default(),
        };
        let header_bytes = self.layout().header_bytes();
        self.found.iter().map(move |frame| {
            let bytes = source.get(frame.range()).unwrap_or_default();
            Frame {
                offset: self.found_at + frame.offset as u64,
                fields: *frame,
                bytes,
                payload: bytes.get(header_bytes..).unwrap_or_default(),
            }
        })
    }

    /// Totals so far.
    #[must_use]
    pub const fn counters(&self) -> &FrameCounters {
        self.scanner.counters()
    }

    /// Bytes fed that are neither part of a frame nor discarded yet.
    #[must_use]
    pub const fn pending_bytes(&self) -> usize {
        if self.spent {
            0
        } else {
            self.buffer.len() - self.head
        }
    }

    /// The layout it looks for.
    #[must_use]
    pub const fn layout(&self) -> &FrameLayout {
        self.scanner.layout()
    }

    /// Bytes allocated for the buffer at the moment.
    #[must_use]
    pub const fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The most bytes the buffer ever holds: a frame of the largest size, 8 bytes, one read buffer.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.layout().max_frame_bytes() + 8 + self.read_bytes()
    }

    fn read_bytes(&self) -> usize {
        MIN_READ_BYTES.max(self.layout().max_frame_bytes())
    }

    /// Lets go of the frames of the last step.
    fn release(&mut self) {
        self.found.clear();
        self.found.shrink_to(MAX_FRAMES);
        if std::mem::take(&mut self.spent) || self.head >= self.buffer.len() {
            self.buffer.clear();
            self.head = 0;
        }
    }

    /// Appends to the buffer; moves what is held to its front when the end is reached.
    fn keep(&mut self, bytes: &[u8]) {
        let limit = self.limit_bytes();
        let capacity = self.buffer.capacity();
        if self.buffer.len() + bytes.len() > capacity.min(limit) && self.head > 0 {
            let moved = self.buffer.len() - self.head;
            if self.buffer.len() + bytes.len() > limit || moved < self.head {
                self.buffer.copy_within(self.head.., 0);
                self.buffer.truncate(moved);
                self.head = 0;
            }
        }
        let length = self.buffer.len() + bytes.len();
        if length > capacity {
            let grown = length.max((2 * capacity).min(limit));
            self.buffer.reserve_exact(grown - self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
    }
}
