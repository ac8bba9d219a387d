//! The write thread's half of a stream: sequence, assembly, runs of bytes to the segment.
//!
//! Frames are never copied here: a batch of steps becomes a list of byte ranges in ring blocks, adjacent ranges
//! joined, written with one call. A block goes back to the receiver when its last frame is written, or dropped as
//! a duplicate. Frames that a gap holds back keep their blocks; when that takes too much of the ring, they
//! are copied out of it (`release_held`), so that a gap can never stop the receiver.

use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tapeline_ring::{Block, Consumer, Wait};
use tapeline_sys::clock;
use tapeline_wire::assemble::Arrival;
use tapeline_wire::frame::FrameRef;
use tapeline_wire::sequence::{DEFAULT_MAX_IDS, SequenceTable, Verdict};

use crate::config::Sync;
use crate::error::{Error, Result};
use crate::fs::Dir;
use crate::keeper::Job;
use crate::output::{Handle, Output, OutputShared, Slot};
use crate::receive::Batch;
use crate::source::Stop;

/// How long the writer waits for a full batch (spec/frame-stream.md 7: 50 ms).
pub(crate) const WAIT: Duration = Duration::from_millis(25);
/// Bytes worth waking up for.
const WAKE: usize = 512 << 10;
/// Bytes after which what was collected is written.
const WRITE: u64 = 4 << 20;
/// A stream that sent nothing for so long is taken to be silent when its segment is due.
const SILENCE: Duration = Duration::from_secs(1);
/// Window for streams with two paths, one of which may lag: 512 KiB of bitmap per stream id.
const DUAL_WINDOW: u64 = 1 << 22;

/// One path into the stream.
pub(crate) struct Input {
    consumer: Consumer<Batch>,
    /// The sequence as this path alone shows it; only kept when there are two.
    alone: Option<SequenceTable>,
    epoch: u64,
    closed: bool,
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

/// What a turn of writing was.
pub(crate) enum Turn {
    Wrote,
    Nothing,
    /// Every input is closed, and everything taken.
    Last,
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
    /// When frames came last.
    last_block: Instant,
    /// The core this thread follows the receiver to.
    core: Option<usize>,
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
            last_block: Instant::now(),
            core: None,
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
        let ended = loop {
            match self.turn(WAIT) {
                Ok(Turn::Wrote | Turn::Nothing) => {}
                Ok(Turn::Last) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        self.end(ended)
    }

    /// After the last turn, or the one that failed: finish what is open, or keep what of it is whole.
    pub(crate) fn end(&mut self, ended: Result<()>) -> Result<()> {
        let result = ended.and_then(|()| self.finish());
        if result.is_err() {
            for output in &mut self.outputs {
                output.abandon();
            }
        }
        self.publish();
        result
    }

    /// Wait for blocks, at most so long, and write what is there.
    pub(crate) fn turn(&mut self, wait: Duration) -> Result<Turn> {
        let open = self.wait(wait);
        let mut turn = Turn::Nothing;
        // At most so many blocks before timers and counters have their turn.
        for _ in 0..8 {
            for input in 0..self.inputs.len() {
                if let Some(block) = self.inputs.get_mut(input).and_then(|i| i.consumer.take()) {
                    turn = Turn::Wrote;
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
        Ok(if open { turn } else { Turn::Last })
    }

    fn finish(&mut self) -> Result<()> {
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
    fn wait(&mut self, wait: Duration) -> bool {
        let open = self.inputs.iter().filter(|i| !i.closed).count();
        // Two paths take turns; each turn is short, so that neither waits for the other.
        let timeout = if open > 1 { wait / 8 } else { wait };
        for input in self.inputs.iter_mut().filter(|i| !i.closed) {
            if input.consumer.wait(WAKE, timeout) == Wait::Closed {
                input.closed = true;
            }
        }
        self.inputs.iter().any(|i| !i.closed)
    }

    /// Sequence and assembly of a block's frames.
    fn take(&mut self, mut block: Block<Batch>, input: usize) -> Result<()> {
        self.last_block = Instant::now();
        let frames = std::mem::take(&mut block.tag.frames);
        let marks = std::mem::take(&mut block.tag.marks);
        if let Some(core) = block.tag.core
            && self.core != Some(core)
        {
            self.core = tapeline_sys::cpu::stay_on(core).then_some(core);
        }
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
        self.outputs.push(Output::new(
            shared,
            stream_id,
            dir,
            next_number,
            self.settings.assemble,
        ));
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
        let hold = Duration::from_nanos(self.settings.assemble.hold_ns);
        let silent = self.last_block.elapsed() >= hold.max(SILENCE);
        for output in &mut self.outputs {
            let aged = match (&output.segment, self.settings.rotate_after) {
                (Some(segment), Some(after)) => segment.opened.elapsed() >= after,
                _ => false,
            };
            let asked = output.shared.rotate.load(Ordering::Acquire);
            if (aged || asked) && !output.assembler.open_boundary() && silent {
                // No more data comes: what is open will not be completed, and must not hold the segment open.
                output.assembler.finish(&mut output.steps);
                output.collect(&mut self.slots, &self.settings, &self.keeper)?;
                output.write(&mut self.slots, &self.settings, &self.keeper)?;
            }
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
