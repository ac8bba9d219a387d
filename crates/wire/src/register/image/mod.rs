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

mod ahead;
mod apply;
mod batch;
mod file;
mod page;
mod reader;
mod source;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;

use super::encode::{PacketFields, encode_packet, encode_simple};
use super::packet::{Command, Kind, PacketRef, Source};
use super::sequence::{SeqCounters, SeqTracker, SeqVerdict};
use ahead::Ahead;
use apply::Run;
pub use batch::ImageBatch;
pub use file::{ImageFileError, ImagePosition, decode_image, encode_image};
pub use page::PAGE_REGISTERS;
pub use reader::ImageReader;
use source::{PAGES, Restored};
pub use source::{RegisterState, SourceImage};
use waiting::{Waiting, WaitingPage};

/// What bounds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Sources; packets of others are refused.
    pub max_sources: usize,
    /// Pages of 1,024 registers over all sources, 10.8 to 14.1 KB each; registers beyond are refused.
    pub max_pages: usize,
}

impl Default for ImageLimits {
    /// Every source of the packet wire (4 types of 256), and 350 to 460 MB.
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

/// Which registers were listed: bit `b` of word `w` stands for the 16 from `16 * (64 * w + b)` on.
pub type TouchedGroups = [u64; PAGES];

#[derive(Debug)]
struct Writer {
    image: Arc<SourceImage>,
    tracker: SeqTracker,
    /// What was listed since it was last taken.
    touched: Option<Box<TouchedGroups>>,
    /// For pages of which whole stretches were set.
    ahead: Box<[Option<Box<Ahead>>; PAGES]>,
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
    /// Places of sources with something touched.
    touched: Vec<usize>,
    /// Places of sources and numbers of their pages that the batch at work has not told everything.
    unsettled: Vec<(usize, usize)>,
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
        Self {
            limits,
            reader: ImageReader::new(limits.max_sources),
            writers: Vec::new(),
            places: HashMap::new(),
            last: 0,
            pages: 0,
            sequence: SeqCounters::default(),
            touched: Vec::new(),
            unsettled: Vec::new(),
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
        let applied = self.apply_ahead(packet, None);
        if !self.unsettled.is_empty() {
            self.settle(&mut Waiting::new());
        }
        applied
    }

    /// Packets from here to the end of the batch are seen by readers when it ends, at the latest.
    #[inline]
    pub const fn batch<'b>(&mut self) -> ImageBatch<'_, 'b> {
        ImageBatch::new(self)
    }

    #[inline(always)]
    fn apply_ahead<'b>(
        &mut self,
        packet: &PacketRef<'b>,
        waiting: Option<&mut Waiting<'b>>,
    ) -> Applied {
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
        let mut missed = false;
        if packet.kind == Kind::Packet {
            let resumed = writer.tracker.last().is_none();
            let verdict = writer.tracker.observe(packet.seq, &mut self.sequence);
            applied.sequence = Some(verdict);
            // What went by between two sessions is no gap of this one, but it leaves the same doubt.
            let between = resumed
                && image
                    .last_seq()
                    .is_some_and(|last| matches!(packet.seq.wrapping_sub(last), 2..=128));
            missed = between || matches!(verdict, SeqVerdict::Gap { .. });
        }
        image.arrived(writer.tracker.last(), packet.timestamp_us, missed);
        let touched = writer.touched.get_or_insert_with(|| {
            self.touched.push(place);
            Box::new([0; PAGES])
        });
        let mut run = Run {
            image,
            time_us: packet.timestamp_us,
            gap: image.gaps(),
            pages: &mut self.pages,
            max_pages: self.limits.max_pages,
            touched,
            ahead: &mut writer.ahead,
            place,
            unsettled: &mut self.unsettled,
            waiting,
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
                    source: image.source(),
                    command: Command::Full,
                    seq: image.last_seq().unwrap_or(0),
                };
                encode_packet(&fields, registers, out)
            }
            Kind::Simple => {
                #[allow(clippy::cast_precision_loss)] // exact until the year 2255
                let time_s = timestamp_us as f64 / 1e6;
                encode_simple(time_s, image.source().id, registers, out)
            }
        };
        encoded.is_ok()
    }

    /// Counts sequences from here on: what was applied before was of an earlier session.
    pub fn begin_session(&mut self) {
        self.sequence = SeqCounters::default();
        self.take_touched();
        for writer in &mut self.writers {
            writer.tracker = SeqTracker::default();
        }
    }

    /// Which registers the packets of each source listed since this was last called, in no order; a FULL touches all.
    /// Packets of sources that found no place are not in it.
    pub fn take_touched(&mut self) -> Vec<(Source, Box<TouchedGroups>)> {
        let places = self.touched.drain(..);
        let taken = places.filter_map(|place| {
            let writer = self.writers.get_mut(place)?;
            Some((writer.image.source(), writer.touched.take()?))
        });
        taken.collect()
    }

    /// Whether there may be registers that a lost packet has changed: some source had no FULL since its last gap.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        let mut sources = self.writers.iter().map(|writer| &writer.image);
        sources.any(|image| image.unknown_since_us().is_some())
    }

    /// Whatever packets have set is seen by readers from here on.
    fn settle(&mut self, waiting: &mut Waiting<'_>) {
        while let Some(page) = waiting.take_any() {
            self.set_waiting(waiting, &page);
        }
        for (place, number) in self.unsettled.drain(..) {
            let writer = self.writers.get_mut(place);
            if let Some(writer) = writer
                && let Some(page) = writer.image.page(number)
                && let Some(ahead) = writer.ahead.get_mut(number).and_then(Option::as_mut)
            {
                ahead.settle(page);
            }
        }
    }

    fn set_waiting(&mut self, waiting: &Waiting<'_>, which: &WaitingPage) {
        let (place, number) = (which.source, which.number);
        let writer = self.writers.get_mut(place);
        if let Some(writer) = writer
            && let Some(page) = writer.image.page(number)
            && let Some(ahead) = writer.ahead.get_mut(number).and_then(Option::as_mut)
        {
            ahead.set_waiting(page, waiting, which);
            if ahead.is_unsettled() {
                self.unsettled.push((place, number));
            }
        }
    }

    #[inline]
    fn place(&mut self, source: Source) -> Option<usize> {
        if let Some(writer) = self.writers.get(self.last)
            && writer.image.source() == source
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
        self.reader.publish(place, Arc::clone(&image))?;
        self.places.insert(image.source(), place);
        self.writers.push(Writer {
            image,
            tracker: SeqTracker::default(),
            touched: None,
            ahead: Box::new([const { None }; _]),
        });
        Some(place)
    }

    /// Takes over a source of an image file; false if the limits do not allow it or it is there.
    fn restore(&mut self, restored: Restored) -> bool {
        let pages = restored.pages.len();
        if self.places.contains_key(&restored.source) || self.pages + pages > self.limits.max_pages
        {
            return false;
        }
        if self.add(Arc::new(restored.into_image())).is_none() {
            return false;
        }
        self.pages += pages;
        true
    }
}
