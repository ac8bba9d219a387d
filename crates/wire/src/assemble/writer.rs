//! Cuts frames in file order into rows of the index.
//!
//! One row is open at most. A frame is late if its sequence is below its lane's `floor`: one past the
//! last sequence written in order, or the end of the last closed periodic of rule `count`, whichever is
//! more. Everything here follows from the order of the frames in the file, so that
//! [`rebuild`](super::rebuild()) uses the same code.

use std::collections::VecDeque;

use super::{
    Arrival, AssembleCounters, COMPLETE, INCOMPLETE, IndexRow, LATE, PERIOD_END, PERIOD_START,
    RUN_BYTES, RUN_FRAMES, Rule, Step,
};

/// Closed rows that a lane remembers, to tell which periodic a late frame belongs to.
const HISTORY: usize = 1_024;

#[derive(Debug)]
pub(super) struct Writer {
    rule: Rule,
    max_periodic_bytes: u64,
    open: Option<Open>,
    lanes: Vec<Written>,
    counters: AssembleCounters,
}

/// What a lane has written.
#[derive(Debug, Default)]
struct Written {
    epoch: u64,
    /// Sequences below are late.
    floor: u64,
    /// Number of the next row, for the rules without numbers of their own. Goes on over epochs.
    number: u64,
    /// First sequence and number of the rows closed in this epoch, oldest first.
    history: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
struct Open {
    /// None: a frame without a lane, always late.
    lane: Option<usize>,
    stream_id: u16,
    epoch: u64,
    late: bool,
    /// Rule `count`: one past the last sequence.
    end: u64,
    /// Rule `markers`: the first frame has PERIOD_START.
    started: bool,
    /// Rule `markers`: the last frame has PERIOD_END.
    ended: bool,
    opened_ns: u64,
    row: IndexRow,
    present: u64,
    max_frames: u64,
    max_bytes: u64,
}

impl Writer {
    pub fn new(rule: Rule, max_periodic_bytes: u64) -> Self {
        let rule = if let Rule::Count(n) = rule {
            Rule::Count(n.max(1))
        } else {
            rule
        };
        Self {
            rule,
            max_periodic_bytes,
            open: None,
            lanes: Vec::new(),
            counters: AssembleCounters::default(),
        }
    }

    pub fn add_lane(&mut self) {
        self.lanes.push(Written::default());
    }

    pub fn counters(&self) -> AssembleCounters {
        self.counters
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn late_is_open(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.late)
    }

    /// The lane of the periodic being written.
    #[inline]
    pub fn head(&self) -> Option<usize> {
        self.open
            .as_ref()
            .filter(|open| !open.late)
            .and_then(|open| open.lane)
    }

    /// When the first frame of the open row was pushed.
    pub fn opened_ns(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.opened_ns)
    }

    pub fn epoch(&self, lane: usize) -> u64 {
        self.lanes.get(lane).map_or(0, |written| written.epoch)
    }

    pub fn floor(&self, lane: usize) -> u64 {
        self.lanes.get(lane).map_or(0, |written| written.floor)
    }

    #[inline]
    pub fn is_late(&self, lane: usize, epoch: u64, sequence: u64) -> bool {
        self.lanes
            .get(lane)
            .is_some_and(|written| written.epoch == epoch && sequence < written.floor)
    }

    /// Whether a frame that is not late belongs to the open row.
    #[inline]
    pub fn extends(&self, lane: usize, epoch: u64, arrival: &Arrival) -> bool {
        let Some(open) = &self.open else { return false };
        if open.lane != Some(lane) || open.late || open.epoch != epoch {
            return false;
        }
        match self.rule {
            Rule::Count(_) => arrival.sequence < open.end,
            Rule::Markers => arrival.flags & PERIOD_START == 0,
            // What cannot be counted in frames_expected gets a row of its own.
            Rule::None { .. } => {
                arrival.sequence.saturating_sub(open.row.first_sequence) < u64::from(u32::MAX)
            }
        }
    }

    /// Makes the open row one that the frame extends: opens a new one if need be.
    pub fn begin<T>(
        &mut self,
        lane: usize,
        epoch: u64,
        arrival: &Arrival,
        now_ns: u64,
        out: &mut Vec<Step<T>>,
    ) {
        if self.extends(lane, epoch, arrival) {
            return;
        }
        self.close(out);
        let Some(written) = self.lanes.get_mut(lane) else {
            return;
        };
        if written.epoch != epoch {
            written.epoch = epoch;
            written.floor = 0;
            written.history.clear();
        }
        let started = arrival.flags & PERIOD_START != 0;
        let (periodic, end) = match self.rule {
            Rule::Count(n) => {
                let periodic = arrival.sequence / n;
                (periodic, periodic.saturating_add(1).saturating_mul(n))
            }
            Rule::None { .. } | Rule::Markers => (written.number, u64::MAX),
        };
        let (max_frames, max_bytes) = match self.rule {
            Rule::None {
                max_frames,
                max_bytes,
            } => (max_frames.into(), max_bytes),
            Rule::Count(_) => (u64::MAX, u64::MAX),
            Rule::Markers if started => (u64::MAX, self.max_periodic_bytes),
            Rule::Markers => (RUN_FRAMES.into(), RUN_BYTES),
        };
        written.number = written.number.saturating_add(1);
        let open = Open::new(Some(lane), arrival, epoch, periodic, now_ns);
        self.open = Some(Open {
            end,
            started,
            max_frames,
            max_bytes,
            ..open
        });
    }

    /// The same for a late frame.
    pub fn begin_late<T>(
        &mut self,
        lane: Option<usize>,
        arrival: &Arrival,
        now_ns: u64,
        out: &mut Vec<Step<T>>,
    ) {
        let periodic = self.periodic_of_late(lane, arrival.sequence);
        if let Some(open) = &self.open
            && open.late
            && open.stream_id == arrival.stream_id
            && open.row.periodic == periodic
        {
            return;
        }
        self.close(out);
        let open = Open::new(lane, arrival, 0, periodic, now_ns);
        let (max_frames, max_bytes) = (RUN_FRAMES.into(), RUN_BYTES);
        self.open = Some(Open {
            late: true,
            max_frames,
            max_bytes,
            ..open
        });
    }

    /// Accounts a frame to the open row and closes the row where the rule says so: true if it did.
    #[inline]
    pub fn extend<T>(&mut self, arrival: &Arrival, out: &mut Vec<Step<T>>) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        let row = &mut open.row;
        row.first_sequence = row.first_sequence.min(arrival.sequence);
        row.last_sequence = row.last_sequence.max(arrival.sequence);
        row.first_timestamp_ns = row.first_timestamp_ns.min(arrival.timestamp_ns);
        row.last_timestamp_ns = row.last_timestamp_ns.max(arrival.timestamp_ns);
        row.first_received_ns = row.first_received_ns.min(arrival.received_ns);
        row.length = row.length.saturating_add(arrival.frame_bytes.into());
        open.present += 1;
        let mut closes = open.present >= open.max_frames || row.length >= open.max_bytes;
        if !open.late {
            let next = arrival.sequence.saturating_add(1);
            if let Some(written) = open.lane.and_then(|lane| self.lanes.get_mut(lane)) {
                written.floor = next;
            }
            closes |= next >= open.end;
            if self.rule == Rule::Markers && arrival.flags & PERIOD_END != 0 {
                open.ended = true;
                closes = true;
            }
        }
        if closes {
            self.close(out);
        }
        closes
    }

    /// Closes the open row, if any.
    pub fn close<T>(&mut self, out: &mut Vec<Step<T>>) {
        let Some(open) = self.open.take() else { return };
        let Open {
            mut row, present, ..
        } = open;
        row.frames_present = u32::try_from(present).unwrap_or(u32::MAX);
        if open.late {
            row.frames_expected = row.frames_present;
            row.status = LATE;
            self.counters.late += present;
        } else {
            let span = (row.last_sequence - row.first_sequence).saturating_add(1);
            let expected = if let Rule::Count(n) = self.rule {
                n
            } else {
                span
            };
            let closed = self.rule != Rule::Markers || (open.started && open.ended);
            let complete = closed && present == expected;
            row.frames_expected = u32::try_from(expected).unwrap_or(u32::MAX);
            row.status = if complete { COMPLETE } else { INCOMPLETE };
            self.counters.complete += u64::from(complete);
            self.counters.incomplete += u64::from(!complete);
            if let Some(written) = open.lane.and_then(|lane| self.lanes.get_mut(lane)) {
                if let Rule::Count(_) = self.rule {
                    written.floor = written.floor.max(open.end);
                } else {
                    if written.history.len() >= HISTORY {
                        written.history.pop_front();
                    }
                    written
                        .history
                        .push_back((row.first_sequence, row.periodic));
                }
            }
        }
        out.push(Step::Row(row));
    }

    fn periodic_of_late(&self, lane: Option<usize>, sequence: u64) -> u64 {
        if let Rule::Count(n) = self.rule {
            return sequence / n;
        }
        let Some(written) = lane.and_then(|lane| self.lanes.get(lane)) else {
            return 0;
        };
        let after = written
            .history
            .partition_point(|&(first, _)| first <= sequence);
        let row = written.history.get(after.saturating_sub(1));
        row.map_or(0, |&(_, number)| number)
    }
}

impl Open {
    /// A row without frames, ready to be extended by this one.
    fn new(
        lane: Option<usize>,
        arrival: &Arrival,
        epoch: u64,
        periodic: u64,
        opened_ns: u64,
    ) -> Self {
        Self {
            lane,
            stream_id: arrival.stream_id,
            epoch,
            late: false,
            end: u64::MAX,
            started: false,
            ended: false,
            opened_ns,
            row: IndexRow {
                periodic,
                first_sequence: u64::MAX,
                first_timestamp_ns: u64::MAX,
                first_received_ns: u64::MAX,
                ..IndexRow::default()
            },
            present: 0,
            max_frames: u64::MAX,
            max_bytes: u64::MAX,
        }
    }
}
