//! What one set of segments collects before it is written: ranges of ring blocks, and the index rows that cover them.
//!
//! Adjacent ranges are joined, so that frames in order leave with one slice for a whole block. Rows are written after
//! their bytes: an index never speaks of what is not there.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use tapeline_ring::Block;
use tapeline_wire::assemble::{AssembleOptions, Assembler, IndexRow, Step};

use crate::config::Sync;
use crate::error::{Error, Result};
use crate::fs::Dir;
use crate::keeper::{Job, OpenFile};
use crate::metrics::{Published, STORED, Stored};
use crate::receive::Batch;
use crate::sink::segment::Segment;
use crate::write::WriterSettings;

/// Where a frame's bytes are.
pub(crate) enum Handle {
    Ring { slot: u32, offset: u32, bytes: u32 },
    Heap(Box<[u8]>),
}

/// A block some frames of which are not written yet.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) block: Option<Block<Batch>>,
    pub(crate) input: usize,
    pub(crate) unwritten: usize,
}

/// A set of segments: the stream, or one stream id of it.
pub(crate) struct OutputShared {
    pub(crate) name: String,
    pub(crate) stored: Published<STORED>,
    pub(crate) rotate: AtomicBool,
}

/// A set of segments being written: the stream's, or those of one stream id.
pub(crate) struct Output {
    pub(crate) shared: Arc<OutputShared>,
    pub(crate) stream_id: Option<u16>,
    dir: Arc<dyn Dir>,
    pub(crate) assembler: Assembler<Handle>,
    pub(crate) steps: Vec<Step<Handle>>,
    next_number: u64,
    pub(crate) segment: Option<Segment>,
    /// Ranges to write, their frames' sizes, and the rows that follow them.
    runs: Vec<Run>,
    sizes: Vec<u32>,
    pub(crate) pending_bytes: u64,
    pub(crate) rows: Vec<IndexRow>,
    /// Bytes of rows since the segment began, written or not.
    row_bytes: u64,
    pub(crate) counters: Stored,
}

struct Run {
    handle: Handle,
    frames: usize,
}

impl Output {
    pub(crate) fn new(
        shared: Arc<OutputShared>,
        stream_id: Option<u16>,
        dir: Arc<dyn Dir>,
        next_number: u64,
        options: AssembleOptions,
    ) -> Self {
        Self {
            shared,
            stream_id,
            dir,
            assembler: Assembler::new(options),
            steps: Vec::with_capacity(4096),
            next_number,
            segment: None,
            runs: Vec::with_capacity(1024),
            sizes: Vec::with_capacity(4096),
            pending_bytes: 0,
            rows: Vec::with_capacity(64),
            row_bytes: 0,
            counters: Stored::default(),
        }
    }

    /// Turn steps into ranges to write and rows; roll the segment at a boundary past its size.
    pub(crate) fn collect(
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
    pub(crate) fn write(
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
            // After counting: if it fails, the frames are in the file all the same.
            if settings.sync == Sync::Batch {
                segment.sync()?;
            }
        }
        if let Some(segment) = self.segment.as_mut() {
            for row in self.rows.drain(..) {
                segment.row(&row)?;
            }
        }
        Ok(())
    }

    pub(crate) fn close_segment(&mut self, keeper: &SyncSender<Job>) -> Result<()> {
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
    pub(crate) fn abandon(&mut self) {
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
