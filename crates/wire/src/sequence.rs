//! Gaps, losses, duplicates and reorders, exact within a window (`spec/frame-stream.md 3`).
//!
//! Per stream id the tracker keeps the first and the highest sequence of the epoch and one bit per
//! sequence number of the last `window` ones. Law 3 of the ledger holds at any time: for every
//! sequence between the first and the last seen, unique frames + `frames_lost` = sent. A frame from
//! before the first one seen therefore moves the first back and counts what lies between as lost.

/// Window of [`SequenceTracker`] unless told otherwise, in sequence numbers (`spec/frame-stream.md 3`).
pub const DEFAULT_WINDOW: u64 = 65_536;
/// Stream ids a [`SequenceTable`] follows unless told otherwise (`spec/frame-stream.md 3`).
pub const DEFAULT_MAX_IDS: usize = 1_024;
/// The largest window; 32 MiB of bitmap.
pub const MAX_WINDOW: u64 = 1 << 28;

/// What a sequence number means where it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The one expected, or the first of a stream.
    InOrder,
    /// Ahead of the one expected.
    Gap {
        /// Sequence numbers left out.
        lost: u64,
    },
    /// Late, but inside the window and not seen before; it is no longer lost.
    Reordered,
    /// Seen before.
    Duplicate,
    /// First frame of a new epoch: further back than the window, or the first after
    /// [`SequenceTracker::new_epoch`].
    Restart,
}

/// Totals of one stream id or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceCounters {
    /// Times the sequence jumped ahead.
    pub gaps: u64,
    /// Sequence numbers between the first and the last seen that never came.
    pub frames_lost: u64,
    /// Frames seen before.
    pub frames_duplicate: u64,
    /// Frames that came after a later one.
    pub frames_reordered: u64,
    /// Producer restarts: a sequence further back than the window.
    pub restarts: u64,
}

impl SequenceCounters {
    /// Adds another account to this one.
    pub const fn add(&mut self, other: &Self) {
        self.gaps = self.gaps.saturating_add(other.gaps);
        self.frames_lost = self.frames_lost.saturating_add(other.frames_lost);
        self.frames_duplicate = self.frames_duplicate.saturating_add(other.frames_duplicate);
        self.frames_reordered = self.frames_reordered.saturating_add(other.frames_reordered);
        self.restarts = self.restarts.saturating_add(other.restarts);
    }
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    first: u64,
    highest: u64,
}

/// Follows the sequence of one stream id.
#[derive(Clone, Debug)]
pub struct SequenceTracker {
    epoch: Option<Epoch>,
    /// The next frame starts an epoch that is not the stream's first.
    restarting: bool,
    /// The next frame is the first of a connection: see [`Self::reconnected`].
    reconnected: bool,
    window: u64,
    /// One bit per sequence number, at `sequence & mask`; a power of two of bits, >= `window`.
    seen: Vec<u64>,
    mask: u64,
    counters: SequenceCounters,
}

impl SequenceTracker {
    /// A tracker with a window in sequence numbers, clamped to 1 ..= [`MAX_WINDOW`].
    #[must_use]
    pub fn new(window: u64) -> Self {
        let window = window.clamp(1, MAX_WINDOW);
        let bits = window.next_power_of_two().max(64);
        let words = usize::try_from(bits / 64).unwrap_or(1);
        Self {
            epoch: None,
            restarting: false,
            reconnected: false,
            window,
            seen: vec![0; words],
            mask: bits - 1,
            counters: SequenceCounters::default(),
        }
    }

    /// Takes the next sequence number in order of arrival.
    #[inline]
    pub fn observe(&mut self, sequence: u64) -> Verdict {
        let Some(epoch) = &mut self.epoch else {
            return self.start(sequence);
        };
        if std::mem::take(&mut self.reconnected) && sequence <= epoch.highest {
            self.counters.restarts += 1;
            self.restarting = true;
            return self.start(sequence);
        }
        if sequence > epoch.highest {
            let lost = sequence - epoch.highest - 1;
            let highest = std::mem::replace(&mut epoch.highest, sequence);
            if lost == 0 {
                self.mark(sequence);
                return Verdict::InOrder;
            }
            self.forget(highest, lost);
            self.mark(sequence);
            self.counters.gaps += 1;
            self.counters.frames_lost = self.counters.frames_lost.saturating_add(lost);
            return Verdict::Gap { lost };
        }
        let back = epoch.highest - sequence;
        if back >= self.window {
            self.counters.restarts += 1;
            self.restarting = true;
            return self.start(sequence);
        }
        self.late(sequence)
    }

    /// Forgets the sequence seen so far (a new connection): the next frame gives
    /// [`Verdict::Restart`] if any came before. The counters stay, and `restarts` does not count it.
    pub fn new_epoch(&mut self) {
        self.restarting |= self.epoch.take().is_some();
    }

    /// A new connection begins. If its first frame goes on after the last one seen, what lies between is
    /// lost as in any gap; if not, the producer began anew: a restart and a new epoch, so that no frame
    /// of it is taken for a duplicate.
    pub const fn reconnected(&mut self) {
        self.reconnected = true;
    }

    /// Totals over all epochs.
    #[must_use]
    pub const fn counters(&self) -> &SequenceCounters {
        &self.counters
    }

    /// The sequence number expected next; None before the first frame or after `u64::MAX`.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.epoch.and_then(|epoch| epoch.highest.checked_add(1))
    }

    fn start(&mut self, sequence: u64) -> Verdict {
        self.seen.fill(0);
        self.epoch = Some(Epoch {
            first: sequence,
            highest: sequence,
        });
        self.mark(sequence);
        if std::mem::take(&mut self.restarting) {
            Verdict::Restart
        } else {
            Verdict::InOrder
        }
    }

    fn late(&mut self, sequence: u64) -> Verdict {
        let (word, bit) = self.place(sequence);
        let seen = self.seen.get(word).is_some_and(|w| w & bit != 0);
        if seen {
            self.counters.frames_duplicate += 1;
            return Verdict::Duplicate;
        }
        self.mark(sequence);
        self.counters.frames_reordered += 1;
        if let Some(epoch) = &mut self.epoch {
            let lost = &mut self.counters.frames_lost;
            if sequence < epoch.first {
                *lost = lost.saturating_add(epoch.first - sequence - 1);
                epoch.first = sequence;
            } else {
                *lost = lost.saturating_sub(1);
            }
        }
        Verdict::Reordered
    }

    /// Clears the bits of the `count` numbers after `highest`: they carry what was seen one round
    /// of the bitmap ago.
    fn forget(&mut self, highest: u64, count: u64) {
        if count > self.mask {
            self.seen.fill(0);
            return;
        }
        let mut from = highest + 1;
        let stop = from.saturating_add(count);
        while from < stop {
            let (word, bit) = self.place(from);
            let left = u64::from(64 - bit.trailing_zeros());
            let n = left.min(stop - from);
            let ones = if n == 64 {
                u64::MAX
            } else {
                ((1 << n) - 1) << bit.trailing_zeros()
            };
            if let Some(w) = self.seen.get_mut(word) {
                *w &= !ones;
            }
            from += n;
        }
    }

    #[inline]
    fn mark(&mut self, sequence: u64) {
        let (word, bit) = self.place(sequence);
        if let Some(w) = self.seen.get_mut(word) {
            *w |= bit;
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // masked to fewer bits than a usize has
    const fn place(&self, sequence: u64) -> (usize, u64) {
        let at = sequence & self.mask;
        ((at / 64) as usize, 1 << (at % 64))
    }
}

const NO_SLOT: u16 = u16::MAX;

/// One tracker per stream id, for a bounded number of ids.
#[derive(Clone, Debug)]
pub struct SequenceTable {
    window: u64,
    max_ids: usize,
    trackers: Vec<(u16, SequenceTracker)>,
    /// Stream id to place in `trackers`; empty until a second id comes.
    slots: Vec<u16>,
    last: usize,
    untracked: u64,
}

impl SequenceTable {
    /// A table for at most `max_ids` stream ids with a window each.
    #[must_use]
    pub const fn new(window: u64, max_ids: usize) -> Self {
        Self {
            window,
            max_ids,
            trackers: Vec::new(),
            slots: Vec::new(),
            last: 0,
            untracked: 0,
        }
    }

    /// Takes the next frame; None when the table is full and the id is not in it. Such frames are
    /// counted by [`Self::untracked`].
    #[inline]
    pub fn observe(&mut self, stream_id: u16, sequence: u64) -> Option<Verdict> {
        if let Some((id, tracker)) = self.trackers.get_mut(self.last)
            && *id == stream_id
        {
            return Some(tracker.observe(sequence));
        }
        self.find(stream_id)
            .map(|tracker| tracker.observe(sequence))
    }

    /// A new epoch for every id: see [`SequenceTracker::new_epoch`].
    pub fn new_epoch(&mut self) {
        for (_, tracker) in &mut self.trackers {
            tracker.new_epoch();
        }
    }

    /// A new connection for every id: see [`SequenceTracker::reconnected`].
    pub fn reconnected(&mut self) {
        for (_, tracker) in &mut self.trackers {
            tracker.reconnected();
        }
    }

    /// Totals over all ids.
    #[must_use]
    pub fn totals(&self) -> SequenceCounters {
        let mut sum = SequenceCounters::default();
        for (_, tracker) in &self.trackers {
            sum.add(tracker.counters());
        }
        sum
    }

    /// The trackers with their stream ids, in order of first appearance.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &SequenceTracker)> {
        self.trackers.iter().map(|(id, tracker)| (*id, tracker))
    }

    /// Frames of ids that found no place in the table.
    #[must_use]
    pub const fn untracked(&self) -> u64 {
        self.untracked
    }

    fn find(&mut self, stream_id: u16) -> Option<&mut SequenceTracker> {
        if self.slots.is_empty() && !self.trackers.is_empty() {
            self.slots = vec![NO_SLOT; 1 << 16];
            if let Some((id, _)) = self.trackers.first() {
                let id = usize::from(*id);
                if let Some(slot) = self.slots.get_mut(id) {
                    *slot = 0;
                }
            }
        }
        let known = self
            .slots
            .get(usize::from(stream_id))
            .copied()
            .unwrap_or(NO_SLOT);
        let at = if known == NO_SLOT {
            let at = self.trackers.len();
            let free = u16::try_from(at)
                .ok()
                .filter(|&at| at < NO_SLOT && usize::from(at) < self.max_ids);
            let Some(place) = free else {
                self.untracked += 1;
                return None;
            };
            self.trackers
                .push((stream_id, SequenceTracker::new(self.window)));
            if let Some(slot) = self.slots.get_mut(usize::from(stream_id)) {
                *slot = place;
            }
            at
        } else {
            usize::from(known)
        };
        self.last = at;
        self.trackers.get_mut(at).map(|(_, tracker)| tracker)
    }
}

impl Default for SequenceTable {
    fn default() -> Self {
        Self::new(DEFAULT_WINDOW, DEFAULT_MAX_IDS)
    }
}

#[cfg(test)]
mod reconnection {
    use super::*;

    #[test]
    fn a_connection_goes_on_or_begins_anew() {
        let mut tracker = SequenceTracker::new(64);
        for sequence in 0..10 {
            tracker.observe(sequence);
        }
        tracker.reconnected();
        assert_eq!(tracker.observe(12), Verdict::Gap { lost: 2 });
        assert_eq!(tracker.observe(11), Verdict::Reordered);
        tracker.reconnected();
        assert_eq!(tracker.observe(5), Verdict::Restart);
        assert_eq!(tracker.observe(6), Verdict::InOrder);
        let c = tracker.counters();
        assert_eq!((c.restarts, c.frames_duplicate, c.frames_lost), (1, 0, 1));
    }
}
