//! Assembly of frames into periodics (`spec/frame-stream.md` 6) and the rows of the index (7).
//!
//! ```text
//! push ─▶ lane: past a gap? ──▶ beyond (by sequence) ──gap filled or given up──▶ ready ─▶ writer ─▶ Step
//!              in order, and the lane is head ────────────────────────────────────────────▶ writer ─▶ Step
//! ```
//!
//! Two stages. A `lane` per stream id puts frames into sequence order; the
//! `writer` cuts that order into rows. At most one periodic is being written at a time:
//! the *head*. Frames in order for the head leave at once, everything else waits for its turn, oldest
//! first; so the frames of a periodic are contiguous in the file and in order of sequence.
//!
//! The trap: whether a frame is late, and where a row ends, must follow from the order of the frames in
//! the file alone, because [`rebuild`] has nothing else. That is why both are decided by the writer, when
//! a frame leaves, and never when it arrives. Three things are known to the live side only: that a run of
//! rule `none` was closed by age, that a row of late frames was (rebuilding joins its neighbours), and
//! the epoch that a reconnect starts without the sequence going back.
//!
//! Memory: the frames held never exceed `max_periodic_bytes` plus the frame being pushed; past that the
//! oldest gap is given up or the head closed. There is no clock here: time is an argument.

mod assembler;
mod lane;
mod rebuild;
mod writer;

#[cfg(test)]
mod tests;

pub use assembler::Assembler;
pub use rebuild::rebuild;

/// Stream ids with a lane of their own (`spec/frame-stream.md` 3). Frames of further ids are written and
/// indexed as late.
pub const MAX_LANES: usize = 1_024;

/// Frame flag bit 0 (`spec/frame-stream.md` 1).
const PERIOD_START: u8 = 1;
/// Frame flag bit 1 (`spec/frame-stream.md` 1).
const PERIOD_END: u8 = 2;
/// Frames in a run of rule `none`, and in any row that no rule bounds (`spec/frame-stream.md` 6).
const RUN_FRAMES: u32 = 4_096;
/// Bytes in such a run (`spec/frame-stream.md` 6).
const RUN_BYTES: u64 = 1 << 20;
/// Default bound on what assembly may hold (`spec/frame-stream.md` 6).
const MAX_PERIODIC_BYTES: u64 = 64 << 20;

/// Default of [`AssembleOptions::gap_bytes`]: what waits, and pins its block of a ring, is still in a second-level
/// cache when it is written, with what arrives meanwhile beside it.
const GAP_BYTES: u64 = 64 << 10;
/// Frames that may follow a gap of rule `none` before it is given up, however long they are: a network, or a
/// producer that sends from several threads, reorders by a few.
const GAP_FRAMES: u64 = 64;

/// How frames are grouped into periodics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Not grouped: a row covers a run of frames.
    None {
        /// Frames in a run, at most.
        max_frames: u32,
        /// A run is closed once it has this many bytes.
        max_bytes: u64,
    },
    /// Periodic k holds the sequences `[kN, (k+1)N)`.
    Count(u64),
    /// PERIOD_START opens, PERIOD_END closes. Frames outside belong to an incomplete periodic of their own.
    Markers,
}

impl Default for Rule {
    fn default() -> Self {
        Self::None {
            max_frames: RUN_FRAMES,
            max_bytes: RUN_BYTES,
        }
    }
}

/// What an [`Assembler`] may hold, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssembleOptions {
    /// How frames are grouped.
    pub rule: Rule,
    /// Periodics of one lane that may be open at once; past that the oldest gap is given up. For rule
    /// `none` a periodic counts as one run.
    pub max_open: usize,
    /// Rule `none`: the oldest gap is given up once so many bytes, and 64 frames, follow it. Where nobody waits for a
    /// whole periodic, a gap need only be held open for what a network reorders; `u64::MAX` where a second path may
    /// bring what is missing.
    pub gap_bytes: u64,
    /// Bytes held over all lanes, and the size at which a periodic of rule `markers` is closed unfinished.
    pub max_periodic_bytes: u64,
    /// How long a gap may hold back what follows it. 0: not at all.
    pub hold_ns: u64,
    /// Rule `none`: a run is closed once this old. Any rule: so is a row of late frames.
    pub run_ns: u64,
}

impl Default for AssembleOptions {
    fn default() -> Self {
        Self {
            rule: Rule::default(),
            max_open: 4,
            gap_bytes: GAP_BYTES,
            max_periodic_bytes: MAX_PERIODIC_BYTES,
            hold_ns: 1_000_000_000,
            run_ns: 50_000_000,
        }
    }
}

/// One valid frame, as assembly sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The lane.
    pub stream_id: u16,
    /// Flags of the header; bit 0 PERIOD_START, bit 1 PERIOD_END.
    pub flags: u8,
    /// Header and payload.
    pub frame_bytes: u32,
    /// Sequence of the header.
    pub sequence: u64,
    /// Producer's time of the header.
    pub timestamp_ns: u64,
    /// Receive time of the host.
    pub received_ns: u64,
    /// First frame of a new epoch of its stream id.
    pub restart: bool,
}

/// What to do next, in file order. Every `Write` between two `Row`s belongs to the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<T> {
    /// Append the frame of this handle.
    Write(T),
    /// Append this row to the index. A segment may be rolled here.
    Row(IndexRow),
}

/// A row of the index without its `offset`, which is the sum of the lengths before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexRow {
    /// k of rule `count`; else the number of the row in its lane, from 0.
    pub periodic: u64,
    /// Smallest sequence present.
    pub first_sequence: u64,
    /// Largest sequence present.
    pub last_sequence: u64,
    /// Smallest producer time present.
    pub first_timestamp_ns: u64,
    /// Largest producer time present.
    pub last_timestamp_ns: u64,
    /// Smallest receive time present.
    pub first_received_ns: u64,
    /// Bytes of its frames.
    pub length: u64,
    /// N of rule `count`; else last - first + 1. Equal to `frames_present` in a row of late frames, which
    /// expects nothing. Stops at `u32::MAX`.
    pub frames_expected: u32,
    /// Frames of the row.
    pub frames_present: u32,
    /// [`COMPLETE`], [`INCOMPLETE`] or [`LATE`].
    pub status: u8,
}

/// [`IndexRow::status`]: nothing is missing.
pub const COMPLETE: u8 = 0;
/// [`IndexRow::status`]: frames are missing.
pub const INCOMPLETE: u8 = 1;
/// [`IndexRow::status`]: frames that arrived after what follows them had been written.
pub const LATE: u8 = 2;

/// What left an [`Assembler`] so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AssembleCounters {
    /// Rows of status [`COMPLETE`].
    pub complete: u64,
    /// Rows of status [`INCOMPLETE`].
    pub incomplete: u64,
    /// Frames in rows of status [`LATE`].
    pub late: u64,
}
