//! The two stages put together: whose turn it is, and what may be held how long.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::lane::{self, Held, Lane};
use super::writer::Writer;
use super::{Arrival, AssembleCounters, AssembleOptions, MAX_LANES, Rule, Step};

/// Groups frames into periodics; see the module's head. `T` is whatever the caller needs to find the frame
/// again; every handle that goes in comes out once.
#[derive(Debug)]
pub struct Assembler<T> {
    options: AssembleOptions,
    lanes: Vec<Lane<T>>,
    /// Stream id to place in `lanes`; `NO_LANE` where there is none. At most 128 KiB.
    places: Vec<u16>,
    writer: Writer,
    /// Lanes other than the head's with something ready, by age of its first frame.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    /// Late frames that wait for the head to close.
    late: Vec<(Option<usize>, Held<T>)>,
    held_bytes: u64,
    /// Lanes with something past a gap.
    gapped: usize,
    /// Frames that took the slow path: the age of a held frame.
    order: u64,
}

const NO_LANE: u16 = u16::MAX;

/// How long a head whose lane is silent may hold up what waits for it, at least. Without a limit, frames
/// of other lanes would stay in memory until the bound on bytes; the default of `hold_ns` is the measure,
/// and where gaps hold nothing back a pause inside a periodic is still no reason to break it.
const SILENCE_NS: u64 = 1_000_000_000;

impl<T> Assembler<T> {
    /// An assembler that has seen nothing.
    #[must_use]
    pub fn new(options: AssembleOptions) -> Self {
        Self {
            options,
            lanes: Vec::new(),
            places: Vec::new(),
            writer: Writer::new(options.rule, options.max_periodic_bytes),
            waiting: BinaryHeap::new(),
            late: Vec::new(),
            held_bytes: 0,
            gapped: 0,
            order: 0,
        }
    }

    /// Takes one frame and appends what can be done now. Costs about 10 ns for a frame in order of the
    /// head, and not much more for one that follows others past a gap: where frames are lost there is nearly
    /// always a gap open. `now_ns` is any clock that does not go back.
    #[inline]
    pub fn push(&mut self, arrival: Arrival, handle: T, now_ns: u64, out: &mut Vec<Step<T>>) {
        let place = self
            .places
            .get(usize::from(arrival.stream_id))
            .copied()
            .unwrap_or(NO_LANE);
        if let Some(lane) = self.lanes.get_mut(usize::from(place)) {
            let index = usize::from(place);
            if arrival.sequence == lane.next
                && !arrival.restart
                && lane.is_empty()
                && self.writer.extends(index, lane.epoch, &arrival)
            {
                lane.next = lane.next.saturating_add(1);
                lane.last_arrival_ns = now_ns;
                out.push(Step::Write(handle));
                if self.writer.extend(&arrival, out) {
                    lane.next = lane.next.max(self.writer.floor(index));
                    if !self.waiting.is_empty() || !self.late.is_empty() {
                        self.advance(now_ns, out);
                    }
                }
                return;
            }
            if lane.is_beyond(&arrival) && self.options.hold_ns != 0 {
                self.order = self.order.wrapping_add(1);
                let bytes = u64::from(arrival.frame_bytes);
                self.held_bytes = self.held_bytes.saturating_add(bytes);
                lane.last_arrival_ns = now_ns;
                lane.append(Held {
                    arrival,
                    epoch: lane.epoch,
                    order: self.order,
                    now_ns,
                    handle,
                });
                if lane.is_over(&self.options) || self.held_bytes > self.options.max_periodic_bytes
                {
                    self.make_way(index, now_ns, out);
                }
                return;
            }
        }
        self.push_slow(arrival, handle, now_ns, out);
    }

    /// Gives up what has waited long enough; to be called every few milliseconds.
    pub fn tick(&mut self, now_ns: u64, out: &mut Vec<Step<T>>) {
        if self.gapped > 0 {
            for index in 0..self.lanes.len() {
                while self.lanes.get(index).is_some_and(|lane| {
                    lane.has_gap()
                        && now_ns.saturating_sub(lane.gap_since_ns) >= self.options.hold_ns
                }) {
                    self.give_up(index);
                }
            }
        }
        if self.writer.late_is_open()
            && now_ns.saturating_sub(self.writer.opened_ns()) >= self.options.run_ns
        {
            self.writer.close(out);
        }
        self.advance(now_ns, out);
    }

    /// Writes everything held and closes every row. The assembler can be used on.
    pub fn finish(&mut self, out: &mut Vec<Step<T>>) {
        for index in 0..self.lanes.len() {
            while self.lanes.get(index).is_some_and(Lane::has_gap) {
                self.give_up(index);
            }
        }
        loop {
            self.advance(0, out);
            if !self.writer.is_open() {
                return;
            }
            self.close(out);
        }
    }

    /// Bytes of the frames taken and not yet given out.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The handles of the frames held, in no particular order: a caller whose handles pin a scarce
    /// resource can swap them.
    pub fn held(&mut self) -> impl Iterator<Item = &mut T> {
        let late = self.late.iter_mut().map(|(_, held)| &mut held.handle);
        late.chain(self.lanes.iter_mut().flat_map(Lane::handles))
    }

    /// What left so far.
    #[must_use]
    pub fn counters(&self) -> AssembleCounters {
        self.writer.counters()
    }

    /// Whether nothing was written since the last row: a segment may be rolled here.
    #[must_use]
    pub fn open_boundary(&self) -> bool {
        !self.writer.is_open()
    }

    /// Every frame that is not the next one of the head.
    #[inline(never)]
    fn push_slow(&mut self, arrival: Arrival, handle: T, now_ns: u64, out: &mut Vec<Step<T>>) {
        self.order = self.order.wrapping_add(1);
        let mut held = Held {
            arrival,
            epoch: 0,
            order: self.order,
            now_ns,
            handle,
        };
        self.held_bytes = self
            .held_bytes
            .saturating_add(u64::from(arrival.frame_bytes));
        let Some(index) = self.lane_of(&arrival) else {
            self.late.push((None, held));
            return self.settle(now_ns, out);
        };
        if arrival.restart {
            self.begin_epoch(index, arrival.sequence, now_ns, out);
        }
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        lane.last_arrival_ns = now_ns;
        held.epoch = lane.epoch;
        if self.writer.is_late(index, lane.epoch, arrival.sequence) {
            self.late.push((Some(index), held));
        } else {
            let had_gap = lane.has_gap();
            lane.insert(held, self.options.rule);
            self.gapped += usize::from(!had_gap && lane.has_gap());
            self.gapped -= usize::from(had_gap && !lane.has_gap());
            self.enqueue(index);
            return self.make_way(index, now_ns, out);
        }
        self.settle(now_ns, out);
    }

    /// Gives up the lane's gaps as far as more waits than may, and writes what that allows.
    #[inline(never)]
    fn make_way(&mut self, index: usize, now_ns: u64, out: &mut Vec<Step<T>>) {
        while self.lanes.get(index).is_some_and(|lane| {
            lane.has_gap() && (self.options.hold_ns == 0 || lane.is_over(&self.options))
        }) {
            self.give_up(index);
        }
        self.settle(now_ns, out);
    }

    /// Writes what can be written, then keeps the bound on what is held.
    fn settle(&mut self, now_ns: u64, out: &mut Vec<Step<T>>) {
        self.advance(now_ns, out);
        while self.held_bytes > self.options.max_periodic_bytes {
            let head = self.writer.head();
            let gap = head.filter(|&head| self.lanes.get(head).is_some_and(Lane::has_gap));
            if let Some(head) = gap {
                self.give_up(head);
            } else if head.is_some() && !(self.waiting.is_empty() && self.late.is_empty()) {
                self.close(out);
            } else if let Some(oldest) = self.oldest_gap() {
                self.give_up(oldest);
            } else {
                return;
            }
            self.advance(now_ns, out);
        }
    }

    /// Writes what is ready for the head, and each time the head closes makes the oldest waiting lane the
    /// next one. Afterwards nothing is ready except behind an open head of another lane.
    fn advance(&mut self, now_ns: u64, out: &mut Vec<Step<T>>) {
        loop {
            if let Some(head) = self.writer.head() {
                self.drain(head, out);
                if self.writer.head().is_some() {
                    if !self.head_is_over(head, now_ns) {
                        return;
                    }
                    self.close(out);
                }
                self.enqueue(head);
            }
            self.flush_late(out);
            let Some(Reverse((_, next))) = self.waiting.pop() else {
                return;
            };
            let Some(lane) = self.lanes.get_mut(next) else {
                return;
            };
            lane.queued = false;
            if let Some(held) = lane.ready.pop_front() {
                self.write(next, held, out);
            }
            self.enqueue(next);
        }
    }

    /// Writes from the head's ready frames until they end or the head closes.
    fn drain(&mut self, head: usize, out: &mut Vec<Step<T>>) {
        while self.writer.head() == Some(head) {
            let Some(lane) = self.lanes.get_mut(head) else {
                return;
            };
            let Some(held) = lane.ready.front() else {
                return;
            };
            let late = self.writer.is_late(head, held.epoch, held.arrival.sequence);
            if !late && !self.writer.extends(head, held.epoch, &held.arrival) {
                return self.close(out);
            }
            let Some(held) = lane.ready.pop_front() else {
                return;
            };
            if late {
                self.late.push((Some(head), held));
                continue;
            }
            let bytes = u64::from(held.arrival.frame_bytes);
            self.held_bytes = self.held_bytes.saturating_sub(bytes);
            out.push(Step::Write(held.handle));
            if self.writer.extend(&held.arrival, out) {
                self.raise(head);
            }
        }
    }

    /// Writes one ready frame; a frame that became late while it waited goes where the late ones go.
    fn write(&mut self, index: usize, held: Held<T>, out: &mut Vec<Step<T>>) {
        if self
            .writer
            .is_late(index, held.epoch, held.arrival.sequence)
        {
            self.late.push((Some(index), held));
            return;
        }
        self.held_bytes = self
            .held_bytes
            .saturating_sub(u64::from(held.arrival.frame_bytes));
        self.writer
            .begin(index, held.epoch, &held.arrival, held.now_ns, out);
        out.push(Step::Write(held.handle));
        if self.writer.extend(&held.arrival, out) {
            self.raise(index);
        }
    }

    fn flush_late(&mut self, out: &mut Vec<Step<T>>) {
        if self.late.is_empty() {
            return;
        }
        // By lane and sequence, so that neighbours share a row; stable, so that equals keep their order.
        self.late
            .sort_by_key(|(_, held)| (held.arrival.stream_id, held.arrival.sequence));
        for (index, held) in self.late.drain(..) {
            self.held_bytes = self
                .held_bytes
                .saturating_sub(u64::from(held.arrival.frame_bytes));
            self.writer
                .begin_late(index, &held.arrival, held.now_ns, out);
            out.push(Step::Write(held.handle));
            self.writer.extend(&held.arrival, out);
        }
    }

    /// Whether an open head with nothing ready must make way.
    fn head_is_over(&self, head: usize, now_ns: u64) -> bool {
        let Some(lane) = self.lanes.get(head) else {
            return true;
        };
        if lane.epoch != self.writer.epoch(head) {
            return true;
        }
        match self.options.rule {
            Rule::None { .. } => {
                now_ns.saturating_sub(self.writer.opened_ns()) >= self.options.run_ns
            }
            Rule::Count(_) | Rule::Markers => {
                !(self.waiting.is_empty() && self.late.is_empty())
                    && now_ns.saturating_sub(lane.last_arrival_ns)
                        >= self.options.hold_ns.max(SILENCE_NS)
            }
        }
    }

    fn close(&mut self, out: &mut Vec<Step<T>>) {
        let head = self.writer.head();
        self.writer.close(out);
        if let Some(head) = head {
            self.raise(head);
            self.enqueue(head);
        }
    }

    /// After a row of the lane was closed: what belongs to it is not waited for any more.
    fn raise(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get_mut(index)
            && lane.epoch == self.writer.epoch(index)
        {
            let had_gap = lane.has_gap();
            lane.raise(self.writer.floor(index));
            self.gapped -= usize::from(had_gap && !lane.has_gap());
        }
    }

    /// Gives up the lane's first gap.
    fn give_up(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get_mut(index) {
            let had_gap = lane.has_gap();
            lane.give_up();
            self.gapped -= usize::from(had_gap && !lane.has_gap());
        }
        self.enqueue(index);
    }

    /// Notes that a lane has something ready, unless it is the head or noted already.
    fn enqueue(&mut self, index: usize) {
        let is_head = self.writer.head() == Some(index);
        if let Some(lane) = self.lanes.get_mut(index)
            && let Some(first) = lane.ready.front()
            && !lane.queued
            && !is_head
        {
            lane.queued = true;
            self.waiting.push(Reverse((first.order, index)));
        }
    }

    fn oldest_gap(&self) -> Option<usize> {
        let gapped = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.has_gap());
        gapped
            .min_by_key(|(_, lane)| lane.gap_since_ns)
            .map(|(index, _)| index)
    }

    fn begin_epoch(&mut self, index: usize, sequence: u64, now_ns: u64, out: &mut Vec<Step<T>>) {
        while self.lanes.get(index).is_some_and(Lane::has_gap) {
            self.give_up(index);
        }
        let rule = self.options.rule;
        if let Some(lane) = self.lanes.get_mut(index)
            && lane.seen
        {
            lane.epoch = lane.epoch.saturating_add(1);
            let start = lane::start(rule, sequence);
            // A connection that was cut inside a periodic: its beginning is in the old epoch.
            let resumed = lane.next > start && lane.next <= sequence;
            lane.next = if resumed { sequence } else { start };
        }
        self.advance(now_ns, out);
    }

    /// The lane of a frame, new if need be; None when there are too many.
    fn lane_of(&mut self, arrival: &Arrival) -> Option<usize> {
        let id = usize::from(arrival.stream_id);
        if self.places.len() <= id {
            self.places.resize(id + 1, NO_LANE);
        }
        let place = self.places.get_mut(id)?;
        if *place == NO_LANE {
            if self.lanes.len() >= MAX_LANES {
                return None;
            }
            *place = u16::try_from(self.lanes.len()).ok()?;
            self.lanes
                .push(Lane::new(lane::start(self.options.rule, arrival.sequence)));
            self.writer.add_lane();
        }
        Some(usize::from(*place))
    }
}
