//! The write thread's half of a stream: sequence, assembly, runs of bytes to the segment.
//!
//! Frames are never copied here: a batch of steps becomes a list of byte ranges in ring blocks, adjacent ranges
//! joined, written with one call. A block goes back to the receiver when its last frame is written, or dropped as
//! a duplicate. Frames that a gap holds back keep their blocks; when that takes too much of the ring, they
//! are copied out of it (`release_held`), so that a gap can never stop the receiver.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tapeline_ring::{Block, Consumer, Wait};
use tapeline_sys::clock;
use tapeline_wire::assemble::{Arrival, Assembler, IndexRow, Step};
use tapeline_wire::frame::FrameRef;
use tapeline_wire::sequence::{DEFAULT_MAX_IDS, SequenceTable, Verdict};

use crate::config::Sync;
use crate::error::{Error, Result};
use crate::fs::Dir;
use crate::keeper::{Job, OpenFile};
use crate::metrics::{Published, STORED, Stored};
use crate::receive::Batch;
use crate::sink::segment::Segment;
use crate::source::Stop;

/// How long the writer waits for a full batch (spec/frame-stream.md 7: 50 ms).
const WAIT: Duration = Duration::from_millis(25);
/// Bytes worth waking up for.
const WAKE: usize = 512 << 10;
/// Bytes after which what was collected is written.
const WRITE: u64 = 4 << 20;
/// Window for streams with two paths, one of which may lag: 512 KiB of bitmap per stream id.
const DUAL_WINDOW: u64 = 1 << 22;

/// Where a frame's bytes are.
pub(crate) enum Handle {
    Ring { slot: u32, offset: u32, bytes: u32 },
    Heap(Box<[u8]>),
}

/// A block some frames of which are not written yet.
#[derive(Default)]
struct Slot {
    block: Option<Block<Batch>>,
    input: usize,
    unwritten: usize,
}

/// One path into the stream.
pub(crate) struct Input {
    consumer: Consumer<Batch>,
    /// The sequence as this path alone shows it; only kept when there are two.
    alone: Option<SequenceTable>,
    epoch: u64,
    closed: bool,
}

/// A set of segments: the stream, or one stream id of it.
pub(crate) struct OutputShared {
    pub(crate) name: String,
    pub(crate) stored: Published<STORED>,
    pub(crate) rotate: AtomicBool,
}

/// Opens the outputs of a stream: the first at the start, further ones when a stream id appears.
pub(crate) trait Outputs: Send {
    /// Directory, next segment number and the shared part of an output.
    fn open(&mut self, stream_id: Option<u16>) -> Result<(Arc<dyn Dir>, u64, Arc<OutputShared>)>;
}

/// What a write thread needs to know.
pub(crate) struct WriterSettings {
    pub(crate) assemble: tapeline_wire::assemble::AssembleOptions,
    pub(crate) sync: Sync,
    pub(crate) rotate_bytes: u64,
    pub(crate) rotate_after: Option<Duration>,
    pub(crate) keep_duplicates: bool,
    pub(crate) split: bool,
    pub(crate) window: u64,
    /// Blocks that held frames may keep from the receiver.
    pub(crate) max_held_blocks: usize,
    pub(crate) frames_limit: Option<Arc<FramesLimit>>,
}

/// Asks for a stop once enough frames are stored in all streams.
pub(crate) struct FramesLimit {
    pub(crate) stored: std::sync::atomic::AtomicU64,
    pub(crate) limit: u64,
    pub(crate) stop: Stop,
}

/// The write side of a stream.
pub(crate) struct StreamWriter {
    settings: WriterSettings,
    inputs: Vec<Input>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    table: SequenceTable,
    epoch: u64,
    reordered_between_paths: u64,
    repaired: u64,
    refused_frames: u64,
    refused_bytes: u64,
    outputs: Vec<Output>,
    opener: Box<dyn Outputs>,
    keeper: SyncSender<Job>,
}

struct Output {
    shared: Arc<OutputShared>,
    stream_id: Option<u16>,
    dir: Arc<dyn Dir>,
    assembler: Assembler<Handle>,
    steps: Vec<Step<Handle>>,
    next_number: u64,
    segment: Option<Segment>,
    /// Ranges to write, their frames' sizes, and the rows that follow them.
    runs: Vec<Run>,
    sizes: Vec<u32>,
    pending_bytes: u64,
    rows: Vec<IndexRow>,
    /// Bytes of rows since the segment began, written or not.
    row_bytes: u64,
    counters: Stored,
}

struct Run {
    handle: Handle,
    frames: usize,
}

impl StreamWriter {
    pub(crate) fn new(
        settings: WriterSettings,
        consumers: Vec<Consumer<Batch>>,
        opener: Box<dyn Outputs>,
        keeper: SyncSender<Job>,
    ) -> Result<Self> {
        let dual = consumers.len() > 1;
        let window = if dual {
            settings.window.max(DUAL_WINDOW)
        } else {
            settings.window
        };
        let inputs = consumers
            .into_iter()
            .map(|consumer| Input {
                consumer,
                alone: dual.then(|| SequenceTable::new(settings.window, DEFAULT_MAX_IDS)),
                epoch: 0,
                closed: false,
            })
            .collect();
        let mut writer = Self {
            settings,
            inputs,
            slots: Vec::new(),
            free: Vec::new(),
            table: SequenceTable::new(window, DEFAULT_MAX_IDS),
            epoch: 0,
            reordered_between_paths: 0,
            repaired: 0,
            refused_frames: 0,
            refused_bytes: 0,
            outputs: Vec::new(),
            opener,
            keeper,
        };
        if !writer.settings.split {
            writer.open_output(None)?;
        }
        Ok(writer)
    }

    /// Run until every input is closed and everything is written.
    ///
    /// # Errors
    /// What failed; frames that were not written are then in no file, and the ledger shows them as not stored.
    pub(crate) fn run(mut self) -> Result<()> {
        let result = self.pump();
        if result.is_err() {
            for output in &mut self.outputs {
                output.abandon();
            }
        }
        self.publish();
        result
    }

    fn pump(&mut self) -> Result<()> {
        loop {
            let open = self.wait();
            // At most so many blocks before timers and counters have their turn.
            for _ in 0..8 {
                for input in 0..self.inputs.len() {
                    if let Some(block) = self.inputs.get_mut(input).and_then(|i| i.consumer.take())
                    {
                        self.take(block, input)?;
                        self.write_out(WRITE)?;
                    }
                }
            }
            let now = clock::monotonic_ns();
            for output in &mut self.outputs {
                output.assembler.tick(now, &mut output.steps);
                output.collect(&mut self.slots, &self.settings, &self.keeper)?;
            }
            self.write_out(0)?;
            self.release_held();
            self.rotate_when_due()?;
            self.publish();
            if !open {
                break;
            }
        }
        for output in &mut self.outputs {
            output.assembler.finish(&mut output.steps);
            output.collect(&mut self.slots, &self.settings, &self.keeper)?;
        }
        self.write_out(0)?;
        self.publish();
        for output in &mut self.outputs {
            output.close_segment(&self.keeper)?;
        }
        Ok(())
    }

    /// Wait for blocks; false once every input is closed and empty.
    fn wait(&mut self) -> bool {
        let open = self.inputs.iter().filter(|i| !i.closed).count();
        // Two paths take turns; each turn is short, so that neither waits for the other.
        let timeout = if open > 1 { WAIT / 8 } else { WAIT };
        for input in self.inputs.iter_mut().filter(|i| !i.closed) {
            if input.consumer.wait(WAKE, timeout) == Wait::Closed {
                input.closed = true;
            }
        }
        self.inputs.iter().any(|i| !i.closed)
    }

    /// Sequence and assembly of a block's frames.
    fn take(&mut self, mut block: Block<Batch>, input: usize) -> Result<()> {
        let frames = std::mem::take(&mut block.tag.frames);
        let marks = std::mem::take(&mut block.tag.marks);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        // Split for more than one path or output; the plain case stays in this loop.
        let now = clock::monotonic_ns();
        let mut dropped = 0;
        let mut next_mark = marks.iter().peekable();
        let mut received_ns = 0;
        for (i, frame) in frames.iter().enumerate() {
            while let Some(mark) = next_mark.next_if(|m| m.first_frame <= i) {
                received_ns = mark.received_ns;
                if mark.new_connection && self.inputs.len() == 1 {
                    self.table.reconnected();
                }
            }
            let (restart, keep) = match self.judge(frame, input) {
                None => {
                    self.refused_frames += 1;
                    self.refused_bytes += u64::from(frame.frame_bytes);
                    dropped += 1;
                    continue;
                }
                Some(verdict) => (
                    verdict == Verdict::Restart,
                    verdict != Verdict::Duplicate || self.settings.keep_duplicates,
                ),
            };
            let output = if self.settings.split {
                self.output_of(frame.stream_id)?
            } else {
                0
            };
            let Some(output) = self.outputs.get_mut(output) else {
                continue;
            };
            output.counters.frames_taken += 1;
            output.counters.bytes_taken += u64::from(frame.frame_bytes);
            if !keep {
                dropped += 1;
                continue;
            }
            let arrival = Arrival {
                stream_id: frame.stream_id,
                flags: frame.flags,
                frame_bytes: frame.frame_bytes,
                sequence: frame.sequence,
                timestamp_ns: frame.timestamp_ns,
                received_ns,
                restart,
            };
            let handle = Handle::Ring {
                slot,
                offset: u32::try_from(frame.offset).unwrap_or(u32::MAX),
                bytes: frame.frame_bytes,
            };
            output
                .assembler
                .push(arrival, handle, now, &mut output.steps);
        }
        let unwritten = frames.len() - dropped;
        block.tag.frames = frames;
        block.tag.marks = marks;
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Slot {
                block: Some(block),
                input,
                unwritten,
            };
        }
        if unwritten == 0 {
            self.recycle(slot);
        }
        for output in &mut self.outputs {
            output.collect(&mut self.slots, &self.settings, &self.keeper)?;
        }
        Ok(())
    }

    /// The verdict on a frame, over all paths; None when there are too many stream ids.
    #[inline]
    fn judge(&mut self, frame: &FrameRef, input: usize) -> Option<Verdict> {
        if self.inputs.len() == 1 {
            return self.table.observe(frame.stream_id, frame.sequence);
        }
        let path = self.inputs.get_mut(input)?;
        let alone = path
            .alone
            .as_mut()?
            .observe(frame.stream_id, frame.sequence)?;
        if alone == Verdict::Restart {
            // Both paths show a restart; the first to do so begins the epoch.
            path.epoch += 1;
            if path.epoch > self.epoch {
                self.epoch = path.epoch;
                self.table.new_epoch();
            }
        }
        let verdict = self.table.observe(frame.stream_id, frame.sequence)?;
        if input == 0 {
            // New to this path, known from the other: that one had not repaired a loss, only been faster.
            if verdict == Verdict::Duplicate && alone != Verdict::Duplicate {
                self.repaired = self.repaired.saturating_sub(1);
            }
        } else if verdict != Verdict::Duplicate {
            self.repaired += 1;
            if verdict == Verdict::Reordered {
                self.reordered_between_paths += 1;
            }
        }
        Some(verdict)
    }

    fn output_of(&mut self, stream_id: u16) -> Result<usize> {
        match self
            .outputs
            .iter()
            .position(|o| o.stream_id == Some(stream_id))
        {
            Some(output) => Ok(output),
            None => self.open_output(Some(stream_id)),
        }
    }

    fn open_output(&mut self, stream_id: Option<u16>) -> Result<usize> {
        let (dir, next_number, shared) = self.opener.open(stream_id)?;
        self.outputs.push(Output {
            shared,
            stream_id,
            dir,
            assembler: Assembler::new(self.settings.assemble),
            steps: Vec::with_capacity(4096),
            next_number,
            segment: None,
            runs: Vec::with_capacity(1024),
            sizes: Vec::with_capacity(4096),
            pending_bytes: 0,
            rows: Vec::with_capacity(64),
            row_bytes: 0,
            counters: Stored::default(),
        });
        Ok(self.outputs.len() - 1)
    }

    /// Write what every output has collected, if it is at least `threshold`, and give the blocks back.
    fn write_out(&mut self, threshold: u64) -> Result<()> {
        for output in &mut self.outputs {
            if output.pending_bytes > threshold || (threshold == 0 && !output.rows.is_empty()) {
                output.write(&mut self.slots, &self.settings, &self.keeper)?;
            }
        }
        for slot in 0..self.slots.len() {
            let done = self
                .slots
                .get(slot)
                .is_some_and(|s| s.unwritten == 0 && s.block.is_some());
            if done {
                self.recycle(u32::try_from(slot).unwrap_or(u32::MAX));
            }
        }
        Ok(())
    }

    fn recycle(&mut self, slot: u32) {
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if let (Some(block), Some(input)) = (place.block.take(), self.inputs.get_mut(place.input)) {
            input.consumer.recycle(block);
            self.free.push(slot);
        }
    }

    /// Copy held frames out of the ring when they keep too many blocks from the receiver.
    fn release_held(&mut self) {
        let in_use = self.slots.iter().filter(|s| s.block.is_some()).count();
        if in_use <= self.settings.max_held_blocks {
            return;
        }
        for output in &mut self.outputs {
            for handle in output.assembler.held() {
                if let Handle::Ring {
                    slot,
                    offset,
                    bytes,
                } = *handle
                {
                    let Some(place) = self.slots.get_mut(slot as usize) else {
                        continue;
                    };
                    let range = offset as usize..offset as usize + bytes as usize;
                    if let Some(data) = place.block.as_ref().and_then(|b| b.bytes().get(range)) {
                        *handle = Handle::Heap(data.into());
                        place.unwritten -= 1;
                    }
                }
            }
        }
        let _ = self.write_out(u64::MAX);
    }

    fn rotate_when_due(&mut self) -> Result<()> {
        for output in &mut self.outputs {
            let aged = match (&output.segment, self.settings.rotate_after) {
                (Some(segment), Some(after)) => segment.opened.elapsed() >= after,
                _ => false,
            };
            let asked = output.shared.rotate.load(Ordering::Acquire);
            if (aged || asked)
                && output.assembler.open_boundary()
                && output.pending_bytes == 0
                && output.rows.is_empty()
            {
                output.shared.rotate.store(false, Ordering::Release);
                output.close_segment(&self.keeper)?;
            }
        }
        Ok(())
    }

    /// Make the counters visible.
    fn publish(&mut self) {
        let only = self.outputs.len() == 1 && !self.settings.split;
        for output in &mut self.outputs {
            let seen = if only {
                self.table.totals()
            } else {
                self.table
                    .iter()
                    .find(|(id, _)| Some(*id) == output.stream_id)
                    .map(|(_, tracker)| *tracker.counters())
                    .unwrap_or_default()
            };
            let c = &mut output.counters;
            c.gaps = seen.gaps;
            c.frames_lost = seen.frames_lost;
            c.frames_duplicate = seen.frames_duplicate;
            c.frames_reordered = seen
                .frames_reordered
                .saturating_sub(self.reordered_between_paths);
            c.restarts = seen.restarts;
            c.frames_repaired = self.repaired;
            c.frames_refused = self.refused_frames;
            c.bytes_refused = self.refused_bytes;
            let assembled = output.assembler.counters();
            c.periodics_complete = assembled.complete;
            c.periodics_incomplete = assembled.incomplete;
            c.frames_late = assembled.late;
            c.held_bytes = output.assembler.held_bytes();
            output.shared.stored.publish(c.to_array());
        }
    }
}

impl Output {
    /// Turn steps into ranges to write and rows; roll the segment at a boundary past its size.
    fn collect(
        &mut self,
        slots: &mut [Slot],
        settings: &WriterSettings,
        keeper: &SyncSender<Job>,
    ) -> Result<()> {
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.drain(..) {
            match step {
                Step::Write(handle) => self.range(handle),
                Step::Row(row) => {
                    self.row_bytes += row.length;
                    self.rows.push(row);
                    let asked = self.shared.rotate.load(Ordering::Relaxed);
                    let aged = settings.rotate_after.is_some_and(|after| {
                        self.segment
                            .as_ref()
                            .is_some_and(|s| s.opened.elapsed() >= after)
                    });
                    if self.row_bytes >= settings.rotate_bytes || asked || aged {
                        self.write(slots, settings, keeper)?;
                        self.shared.rotate.store(false, Ordering::Release);
                        self.close_segment(keeper)?;
                    }
                }
            }
        }
        self.steps = steps;
        Ok(())
    }

    #[inline]
    fn range(&mut self, handle: Handle) {
        let size = match &handle {
            Handle::Ring { bytes, .. } => *bytes,
            Handle::Heap(data) => u32::try_from(data.len()).unwrap_or(u32::MAX),
        };
        self.sizes.push(size);
        self.pending_bytes += u64::from(size);
        if let (
            Handle::Ring {
                slot,
                offset,
                bytes,
            },
            Some(Run {
                handle:
                    Handle::Ring {
                        slot: s,
                        offset: o,
                        bytes: b,
                    },
                frames,
            }),
        ) = (&handle, self.runs.last_mut())
            && slot == s
            && *o + *b == *offset
        {
            *b += bytes;
            *frames += 1;
            return;
        }
        self.runs.push(Run { handle, frames: 1 });
    }

    /// Write the collected ranges, then the rows that cover them.
    fn write(
        &mut self,
        slots: &mut [Slot],
        settings: &WriterSettings,
        keeper: &SyncSender<Job>,
    ) -> Result<()> {
        if self.pending_bytes > 0 {
            if self.segment.is_none() {
                let segment = Segment::create(&self.dir, &self.shared.name, self.next_number)?;
                let file = OpenFile {
                    output: self.shared.name.clone(),
                    path: segment.part_path(),
                    file: segment.file(),
                };
                let _ = keeper.send(Job::Opened(file));
                self.next_number += 1;
                self.segment = Some(segment);
            }
            let Some(segment) = self.segment.as_mut() else {
                return Ok(());
            };
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(self.runs.len());
            for run in &self.runs {
                let data: &[u8] = match &run.handle {
                    Handle::Ring {
                        slot,
                        offset,
                        bytes,
                    } => slots
                        .get(*slot as usize)
                        .and_then(|s| s.block.as_ref())
                        .and_then(|b| {
                            b.bytes()
                                .get(*offset as usize..*offset as usize + *bytes as usize)
                        })
                        .unwrap_or_default(),
                    Handle::Heap(data) => data,
                };
                slices.push(IoSlice::new(data));
            }
            segment.append(&slices, self.pending_bytes)?;
            drop(slices);
            if settings.sync == Sync::Batch {
                segment.sync()?;
            }
            self.counters.bytes_stored += self.pending_bytes;
            self.counters.frames_stored += self.sizes.len() as u64;
            self.counters.writes += 1;
            if let Some(limit) = &settings.frames_limit {
                let before = limit
                    .stored
                    .fetch_add(self.sizes.len() as u64, Ordering::Relaxed);
                if before + self.sizes.len() as u64 >= limit.limit {
                    limit.stop.request();
                }
            }
            for run in self.runs.drain(..) {
                if let Handle::Ring { slot, .. } = run.handle
                    && let Some(place) = slots.get_mut(slot as usize)
                {
                    place.unwritten -= run.frames;
                }
            }
            self.sizes.clear();
            self.pending_bytes = 0;
        }
        if let Some(segment) = self.segment.as_mut() {
            for row in self.rows.drain(..) {
                segment.row(&row)?;
            }
        }
        Ok(())
    }

    fn close_segment(&mut self, keeper: &SyncSender<Job>) -> Result<()> {
        self.row_bytes = 0;
        let Some(segment) = self.segment.take() else {
            return Ok(());
        };
        self.shared.stored.publish(self.counters.to_array());
        keeper
            .send(Job::Close {
                output: self.shared.name.clone(),
                segment: Box::new(segment),
            })
            .map_err(|_| Error::state("the thread that closes segments is gone".into()))
    }

    /// A write failed: keep the whole frames that reached the file, and count exactly those.
    fn abandon(&mut self) {
        let Some(mut segment) = self.segment.take() else {
            return;
        };
        let Ok(on_disk) = segment.bytes_on_disk() else {
            return;
        };
        let before = segment.bytes();
        let mut whole = before;
        let mut frames = 0;
        for size in &self.sizes {
            if whole + u64::from(*size) > on_disk {
                break;
            }
            whole += u64::from(*size);
            frames += 1;
        }
        if segment.abandon_at(whole).is_ok() {
            self.counters.bytes_stored += whole - before;
            self.counters.frames_stored += frames;
        }
    }
}

/// The first failure of a stream, kept for whoever asks.
#[derive(Default)]
pub(crate) struct Failure(Mutex<Option<Error>>);

impl Failure {
    pub(crate) fn set(&self, error: Error) {
        if let Ok(mut slot) = self.0.lock() {
            slot.get_or_insert(error);
        }
    }
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().ok().and_then(|mut slot| slot.take())
    }
    pub(crate) fn text(&self) -> Option<String> {
        self.0
            .lock()
            .ok()
            .and_then(|slot| slot.as_ref().map(ToString::to_string))
    }
}
