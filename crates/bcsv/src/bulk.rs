//! Writing whole tables: rows are split into jobs, each of which becomes packets of its own on some thread.
//!
//! A packet needs nothing of the one before it, so jobs are independent; only their places in the file depend on
//! each other. A job that is done waits for its turn to learn its offset, and stores its bytes itself. Packets are
//! smaller than the packet size allows (from 1 MiB), so that small tables split too and single rows are found fast.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::file::packet_lz4_batch::Sealer;
use crate::file::{Framer, effort};
use crate::footer::IndexEntry;
use crate::header::{FileCodec, Header, RowCodec};
use crate::pool;
use crate::row::{RowEncoder, flat};
use crate::schema::{ColumnType, Layout};
use crate::storage::{StoredFile, write_fully};
use crate::threads::spawn_helpers;
use crate::view::{BatchView, ColumnView, Scatter, ViewStrings};

/// Uncompressed bytes that a job has at least.
const JOB_BYTES: usize = 1 << 20;
/// Jobs of a batch that is not small. With more rows jobs become larger, up to the packet size, for every packet costs:
/// its first row in full, a new LZ4 window, arrays of its own when it is read...
const JOBS: usize = 10;
/// ...but not if they have this much for each column: what is written, compressed and hashed is then still in the cache.
const ARRAY_BYTES: usize = 32 << 10;
/// And the bytes of its rows in memory at most.
const JOB_FLAT_BYTES: usize = 8 << 20;
/// Rows coded to find out how long they become.
const TRIAL_ROWS: usize = 128;

/// What the jobs of a batch share.
pub(crate) struct Bulk<'a> {
    pub header: &'a Header,
    pub layout: &'a Arc<Layout>,
    pub batch: &'a BatchView<'a>,
    pub file: &'a dyn StoredFile,
    /// Row number of the batch's first row, and where its bytes go.
    pub first_row: u64,
    pub offset: u64,
    pub threads: usize,
}

/// What a batch became.
pub(crate) struct Stored {
    pub end: u64,
    pub entries: Vec<IndexEntry>,
}

/// Places in the file, given out in the order of the jobs.
struct Turn {
    next: usize,
    offset: u64,
    entries: BTreeMap<usize, Vec<IndexEntry>>,
    failed: Option<crate::Error>,
}

impl Bulk<'_> {
    /// Bytes of a flat row, which no other codec exceeds by much.
    fn flat_row_bytes(&self) -> usize {
        let strings = self.batch.string_bytes() / self.batch.rows.max(1);
        self.layout.flat_fixed_bytes() + strings + 2
    }

    /// Whether the batch is worth packets of its own.
    pub(crate) fn is_large(&self) -> bool {
        self.batch.rows >= 8
            && self.batch.rows * self.flat_row_bytes() >= JOB_BYTES.min(self.packet_bytes())
    }

    fn packet_bytes(&self) -> usize {
        usize::try_from(self.header.packet_bytes).unwrap_or(JOB_BYTES)
    }

    /// Rows of a job. The first row of a packet is coded in full, so rows that code to much less than that get larger
    /// jobs: some are coded on trial.
    fn job_rows(&self) -> Result<usize> {
        let flat = self.flat_row_bytes();
        let mut row_bytes = flat;
        let trial = self.batch.rows.min(TRIAL_ROWS);
        if self.header.row_codec() != RowCodec::Flat && trial > 1 {
            let mut framer = Framer::trial(self.header);
            let mut encoder = ColumnEncoder::new(self.header, self.layout);
            encoder.append(&mut framer, self.batch, 0, 1)?;
            let first = framer.out.len();
            encoder.append(&mut framer, self.batch, 1, trial - 1)?;
            row_bytes = ((framer.out.len() - first) / (trial - 1)).max(1);
        }
        let share = self.batch.rows * row_bytes / JOBS;
        let enough = ARRAY_BYTES * self.layout.columns();
        let bytes = share.min(enough).max(JOB_BYTES).min(self.packet_bytes());
        let rows = bytes / row_bytes;
        Ok(rows.min(JOB_FLAT_BYTES / flat).clamp(8, 1 << 20))
    }

    /// Encode and store the batch.
    pub(crate) fn write(&self) -> Result<Stored> {
        let job_rows = self.job_rows()?;
        let jobs = self.batch.rows.div_ceil(job_rows);
        let next_job = AtomicUsize::new(0);
        let turn = Mutex::new(Turn {
            next: 0,
            offset: self.offset,
            entries: BTreeMap::new(),
            failed: None,
        });
        let turned = Condvar::new();
        let work = || {
            let mut job = Job::new(self);
            loop {
                let number = next_job.fetch_add(1, Ordering::Relaxed);
                if number >= jobs {
                    return;
                }
                let start = number * job_rows;
                let result = job.encode(self, start, job_rows.min(self.batch.rows - start));
                let mut state = turn.lock().unwrap_or_else(PoisonError::into_inner);
                while state.next != number && state.failed.is_none() {
                    state = turned.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.failed.is_some() {
                    return;
                }
                let offset = state.offset;
                match result {
                    Ok(()) => {
                        let place = |entry: &IndexEntry| IndexEntry {
                            offset: entry.offset + offset,
                            ..*entry
                        };
                        state
                            .entries
                            .insert(number, job.entries.iter().map(place).collect());
                        state.offset += job.bytes().len() as u64;
                        state.next += 1;
                    }
                    Err(error) => state.failed = Some(error),
                }
                drop(state);
                turned.notify_all();
                if let (_, Err(error)) = write_fully(self.file, offset, job.bytes()) {
                    let mut state = turn.lock().unwrap_or_else(PoisonError::into_inner);
                    state.failed.get_or_insert(error.into());
                    turned.notify_all();
                    return;
                }
            }
        };
        let threads = self.threads.min(jobs);
        if threads <= 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                spawn_helpers(scope, threads - 1, work);
                work();
            });
        }
        let state = turn.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failed {
            Some(error) => Err(error),
            None => Ok(Stored {
                end: state.offset,
                entries: state.entries.into_values().flatten().collect(),
            }),
        }
    }
}

/// Rows to packets, with buffers that serve job after job.
struct Job {
    encoder: ColumnEncoder,
    framer: Framer,
    sealer: Sealer,
    entries: Vec<IndexEntry>,
    recycled: Vec<u8>,
}

impl Drop for Job {
    fn drop(&mut self) {
        let (out, payload) = self.framer.buffers();
        pool::give(out);
        pool::give(payload);
        pool::give(std::mem::take(&mut self.recycled));
    }
}

impl Job {
    fn new(bulk: &Bulk<'_>) -> Self {
        let buffer = || pool::take(JOB_BYTES + JOB_BYTES / 8);
        Self {
            encoder: ColumnEncoder::new(bulk.header, bulk.layout),
            framer: Framer::new(bulk.header, 0, Vec::new(), 0).with_buffers(buffer(), buffer()),
            sealer: Sealer::default(),
            entries: Vec::new(),
            recycled: buffer(),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.framer.out
    }

    fn encode(&mut self, bulk: &Bulk<'_>, start: usize, rows: usize) -> Result<()> {
        self.framer.renew(bulk.first_row + start as u64);
        self.entries.clear();
        let batch = self.framer.codec() == FileCodec::PacketLz4Batch;
        let mut done = 0;
        while done < rows {
            done += self
                .encoder
                .append(&mut self.framer, bulk.batch, start + done, rows - done)?;
            if let Some(full) = self.framer.close_packet(std::mem::take(&mut self.recycled)) {
                let offset = self.framer.out.len() as u64;
                self.sealer.seal(
                    &full,
                    effort(self.framer.codec(), bulk.header.compression_level),
                    &mut self.framer.out,
                );
                self.entries.push(IndexEntry {
                    offset,
                    first_row: full.first_row,
                });
                self.recycled = full.payload;
            }
        }
        if !batch {
            self.entries.extend_from_slice(self.framer.entries());
        }
        Ok(())
    }
}

/// Encodes rows of a batch into a framer.
pub(crate) struct ColumnEncoder {
    encoder: RowEncoder,
    layout: Arc<Layout>,
    flat: bool,
    scatter: Scatter,
    /// Places of the string columns.
    string_places: Vec<usize>,
    row: Vec<u8>,
    /// Flat rows with strings.
    string_rows: Option<flat::StringRows>,
}

impl ColumnEncoder {
    pub(crate) fn new(header: &Header, layout: &Arc<Layout>) -> Self {
        let kinds = header.schema.columns().iter().enumerate();
        Self {
            encoder: RowEncoder::new(header.row_codec(), Arc::clone(layout)),
            layout: Arc::clone(layout),
            flat: header.row_codec() == RowCodec::Flat
                && layout.strings == 0
                && layout.columns() > 0,
            scatter: Scatter::new(layout),
            string_places: kinds
                .filter(|(_, spec)| spec.kind == ColumnType::String)
                .map(|(place, _)| place)
                .collect(),
            row: Vec::new(),
            string_rows: (header.row_codec() == RowCodec::Flat && layout.strings > 0)
                .then(flat::StringRows::default),
        }
    }

    /// Use the encoder of a row writer, so that rows and batches can share a packet.
    pub(crate) fn swap_encoder(&mut self, encoder: &mut RowEncoder) {
        std::mem::swap(&mut self.encoder, encoder);
    }

    /// Append up to `rows` rows from `start` on, until the packet is full; returns how many. Opens a packet if none
    /// is open.
    pub(crate) fn append(
        &mut self,
        framer: &mut Framer,
        batch: &BatchView<'_>,
        start: usize,
        rows: usize,
    ) -> Result<usize> {
        if !framer.is_open() && framer.restarts() {
            self.encoder.restart();
        }
        let strings: Vec<ColumnView<'_>> = self
            .string_places
            .iter()
            .filter_map(|place| batch.columns.get(*place))
            .copied()
            .collect();
        let mut done = 0;
        while done < rows && !framer.is_full() {
            let mut block = (rows - done).min(self.scatter.rows());
            if self.string_rows.is_some() {
                block = block.min(flat::BLOCK_ROWS);
            }
            if self.flat && framer.takes_plain_rows() {
                let layout = &self.layout;
                let fixed = layout.flat_fixed_bytes();
                done += framer.append_plain(fixed, block, |region, stride, at, count| {
                    flat::scatter(
                        layout,
                        &batch.columns,
                        start + done,
                        count,
                        region,
                        stride,
                        at,
                    );
                })?;
                continue;
            }
            self.scatter
                .fill(&self.layout, &batch.columns, start + done, block);
            if let Some(flat) = &mut self.string_rows {
                let scatter = &self.scatter;
                let place = (start + done, block);
                flat.fill(&self.layout, &strings, place, |row| scatter.image(row));
                for row in flat.rows() {
                    if framer.is_full() {
                        break;
                    }
                    framer.append(row)?;
                    done += 1;
                }
                continue;
            }
            for row in 0..block {
                if framer.is_full() {
                    break;
                }
                self.row.clear();
                let strings = ViewStrings {
                    columns: &strings,
                    row: start + done,
                };
                self.encoder
                    .encode(self.scatter.image(row), &strings, &mut self.row);
                framer.append(&self.row)?;
                done += 1;
            }
        }
        Ok(done)
    }
}
