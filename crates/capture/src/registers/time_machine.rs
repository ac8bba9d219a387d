//! The image at a past moment and the history of one register, from the log, its indexes and its keyframes.
//!
//! *The image at T* is what all packets with a timestamp up to T make of it, in the order of arrival. A segment's
//! keyframe is the state after everything before it, so it may stand for that when nothing before it is younger than
//! T: the last such segment is where reading begins. Blocks that are younger than T as a whole are not read.
//!
//! *A lost packet* (a gap in `seq`) may have set any register of its source, so all that it has known are marked with
//! the time of the first packet behind the gap until they are set again. They keep their value. A keyframe has the
//! sequence of the last packet before it; which registers were in doubt then is in the `doubts` of the segment before.
//! While those are not written, reading begins one segment earlier, and marks older than that are not seen.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tapeline_wire::register::{Command, Kind, PacketRef, mark_bits};

use crate::registers::ahead::{self, Part};
use crate::registers::doubts::{self, Doubt};
use crate::registers::log_reader::{Block, blocks, walk};
use crate::registers::touch::{SourceKey, Touched, key_of};

/// Registers of a source.
const REGISTERS: usize = 65_536;
/// Words of a bitmap of them.
const WORDS: usize = REGISTERS / 64;

/// The files of one segment, in the order of a recording.
#[derive(Clone, Debug)]
pub struct SegmentFiles {
    /// `.pkt` or `.spkt`, finished or not.
    pub log: PathBuf,
    /// `.idx.bcsv`; need not exist.
    pub index: PathBuf,
    /// `.touch.bcsv`; need not exist.
    pub touch: PathBuf,
    /// `.doubts.bcsv`; need not exist.
    pub doubts: PathBuf,
    /// Least and greatest timestamp of what was received, where the manifest tells.
    pub span_us: Option<(u64, u64)>,
}

/// One source's registers.
#[derive(Clone, Debug)]
pub struct SourceImage {
    values: Box<[u16]>,
    known: Box<[u64]>,
    /// Set since the last gap.
    certain: Box<[u64]>,
    /// Register to the time of the first packet behind the first gap after it was set.
    unknown_since: BTreeMap<u16, u64>,
    last_seq: Option<u8>,
    /// Newest timestamp applied.
    timestamp_us: u64,
}

impl Default for SourceImage {
    fn default() -> Self {
        Self {
            values: vec![0; REGISTERS].into(),
            known: vec![0; WORDS].into(),
            certain: vec![0; WORDS].into(),
            unknown_since: BTreeMap::new(),
            last_seq: None,
            timestamp_us: 0,
        }
    }
}

impl SourceImage {
    /// Known registers and their values, by offset.
    pub fn registers(&self) -> impl Iterator<Item = (u16, u16)> {
        (0..=u16::MAX)
            .zip(self.values.iter())
            .filter(|(offset, _)| bit(&self.known, *offset))
            .map(|(offset, value)| (offset, *value))
    }

    /// Known registers that a lost packet may have changed since, and since when (µs).
    pub fn unknown_since(&self) -> impl Iterator<Item = (u16, u64)> {
        self.unknown_since
            .iter()
            .filter(|(offset, _)| bit(&self.known, **offset) && !bit(&self.certain, **offset))
            .map(|(offset, since)| (*offset, *since))
    }

    /// Newest timestamp of its packets, keyframes included.
    #[must_use]
    pub fn timestamp_us(&self) -> u64 {
        self.timestamp_us
    }

    fn apply(&mut self, packet: &PacketRef<'_>) {
        if packet.command == Command::Full {
            self.known.fill(0);
            self.certain.fill(0);
            self.unknown_since.clear();
        }
        for (first, values) in packet.runs() {
            let first = usize::from(first);
            let run = first..first + values.len() / 2;
            // the three have a place for every u16
            if let Some(slots) = self.values.get_mut(run.clone()) {
                for (slot, value) in slots.iter_mut().zip(values.as_chunks().0) {
                    *slot = u16::from_le_bytes(*value);
                }
            }
            mark_bits(&mut self.known, run.clone());
            mark_bits(&mut self.certain, run);
        }
        self.timestamp_us = self.timestamp_us.max(packet.timestamp_us);
    }

    /// Accounts for the sequence of a received packet, before it is applied.
    fn sequence(&mut self, packet: &PacketRef<'_>) {
        let Some(last) = self.last_seq else {
            self.last_seq = Some(packet.seq);
            return;
        };
        let ahead = packet.seq.wrapping_sub(last);
        // the other half of the circle lies behind: a duplicate, or one that came late
        if matches!(ahead, 1..=128) {
            self.last_seq = Some(packet.seq);
        }
        if matches!(ahead, 2..=128) {
            self.doubt(packet.timestamp_us);
        }
    }

    fn doubt(&mut self, since_us: u64) {
        for (word, (known, certain)) in (0u16..).zip(self.known.iter().zip(self.certain.iter_mut()))
        {
            let mut bits = known & *certain;
            while bits != 0 {
                // below 64
                let low = u16::try_from(bits.trailing_zeros()).unwrap_or_default();
                self.unknown_since.insert(word * 64 + low, since_us);
                bits &= bits - 1;
            }
            *certain = 0;
        }
    }
}

fn bit(words: &[u64], offset: u16) -> bool {
    words
        .get(usize::from(offset >> 6))
        .is_some_and(|word| word >> (offset & 63) & 1 == 1)
}

/// The registers of all sources.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// By type and id.
    pub sources: BTreeMap<SourceKey, SourceImage>,
    /// Bytes of logs that were read for it.
    pub bytes_read: u64,
}

/// Types of the packet wire times ids: its sources have places in a table.
const TABLE: usize = 4 * 256;
/// Of a source that has not been seen.
const NOWHERE: u32 = u32::MAX;

/// An image while packets are applied to it.
struct Builder {
    list: Vec<(SourceKey, SourceImage)>,
    /// Where in the list: of the sources that a data packet can have, and of the others.
    table: Box<[u32]>,
    others: BTreeMap<SourceKey, u32>,
}

impl Builder {
    fn new() -> Self {
        Self {
            list: Vec::new(),
            table: vec![NOWHERE; TABLE].into(),
            others: BTreeMap::new(),
        }
    }

    #[inline]
    fn source(&mut self, key: SourceKey) -> Option<&mut SourceImage> {
        let near = u8::try_from(key.1).ok().and_then(|id| {
            self.table
                .get_mut(usize::from(key.0) * 256 + usize::from(id))
        });
        let place = match near {
            Some(place) => place,
            None => self.others.entry(key).or_insert(NOWHERE),
        };
        if *place == NOWHERE {
            *place = u32::try_from(self.list.len()).ok()?;
            self.list.push((key, SourceImage::default()));
        }
        let place = usize::try_from(*place).ok()?;
        self.list.get_mut(place).map(|(_, source)| source)
    }

    /// A keyframe has the sequence of the source's last packet before it.
    fn keyframe(&mut self, packet: &PacketRef<'_>) {
        if let Some(source) = self.source(key_of(packet)) {
            source.apply(packet);
            source.last_seq = Some(packet.seq);
        }
    }

    fn doubt(&mut self, doubts: &[Doubt]) {
        for doubt in doubts {
            let Some(source) = self.source(doubt.source) else {
                return;
            };
            if let Some(word) = source.certain.get_mut(usize::from(doubt.offset >> 6)) {
                *word &= !(1 << (doubt.offset & 63));
            }
            source.unknown_since.insert(doubt.offset, doubt.since_us);
        }
    }

    /// All registers in doubt, by source.
    fn doubts(&self) -> Vec<Doubt> {
        let mut sources: Vec<_> = self.list.iter().collect();
        sources.sort_unstable_by_key(|(key, _)| *key);
        let of = |(key, source): &'_ &(SourceKey, SourceImage)| {
            let key = *key;
            source
                .unknown_since()
                .map(move |(offset, since_us)| Doubt {
                    source: key,
                    offset,
                    since_us,
                })
                .collect::<Vec<_>>()
        };
        sources.iter().flat_map(of).collect()
    }

    #[inline]
    fn received(&mut self, kind: Kind, packet: &PacketRef<'_>) {
        // only what sets registers is numbered
        if packet.command.sets_registers()
            && let Some(source) = self.source(key_of(packet))
        {
            if kind == Kind::Packet {
                source.sequence(packet);
            }
            source.apply(packet);
        }
    }

    fn finish(self, bytes_read: u64) -> Image {
        Image {
            sources: self.list.into_iter().collect(),
            bytes_read,
        }
    }
}

/// A segment whose index has been read.
struct Loaded<'a> {
    files: &'a SegmentFiles,
    blocks: Vec<Block>,
}

impl<'a> Loaded<'a> {
    fn new(files: &'a SegmentFiles, kind: Kind) -> io::Result<Self> {
        let blocks = blocks(&files.log, &files.index, kind)?.blocks;
        Ok(Self { files, blocks })
    }

    fn has_keyframe(&self) -> bool {
        self.blocks.first().is_some_and(|block| block.keyframe)
    }

    fn received(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| !block.keyframe)
    }

    /// A block to read; whether it is a keyframe goes with it.
    fn part(&self, block: &Block) -> Part<'a, bool> {
        Part {
            log: &self.files.log,
            start: block.offset,
            stop: block.offset.saturating_add(block.length),
            tag: block.keyframe,
        }
    }
}

/// The image after all packets with timestamps up to `time_us`.
///
/// # Errors
/// As the operating system gave it; damage in a log ends that log.
pub fn image_at(kind: Kind, segments: &[SegmentFiles], time_us: u64) -> io::Result<Image> {
    let mut begin = first_needed(kind, segments, time_us)?;
    let mut before = doubts_before(kind, segments, begin);
    if before.is_none() {
        begin -= 1;
        before = doubts_before(kind, segments, begin);
    }
    let mut loaded = Vec::new();
    for (number, files) in segments.iter().enumerate().skip(begin) {
        if number == begin || files.span_us.is_none_or(|(least, _)| least <= time_us) {
            loaded.push(Loaded::new(files, kind)?);
        }
    }
    let mut parts = Vec::new();
    for (number, segment) in loaded.iter().enumerate() {
        let wanted = |block: &&Block| match block.keyframe {
            true => number == 0,
            false => block.first_us <= time_us,
        };
        parts.extend(
            segment
                .blocks
                .iter()
                .filter(wanted)
                .map(|b| segment.part(b)),
        );
    }
    // a log begins with its keyframes
    let mut image = Builder::new();
    let mut doubted = false;
    let mut doubt = |image: &mut Builder, now: bool| {
        if now && !doubted {
            doubted = true;
            image.doubt(before.as_deref().unwrap_or_default());
        }
    };
    let bytes_read = ahead::each(&parts, |keyframe, bytes| {
        doubt(&mut image, !keyframe);
        walk(kind, bytes, |_, packet| {
            if !keyframe {
                if packet.timestamp_us <= time_us {
                    image.received(kind, packet);
                }
            } else if begin > 0 || packet.timestamp_us <= time_us {
                // of the oldest segment there is, what came before it may be younger than the moment asked for
                image.keyframe(packet);
            }
            true
        });
    })?;
    doubt(&mut image, true);
    Ok(image.finish(bytes_read))
}

/// What was in doubt before a segment; `None` when that is not written. Simple packets are not numbered.
fn doubts_before(kind: Kind, segments: &[SegmentFiles], begin: usize) -> Option<Vec<Doubt>> {
    match begin.checked_sub(1).and_then(|before| segments.get(before)) {
        Some(before) if kind == Kind::Packet => doubts::read(&before.doubts),
        _ => Some(Vec::new()),
    }
}

/// Writes what is in doubt at the end of a finished segment, given the file of the one before it and whether a sequence
/// jumped in this one. Without either nothing is, and the log need not be read.
///
/// # Errors
/// As the operating system gave it.
pub fn write_doubts(
    kind: Kind,
    segment: &SegmentFiles,
    before: Option<&Path>,
    gaps: bool,
) -> io::Result<()> {
    let mut image = Builder::new();
    let mut before = before.and_then(doubts::read);
    if kind == Kind::Packet && (gaps || before.as_ref().is_some_and(|before| !before.is_empty())) {
        let loaded = Loaded::new(segment, kind)?;
        let parts: Vec<_> = loaded.blocks.iter().map(|b| loaded.part(b)).collect();
        ahead::each(&parts, |keyframe, bytes| {
            if !keyframe {
                image.doubt(&before.take().unwrap_or_default());
            }
            walk(kind, bytes, |_, packet| {
                if *keyframe {
                    image.keyframe(packet);
                } else {
                    image.received(kind, packet);
                }
                true
            });
        })?;
        image.doubt(&before.take().unwrap_or_default());
    }
    doubts::write(&segment.doubts, image.doubts().into_iter())
}

/// The last segment before which nothing is younger than the moment, and that can stand alone.
fn first_needed(kind: Kind, segments: &[SegmentFiles], time_us: u64) -> io::Result<usize> {
    let mut candidate = 0;
    for (number, files) in segments.iter().enumerate() {
        candidate = number;
        let youngest = match files.span_us {
            Some((_, youngest)) => youngest,
            None => {
                let segment = Loaded::new(files, kind)?;
                segment.received().map(|b| b.last_us).max().unwrap_or(0)
            }
        };
        if youngest > time_us {
            break;
        }
    }
    while candidate > 0 {
        let Some(files) = segments.get(candidate) else {
            break;
        };
        if Loaded::new(files, kind)?.has_keyframe() {
            break;
        }
        candidate -= 1;
    }
    Ok(candidate)
}

/// What a register went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When.
    pub timestamp_us: Vec<u64>,
    /// To what; `None`: a FULL did not list it.
    pub value: Vec<Option<u16>>,
    /// Bytes of logs that were read for it.
    pub bytes_read: u64,
}

/// The changes of one register in order of arrival; with `all`, also what set it to the value that it had.
///
/// # Errors
/// As the operating system gave it; damage in a log ends that log.
pub fn history(
    kind: Kind,
    segments: &[SegmentFiles],
    source: SourceKey,
    offset: u16,
    all: bool,
) -> io::Result<History> {
    let mut loaded = Vec::new();
    for (number, files) in segments.iter().enumerate() {
        loaded.push((number, Loaded::new(files, kind)?));
    }
    let mut parts = Vec::new();
    for (number, segment) in &loaded {
        let touched = Touched::read(&segment.files.touch, source, offset);
        // the keyframe of the oldest segment tells of what is no longer there
        let wanted = |block: &&Block| match block.keyframe {
            true => *number == 0,
            false => touched.needs(block),
        };
        parts.extend(
            segment
                .blocks
                .iter()
                .filter(wanted)
                .map(|b| segment.part(b)),
        );
    }
    let mut found = History::default();
    let mut last: Option<Option<u16>> = None;
    found.bytes_read = ahead::each(&parts, |_, bytes| {
        walk(kind, bytes, |_, packet| {
            if key_of(packet) == source && packet.command.sets_registers() {
                changes(packet, offset, all, &mut last, &mut found);
            }
            true
        });
    })?;
    Ok(found)
}

fn changes(
    packet: &PacketRef<'_>,
    offset: u16,
    all: bool,
    last: &mut Option<Option<u16>>,
    found: &mut History,
) {
    let mut push = |last: &mut Option<Option<u16>>, value: Option<u16>| {
        if all || *last != Some(value) {
            found.timestamp_us.push(packet.timestamp_us);
            found.value.push(value);
        }
        *last = Some(value);
    };
    if contains(packet.control, offset) {
        packet
            .registers()
            .filter(|(at, _)| *at == offset)
            .for_each(|(_, value)| push(last, Some(value)));
    } else if packet.command == Command::Full && last.is_some_and(|value| value.is_some()) {
        push(last, None);
    }
}

/// Whether a list of offsets has this one; in runs without a branch, which become vector instructions.
fn contains(control: &[u8], offset: u16) -> bool {
    let wanted = offset.to_le_bytes();
    let (offsets, _) = control.as_chunks::<2>();
    offsets
        .chunks(256)
        .any(|run| run.iter().fold(false, |found, at| found | (*at == wanted)))
}

/// Where a segment's other files are: beside its log, by name.
#[must_use]
pub fn beside(log: &Path, extension: &str) -> PathBuf {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".part").unwrap_or(&name);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    log.with_file_name(format!("{stem}.{extension}"))
}
