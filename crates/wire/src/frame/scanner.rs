//! The lower face: finds the valid frames in slices that the caller owns.
//!
//! The rules are `spec/frame-stream.md 2`. At a candidate the checks run in the order magic,
//! header CRC, version, length, payload CRC; each failure has its counter. Nothing of a refused
//! header is trusted, except the length of a header whose own CRC is good.

use memchr::memmem::Finder;
use tapeline_crc::crc32c;

use super::counters::FrameCounters;
use super::layout::{FrameLayout, VERSION};

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
    header_bytes: usize,
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
}

impl FrameScanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new(layout: FrameLayout) -> Self {
        Self {
            layout,
            header_bytes: layout.header_bytes(),
            finder: Box::new(Finder::new(layout.magic()).into_owned()),
            counters: FrameCounters::default(),
            needed: 1,
            in_step: true,
            head_refused: false,
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
        let mut at = 0;
        self.needed = loop {
            if out.len() >= stop {
                break 1;
            }
            match self.step(bytes, at, end) {
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
        if end && at == bytes.len() {
            self.in_step = true;
            self.head_refused = false;
            self.needed = 1;
        }
        at
    }

    fn step(&mut self, bytes: &[u8], at: usize, end: bool) -> Step {
        let rest = bytes.get(at..).unwrap_or_default();
        let magic = self.layout.magic();
        if !rest.starts_with(magic) {
            if let Some(found) = self.finder.find(rest) {
                return Step::Discard {
                    bytes: found,
                    in_step: false,
                };
            }
            let kept = longest_prefix_at_end(magic, rest);
            return if kept < rest.len() {
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
                    needed: if end { 1 } else { self.header_bytes },
                }
            };
        }
        let Some(header) = rest.get(..self.header_bytes) else {
            return if end {
                Step::Discard {
                    bytes: rest.len(),
                    in_step: true,
                }
            } else {
                Step::Wait {
                    needed: self.header_bytes,
                }
            };
        };
        self.candidate(header, rest, at, end)
    }

    fn candidate(&mut self, header: &[u8], rest: &[u8], at: usize, end: bool) -> Step {
        const REFUSED: Step = Step::Discard {
            bytes: 1,
            in_step: false,
        };
        let corrupt = &mut self.counters.corrupt;
        let size = header.len();
        if self.layout.header_crc() {
            let stored = u32_at(header, size - 8);
            if crc32c(header.get(..size - 8).unwrap_or_default()) != stored {
                corrupt.header_crc += 1;
                return REFUSED;
            }
        }
        let [version, flags] = array_at(header, 8);
        if version != VERSION {
            corrupt.bad_version += 1;
            return REFUSED;
        }
        let mut field = 10;
        let stream_id = if self.layout.has_stream_id() {
            field = 12;
            u16::from_be_bytes(array_at(header, 10))
        } else {
            0
        };
        let length = if self.layout.length_bytes() == 8 {
            u64::from_be_bytes(array_at(header, field + 16))
        } else {
            u64::from(u32_at(header, field + 16))
        };
        let Some(payload_bytes) = checked_length(length, &self.layout) else {
            corrupt.bad_length += 1;
            return REFUSED;
        };
        let frame_bytes = size + payload_bytes;
        let Some(payload) = rest.get(size..frame_bytes) else {
            if end {
                corrupt.truncated += 1;
                return REFUSED;
            }
            return Step::Wait {
                needed: frame_bytes,
            };
        };
        let known_bad = std::mem::take(&mut self.head_refused);
        if !known_bad && crc32c(payload) == u32_at(header, size - 4) {
            return Step::Frame(FrameRef {
                offset: at,
                frame_bytes: u32::try_from(frame_bytes).unwrap_or(u32::MAX),
                flags,
                stream_id,
                sequence: u64::from_be_bytes(array_at(header, field)),
                timestamp_ns: u64::from_be_bytes(array_at(header, field + 8)),
            });
        }
        let mut skip = false;
        if self.layout.header_crc() {
            let after = rest.get(frame_bytes..).unwrap_or_default();
            skip = if after.len() >= MAGIC_BYTES {
                after.starts_with(self.layout.magic())
            } else if end {
                after.is_empty()
            } else {
                self.head_refused = true;
                return Step::Wait {
                    needed: frame_bytes + MAGIC_BYTES,
                };
            };
        }
        corrupt.payload_crc += 1;
        if skip {
            Step::Discard {
                bytes: frame_bytes,
                in_step: true,
            }
        } else {
            REFUSED
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

fn array_at<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header
        .get(at..)
        .and_then(|field| field.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(header, at))
}
