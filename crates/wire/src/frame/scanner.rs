//! The lower face: finds the valid frames in slices that the caller owns.
//!
//! The rules are `spec/frame-stream.md 2`. At a candidate the checks run in the order magic,
//! header CRC, version, length, payload CRC; each failure has its counter. Nothing of a refused
//! header is trusted, except the length of a header whose own CRC is good.
//!
//! No byte is hashed over and over. A payload is hashed as it is once; what lies inside a payload
//! that failed and is searched through is *suspect*: payloads that start there are checked through
//! [`Ranges`], which hashes a byte a second time and then answers any range in constant time.
//! Headers that all claim the largest payload therefore cost a few nanoseconds each.

use memchr::memmem::Finder;
use tapeline_crc::{MovingRange, Ranges, crc32c, crc32c_inline};

use super::counters::FrameCounters;
use super::layout::{FrameLayout, VERSION, header_bytes};

const MAGIC_BYTES: usize = 8;

/// A valid frame, by its place in the slice given to [`FrameScanner::scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// Where its magic starts, in bytes from the start of the slice.
    pub offset: usize,
    /// Header and payload together.
    pub frame_bytes: u32,
    /// All eight bits as received; see [`super::PERIOD_START`] and [`super::PERIOD_END`].
    pub flags: u8,
    /// 0 in a layout without the field.
    pub stream_id: u16,
    /// Number of the frame in its stream.
    pub sequence: u64,
    /// Nanoseconds since the UNIX epoch, on the producer's clock.
    pub timestamp_ns: u64,
}

impl FrameRef {
    /// The frame's range in the slice it was found in.
    #[must_use]
    pub const fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.frame_bytes as usize
    }
}

/// Finds frames in a stream of which the caller keeps the bytes.
#[derive(Clone, Debug)]
pub struct FrameScanner {
    layout: FrameLayout,
    magic: u64,
    /// The smallest distance at which the magic can follow itself, 8 unless it overlaps itself:
    /// how far a search may go on after a candidate that was refused.
    period: usize,
    /// Boxed because it is aligned for vector registers, and so would be whatever holds a scanner:
    /// allocators of other languages that place it by size alone (Python's) break that.
    finder: Box<Finder<'static>>,
    counters: FrameCounters,
    needed: usize,
    /// The byte before the first unconsumed one was the end of a valid or skipped frame, or the
    /// stream starts here.
    in_step: bool,
    /// The candidate at the first unconsumed byte has a wrong payload CRC; what follows it was
    /// not there yet.
    head_refused: bool,
    /// Bytes of the stream consumed.
    consumed: u64,
    /// Where the last payload ends that failed and is searched through.
    suspect_to: u64,
    ranges: Ranges,
    /// Over the payload that was refused last in a series.
    moving: MovingRange,
    /// Where in the stream that payload starts; `u64::MAX` if there is none.
    moving_at: u64,
}

impl FrameScanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new(layout: FrameLayout) -> Self {
        Self {
            layout,
            magic: u64::from_le_bytes(*layout.magic()),
            period: period(layout.magic()),
            finder: Box::new(Finder::new(layout.magic()).into_owned()),
            counters: FrameCounters::default(),
            needed: 1,
            in_step: true,
            head_refused: false,
            consumed: 0,
            suspect_to: 0,
            ranges: Ranges::new(),
            moving: MovingRange::new(1),
            moving_at: u64::MAX,
        }
    }

    /// The layout it looks for.
    #[must_use]
    pub const fn layout(&self) -> &FrameLayout {
        &self.layout
    }

    /// Totals since the scanner was made, over all streams it has seen the end of.
    #[must_use]
    pub const fn counters(&self) -> &FrameCounters {
        &self.counters
    }

    /// How many unconsumed bytes must be there before [`Self::scan`] can do anything more; 1 if
    /// unknown. At most one frame of the largest size and the 8 bytes after it.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// Appends the valid frames of `bytes` to `out`, at most `max_frames` of them, and returns how
    /// many bytes are done with. Those are never needed again; the rest must stand at the start of
    /// the next call's slice.
    ///
    /// `bytes` is everything not yet consumed, contiguous. `end` says that no byte ever follows
    /// (the end of a stream, or of a datagram). Offsets are relative to `bytes`. When `end` is set
    /// and everything was consumed, the scanner is ready for a new stream; it consumes everything
    /// unless `max_frames` stopped it.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        end: bool,
        max_frames: usize,
        out: &mut Vec<FrameRef>,
    ) -> usize {
        if bytes.len() < self.needed && !end {
            return 0;
        }
        let stop = out.len().saturating_add(max_frames);
        let l = &self.layout;
        // The shape of the header is constant inside the loop: no branch and no bounds check on it.
        let run = match (l.has_stream_id(), l.length_bytes() == 8, l.header_crc()) {
            (true, false, true) => Self::run::<true, false, true>,
            (true, false, false) => Self::run::<true, false, false>,
            (true, true, true) => Self::run::<true, true, true>,
            (true, true, false) => Self::run::<true, true, false>,
            (false, false, true) => Self::run::<false, false, true>,
            (false, false, false) => Self::run::<false, false, false>,
            (false, true, true) => Self::run::<false, true, true>,
            (false, true, false) => Self::run::<false, true, false>,
        };
        let done = run(self, bytes, end, stop, out);
        self.consumed += done as u64;
        if end && done == bytes.len() {
            self.in_step = true;
            self.head_refused = false;
            self.suspect_to = 0;
            self.ranges.clear();
            self.moving_at = u64::MAX;
            self.needed = 1;
        }
        done
    }

    fn run<const STREAM_ID: bool, const WIDE: bool, const CRC: bool>(
        &mut self,
        bytes: &[u8],
        end: bool,
        stop: usize,
        out: &mut Vec<FrameRef>,
    ) -> usize {
        let mut at = 0;
        self.needed = loop {
            if out.len() >= stop {
                break 1;
            }
            match self.step::<STREAM_ID, WIDE, CRC>(bytes, at, end) {
                Step::Frame(frame) => {
                    self.counters.frames_received += 1;
                    self.counters.valid_bytes += u64::from(frame.frame_bytes);
                    self.in_step = true;
                    at = frame.range().end;
                    out.push(frame);
                }
                Step::Discard { bytes, in_step } => {
                    if !in_step && self.in_step {
                        self.in_step = false;
                        self.counters.resyncs += 1;
                    }
                    self.counters.bytes_discarded += bytes as u64;
                    at += bytes;
                }
                Step::Wait { needed } => break needed,
            }
        };
        at
    }

    #[inline(always)]
    fn step<const STREAM_ID: bool, const WIDE: bool, const CRC: bool>(
        &mut self,
        bytes: &[u8],
        at: usize,
        end: bool,
    ) -> Step {
        let size = const { header_bytes(STREAM_ID, WIDE, CRC) };
        let rest = bytes.get(at..).unwrap_or_default();
        if rest
            .first_chunk()
            .is_none_or(|head| u64::from_le_bytes(*head) != self.magic)
        {
            return self.search(rest, end, size);
        }
        let Some(header) = rest.get(..size) else {
            return if end {
                Step::Discard {
                    bytes: rest.len(),
                    in_step: true,
                }
            } else {
                Step::Wait { needed: size }
            };
        };
        // From here on at least a header is there, so that what is refused is longer than a period.
        let refused = Step::Discard {
            bytes: self.period,
            in_step: false,
        };
        let corrupt = &mut self.counters.corrupt;
        if CRC && header_is_bad(header) {
            // Magics may follow one another for long; such a run is counted in registers.
            let mut run = 1;
            while let Some(next) = rest
                .get(run * self.period..)
                .and_then(|next| next.get(..size))
                && next
                    .first_chunk()
                    .is_some_and(|head| u64::from_le_bytes(*head) == self.magic)
                && header_is_bad(next)
            {
                run += 1;
            }
            corrupt.header_crc += run as u64;
            return Step::Discard {
                bytes: run * self.period,
                in_step: false,
            };
        }
        let [version, flags] = array_at(header, 8);
        if version != VERSION {
            corrupt.bad_version += 1;
            return refused;
        }
        let field = if STREAM_ID { 12 } else { 10 };
        let length = if WIDE {
            u64::from_be_bytes(array_at(header, field + 16))
        } else {
            u64::from(u32_at(header, field + 16))
        };
        let Some(payload_bytes) = checked_length(length, &self.layout) else {
            corrupt.bad_length += 1;
            return refused;
        };
        let frame_bytes = size + payload_bytes;
        let Some(payload) = rest.get(size..frame_bytes) else {
            if end {
                corrupt.truncated += 1;
                return refused;
            }
            return Step::Wait {
                needed: frame_bytes,
            };
        };
        let stored = u32_at(header, size - 4);
        let refused_before = std::mem::take(&mut self.head_refused);
        let crc = if refused_before {
            None
        } else {
            self.payload_crc(bytes, at + size, payload)
        };
        if crc == Some(stored) {
            return Step::Frame(FrameRef {
                offset: at,
                frame_bytes: u32::try_from(frame_bytes).unwrap_or(u32::MAX),
                flags,
                stream_id: if STREAM_ID {
                    u16::from_be_bytes(array_at(header, 10))
                } else {
                    0
                },
                sequence: u64::from_be_bytes(array_at(header, field)),
                timestamp_ns: u64::from_be_bytes(array_at(header, field + 8)),
            });
        }
        let mut skip = false;
        if CRC {
            let after = rest.get(frame_bytes..).unwrap_or_default();
            skip = match after.first_chunk() {
                Some(head) => u64::from_le_bytes(*head) == self.magic,
                None if end => after.is_empty(),
                None => {
                    self.head_refused = true;
                    return Step::Wait {
                        needed: frame_bytes + MAGIC_BYTES,
                    };
                }
            };
        }
        self.counters.corrupt.payload_crc += 1;
        if skip {
            return Step::Discard {
                bytes: frame_bytes,
                in_step: true,
            };
        }
        self.suspect_to = self
            .suspect_to
            .max(self.consumed + (at + frame_bytes) as u64);
        let Some(crc) = crc else { return refused };
        Step::Discard {
            bytes: self.pass_refused::<WIDE, CRC>(bytes, at, header, frame_bytes, crc),
            in_step: false,
        }
    }

    /// Goes on from a refused frame at `at`, its payload's CRC being `crc`, past those that stand close behind it, claim as much, and must be refused
    /// for the same reason; what is not plainly one of them is left to the next step. Returns how far that is.
    ///
    /// Nothing here decides otherwise than [`Self::step`] would. It is a loop with everything in registers, because
    /// headers that claim the largest payload can follow one another every few bytes.
    fn pass_refused<const WIDE: bool, const CRC: bool>(
        &mut self,
        bytes: &[u8],
        at: usize,
        header: &[u8],
        frame_bytes: usize,
        crc: u32,
    ) -> usize {
        let size = header.len();
        let alike = |other: &[u8]| {
            let end = size - if CRC { 8 } else { 4 };
            let length = end - if WIDE { 8 } else { 4 }..end;
            other.get(8) == header.get(8) && other.get(length.clone()) == header.get(length)
        };
        let payload_bytes = frame_bytes - size;
        let mut moving: Option<MovingRange> = None;
        let mut moved_to = at + size;
        let mut next = at + self.period;
        let mut refused = 0;
        let mut suspect_to = self.suspect_to;
        while let Some(near) = self.find_near(bytes.get(next..).unwrap_or_default()) {
            next += near;
            let start = self.consumed + (next + size) as u64;
            let Some(frame) = bytes.get(next..next + frame_bytes + MAGIC_BYTES) else {
                break;
            };
            let (Some(head), Some(after)) = (frame.get(..size), frame.last_chunk()) else {
                break;
            };
            if !alike(head)
                || start >= suspect_to
                || (CRC && (header_is_bad(head) || u64::from_le_bytes(*after) == self.magic))
            {
                break;
            }
            let moving =
                moving.get_or_insert_with(|| self.moving_range(at + size, payload_bytes, crc));
            let here = next + size;
            let (Some(out), Some(new)) = (
                bytes.get(moved_to..here),
                bytes.get(moved_to + payload_bytes..here + payload_bytes),
            ) else {
                break;
            };
            moved_to = here;
            if moving.advance(out, new) == u32_at(head, size - 4) {
                break;
            }
            refused += 1;
            suspect_to = suspect_to.max(start + (frame_bytes - size) as u64);
            next += self.period;
        }
        self.counters.corrupt.payload_crc += refused;
        self.suspect_to = suspect_to;
        if let Some(moving) = moving {
            self.moving = moving;
            self.moving_at = self.consumed + moved_to as u64;
        }
        next - at
    }

    /// A moving range over the payload at `at`, of which the CRC is known.
    fn moving_range(&self, at: usize, payload_bytes: usize, crc: u32) -> MovingRange {
        let mut moving = self.moving;
        let same = moving.bytes() == payload_bytes as u64;
        if same && self.moving_at == self.consumed + at as u64 {
            return moving;
        }
        if !same {
            moving = MovingRange::new(payload_bytes as u64);
        }
        moving.place(crc);
        moving
    }

    /// The CRC of a payload that starts at `at`; None, which cannot be, if it were not in `bytes`.
    #[inline(always)]
    fn payload_crc(&mut self, bytes: &[u8], at: usize, payload: &[u8]) -> Option<u32> {
        if self.consumed + at as u64 >= self.suspect_to {
            return Some(crc32c(payload));
        }
        // A series that the end of the bytes had cut goes on.
        if self.moving.bytes() == payload.len() as u64
            && let Some(from) = self.moving_at.checked_sub(self.consumed)
            && let Ok(from) = usize::try_from(from)
            && let Some(out) = bytes.get(from..at)
            && let Some(new) = bytes.get(from + payload.len()..at + payload.len())
        {
            self.moving_at = self.consumed + at as u64;
            return Some(self.moving.advance(out, new));
        }
        self.ranges
            .crc32c(bytes, self.consumed, at..at + payload.len())
    }

    /// The first magic that starts in the next few words of `rest`, if there is one.
    #[inline(always)]
    fn find_near(&self, rest: &[u8]) -> Option<usize> {
        const WORDS: usize = 6;
        const ONES: u64 = u64::from_le_bytes([1; 8]);
        const TOPS: u64 = ONES << 7;
        let first = ONES * (self.magic & 0xFF);
        let window = rest.get(..8 * WORDS + MAGIC_BYTES)?;
        for (n, word) in window.as_chunks::<8>().0.iter().take(WORDS).enumerate() {
            // A top bit is set for every byte that is the magic's first one, and maybe for others.
            let differs = u64::from_le_bytes(*word) ^ first;
            let mut hits = differs.wrapping_sub(ONES) & !differs & TOPS;
            while hits != 0 {
                let at = 8 * n + hits.trailing_zeros() as usize / 8;
                let there = window.get(at..).and_then(|tail| tail.first_chunk());
                if there.is_some_and(|head| u64::from_le_bytes(*head) == self.magic) {
                    return Some(at);
                }
                hits &= hits - 1;
            }
        }
        None
    }

    /// There is no magic at the start of `rest`: where is the next one, or half of one?
    fn search(&self, rest: &[u8], end: bool, header_bytes: usize) -> Step {
        // Once the place is lost the next magic is often near; the real search has a price to start.
        let near = if self.in_step {
            None
        } else {
            self.find_near(rest)
        };
        if let Some(found) = near.or_else(|| self.finder.find(rest)) {
            return Step::Discard {
                bytes: found,
                in_step: false,
            };
        }
        let kept = longest_prefix_at_end(self.layout.magic(), rest);
        if kept < rest.len() {
            Step::Discard {
                bytes: rest.len() - kept,
                in_step: false,
            }
        } else if end && kept > 0 {
            Step::Discard {
                bytes: kept,
                in_step: true,
            }
        } else {
            Step::Wait {
                needed: if end { 1 } else { header_bytes },
            }
        }
    }
}

enum Step {
    Frame(FrameRef),
    /// So many bytes belong to no valid frame; `in_step` false: the place in the stream is lost.
    Discard {
        bytes: usize,
        in_step: bool,
    },
    /// Nothing more can be said before so many unconsumed bytes are there.
    Wait {
        needed: usize,
    },
}

#[inline(always)]
fn header_is_bad(header: &[u8]) -> bool {
    let covered = header.len() - 8;
    crc32c_inline(header.get(..covered).unwrap_or_default()) != u32_at(header, covered)
}

/// The one way from a length on the wire to a size in memory.
fn checked_length(length: u64, layout: &FrameLayout) -> Option<usize> {
    if length == 0 || length > layout.max_payload() {
        return None;
    }
    usize::try_from(length).ok()
}

/// Length of the longest proper prefix of `magic` that `bytes` ends with.
fn longest_prefix_at_end(magic: &[u8; MAGIC_BYTES], bytes: &[u8]) -> usize {
    (1..MAGIC_BYTES)
        .rev()
        .find(|&n| magic.get(..n).is_some_and(|head| bytes.ends_with(head)))
        .unwrap_or(0)
}

/// The smallest distance at which `magic` can follow itself.
fn period(magic: &[u8; MAGIC_BYTES]) -> usize {
    (1..MAGIC_BYTES)
        .find(|&n| magic.get(n..).is_some_and(|tail| magic.starts_with(tail)))
        .unwrap_or(MAGIC_BYTES)
}

#[inline(always)]
fn array_at<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header
        .get(at..)
        .and_then(|field| field.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

#[inline(always)]
fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(header, at))
}
