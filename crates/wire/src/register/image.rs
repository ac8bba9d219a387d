//! The register image: 65,536 registers of each source, with what is known and since when.
//!
//! One writer ([`RegisterImage`]), any number of readers ([`ImageReader`]) that never block it: a
//! source is a fixed table of pages that are made once and then only change by atomic stores.
//!
//! What a reader may rely on: the writer stores a change's time, then its value, then its known bit,
//! each after the one before (release); the reader loads them the other way round (acquire). It
//! therefore never sees a value without its time, but it may see a time that is newer than the value.
//! Registers read one after the other need not be of one moment. That is enough for the image file:
//! DIFF and FULL only set, so that a copy which is ahead in places becomes exact when the log is
//! applied from the position at which the copy began. Exact answers (queries, keyframes) come from
//! the thread that writes.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::Xxh3;

use super::encode::{PacketFields, encode_packet, encode_simple};
use super::packet::{
    Command, EVERY_LANE, Kind, PacketRef, Source, four_from, mark_bits, run_bytes,
};
use super::sequence::{SeqCounters, SeqTracker, SeqVerdict};

/// Registers of a page.
pub const PAGE_REGISTERS: usize = 1024;
/// Pages of a source.
pub(super) const PAGES: usize = 65_536 / PAGE_REGISTERS;
/// Words of a page's bit maps.
pub(super) const PAGE_WORDS: usize = PAGE_REGISTERS / 64;
/// Runs of consecutive offsets shorter than this are not worth looking for.
const MIN_RUN: usize = 16;
/// The top bits of four registers.
const TOP_BITS: u64 = 0x8000 * EVERY_LANE;
/// No moment.
const NEVER: u64 = u64::MAX;
/// No number: those of packets are bytes.
const NO_SEQ: u32 = u32::MAX;

/// What bounds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Sources; packets of others are refused.
    pub max_sources: usize,
    /// Pages of 1,024 registers over all sources, about 10.8 KB each; registers beyond are refused.
    pub max_pages: usize,
}

impl Default for ImageLimits {
    /// Every source of the packet wire (4 types of 256), and 350 MB.
    fn default() -> Self {
        Self {
            max_sources: 1024,
            max_pages: 32 << 10,
        }
    }
}

/// What a packet did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Registers that changed or became known.
    pub changed: u32,
    /// Registers that found no place within the limits.
    pub refused: u32,
    /// What its number says; None on the simple wire and for a refused source.
    pub sequence: Option<SeqVerdict>,
}

/// One register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterState {
    /// Its value.
    pub value: u16,
    /// When it took that value: the packet's time, in microseconds since the UNIX epoch.
    pub changed_us: u64,
    /// A packet that may have set it was lost and nothing has set it since; the value is of this
    /// time or earlier.
    pub unknown_since_us: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Page {
    /// Four registers a word, the lowest in the lowest bits.
    pub(super) values: [AtomicU64; PAGE_REGISTERS / 4],
    pub(super) known: [AtomicU64; PAGE_WORDS],
    /// Each register's own time.
    changed_us: [AtomicU64; PAGE_REGISTERS],
    /// Registers whose time is that of their group: the 64 of a word that changed together.
    grouped: [AtomicU64; PAGE_WORDS],
    group_us: [AtomicU64; PAGE_WORDS],
    /// Known before a gap in the sequence, and not set since.
    pub(super) doubted: [AtomicU64; PAGE_WORDS],
    any_doubted: AtomicBool,
    /// Number of the source's gap up to which `doubted` is right; after later ones it is `known`.
    gap: AtomicU32,
}

impl Page {
    fn new(gap: u32) -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; _],
            known: [const { AtomicU64::new(0) }; _],
            changed_us: [const { AtomicU64::new(0) }; _],
            grouped: [const { AtomicU64::new(0) }; _],
            group_us: [const { AtomicU64::new(0) }; _],
            doubted: [const { AtomicU64::new(0) }; _],
            any_doubted: AtomicBool::new(false),
            gap: AtomicU32::new(gap),
        }
    }

    /// Sets a register; whether it changed.
    #[inline(always)]
    fn set(&self, slot: usize, value: u16, time_us: u64) -> bool {
        let slot = slot % PAGE_REGISTERS;
        let (word, shift) = (&self.values[slot / 4], slot % 4 * 16);
        let (known, bit) = (&self.known[slot / 64], 1 << (slot % 64));
        let (old, seen) = (word.load(Relaxed), known.load(Relaxed));
        let differs = (old >> shift ^ u64::from(value)) & 0xFFFF;
        if differs == 0 && seen & bit != 0 {
            return false;
        }
        self.changed_us[slot].store(time_us, Relaxed);
        self.on_their_own(slot / 64, bit);
        word.store(old ^ differs << shift, Release);
        if seen & bit == 0 {
            known.store(seen | bit, Release);
        }
        true
    }

    /// Sets four registers from a multiple of four on; how many changed.
    #[inline(always)]
    fn set_four(&self, slot: usize, values: u64, time_us: u64) -> u32 {
        let slot = slot % PAGE_REGISTERS / 4 * 4;
        let known = &self.known[slot / 64];
        let seen = known.load(Relaxed);
        let word = &self.values[slot / 4];
        let differs = word.load(Relaxed) ^ values;
        let fresh = !(seen >> (slot % 64)) & 0xF;
        if differs == 0 && fresh == 0 {
            return 0;
        }
        let mut changed = 4;
        let mut lanes = 0xF;
        // A register's top bit of this is set if any of its bits differs: all of them, as a rule.
        if lanes_that_differ(differs) == TOP_BITS {
            for lane in 0..4 {
                self.changed_us[slot + lane].store(time_us, Relaxed);
            }
        } else {
            (changed, lanes) = (0, 0);
            for lane in 0..4 {
                if differs >> (16 * lane) & 0xFFFF != 0 || fresh >> lane & 1 != 0 {
                    self.changed_us[slot + lane].store(time_us, Relaxed);
                    changed += 1;
                    lanes |= 1 << lane;
                }
            }
        }
        self.on_their_own(slot / 64, lanes << (slot % 64));
        word.store(values, Release);
        if fresh != 0 {
            known.store(seen | 0xF << (slot % 64), Release);
        }
        changed
    }

    /// Sets the 64 registers of a word of the bit maps; how many changed.
    #[inline(always)]
    fn set_group(&self, slot: usize, values: &[u8; 128], time_us: u64) -> u32 {
        let number = slot % PAGE_REGISTERS / 64;
        let words = &self.values.as_chunks::<16>().0[number];
        let values = values.as_chunks::<8>().0;
        let (mut every, mut any) = (TOP_BITS, 0);
        for (word, value) in words.iter().zip(values) {
            let differs = word.load(Relaxed) ^ u64::from_le_bytes(*value);
            every &= lanes_that_differ(differs);
            any |= differs;
        }
        let known = &self.known[number];
        let seen = known.load(Relaxed);
        if any == 0 && seen == u64::MAX {
            return 0;
        }
        if every != TOP_BITS && seen != 0 {
            let fours = values.iter().enumerate();
            return fours
                .map(|(n, four)| {
                    self.set_four(number * 64 + 4 * n, u64::from_le_bytes(*four), time_us)
                })
                .sum();
        }
        // One time for all of them: eight bytes to store for each would be most of the work.
        self.group_us[number].store(time_us, Relaxed);
        self.grouped[number].store(u64::MAX, Release);
        for (word, value) in words.iter().zip(values) {
            word.store(u64::from_le_bytes(*value), Release);
        }
        if seen != u64::MAX {
            known.store(u64::MAX, Release);
        }
        64
    }

    /// From here on the times of these registers are their own; those have been stored.
    #[inline(always)]
    fn on_their_own(&self, word: usize, bits: u64) {
        let grouped = &self.grouped[word % PAGE_WORDS];
        let seen = grouped.load(Relaxed);
        if seen & bits != 0 {
            grouped.store(seen & !bits, Release);
        }
    }

    /// When the register took its value, or a later one.
    pub(super) fn changed_us(&self, slot: usize) -> u64 {
        let slot = slot % PAGE_REGISTERS;
        let grouped = self.grouped[slot / 64].load(Acquire);
        let time = if grouped >> (slot % 64) & 1 == 1 {
            &self.group_us[slot / 64]
        } else {
            &self.changed_us[slot]
        };
        time.load(Acquire)
    }

    /// Brings `doubted` up to the source's gap `number`.
    fn doubt(&self, number: u32) {
        if self.gap.load(Relaxed) == number {
            return;
        }
        for (doubted, known) in self.doubted.iter().zip(&self.known) {
            doubted.store(known.load(Relaxed), Relaxed);
        }
        self.any_doubted.store(true, Relaxed);
        self.gap.store(number, Release);
    }

    fn trust(&self, slot: usize) {
        let doubted = &self.doubted[slot % PAGE_REGISTERS / 64];
        doubted.store(doubted.load(Relaxed) & !(1 << (slot % 64)), Relaxed);
    }

    fn trust_all(&self, gap: u32) {
        if self.any_doubted.swap(false, Relaxed) {
            self.doubted.iter().for_each(|word| word.store(0, Relaxed));
        }
        self.gap.store(gap, Release);
    }
}

/// The registers of one source, as readers see them.
#[derive(Debug)]
pub struct SourceImage {
    source: Source,
    pages: [OnceLock<Box<Page>>; PAGES],
    last_us: AtomicU64,
    /// Number up to which its packets came; [`NO_SEQ`] before the first.
    last_seq: AtomicU32,
    gaps: AtomicU32,
    unknown_since_us: AtomicU64,
}

impl SourceImage {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            pages: [const { OnceLock::new() }; _],
            last_us: AtomicU64::new(0),
            last_seq: AtomicU32::new(NO_SEQ),
            gaps: AtomicU32::new(0),
            unknown_since_us: AtomicU64::new(NEVER),
        }
    }

    /// Whose registers these are.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Time of the last DIFF or FULL, in microseconds since the UNIX epoch.
    #[must_use]
    pub fn last_us(&self) -> u64 {
        self.last_us.load(Relaxed)
    }

    /// Number up to which its packets came, counted around the circle of 256; None on the simple wire.
    #[must_use]
    pub fn last_seq(&self) -> Option<u8> {
        u8::try_from(self.last_seq.load(Relaxed)).ok()
    }

    /// The register at `offset`; None if it is not known.
    #[must_use]
    pub fn get(&self, offset: u16) -> Option<RegisterState> {
        let slot = usize::from(offset) % PAGE_REGISTERS;
        let page = self.page(usize::from(offset) / PAGE_REGISTERS)?;
        let bit = 1_u64 << (slot % 64);
        if page.known[slot / 64].load(Acquire) & bit == 0 {
            return None;
        }
        let value = lane(page.values[slot / 4].load(Acquire), slot);
        let changed_us = page.changed_us(slot);
        let doubted = page.gap.load(Acquire) != self.gaps.load(Relaxed)
            || page.doubted[slot / 64].load(Relaxed) & bit != 0;
        Some(RegisterState {
            value,
            changed_us,
            unknown_since_us: doubted.then(|| self.unknown_since_us.load(Relaxed)),
        })
    }

    /// The known registers with their values, by offset.
    #[must_use]
    pub fn registers(&self) -> Vec<(u16, u16)> {
        let mut all = Vec::new();
        self.for_each_known(|offset, page, slot| {
            all.push((offset, lane(page.values[slot / 4].load(Acquire), slot)));
        });
        all
    }

    /// The known registers with values and times, by offset.
    #[must_use]
    pub fn states(&self) -> Vec<(u16, RegisterState)> {
        let mut all = Vec::new();
        self.for_each_known(|offset, _, _| {
            if let Some(state) = self.get(offset) {
                all.push((offset, state));
            }
        });
        all
    }

    /// How many registers are known.
    #[must_use]
    pub fn known(&self) -> u32 {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        pages
            .flat_map(|page| &page.known)
            .map(|word| word.load(Relaxed).count_ones())
            .sum()
    }

    pub(super) fn page(&self, number: usize) -> Option<&Page> {
        self.pages.get(number)?.get().map(Box::as_ref)
    }

    pub(super) fn doubted_now(&self, page: &Page) -> [u64; PAGE_WORDS] {
        let from = if page.gap.load(Acquire) == self.gaps.load(Relaxed) {
            &page.doubted
        } else {
            &page.known
        };
        std::array::from_fn(|word| from[word].load(Relaxed))
    }

    pub(super) fn unknown_since_us(&self) -> Option<u64> {
        Some(self.unknown_since_us.load(Relaxed)).filter(|&us| us != NEVER)
    }

    fn for_each_known(&self, mut visit: impl FnMut(u16, &Page, usize)) {
        for (number, page) in self.pages.iter().enumerate() {
            let Some(page) = page.get() else { continue };
            for (word, known) in page.known.iter().enumerate() {
                let mut left = known.load(Acquire);
                while left != 0 {
                    let slot = word * 64 + left.trailing_zeros() as usize;
                    left &= left - 1;
                    if let Ok(offset) = u16::try_from(number * PAGE_REGISTERS + slot) {
                        visit(offset, page, slot);
                    }
                }
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    slots: Box<[OnceLock<Arc<SourceImage>>]>,
    used: AtomicUsize,
}

/// Reads an image while another thread writes it.
#[derive(Clone, Debug)]
pub struct ImageReader(Arc<Shared>);

impl ImageReader {
    /// The sources, sorted by type and number.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<SourceImage>> {
        let used = self.0.used.load(Acquire);
        let slots = self.0.slots.iter().take(used);
        let mut all: Vec<_> = slots.filter_map(|s| s.get().cloned()).collect();
        all.sort_unstable_by_key(|s| s.source);
        all
    }

    /// One source.
    #[must_use]
    pub fn source(&self, source: Source) -> Option<Arc<SourceImage>> {
        let used = self.0.used.load(Acquire);
        let mut slots = self.0.slots.iter().take(used).filter_map(OnceLock::get);
        slots.find(|s| s.source == source).cloned()
    }

    /// XXH3-128 over what is known, 32 hexadecimal digits: for each source with a known register, sorted by
    /// type and number, `type u8, src_id i32`, then `offset u16, value u16` of its known registers by
    /// offset, little-endian.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Xxh3::new();
        let mut bytes = Vec::new();
        for source in self.sources() {
            let registers = source.registers();
            if registers.is_empty() {
                continue;
            }
            bytes.clear();
            bytes.push(source.source.kind as u8);
            bytes.extend_from_slice(&source.source.id.to_le_bytes());
            for (offset, value) in registers {
                bytes.extend_from_slice(&offset.to_le_bytes());
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            hash.update(&bytes);
        }
        format!("{:032x}", hash.digest128())
    }
}

#[derive(Debug)]
struct Writer {
    image: Arc<SourceImage>,
    tracker: SeqTracker,
}

/// The image, for the thread that writes it.
#[derive(Debug)]
pub struct RegisterImage {
    limits: ImageLimits,
    reader: ImageReader,
    writers: Vec<Writer>,
    places: HashMap<Source, usize>,
    /// Place of the last source.
    last: usize,
    pages: usize,
    sequence: SeqCounters,
}

impl Default for RegisterImage {
    fn default() -> Self {
        Self::new(ImageLimits::default())
    }
}

impl RegisterImage {
    /// An image in which nothing is known.
    #[must_use]
    pub fn new(limits: ImageLimits) -> Self {
        let slots = (0..limits.max_sources).map(|_| OnceLock::new()).collect();
        Self {
            limits,
            reader: ImageReader(Arc::new(Shared {
                slots,
                used: AtomicUsize::new(0),
            })),
            writers: Vec::new(),
            places: HashMap::new(),
            last: 0,
            pages: 0,
            sequence: SeqCounters::default(),
        }
    }

    /// A handle for another thread.
    #[must_use]
    pub fn reader(&self) -> ImageReader {
        self.reader.clone()
    }

    /// Totals of the sequences of all sources.
    #[must_use]
    pub const fn sequence(&self) -> &SeqCounters {
        &self.sequence
    }

    /// The sources, sorted by type and number.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<SourceImage>> {
        self.reader.sources()
    }

    /// One source.
    #[must_use]
    pub fn source(&self, source: Source) -> Option<&SourceImage> {
        let place = *self.places.get(&source)?;
        self.writers.get(place).map(|w| w.image.as_ref())
    }

    /// One register; None if it is not known.
    #[must_use]
    pub fn get(&self, source: Source, offset: u16) -> Option<RegisterState> {
        self.source(source)?.get(offset)
    }

    /// See [`ImageReader::digest`].
    #[must_use]
    pub fn digest(&self) -> String {
        self.reader.digest()
    }

    /// Applies a packet; anything but DIFF and FULL changes nothing.
    #[inline]
    pub fn apply(&mut self, packet: &PacketRef<'_>) -> Applied {
        if !packet.command.sets_registers() {
            return Applied::default();
        }
        let Some(place) = self.place(packet.source) else {
            return Applied {
                refused: packet.count,
                ..Applied::default()
            };
        };
        let mut applied = Applied::default();
        let Some(writer) = self.writers.get_mut(place) else {
            return applied;
        };
        let image = &writer.image;
        if packet.kind == Kind::Packet {
            let resumed = writer.tracker.last().is_none();
            let verdict = writer.tracker.observe(packet.seq, &mut self.sequence);
            applied.sequence = Some(verdict);
            // What went by between two sessions is no gap of this one, but it leaves the same doubt.
            let missed = resumed
                && image
                    .last_seq()
                    .is_some_and(|last| matches!(packet.seq.wrapping_sub(last), 2..=128));
            if let Some(last) = writer.tracker.last() {
                image.last_seq.store(u32::from(last), Relaxed);
            }
            if missed || matches!(verdict, SeqVerdict::Gap { .. }) {
                let since = image.last_us().min(image.unknown_since_us.load(Relaxed));
                image.unknown_since_us.store(since, Relaxed);
                let gaps = image.gaps.load(Relaxed).wrapping_add(1);
                image.gaps.store(gaps, Release);
            }
        }
        image.last_us.store(packet.timestamp_us, Relaxed);
        let mut run = Run {
            image,
            time_us: packet.timestamp_us,
            gap: image.gaps.load(Relaxed),
            pages: &mut self.pages,
            max_pages: self.limits.max_pages,
            applied: &mut applied,
        };
        run.set(packet);
        if packet.command == Command::Full {
            run.forget_all_but(packet);
        }
        applied
    }

    /// Appends the REPLY to a QUERY: the known registers among those asked, in the order asked, or
    /// all known ones if none is named; its time is when the newest of them changed, 0 if there is
    /// none (`spec/register-packets.md 2`).
    pub fn answer(&self, query: &PacketRef<'_>, out: &mut Vec<u8>) {
        let mut found = Vec::new();
        let mut newest = 0;
        if let Some(image) = self.source(query.source) {
            if query.count == 0 {
                for (offset, state) in image.states() {
                    newest = newest.max(state.changed_us);
                    found.push((offset, state.value));
                }
            }
            for offset in query.offsets() {
                if let Some(state) = image.get(offset) {
                    newest = newest.max(state.changed_us);
                    found.push((offset, state.value));
                }
            }
        }
        let fields = PacketFields {
            timestamp_us: newest,
            source: query.source,
            command: Command::Reply,
            seq: query.seq,
        };
        // At most as many registers as a packet's count allows, of a source number that was a byte.
        encode_packet(&fields, &found, out).ok();
    }

    /// Appends one packet for each source with all its known registers: FULL, or on the simple wire a
    /// simple packet; with the time and number of the source's last packet. Returns how many.
    pub fn keyframes(&self, kind: Kind, out: &mut Vec<u8>) -> u32 {
        let mut packets = 0;
        for image in self.sources() {
            let registers = image.registers();
            if registers.is_empty() {
                continue;
            }
            packets += u32::from(self.keyframe(kind, &image, &registers, out));
        }
        packets
    }

    fn keyframe(
        &self,
        kind: Kind,
        image: &SourceImage,
        registers: &[(u16, u16)],
        out: &mut Vec<u8>,
    ) -> bool {
        let timestamp_us = image.last_us();
        let encoded = match kind {
            Kind::Packet => {
                let fields = PacketFields {
                    timestamp_us,
                    source: image.source,
                    command: Command::Full,
                    seq: image.last_seq().unwrap_or(0),
                };
                encode_packet(&fields, registers, out)
            }
            Kind::Simple => {
                #[allow(clippy::cast_precision_loss)] // exact until the year 2255
                let time_s = timestamp_us as f64 / 1e6;
                encode_simple(time_s, image.source.id, registers, out)
            }
        };
        encoded.is_ok()
    }

    /// Counts sequences from here on: what was applied before was of an earlier session.
    pub fn begin_session(&mut self) {
        self.sequence = SeqCounters::default();
        for writer in &mut self.writers {
            writer.tracker = SeqTracker::default();
        }
    }

    #[inline]
    fn place(&mut self, source: Source) -> Option<usize> {
        if let Some(writer) = self.writers.get(self.last)
            && writer.image.source == source
        {
            return Some(self.last);
        }
        self.last = match self.places.get(&source) {
            Some(&place) => place,
            None => self.add(Arc::new(SourceImage::new(source)))?,
        };
        Some(self.last)
    }

    fn add(&mut self, image: Arc<SourceImage>) -> Option<usize> {
        let place = self.writers.len();
        let slot = self.reader.0.slots.get(place)?;
        slot.set(Arc::clone(&image)).ok()?;
        self.reader.0.used.store(place + 1, Release);
        self.places.insert(image.source, place);
        self.writers.push(Writer {
            image,
            tracker: SeqTracker::default(),
        });
        Some(place)
    }

    /// Takes over a source of an image file; false if the limits do not allow it or it is there.
    pub(super) fn restore(&mut self, restored: Restored) -> bool {
        let pages = restored.pages.len();
        if self.places.contains_key(&restored.source) || self.pages + pages > self.limits.max_pages
        {
            return false;
        }
        let image = SourceImage::new(restored.source);
        image.last_us.store(restored.last_us, Relaxed);
        let since = restored.unknown_since_us.unwrap_or(NEVER);
        image.unknown_since_us.store(since, Relaxed);
        let seq = restored.last_seq.map_or(NO_SEQ, u32::from);
        image.last_seq.store(seq, Relaxed);
        for (number, page) in restored.pages {
            if let Some(slot) = image.pages.get(number) {
                slot.set(page).ok();
            }
        }
        if self.add(Arc::new(image)).is_none() {
            return false;
        }
        self.pages += pages;
        true
    }
}

/// A source out of an image file.
pub(super) struct Restored {
    pub(super) source: Source,
    pub(super) last_us: u64,
    pub(super) last_seq: Option<u8>,
    pub(super) unknown_since_us: Option<u64>,
    pub(super) pages: Vec<(usize, Box<Page>)>,
}

impl Restored {
    /// A page of stored values.
    pub(super) fn page(
        known: impl Iterator<Item = u64>,
        doubted: impl Iterator<Item = u64>,
        values: impl Iterator<Item = u64>,
        changed_us: impl Iterator<Item = u64>,
    ) -> Box<Page> {
        let page = Box::new(Page::new(0));
        fill(&page.known, known);
        fill(&page.doubted, doubted);
        fill(&page.values, values);
        fill(&page.changed_us, changed_us);
        let any = page.doubted.iter().any(|word| word.load(Relaxed) != 0);
        page.any_doubted.store(any, Relaxed);
        page
    }
}

fn fill(words: &[AtomicU64], from: impl Iterator<Item = u64>) {
    for (word, value) in words.iter().zip(from) {
        word.store(value, Relaxed);
    }
}

/// One packet on its way into one source.
struct Run<'a> {
    image: &'a SourceImage,
    time_us: u64,
    gap: u32,
    pages: &'a mut usize,
    max_pages: usize,
    applied: &'a mut Applied,
}

impl<'a> Run<'a> {
    #[inline]
    fn set(&mut self, packet: &PacketRef<'_>) {
        let (mut control, mut data) = (packet.control, packet.data);
        let mut at = PAGES;
        let mut page = None;
        while let Some((offset, value)) = control.first_chunk::<2>().zip(data.first_chunk::<2>()) {
            let offset = u16::from_le_bytes(*offset);
            let number = usize::from(offset) / PAGE_REGISTERS;
            if number != at {
                at = number;
                page = self.page(number);
            }
            // Diffs are often runs with gaps: four neighbours that share a word cost little more than one register.
            let four = control.first_chunk::<8>().zip(data.first_chunk::<8>());
            let four = four.filter(|(offsets, _)| {
                offset.is_multiple_of(4) && u64::from_le_bytes(**offsets) == four_from(offset)
            });
            if four.is_some() {
                let run = run_bytes(control);
                if run >= 2 * MIN_RUN {
                    let (part, after) = data.split_at(run.min(data.len()));
                    self.set_run(usize::from(offset), part);
                    (control, data) = (control.get(run..).unwrap_or_default(), after);
                    continue;
                }
            }
            let taken = if four.is_some() { 4 } else { 1 };
            (control, data) = (past(control, taken), past(data, taken));
            let Some((page, doubted)) = page else {
                self.applied.refused += taken;
                continue;
            };
            let slot = usize::from(offset) % PAGE_REGISTERS;
            self.applied.changed += match four {
                Some((_, values)) => page.set_four(slot, u64::from_le_bytes(*values), self.time_us),
                None => u32::from(page.set(slot, u16::from_le_bytes(*value), self.time_us)),
            };
            if doubted {
                (slot..slot + taken as usize).for_each(|slot| page.trust(slot));
            }
        }
    }

    /// Registers from `first` on, none left out.
    fn set_run(&mut self, first: usize, data: &[u8]) {
        let mut offset = first;
        let mut rest = data;
        while !rest.is_empty() {
            let here = (PAGE_REGISTERS - offset % PAGE_REGISTERS).min(rest.len() / 2);
            let (part, after) = rest.split_at(2 * here);
            match self.page(offset / PAGE_REGISTERS) {
                Some((page, doubted)) => self.set_in_page(page, doubted, offset, part),
                None => self.applied.refused += u32::try_from(here).unwrap_or(u32::MAX),
            }
            offset += here;
            rest = after;
        }
    }

    fn set_in_page(&mut self, page: &Page, doubted: bool, offset: usize, data: &[u8]) {
        let time_us = self.time_us;
        let (mut slot, mut rest, mut changed) = (offset, data, 0);
        loop {
            if slot.is_multiple_of(64)
                && let Some((values, after)) = rest.split_first_chunk()
            {
                changed += page.set_group(slot, values, time_us);
                (slot, rest) = (slot + 64, after);
            } else if slot.is_multiple_of(4)
                && let Some((values, after)) = rest.split_first_chunk()
            {
                changed += page.set_four(slot, u64::from_le_bytes(*values), time_us);
                (slot, rest) = (slot + 4, after);
            } else if let Some((value, after)) = rest.split_first_chunk() {
                changed += u32::from(page.set(slot, u16::from_le_bytes(*value), time_us));
                (slot, rest) = (slot + 1, after);
            } else {
                break;
            }
        }
        self.applied.changed += changed;
        if doubted {
            (offset..offset + data.len() / 2).for_each(|slot| page.trust(slot));
        }
    }

    /// The page, and whether some of its registers are in doubt.
    fn page(&mut self, number: usize) -> Option<(&'a Page, bool)> {
        let slot = self.image.pages.get(number)?;
        let page = match slot.get() {
            Some(page) => page,
            None => {
                if *self.pages >= self.max_pages {
                    return None;
                }
                *self.pages += 1;
                slot.get_or_init(|| Box::new(Page::new(self.gap)))
            }
        };
        page.doubt(self.gap);
        Some((page, page.any_doubted.load(Relaxed)))
    }

    fn forget_all_but(&mut self, packet: &PacketRef<'_>) {
        let mut listed = [0_u64; PAGES * PAGE_WORDS];
        for (first, values) in packet.runs() {
            let first = usize::from(first);
            mark_bits(&mut listed, first..first + values.len() / 2);
        }
        for (page, listed) in self
            .image
            .pages
            .iter()
            .zip(listed.as_chunks::<PAGE_WORDS>().0)
        {
            let Some(page) = page.get() else { continue };
            for (known, listed) in page.known.iter().zip(listed) {
                known.store(known.load(Relaxed) & listed, Release);
            }
            page.trust_all(self.gap);
        }
        self.image.unknown_since_us.store(NEVER, Relaxed);
    }
}

/// The top bit of each register of a word that differs at all.
#[inline(always)]
const fn lanes_that_differ(differs: u64) -> u64 {
    (((differs & !TOP_BITS) + !TOP_BITS) | differs) & TOP_BITS
}

/// What is behind `count` registers.
#[inline(always)]
fn past(bytes: &[u8], count: u32) -> &[u8] {
    bytes.get(2 * count as usize..).unwrap_or_default()
}

#[allow(clippy::cast_possible_truncation)] // the low 16 bits are meant
const fn lane(word: u64, slot: usize) -> u16 {
    (word >> (slot % 4 * 16)) as u16
}
