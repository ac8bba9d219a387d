//! Bytes in, a log out: packets are validated where they lie, applied to the image, and passed on in blocks.
//!
//! A block is filled by whoever receives, scanned behind each arrival, and holds the bytes of the log in order; what
//! is no valid packet is noted as a hole. The unfinished packet at the end of an arrival goes back to its client,
//! because the next bytes of the block may be another client's.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tapeline_ring::{Block, Producer};
use tapeline_wire::register::{
    Command, FramingLost, ImageBatch, Kind, PacketCounters, PacketRef, PacketScanner,
    RegisterImage, Source,
};

use super::batch::{BLOCK, LogBatch};
use super::shared::{RegIn, RegisterShared};
use crate::keeper::Job;
use crate::receive::WriterGone;

/// Most bytes to ask of a client at once: each read costs an acknowledgement, and with it work of the sender's side.
/// Measured with one client, CPU s/GB: 0.32 with a block at once, 0.35 with half, 0.40 with a quarter, 0.43 with an eighth;
/// blocks of 4 MiB give no less. With four clients 0.37, 0.43, 0.47 and 0.50.
pub(super) const READ: usize = BLOCK;
/// And at least that, however many others have something to say.
pub(super) const LEAST_READ: usize = 128 << 10;
/// Room below which a new block is begun.
const LEAST_ROOM: usize = 16 << 10;
/// How long a packet may wait in a block that is not full.
const PUBLISH_AGE: Duration = Duration::from_millis(10);

/// A full block has so many parts of about one length: each is a row of the index, and they are hashed side by side.
const PARTS: usize = 4;
/// Bytes after which a part ends; the last one takes the rest.
const PART: usize = (BLOCK - LEAST_ROOM) / PARTS;

/// Where answers go, and what asks for them.
pub(super) struct Answers {
    /// REPLY packets to send.
    pub(super) out: Vec<u8>,
    /// Bytes of `out` above which queries wait.
    pub(super) limit: usize,
    /// Those, verbatim: at most an arrival.
    pub(super) deferred: Vec<u8>,
    /// SYNC packets seen.
    pub(super) syncs: Vec<(Source, u8)>,
}

/// How a segment is rolled.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    pub(super) bytes: u64,
    pub(super) after: Option<Duration>,
}

/// The receiving half of a register stream.
pub(super) struct Intake {
    pub(super) kind: Kind,
    producer: Producer<LogBatch>,
    block: Option<Block<LogBatch>>,
    filled: usize,
    /// When the first packet of the block came.
    opened: Instant,
    image: RegisterImage,
    /// Nothing is in doubt that the image does not know of, here and in this segment.
    image_certain: bool,
    segment_certain: bool,
    pub(super) counters: RegIn,
    packets: PacketCounters,
    rotation: Rotation,
    /// Bytes received in this segment; it has none, and no keyframes, while it is not begun.
    segment_bytes: u64,
    segment_begun: Option<Instant>,
    pub(super) shared: Arc<RegisterShared>,
    share_core: bool,
    keeper: SyncSender<Job>,
}

impl Intake {
    pub(super) fn new(
        kind: Kind,
        producer: Producer<LogBatch>,
        (image, image_certain): (RegisterImage, bool),
        rotation: Rotation,
        shared: Arc<RegisterShared>,
        share_core: bool,
        keeper: SyncSender<Job>,
    ) -> Self {
        Self {
            kind,
            producer,
            block: None,
            filled: 0,
            opened: Instant::now(),
            image,
            image_certain,
            segment_certain: image_certain,
            counters: RegIn::default(),
            packets: PacketCounters::default(),
            rotation,
            segment_bytes: 0,
            segment_begun: None,
            shared,
            share_core,
            keeper,
        }
    }

    /// Room of the current block, at least `least` bytes of it and more when it is not full yet. Never more than the
    /// segment may still have, so that it ends where it should.
    pub(super) fn space(&mut self, least: usize) -> Result<&mut [u8], WriterGone> {
        let least = least.min(BLOCK);
        if self.block.is_some() && BLOCK - self.filled < least.max(LEAST_ROOM) {
            self.publish(false)?;
        }
        if self.block.is_none() {
            self.block = Some(self.claim()?);
            self.filled = 0;
        }
        let left = self.rotation.bytes.saturating_sub(self.segment_bytes);
        let most = usize::try_from(left).unwrap_or(usize::MAX).max(least);
        let stop = self.filled.saturating_add(most).min(BLOCK);
        let filled = self.filled;
        let block = self.block.as_mut().ok_or(WriterGone)?;
        block.bytes_mut().get_mut(filled..stop).ok_or(WriterGone)
    }

    /// Takes `bytes` bytes at the start of `space`, of a stream whose scanner this is; `fresh` of them arrived now.
    /// Returns the range of the unfinished packet in what `tail` gives, which must be fetched before anything else.
    pub(super) fn take(
        &mut self,
        scanner: &mut PacketScanner,
        bytes: usize,
        fresh: usize,
        end: bool,
        received_ns: u64,
        answers: Option<&mut Answers>,
    ) -> Result<Taken, WriterGone> {
        if self.segment_begun.is_none() {
            self.begin_segment()?;
        }
        let base = self.filled;
        self.counters.bytes_received += fresh as u64;
        // Before anything is applied: whoever copies the image and then looks here knows what may be in it.
        let bound = self.packets.bytes_valid + bytes as u64;
        self.shared.applied.store(bound, Ordering::Release);
        let Some(block) = self.block.as_mut() else {
            return Err(WriterGone);
        };
        let mut tag = std::mem::take(&mut block.tag);
        if tag.is_empty() {
            self.opened = Instant::now();
            tag.received_ns = received_ns;
        }
        let mut scan = Scan {
            image: self.image.batch(),
            tag: &mut tag,
            answers,
            base,
            next: base,
            unplaced: 0,
            replies: 0,
            syncs: 0,
        };
        let run = block.bytes().get(base..base + bytes).unwrap_or_default();
        let result = scanner.scan(run, end, &mut |packet| scan.packet(&packet));
        let (next, syncs, unplaced) = (scan.next, scan.syncs, scan.unplaced);
        self.counters.unplaced += unplaced;
        self.counters.replies += scan.replies;
        // The image has it all before anybody is told so.
        drop(scan);
        if unplaced > 0 {
            self.segment_certain = false;
        }
        block.tag = tag;
        let counted = scanner.take_counters();
        self.segment_bytes += counted.bytes_valid;
        self.packets.add(&counted);
        self.filled = next;
        self.shared
            .applied
            .store(self.packets.bytes_valid, Ordering::Release);
        let (tail, lost) = match result {
            Ok(done) => (base + done..base + bytes, None),
            Err(lost) => (next..next, Some(lost)),
        };
        Ok(Taken { tail, lost, syncs })
    }

    /// Bytes of a range that `take` gave.
    pub(super) fn tail(&self, range: Range<usize>) -> &[u8] {
        let bytes = self.block.as_ref().and_then(|b| b.bytes().get(range));
        bytes.unwrap_or_default()
    }

    /// After `take`, once its tail is fetched: pass on what is due.
    pub(super) fn after_arrival(&mut self, sync: bool) -> Result<(), WriterGone> {
        if self.segment_bytes >= self.rotation.bytes {
            return self.end_segment(sync);
        }
        if sync || self.filled >= BLOCK - LEAST_ROOM {
            self.publish(sync)?;
            if sync {
                self.producer.flush();
            }
        } else if self.opened.elapsed() >= PUBLISH_AGE {
            self.pass_on()?;
            self.publish_counters();
        }
        Ok(())
    }

    /// Nothing arrived for a moment, or it is time to look: pass on what waits, roll what is due.
    pub(super) fn tick(&mut self) -> Result<(), WriterGone> {
        self.pass_on()?;
        let asked = self.shared.rotate.swap(false, Ordering::AcqRel);
        let aged = self.segment_begun.is_some_and(|begun| {
            let after = self.rotation.after;
            after.is_some_and(|after| begun.elapsed() >= after)
        });
        if self.segment_begun.is_some() && (asked || aged) {
            self.end_segment(false)?;
        }
        self.publish_counters();
        if self.producer.consumer_gone() {
            return Err(WriterGone);
        }
        Ok(())
    }

    /// Pass on everything and leave; the image, for whoever writes it last.
    pub(super) fn finish(mut self) {
        if self.segment_begun.is_some() {
            let _ = self.end_segment(false);
        }
        self.publish_counters();
        self.shared.received_all.store(true, Ordering::Release);
    }

    fn pass_on(&mut self) -> Result<(), WriterGone> {
        if self.filled > 0 && self.producer.idle() {
            self.publish(false)?;
            self.producer.flush();
        }
        Ok(())
    }

    /// Keyframes of everything known, in blocks of their own.
    fn begin_segment(&mut self) -> Result<(), WriterGone> {
        self.segment_begun = Some(Instant::now());
        self.segment_bytes = 0;
        let mut frames = Vec::new();
        self.image.keyframes(self.kind, &mut frames);
        let mut scanner = PacketScanner::new(self.kind);
        let mut ends = Vec::new();
        // Ours, so that they are whole and valid.
        let _ = scanner.scan(&frames, true, &mut |p| {
            ends.push((p.packet_bytes(), p.timestamp_us, p.count));
        });
        let (mut at, mut packets) = (0, ends.into_iter().peekable());
        while packets.peek().is_some() {
            let mut block = self.claim()?;
            let from = at;
            while let Some((bytes, us, count)) =
                packets.next_if(|(bytes, ..)| at + bytes - from <= BLOCK)
            {
                at += bytes;
                block.tag.open.add(at - from, us);
                block.tag.open.registers += u64::from(count);
            }
            block.tag.end_part(Vec::new());
            if let (Some(to), Some(from)) =
                (block.bytes_mut().get_mut(..at - from), frames.get(from..at))
            {
                to.copy_from_slice(from);
            }
            block.tag.keyframes = true;
            block.set_filled(at - from);
            self.producer.publish(block);
        }
        Ok(())
    }

    fn end_segment(&mut self, sync: bool) -> Result<(), WriterGone> {
        if self.block.is_none() {
            self.block = Some(self.claim()?);
            self.filled = 0;
        }
        if let Some(block) = self.block.as_mut() {
            block.tag.ends_segment = true;
            block.tag.certain = self.segment_certain && !self.image.in_doubt();
        }
        self.segment_begun = None;
        self.segment_bytes = 0;
        self.segment_certain = self.image_certain;
        self.publish(sync)?;
        self.producer.flush();
        Ok(())
    }

    fn publish(&mut self, sync: bool) -> Result<(), WriterGone> {
        let Some(mut block) = self.block.take() else {
            return Ok(());
        };
        block.set_filled(self.filled);
        block.tag.sync = sync;
        block.tag.end_part(self.image.take_touched());
        block.tag.core = if self.share_core {
            tapeline_sys::cpu::current()
        } else {
            None
        };
        // Before the writer can count them as stored.
        self.publish_counters();
        self.producer.publish(block);
        self.filled = 0;
        if self.share_core {
            // The writer, on this core, takes the block while it is in cache.
            std::thread::yield_now();
        }
        self.publish_counters();
        if self.producer.consumer_gone() {
            return Err(WriterGone);
        }
        Ok(())
    }

    fn claim(&mut self) -> Result<Block<LogBatch>, WriterGone> {
        let mut claimed = self.producer.claim();
        while claimed.is_none() {
            let since = Instant::now();
            claimed = self.producer.claim_timeout(Duration::from_millis(50));
            self.counters.backpressure_ns +=
                u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            if self.producer.consumer_gone() {
                return Err(WriterGone);
            }
            self.publish_counters();
        }
        let mut block = claimed.ok_or(WriterGone)?;
        block.tag.reset();
        Ok(block)
    }

    /// Answers queries that had to wait until `out` has `limit` bytes; how many bytes of them are done with.
    pub(super) fn answer(&mut self, queries: &[u8], out: &mut Vec<u8>, limit: usize) -> usize {
        let mut done = 0;
        while let Some(rest) = queries
            .get(done..)
            .filter(|r| !r.is_empty() && out.len() <= limit)
        {
            let length = rest.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
            let bytes = length.map_or(rest.len(), |n| 4 + n as usize);
            let query = rest
                .get(..bytes)
                .and_then(|q| PacketRef::parse(self.kind, q));
            // They were found valid when they came.
            let Some(query) = query else {
                return queries.len();
            };
            self.image.answer(&query, out);
            self.counters.replies += 1;
            done += bytes;
        }
        done
    }

    /// Something for the manifest's list of events; while the keeper is busy it is only counted.
    pub(super) fn note(&self, kind: &'static str, text: String) {
        let _ = self.keeper.try_send(Job::Note {
            stream: self.shared.name.clone(),
            kind,
            text,
        });
    }

    /// Bytes of valid packets so far: the place in the log, in received bytes.
    pub(super) fn place(&self) -> u64 {
        self.packets.bytes_valid
    }

    /// Whole packets so far.
    pub(super) fn packets(&self) -> u64 {
        self.packets.packets
    }

    /// Make the counters visible.
    pub(super) fn publish_counters(&mut self) {
        let p = &self.packets;
        let seen = *self.image.sequence();
        let c = &mut self.counters;
        c.packets = p.packets;
        c.bytes_valid = p.bytes_valid;
        c.registers = p.registers;
        c.queries = p.queries;
        c.syncs = p.syncs;
        c.full = p.full;
        c.length_mismatch = p.invalid.length_mismatch;
        c.unknown_command = p.invalid.unknown_command;
        c.unknown_type = p.invalid.unknown_type;
        c.truncated = p.invalid.truncated;
        c.bytes_invalid = p.bytes_invalid;
        c.bytes_discarded = p.bytes_discarded;
        c.framing_lost = p.framing_lost;
        c.gaps = seen.gaps;
        c.lost = seen.lost;
        c.duplicates = seen.duplicates;
        c.reordered = seen.reordered;
        c.ring_used = self.producer.in_flight_bytes();
        c.ring_high_water = self.producer.high_water_bytes();
        self.shared.received.publish(c.to_array());
    }

    /// Counts bytes of clients that are gone as discarded, through their scanner.
    pub(super) fn count(&mut self, counted: &PacketCounters) {
        self.packets.add(counted);
    }
}

/// What became of an arrival.
pub(super) struct Taken {
    /// The unfinished packet.
    pub(super) tail: Range<usize>,
    pub(super) lost: Option<FramingLost>,
    /// SYNC packets in it.
    pub(super) syncs: u64,
}

/// One arrival on its way through the image.
struct Scan<'a, 'b> {
    image: ImageBatch<'a, 'b>,
    tag: &'a mut LogBatch,
    answers: Option<&'a mut Answers>,
    base: usize,
    /// Where the last valid packet ended.
    next: usize,
    unplaced: u64,
    replies: u64,
    syncs: u64,
}

impl<'b> Scan<'_, 'b> {
    #[inline(always)]
    fn packet(&mut self, packet: &PacketRef<'b>) {
        // Offsets are relative to a run inside a block.
        #[allow(clippy::cast_possible_truncation)]
        let at = self.base + packet.offset as usize;
        if at != self.next {
            self.tag.holes.push(self.next..at);
        }
        self.next = at + packet.packet_bytes();
        let part = &mut self.tag.open;
        part.add(self.next, packet.timestamp_us);
        if packet.command.sets_registers() {
            part.registers += u64::from(packet.count);
            let refused = u64::from(self.image.apply(packet));
            part.touched_more |= refused > 0;
            self.unplaced += refused;
        } else {
            self.asked(packet);
        }
        if self.next - self.tag.open.start >= PART && self.tag.parts.len() + 1 < PARTS {
            self.tag.end_part(self.image.take_touched());
        }
    }

    #[cold]
    fn asked(&mut self, packet: &PacketRef<'_>) {
        let Some(answers) = self.answers.as_mut() else {
            return;
        };
        match packet.command {
            Command::Query if answers.out.len() > answers.limit => {
                answers.deferred.extend_from_slice(packet.bytes);
            }
            Command::Query => {
                self.image.settled().answer(packet, &mut answers.out);
                self.replies += 1;
            }
            Command::Sync => {
                answers.syncs.push((packet.source, packet.seq));
                self.syncs += 1;
            }
            _ => {}
        }
    }
}
