//! The receive thread's half of a stream: bytes from a source into the ring, validated where they lie.
//!
//! A block of the ring is filled by the source, scanned behind each arrival while the bytes are still in
//! cache, and published with the frames found in it. What is left of a frame that the end of the block
//! cut moves to the start of the next block: the only copy, and of less than one frame per block.
//!
//! The trap: a block must be published soon when little arrives (`PUBLISH_AGE`), but publishing a nearly
//! empty block costs a whole one of the ring, so that is only done while the writer has nothing else to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tapeline_ring::{Block, Producer};
use tapeline_sys::clock;
use tapeline_wire::frame::{FrameRef, FrameScanner};

use crate::metrics::{Published, RECEIVED, Received};
use crate::turns::{Pair, TurnOptions};

/// Bytes after which a block is passed on while the writer keeps up: small enough that receiver, ring and
/// writer work in the processor's caches, large enough for writes of the size that spec 7 asks for.
const PASS_ON: usize = 1 << 20;
/// Most bytes to ask of a source at once, for the same reason.
const READ: usize = 512 << 10;
/// Where more streams than cores take turns, every turn costs a switch: take this much more a turn (but a thread that
/// writes as well takes what `TurnOptions` says).
const TURN: usize = 2;
/// How long a frame may wait in a block that is not full.
const PUBLISH_AGE: Duration = Duration::from_millis(10);
/// Descriptors in a block before it is passed on.
const MAX_FRAMES: usize = 32 << 10;

/// Longest beginning of a frame that is worth moving once more for a block that is in cache.
const HOT_TAIL: usize = 128 << 10;

/// What travels with the bytes of a block.
pub(crate) struct Batch {
    /// Valid frames; offsets are those in the block.
    pub(crate) frames: Vec<FrameRef>,
    /// When which frames were received.
    pub(crate) marks: Vec<Mark>,
    /// The core on which the block was filled and validated: its bytes are in that core's cache.
    pub(crate) core: Option<usize>,
}

/// Frames from `first_frame` on were received at `received_ns`.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) first_frame: usize,
    pub(crate) received_ns: u64,
    /// The first frames of a connection.
    pub(crate) new_connection: bool,
}

impl Batch {
    /// With room for every frame that a block normally carries, touched like the ring itself: the memory in use does
    /// not grow when a lagging writer makes the receiver use more of the blocks.
    pub(crate) fn new() -> Self {
        const NONE: FrameRef = FrameRef {
            offset: 0,
            frame_bytes: 0,
            flags: 0,
            stream_id: 0,
            sequence: 0,
            timestamp_ns: 0,
        };
        let mut frames = vec![NONE; MAX_FRAMES];
        frames.clear();
        Self {
            frames,
            marks: Vec::with_capacity(1024),
            core: None,
        }
    }
}

/// What a source thread shares with the rest.
#[derive(Default)]
pub(crate) struct SourceShared {
    pub(crate) received: Published<RECEIVED>,
    pub(crate) finished: AtomicBool,
}

/// The receive side of one source.
pub(crate) struct Receiver {
    producer: Producer<Batch>,
    scanner: FrameScanner,
    block: Option<Block<Batch>>,
    /// Start of what is not consumed, end of what is filled, in the current block.
    consumed: usize,
    filled: usize,
    opened: Instant,
    new_connection: bool,
    /// Set by the source, published with the rest.
    pub(crate) counters: Received,
    shared: Arc<SourceShared>,
    block_bytes: usize,
    /// Receiver and writer take turns on one core (see `Recorder::start`).
    share_core: bool,
    /// Who receives writes as well, by turns with the other thread.
    by_turns: Option<Arc<Pair>>,
    /// A block was passed on which is best written at once.
    turn_due: bool,
    /// The last read brought all that was asked for.
    sender_waits: bool,
    pass_on: usize,
    read: usize,
    /// Descriptors after which a block is passed on: the next read must not overflow the room for them.
    most_frames: usize,
}

/// The writer is gone: nothing more can be stored.
#[derive(Debug)]
pub(crate) struct WriterGone;

/// Whether the next read has where to go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Made,
    /// There is, but the block that was passed on for it should be written first (`turns`).
    AfterTurn,
}

impl Receiver {
    pub(crate) fn new(
        producer: Producer<Batch>,
        scanner: FrameScanner,
        shared: Arc<SourceShared>,
        block_bytes: usize,
        share_core: bool,
        crowded: bool,
        by_turns: Option<(TurnOptions, Arc<Pair>)>,
    ) -> Self {
        let turn = if crowded { TURN } else { 1 };
        let (pass_on, read) = match &by_turns {
            Some((options, _)) => (options.block_bytes, options.read_bytes),
            None => (turn * PASS_ON, turn * READ),
        };
        let most_frames = MAX_FRAMES - read / (scanner.layout().header_bytes() + 1);
        Self {
            producer,
            scanner,
            block: None,
            consumed: 0,
            filled: 0,
            opened: Instant::now(),
            new_connection: true,
            counters: Received::default(),
            shared,
            block_bytes,
            share_core,
            by_turns: by_turns.map(|(_, pair)| pair),
            turn_due: false,
            sender_waits: false,
            pass_on,
            read,
            most_frames,
        }
    }

    /// See to it that `space` has at least `min` bytes (at most a quarter of a block may be asked for).
    pub(crate) fn make_room(&mut self, min: usize) -> Result<Room, WriterGone> {
        let full = match &self.block {
            None => true,
            Some(block) => {
                let target = if self.producer.in_flight_bytes() <= 2 * self.pass_on as u64 {
                    self.pass_on
                } else {
                    self.block_bytes
                };
                // A frame longer than what is left of the block can never be completed in it.
                let completable = self.consumed + self.scanner.needed() <= self.block_bytes;
                self.block_bytes - self.filled < min.max(1)
                    || !completable
                    || (self.filled >= target && self.consumed > 0)
                    || block.tag.frames.len() >= self.most_frames
            }
        };
        if full {
            self.next_block()?;
        }
        Ok(if self.turn_due {
            Room::AfterTurn
        } else {
            Room::Made
        })
    }

    /// Free space for the source to fill, after `make_room`.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let filled = self.filled;
        self.block
            .as_mut()
            .and_then(|b| b.bytes_mut().get_mut(filled..))
            .unwrap_or_default()
    }

    /// Most bytes that a source should put into `space` at once.
    pub(crate) fn read_bytes(&self) -> usize {
        self.read
    }

    /// The source put `bytes` bytes of a byte stream at the start of `space`; `all`: as many as were asked for.
    pub(crate) fn received(&mut self, bytes: usize, all: bool, received_ns: u64) {
        self.sender_waits = all;
        self.counters.bytes_received += bytes as u64;
        self.filled += bytes;
        if self.filled - self.consumed >= self.scanner.needed() {
            self.scan(received_ns, false);
        }
        self.after_arrival();
    }

    /// The byte stream ended: what is pending is decided, and the next frame begins a connection.
    pub(crate) fn end_of_stream(&mut self, received_ns: u64) {
        self.scan(received_ns, true);
        self.new_connection = true;
        self.publish_counters();
    }

    /// The source put a run of datagrams into `space`: `bytes` at `offset`, each `segment_bytes` long but the last.
    pub(crate) fn datagrams(
        &mut self,
        offset: usize,
        bytes: usize,
        segment_bytes: usize,
        received_ns: u64,
    ) {
        let Some(block) = self.block.as_mut() else {
            return;
        };
        let mut frames = std::mem::take(&mut block.tag.frames);
        let first = frames.len();
        let base = self.filled + offset;
        let run = block.bytes().get(base..base + bytes).unwrap_or_default();
        let mut at = base;
        for datagram in run.chunks(segment_bytes.max(1)) {
            let mut from = 0;
            while let Some(rest) = datagram.get(from..).filter(|r| !r.is_empty()) {
                let before = frames.len();
                let used = self.scanner.scan(rest, true, usize::MAX, &mut frames);
                shift(&mut frames, before, at + from);
                from += used.max(1);
            }
            at += datagram.len();
            self.counters.datagrams_received += 1;
        }
        if frames.len() > first {
            block.tag.marks.push(Mark {
                first_frame: first,
                received_ns,
                new_connection: std::mem::take(&mut self.new_connection),
            });
        }
        block.tag.frames = frames;
        self.counters.bytes_received += bytes as u64;
    }

    /// After the last of a batch of `datagrams`: `bytes` of `space` are used, holes included.
    pub(crate) fn datagrams_end(&mut self, bytes: usize) {
        self.filled += bytes;
        self.consumed = self.filled;
        self.after_arrival();
    }

    /// Nothing arrived for a while: pass on what is there, if the writer waits for it.
    pub(crate) fn idle(&mut self) {
        self.sender_waits = false;
        self.pass_on_if_waited_for();
        self.publish_counters();
    }

    /// Pass on everything and leave; the writer sees the end.
    pub(crate) fn finish(mut self) {
        self.publish_counters();
        if let Some(mut block) = self.block.take() {
            block.set_filled(self.consumed);
            self.producer.publish(block);
        }
        self.publish_counters();
        self.shared.finished.store(true, Ordering::Release);
        self.producer.close();
        self.wake_other();
    }

    /// Whether the writer has given up.
    pub(crate) fn writer_gone(&self) -> bool {
        self.producer.consumer_gone()
    }

    /// Valid frames so far.
    pub(crate) fn frames_received(&self) -> u64 {
        self.scanner.counters().frames_received
    }

    /// Bytes of an unfinished frame.
    pub(crate) fn pending(&self) -> usize {
        self.filled - self.consumed
    }

    fn scan(&mut self, received_ns: u64, end: bool) {
        let Some(block) = self.block.as_mut() else {
            return;
        };
        let mut frames = std::mem::take(&mut block.tag.frames);
        let first = frames.len();
        while let Some(fresh) = block.bytes().get(self.consumed..self.filled) {
            let before = frames.len();
            let used = self.scanner.scan(fresh, end, usize::MAX, &mut frames);
            shift(&mut frames, before, self.consumed);
            self.consumed += used;
            if !end || used == 0 || self.consumed == self.filled {
                break;
            }
        }
        if frames.len() > first {
            block.tag.marks.push(Mark {
                first_frame: first,
                received_ns,
                new_connection: std::mem::take(&mut self.new_connection),
            });
        }
        block.tag.frames = frames;
    }

    fn after_arrival(&mut self) {
        if self.opened.elapsed() >= PUBLISH_AGE {
            self.pass_on_if_waited_for();
            self.publish_counters();
        }
    }

    fn pass_on_if_waited_for(&mut self) {
        let waiting = self
            .block
            .as_ref()
            .is_some_and(|b| !b.tag.frames.is_empty());
        if waiting && self.producer.idle() {
            let _ = self.next_block();
            self.producer.flush();
        }
    }

    /// Publish the current block and go on in the next one, the pending bytes first.
    fn next_block(&mut self) -> Result<(), WriterGone> {
        let mut next = self.claim()?;
        next.tag.frames.clear();
        next.tag.marks.clear();
        // Before the writer can count them as stored.
        self.publish_counters();
        let full = self.block.take();
        let tail = self.filled - self.consumed;
        if let Some(mut block) = full {
            move_tail(&block, self.consumed..self.filled, &mut next);
            block.set_filled(self.consumed);
            block.tag.core = if self.share_core {
                tapeline_sys::cpu::current()
            } else {
                None
            };
            self.producer.publish(block);
            self.turn_due = self.by_turns.is_some();
            if self.share_core {
                // The writer is on this core.
                std::thread::yield_now();
            }
        }
        self.block = Some(next);
        (self.consumed, self.filled) = (0, tail);
        self.opened = Instant::now();
        if self.share_core {
            self.go_on_warm();
        }
        self.publish_counters();
        Ok(())
    }

    /// If the block that was passed on last is written and back, go on in that one: two in turn would be twice what the
    /// cache has to hold.
    pub(crate) fn go_on_warm(&mut self) {
        let Some(block) = &mut self.block else {
            return;
        };
        let fresh = self.consumed == 0 && block.tag.frames.is_empty();
        if fresh
            && self.filled <= HOT_TAIL
            && let Some(mut warm) = self.producer.claim_returned()
        {
            move_tail(block, 0..self.filled, &mut warm);
            warm.tag.frames.clear();
            warm.tag.marks.clear();
            self.producer.unclaim(std::mem::replace(block, warm));
        }
    }

    /// Whether a block was passed on since the last call that is best written by the thread that has it in its cache.
    pub(crate) fn take_turn_due(&mut self) -> bool {
        std::mem::take(&mut self.turn_due)
    }

    /// Whether the last read brought all that was asked for: the socket is full or nearly, so the sender waits.
    pub(crate) fn sender_waits(&self) -> bool {
        self.sender_waits
    }

    fn wake_other(&self) {
        if let Some(pair) = &self.by_turns {
            pair.wake_other();
        }
    }

    fn claim(&mut self) -> Result<Block<Batch>, WriterGone> {
        if let Some(block) = self.producer.claim() {
            return Ok(block);
        }
        loop {
            self.wake_other();
            let since = Instant::now();
            let claimed = self.producer.claim_timeout(Duration::from_millis(50));
            self.counters.backpressure_ns +=
                u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            if claimed.is_some() || self.producer.consumer_gone() {
                return claimed.ok_or(WriterGone);
            }
            // Whoever watches sees that the disk does not follow, while it does not.
            self.publish_counters();
        }
    }

    /// Make the counters visible; they satisfy the conservation laws between arrivals.
    pub(crate) fn publish_counters(&mut self) {
        let seen = self.scanner.counters();
        let c = &mut self.counters;
        c.frames_received = seen.frames_received;
        c.valid_bytes = seen.valid_bytes;
        c.bytes_discarded = seen.bytes_discarded;
        c.resyncs = seen.resyncs;
        c.header_crc = seen.corrupt.header_crc;
        c.payload_crc = seen.corrupt.payload_crc;
        c.bad_version = seen.corrupt.bad_version;
        c.bad_length = seen.corrupt.bad_length;
        c.truncated = seen.corrupt.truncated;
        c.pending_bytes = (self.filled - self.consumed) as u64;
        c.ring_used_bytes = self.producer.in_flight_bytes();
        c.ring_high_water_bytes = self.producer.high_water_bytes();
        self.shared.received.publish(c.to_array());
    }
}

/// Copy the beginning of a frame to the start of the next block.
fn move_tail(from: &Block<Batch>, range: std::ops::Range<usize>, to: &mut Block<Batch>) {
    let bytes = range.len();
    if let (Some(from), Some(to)) = (from.bytes().get(range), to.bytes_mut().get_mut(..bytes)) {
        to.copy_from_slice(from);
    }
}

/// Offsets relative to a scanned slice become offsets in the block.
fn shift(frames: &mut [FrameRef], first: usize, by: usize) {
    for frame in frames.iter_mut().skip(first) {
        frame.offset += by;
    }
}

/// Time of receipt.
pub(crate) fn now_ns() -> u64 {
    clock::realtime_ns()
}
