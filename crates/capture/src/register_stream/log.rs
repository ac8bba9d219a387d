//! The write thread: blocks of the ring to the segments of the log.
//!
//! One write a block. The parts of a large block have an index row each; small blocks of one second that fit into 1 MiB
//! share one.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tapeline_crc::{Xxh64, xxh64_each};
use tapeline_ring::{Block, Consumer, Wait};
use tapeline_wire::register::PacketScanner;

use super::batch::{BLOCK, LogBatch, Part};
use super::beside::Touched;
use super::segment::{LogSegment, Row};
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

/// The valid packets of a part of a block.
struct Packets<'a> {
    part: &'a Part,
    /// Between what is none; never empty.
    slices: Vec<&'a [u8]>,
}

impl<'a> Packets<'a> {
    fn of(part: &'a Part, block: &'a [u8], holes: &[Range<usize>]) -> Self {
        let mut slices = Vec::with_capacity(1);
        let mut from = part.start;
        let here = part.start..part.end;
        for hole in holes.iter().filter(|hole| here.contains(&hole.start)) {
            slices.push(from..hole.start);
            from = hole.end;
        }
        slices.push(from..part.end);
        let slices = slices.into_iter().filter_map(|range| block.get(range));
        Self {
            part,
            slices: slices.filter(|slice| !slice.is_empty()).collect(),
        }
    }

    fn bytes(&self) -> u64 {
        self.slices.iter().map(|s| s.len() as u64).sum()
    }

    fn hash(&self) -> u64 {
        let mut hash = Xxh64::default();
        self.slices.iter().for_each(|slice| hash.update(slice));
        hash.digest()
    }

    /// The hash of each part.
    fn hashes(parts: &[Self]) -> Vec<u64> {
        let slices: Vec<&[u8]> = parts
            .iter()
            .flat_map(|p| p.slices.iter().copied())
            .collect();
        if slices.len() == parts.len() {
            xxh64_each(&slices)
        } else {
            parts.iter().map(Self::hash).collect()
        }
    }

    fn row(&self, xxh64: u64, received_ns: u64) -> Row {
        Row {
            length: self.bytes(),
            packets: self.part.packets,
            first_us: self.part.first_us,
            last_us: self.part.last_us,
            received_ns,
            xxh64,
            keyframe: false,
        }
    }
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
        let parts: Vec<Packets<'_>> = tag
            .parts
            .iter()
            .map(|part| Packets::of(part, used, &tag.holes))
            .collect();
        if !parts.is_empty() {
            self.append(&parts, tag)?;
        }
        if tag.ends_segment {
            if let Some(segment) = self.segment.as_mut() {
                segment.beside.certain = tag.certain;
            }
            self.end_segment()?;
        }
        Ok(())
    }

    fn append(&mut self, parts: &[Packets<'_>], tag: &LogBatch) -> Result<()> {
        let bytes = parts.iter().map(Packets::bytes).sum::<u64>();
        if self.segment.is_none() {
            self.begin_segment()?;
        }
        if tag.keyframes {
            for packets in parts {
                self.announce(packets, tag.received_ns)?;
            }
        }
        let Some(segment) = self.segment.as_mut() else {
            return Ok(());
        };
        let slices: Vec<&[u8]> = parts
            .iter()
            .flat_map(|p| p.slices.iter().copied())
            .collect();
        let list: Vec<IoSlice<'_>> = slices.iter().map(|s| IoSlice::new(s)).collect();
        if let Err(e) = segment.append(&list, bytes) {
            self.abandon(&slices, tag.keyframes);
            return Err(e);
        }
        let place = segment.bytes;
        self.counters.writes += 1;
        let packets = u64::from(tag.packets());
        if tag.keyframes {
            self.counters.keyframes += packets;
            self.counters.keyframe_bytes += bytes;
        } else {
            self.counters.packets += packets;
            self.counters.bytes += bytes;
            self.shared
                .written
                .store(self.counters.bytes, Ordering::Release);
            self.count_to_limit(packets);
        }
        let keyframe_bytes = if tag.keyframes { bytes } else { 0 };
        self.shared.change_log(|log| {
            if let Some(last) = log.segments.last_mut() {
                last.bytes = place;
                last.keyframe_bytes += keyframe_bytes;
            }
        });
        match parts {
            _ if tag.keyframes => Ok(()),
            [packets] => self.collect(packets, tag.received_ns),
            parts => self.write_rows(parts, tag.received_ns),
        }
    }

    /// The index says which bytes will be our own, durably, before they are written: whatever a kill or a power cut
    /// leaves of them cannot be taken for received packets.
    fn announce(&mut self, packets: &Packets<'_>, received_ns: u64) -> Result<()> {
        self.end_row()?;
        let row = Row {
            keyframe: true,
            ..packets.row(packets.hash(), received_ns)
        };
        self.write_row(&row, packets.part.registers, Touched::default())?;
        self.segment.as_ref().map_or(Ok(()), LogSegment::sync_index)
    }

    /// Each part of a large block has its own row.
    fn write_rows(&mut self, parts: &[Packets<'_>], received_ns: u64) -> Result<()> {
        self.end_row()?;
        for (packets, hash) in parts.iter().zip(Packets::hashes(parts)) {
            let mut touched = Touched::default();
            touched.add(&packets.part.touched, packets.part.touched_more);
            self.write_row(
                &packets.row(hash, received_ns),
                packets.part.registers,
                touched,
            )?;
        }
        Ok(())
    }

    /// A small block joins the open row, or ends it and begins the next.
    fn collect(&mut self, packets: &Packets<'_>, received_ns: u64) -> Result<()> {
        let (part, bytes) = (packets.part, packets.bytes());
        let joins = |open: &OpenRow| {
            open.row.length + bytes <= BLOCK as u64 && open.begun.elapsed() < ROW_AGE
        };
        if self.open_row.as_ref().is_some_and(|open| !joins(open)) {
            self.end_row()?;
        }
        let open = self.open_row.get_or_insert_with(|| OpenRow {
            row: Row {
                first_us: u64::MAX,
                received_ns,
                ..Row::default()
            },
            registers: 0,
            hash: Xxh64::default(),
            touched: Touched::default(),
            begun: Instant::now(),
        });
        open.row.length += bytes;
        open.row.packets += part.packets;
        open.row.first_us = open.row.first_us.min(part.first_us);
        open.row.last_us = open.row.last_us.max(part.last_us);
        open.registers += part.registers;
        open.touched.add(&part.touched, part.touched_more);
        for slice in &packets.slices {
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
