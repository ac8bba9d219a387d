//! What travels with the bytes of a block from the intake to the log.

use std::ops::Range;

use tapeline_wire::register::{Source, TouchedGroups};

/// Bytes of a block, and so of an index row (spec/register-packets.md 3: up to 1 MiB).
pub(super) const BLOCK: usize = 1 << 20;

/// Packets of a block that stand together in the index.
pub(super) struct Part {
    /// Where they are in the block.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) packets: u32,
    pub(super) registers: u64,
    /// Least and greatest timestamp.
    pub(super) first_us: u64,
    pub(super) last_us: u64,
    /// Which registers its packets list, by source.
    pub(super) touched: Vec<(Source, Box<TouchedGroups>)>,
    /// There are packets of which that is not known.
    pub(super) touched_more: bool,
}

impl Part {
    pub(super) const fn new(start: usize) -> Self {
        Self {
            start,
            end: start,
            packets: 0,
            registers: 0,
            first_us: u64::MAX,
            last_us: 0,
            touched: Vec::new(),
            touched_more: false,
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, end: usize, timestamp_us: u64) {
        self.end = end;
        self.packets += 1;
        self.first_us = self.first_us.min(timestamp_us);
        self.last_us = self.last_us.max(timestamp_us);
    }
}

/// What travels with the bytes of a block.
pub(super) struct LogBatch {
    pub(super) parts: Vec<Part>,
    /// The one that is not full.
    pub(super) open: Part,
    pub(super) received_ns: u64,
    /// Ranges that are no valid packets.
    pub(super) holes: Vec<Range<usize>>,
    /// Our own packets, not received ones.
    pub(super) keyframes: bool,
    /// The segment ends after this block.
    pub(super) ends_segment: bool,
    /// Then: no register is in doubt at its end.
    pub(super) certain: bool,
    /// Somebody waits for these bytes to be durable.
    pub(super) sync: bool,
    /// The core on which the block was filled.
    pub(super) core: Option<usize>,
}

impl Default for LogBatch {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            open: Part::new(0),
            received_ns: 0,
            holes: Vec::new(),
            keyframes: false,
            ends_segment: false,
            certain: false,
            sync: false,
            core: None,
        }
    }
}

impl LogBatch {
    pub(super) fn reset(&mut self) {
        let (mut parts, mut holes) = (
            std::mem::take(&mut self.parts),
            std::mem::take(&mut self.holes),
        );
        parts.clear();
        holes.clear();
        *self = Self {
            parts,
            holes,
            ..Self::default()
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.packets == 0 && self.parts.is_empty()
    }

    /// The open part, if there is something in it, is whole.
    #[cold]
    pub(super) fn end_part(&mut self, touched: Vec<(Source, Box<TouchedGroups>)>) {
        if self.open.packets > 0 {
            let next = Part::new(self.open.end);
            let part = std::mem::replace(&mut self.open, next);
            self.parts.push(Part { touched, ..part });
        }
    }

    /// Packets of all parts.
    pub(super) fn packets(&self) -> u32 {
        self.parts.iter().map(|part| part.packets).sum()
    }
}
