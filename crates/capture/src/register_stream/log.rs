//! The write thread: blocks of the ring to the segments of the log.
//!
//! One write and one index row a block, unless blocks are small: those of one second that fit into 1 MiB share a row.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tapeline_crc::Xxh64;
use tapeline_ring::{Block, Consumer, Wait};
use tapeline_wire::register::PacketScanner;

use super::beside::Touched;
use super::intake::{BLOCK, LogBatch};
use super::segment::{LogSegment, Row, block_hash};
use super::shared::{RegOut, RegisterShared, Written};
use crate::config::Sync;
use crate::error::{Error, Result};
use crate::fs::{Dir, DiskFile};
use crate::keeper::{Job, OpenFile};
use crate::write::FramesLimit;

/// How long the writer waits for a full block.
const WAIT: Duration = Duration::from_millis(25);
/// Bytes worth waking up for.
const WAKE: usize = 512 << 10;
/// The longest time one index row speaks of (spec/register-packets.md 3).
const ROW_AGE: Duration = Duration::from_secs(1);

/// The row that is being collected.
struct OpenRow {
    row: Row,
    registers: u64,
    hash: Xxh64,
    touched: Touched,
    begun: Instant,
}

/// The writing half of a register stream.
pub(super) struct LogWriter {
    pub(super) consumer: Consumer<LogBatch>,
    pub(super) dir: Arc<dyn Dir>,
    pub(super) shared: Arc<RegisterShared>,
    pub(super) keeper: SyncSender<Job>,
    pub(super) next_number: u64,
    pub(super) sync: Sync,
    pub(super) limit: Option<Arc<FramesLimit>>,
    segment: Option<LogSegment>,
    open_row: Option<OpenRow>,
    counters: RegOut,
    /// Files of segments that ended since the last sync.
    unsynced: Vec<Arc<dyn DiskFile>>,
    core: Option<usize>,
}

impl LogWriter {
    pub(super) fn new(
        consumer: Consumer<LogBatch>,
        dir: Arc<dyn Dir>,
        shared: Arc<RegisterShared>,
        keeper: SyncSender<Job>,
        next_number: u64,
        sync: Sync,
        limit: Option<Arc<FramesLimit>>,
    ) -> Self {
        Self {
            consumer,
            dir,
            shared,
            keeper,
            next_number,
            sync,
            limit,
            segment: None,
            open_row: None,
            counters: RegOut::default(),
            unsynced: Vec::new(),
            core: None,
        }
    }

    /// Run until the ring is closed and everything is written.
    pub(super) fn run(mut self) -> Result<()> {
        let result = self.pump();
        self.shared.stored.publish(self.counters.to_array());
        self.shared.change_log(|log| {
            log.ended = true;
            if let Some(last) = log.segments.last_mut() {
                last.finished = true;
            }
        });
        self.shared.written_all.store(true, Ordering::Release);
        result
    }

    fn pump(&mut self) -> Result<()> {
        loop {
            let closed = self.consumer.wait(WAKE, WAIT) == Wait::Closed;
            let (mut asked, mut wrote) = (false, false);
            for _ in 0..8 {
                let Some(block) = self.consumer.take() else {
                    break;
                };
                asked |= block.tag.sync;
                wrote = true;
                let done = self.take(&block);
                self.consumer.recycle(block);
                done?;
            }
            if asked || (wrote && self.sync == Sync::Batch) {
                self.make_durable()?;
            }
            let due = |open: &OpenRow| open.begun.elapsed() >= ROW_AGE;
            if self.open_row.as_ref().is_some_and(due) {
                self.end_row()?;
            }
            if wrote {
                self.shared.stored.publish(self.counters.to_array());
            }
            if closed {
                return self.end_segment();
            }
        }
    }

    fn take(&mut self, block: &Block<LogBatch>) -> Result<()> {
        let tag = &block.tag;
        if let Some(core) = tag.core
            && self.core != Some(core)
        {
            self.core = tapeline_sys::cpu::stay_on(core).then_some(core);
        }
        let used = block.bytes().get(..block.filled()).unwrap_or_default();
        let mut slices = Vec::with_capacity(tag.holes.len() + 1);
        let mut from = 0;
        for hole in &tag.holes {
            slices.push(used.get(from..hole.start).unwrap_or_default());
            from = hole.end;
        }
        slices.push(used.get(from..).unwrap_or_default());
        slices.retain(|slice| !slice.is_empty());
        if !slices.is_empty() {
            self.append(&slices, tag)?;
        }
        if tag.ends_segment {
            if let Some(segment) = self.segment.as_mut() {
                segment.beside.certain = tag.certain;
            }
            self.end_segment()?;
        }
        Ok(())
    }

    fn append(&mut self, slices: &[&[u8]], tag: &LogBatch) -> Result<()> {
        let bytes = slices.iter().map(|s| s.len() as u64).sum::<u64>();
        if self.segment.is_none() {
            self.begin_segment()?;
        }
        if tag.keyframes {
            self.announce(slices, bytes, tag)?;
        }
        let Some(segment) = self.segment.as_mut() else {
            return Ok(());
        };
        let list: Vec<IoSlice<'_>> = slices.iter().map(|s| IoSlice::new(s)).collect();
        if let Err(e) = segment.append(&list, bytes) {
            self.abandon(slices, tag.keyframes);
            return Err(e);
        }
        let place = segment.bytes;
        self.counters.writes += 1;
        if tag.keyframes {
            self.counters.keyframes += u64::from(tag.packets);
            self.counters.keyframe_bytes += bytes;
        } else {
            self.counters.packets += u64::from(tag.packets);
            self.counters.bytes += bytes;
            self.shared
                .written
                .store(self.counters.bytes, Ordering::Release);
            self.count_to_limit(u64::from(tag.packets));
        }
        let keyframe_bytes = if tag.keyframes { bytes } else { 0 };
        self.shared.change_log(|log| {
            if let Some(last) = log.segments.last_mut() {
                last.bytes = place;
                last.keyframe_bytes += keyframe_bytes;
            }
        });
        if tag.keyframes {
            return Ok(());
        }
        self.collect(slices, bytes, tag)
    }

    /// The index says which bytes will be our own, durably, before they are written: whatever a kill or a power cut
    /// leaves of them cannot be taken for received packets.
    fn announce(&mut self, slices: &[&[u8]], bytes: u64, tag: &LogBatch) -> Result<()> {
        self.end_row()?;
        let row = Row {
            length: bytes,
            packets: tag.packets,
            first_us: tag.first_us,
            last_us: tag.last_us,
            received_ns: tag.received_ns,
            xxh64: block_hash(&slices.concat()),
            keyframe: true,
        };
        self.write_row(&row, tag.registers, Touched::default())?;
        self.segment.as_ref().map_or(Ok(()), LogSegment::sync_index)
    }

    /// The block joins the open row, or ends it and begins the next.
    fn collect(&mut self, slices: &[&[u8]], bytes: u64, tag: &LogBatch) -> Result<()> {
        let joins = |open: &OpenRow| {
            open.row.length + bytes <= BLOCK as u64 && open.begun.elapsed() < ROW_AGE
        };
        if self.open_row.as_ref().is_some_and(|open| !joins(open)) {
            self.end_row()?;
        }
        let open = self.open_row.get_or_insert_with(|| OpenRow {
            row: Row {
                first_us: u64::MAX,
                received_ns: tag.received_ns,
                ..Row::default()
            },
            registers: 0,
            hash: Xxh64::default(),
            touched: Touched::default(),
            begun: Instant::now(),
        });
        open.row.length += bytes;
        open.row.packets += tag.packets;
        open.row.first_us = open.row.first_us.min(tag.first_us);
        open.row.last_us = open.row.last_us.max(tag.last_us);
        open.registers += tag.registers;
        open.touched.add(&tag.touched, tag.touched_more);
        for slice in slices {
            open.hash.update(slice);
        }
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        let Some(open) = self.open_row.take() else {
            return Ok(());
        };
        let row = Row {
            xxh64: open.hash.digest(),
            ..open.row
        };
        self.write_row(&row, open.registers, open.touched)
    }

    fn write_row(&mut self, row: &Row, registers: u64, touched: Touched) -> Result<()> {
        match self.segment.as_mut() {
            Some(segment) => segment.row(row, registers, touched),
            None => Ok(()),
        }
    }

    fn begin_segment(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let segment = LogSegment::create(&self.dir, self.next_number, &shared)?;
        self.next_number += 1;
        let _ = self.keeper.send(Job::Opened(OpenFile {
            output: shared.name.clone(),
            path: segment.part_path(),
            file: segment.file(),
        }));
        let written = Written {
            number: segment.number,
            path: segment.path().display().to_string(),
            bytes: 0,
            keyframe_bytes: 0,
            finished: false,
        };
        shared.change_log(|log| log.segments.push(written));
        self.segment = Some(segment);
        Ok(())
    }

    fn end_segment(&mut self) -> Result<()> {
        self.end_row()?;
        let Some(segment) = self.segment.take() else {
            return Ok(());
        };
        self.unsynced.push(segment.file());
        // Bounded: without a SYNC the keeper's own sync is all there is.
        if self.unsynced.len() > 8 {
            self.make_durable()?;
        }
        self.shared.stored.publish(self.counters.to_array());
        self.shared.change_log(|log| {
            if let Some(last) = log.segments.last_mut() {
                last.finished = true;
            }
        });
        self.keeper
            .send(Job::Close {
                output: self.shared.name.clone(),
                segment: Box::new(segment),
            })
            .map_err(|_| Error::state("the thread that closes segments is gone".into()))
    }

    /// Everything written survives a power cut from here on; only a sync that succeeded says so.
    fn make_durable(&mut self) -> Result<()> {
        let written = self.counters.bytes;
        for file in self.unsynced.drain(..) {
            file.sync_data()
                .map_err(|e| Error::io("syncing", self.dir.path(), e))?;
        }
        if let Some(segment) = &self.segment {
            segment.sync()?;
        }
        self.shared.durable.store(written, Ordering::Release);
        Ok(())
    }

    fn count_to_limit(&self, packets: u64) {
        if let Some(limit) = &self.limit {
            let before = limit.stored.fetch_add(packets, Ordering::Relaxed);
            if before + packets >= limit.limit {
                limit.stop.request();
            }
        }
    }

    /// A write failed: keep the whole packets that reached the file, and count exactly those.
    fn abandon(&mut self, slices: &[&[u8]], keyframes: bool) {
        let Some(segment) = self.segment.as_mut() else {
            return;
        };
        let Ok(on_disk) = segment.bytes_on_disk() else {
            return;
        };
        let before = segment.bytes;
        let (mut whole, mut packets, mut cut) = (before, 0, false);
        let _ = PacketScanner::new(self.shared.kind).scan(&slices.concat(), true, &mut |packet| {
            let end = whole + packet.packet_bytes() as u64;
            cut |= end > on_disk;
            if !cut {
                whole = end;
                packets += 1;
            }
        });
        if segment.abandon_at(whole).is_ok() && !keyframes {
            self.counters.bytes += whole - before;
            self.counters.packets += packets;
        }
        self.segment = None;
        self.shared
            .written
            .store(self.counters.bytes, Ordering::Release);
    }
}
