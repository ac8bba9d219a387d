//! One stream id's frames, put into order of sequence.
//!
//! `next` is the sequence that is waited for. What arrives in order goes to `ready`; what is past a gap
//! goes to `beyond` until the gap is filled or given up. A frame below `next` that is not late (nothing
//! after it was written yet) is put into its place in `ready`.

use std::collections::{BTreeMap, VecDeque};

use super::{Arrival, AssembleOptions, GAP_FRAMES, PERIOD_START, Rule};

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub arrival: Arrival,
    /// Epoch of its lane.
    pub epoch: u64,
    /// Age: the smaller, the older.
    pub order: u64,
    /// When it was pushed.
    pub now_ns: u64,
    pub handle: T,
}

#[derive(Debug)]
pub(super) struct Lane<T> {
    /// The sequence waited for; everything below has arrived or was given up.
    pub next: u64,
    /// Counts restarts.
    pub epoch: u64,
    /// Whether a frame was ever taken.
    pub seen: bool,
    pub last_arrival_ns: u64,
    /// When the first gap appeared; meaningful while there is one.
    pub gap_since_ns: u64,
    /// In order, waiting for the lane's turn: by epoch, then sequence.
    pub ready: VecDeque<Held<T>>,
    /// Whether the assembler has the lane among the waiting ones.
    pub queued: bool,
    beyond: Beyond<T>,
    /// The `count` periodics with frames in `beyond`, by number, with how many.
    open: Vec<(u64, u64)>,
    /// PERIOD_START flags in `beyond`.
    starts: usize,
    /// N of rule `count`, else 0.
    count: u64,
}

/// The sequence at which the periodic of `sequence` begins, as far as it can be told.
pub(super) fn start(rule: Rule, sequence: u64) -> u64 {
    match rule {
        Rule::Count(n) => sequence - sequence % n.max(1),
        Rule::None { .. } | Rule::Markers => sequence,
    }
}

impl<T> Lane<T> {
    pub fn new(next: u64) -> Self {
        Self {
            next,
            epoch: 0,
            seen: false,
            last_arrival_ns: 0,
            gap_since_ns: 0,
            ready: VecDeque::new(),
            queued: false,
            beyond: Beyond::new(),
            open: Vec::new(),
            starts: 0,
            count: 0,
        }
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.beyond.is_empty()
    }

    #[inline]
    pub fn has_gap(&self) -> bool {
        !self.beyond.is_empty()
    }

    /// Takes a frame that is not late.
    pub fn insert(&mut self, held: Held<T>, rule: Rule) {
        self.seen = true;
        if let Rule::Count(n) = rule {
            self.count = n.max(1);
        }
        let sequence = held.arrival.sequence;
        if sequence < self.next {
            let newest = self
                .ready
                .back()
                .is_some_and(|last| last.epoch == held.epoch);
            if newest {
                let key = (held.epoch, sequence);
                let at = self
                    .ready
                    .partition_point(|h| (h.epoch, h.arrival.sequence) <= key);
                self.ready.insert(at, held);
                return;
            }
            // Nothing of this epoch has left: the stream began further down than its first frame said.
            self.next = start(rule, sequence);
        }
        if sequence > self.next {
            if self.beyond.is_empty() {
                self.gap_since_ns = held.now_ns;
            }
            self.note(&held.arrival);
            self.beyond.insert(held);
            return;
        }
        self.next = sequence.saturating_add(1);
        self.ready.push_back(held);
        self.release();
    }

    /// Whether a frame comes after everything that waits past a gap, as it does where nothing is reordered.
    #[inline]
    pub fn is_beyond(&self, arrival: &Arrival) -> bool {
        let last = self.beyond.queue.back();
        last.is_some_and(|last| last.arrival.sequence < arrival.sequence)
            && self.beyond.strays.is_empty()
            && !arrival.restart
    }

    /// Takes a frame that [`Self::is_beyond`].
    #[inline]
    pub fn append(&mut self, held: Held<T>) {
        self.note(&held.arrival);
        self.beyond.bytes = self
            .beyond
            .bytes
            .saturating_add(u64::from(held.arrival.frame_bytes));
        self.beyond.queue.push_back(held);
    }

    /// Gives up the first gap: what follows it is next.
    pub fn give_up(&mut self) {
        if let Some(first) = self.beyond.first() {
            self.next = self.next.max(first);
            self.release();
        }
    }

    /// Stops waiting for anything below `floor`.
    pub fn raise(&mut self, floor: u64) {
        if self.next < floor {
            self.next = floor;
            self.release();
        }
    }

    /// Whether more periodics are open than the options allow.
    #[inline]
    pub fn is_over(&self, options: &AssembleOptions) -> bool {
        let max_open = options.max_open.max(1);
        match options.rule {
            Rule::Count(n) => {
                let n = n.max(1);
                let current = self.next / n;
                let begun = !self.next.is_multiple_of(n);
                let apart = self.open.first().is_none_or(|&(first, _)| first != current);
                self.open.len() + usize::from(begun && apart) > max_open
            }
            Rule::Markers => self.starts >= max_open,
            Rule::None {
                max_frames,
                max_bytes,
            } => {
                let runs = u64::try_from(max_open).unwrap_or(u64::MAX);
                let frames = u64::try_from(self.beyond.len()).unwrap_or(u64::MAX);
                let bytes = self.beyond.bytes;
                frames > u64::from(max_frames).saturating_mul(runs)
                    || bytes > max_bytes.saturating_mul(runs)
                    || (frames > GAP_FRAMES && bytes > options.gap_bytes)
            }
        }
    }

    pub fn handles(&mut self) -> impl Iterator<Item = &mut T> {
        let ready = self.ready.iter_mut().map(|held| &mut held.handle);
        ready.chain(self.beyond.handles())
    }

    /// Moves what is in order now to `ready`.
    fn release(&mut self) {
        while let Some(first) = self.beyond.first() {
            if first > self.next {
                // The next gap is as old as the frame behind it.
                self.gap_since_ns = self.beyond.first_now_ns().unwrap_or(self.gap_since_ns);
                return;
            }
            let Some(held) = self.beyond.pop() else {
                return;
            };
            self.forget(&held.arrival);
            self.next = self.next.max(first.saturating_add(1));
            self.ready.push_back(held);
        }
    }

    #[inline]
    fn note(&mut self, arrival: &Arrival) {
        self.starts += usize::from(arrival.flags & PERIOD_START != 0);
        if let Some(periodic) = arrival.sequence.checked_div(self.count) {
            let at = self.open.partition_point(|&(number, _)| number < periodic);
            match self.open.get_mut(at) {
                Some((number, frames)) if *number == periodic => *frames += 1,
                _ => self.open.insert(at, (periodic, 1)),
            }
        }
    }

    #[inline]
    fn forget(&mut self, arrival: &Arrival) {
        self.starts -= usize::from(arrival.flags & PERIOD_START != 0);
        if self.count != 0 {
            // Frames leave in order of sequence: it is the first.
            if let Some((_, frames)) = self.open.first_mut() {
                *frames -= 1;
                if *frames == 0 {
                    self.open.remove(0);
                }
            }
        }
    }
}

/// How far from the end a frame is put into the queue rather than among the strays: what a network
/// reorders is near the end, and moving this many entries is cheaper than a tree.
const NEAR: usize = 32;

/// Frames past a gap, by sequence: a queue for those that came in order or nearly, a tree for the others,
/// so that no order of arrival is slow.
#[derive(Debug)]
struct Beyond<T> {
    queue: VecDeque<Held<T>>,
    strays: BTreeMap<(u64, u64), Held<T>>,
    bytes: u64,
}

impl<T> Beyond<T> {
    fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            strays: BTreeMap::new(),
            bytes: 0,
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.strays.is_empty()
    }

    fn len(&self) -> usize {
        self.queue.len() + self.strays.len()
    }

    fn insert(&mut self, held: Held<T>) {
        self.bytes = self
            .bytes
            .saturating_add(u64::from(held.arrival.frame_bytes));
        let sequence = held.arrival.sequence;
        let later = self.queue.iter().rev().take(NEAR);
        let later = later.take_while(|h| h.arrival.sequence > sequence).count();
        if later < NEAR {
            self.queue.insert(self.queue.len() - later, held);
        } else {
            self.strays.insert((sequence, held.order), held);
        }
    }

    /// The smallest sequence.
    #[inline]
    fn first(&self) -> Option<u64> {
        let queued = self.queue.front().map(|held| held.arrival.sequence);
        if self.strays.is_empty() {
            return queued;
        }
        let stray = self
            .strays
            .first_key_value()
            .map(|((sequence, _), _)| *sequence);
        match (queued, stray) {
            (Some(queued), Some(stray)) => Some(queued.min(stray)),
            (queued, stray) => queued.or(stray),
        }
    }

    /// When the frame of the smallest sequence was pushed.
    fn first_now_ns(&self) -> Option<u64> {
        if self.stray_is_first() {
            self.strays.first_key_value().map(|(_, held)| held.now_ns)
        } else {
            self.queue.front().map(|held| held.now_ns)
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Held<T>> {
        let held = if self.stray_is_first() {
            self.strays.pop_first().map(|(_, held)| held)
        } else {
            self.queue.pop_front()
        }?;
        self.bytes = self
            .bytes
            .saturating_sub(u64::from(held.arrival.frame_bytes));
        Some(held)
    }

    #[inline]
    fn stray_is_first(&self) -> bool {
        if self.strays.is_empty() {
            return false;
        }
        let stray = self
            .strays
            .first_key_value()
            .map(|((sequence, _), _)| *sequence);
        let queued = self.queue.front().map(|held| held.arrival.sequence);
        stray.is_some_and(|stray| queued.is_none_or(|queued| stray < queued))
    }

    fn handles(&mut self) -> impl Iterator<Item = &mut T> {
        let queue = self.queue.iter_mut().map(|held| &mut held.handle);
        queue.chain(self.strays.values_mut().map(|held| &mut held.handle))
    }
}
