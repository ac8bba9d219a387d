//! The sequence of DIFF and FULL packets per source: a byte that wraps (`spec/register-packets.md 2`).
//!
//! Other commands are not counted: whoever queries a source numbers its queries as it likes. With
//! 256 numbers a step of up to 128 forward is a gap; anything else came late, and is a duplicate if
//! that number was seen in the last 128. Nothing is dropped for its number.

use std::collections::HashMap;

use super::packet::Source;

/// Totals over sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqCounters {
    /// Times the sequence jumped ahead.
    pub gaps: u64,
    /// Numbers that were jumped over and did not come late.
    pub lost: u64,
    /// Numbers that came twice.
    pub duplicates: u64,
    /// Numbers that came late.
    pub reordered: u64,
}

impl SeqCounters {
    /// Adds another sequence's totals.
    pub const fn add(&mut self, other: &Self) {
        self.gaps += other.gaps;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
    }
}

/// What a number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeqVerdict {
    /// The next one, or the first.
    InOrder,
    /// So many did not come.
    Gap {
        /// 1 to 127.
        lost: u8,
    },
    /// Seen before.
    Duplicate,
    /// Missed before.
    Reordered,
}

/// The sequence of one source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeqTracker {
    last: Option<u8>,
    /// Bit n: `last - n` was seen.
    seen: u128,
}

impl SeqTracker {
    /// The furthest number so far; None before the first.
    #[must_use]
    pub const fn last(&self) -> Option<u8> {
        self.last
    }

    /// Takes the next number.
    #[inline]
    pub fn observe(&mut self, seq: u8, counters: &mut SeqCounters) -> SeqVerdict {
        let Some(last) = self.last else {
            self.last = Some(seq);
            // Nothing before the first is missed.
            self.seen = u128::MAX;
            return SeqVerdict::InOrder;
        };
        let step = seq.wrapping_sub(last);
        match step {
            1 => {
                self.last = Some(seq);
                self.seen = self.seen << 1 | 1;
                SeqVerdict::InOrder
            }
            2..=128 => {
                self.last = Some(seq);
                self.seen = self.seen.checked_shl(u32::from(step)).unwrap_or(0) | 1;
                counters.gaps += 1;
                counters.lost += u64::from(step - 1);
                SeqVerdict::Gap { lost: step - 1 }
            }
            _ => {
                let bit = 1_u128 << step.wrapping_neg();
                if self.seen & bit != 0 {
                    counters.duplicates += 1;
                    return SeqVerdict::Duplicate;
                }
                self.seen |= bit;
                counters.reordered += 1;
                counters.lost = counters.lost.saturating_sub(1);
                SeqVerdict::Reordered
            }
        }
    }
}

/// The sequences of a bounded number of sources.
#[derive(Clone, Debug)]
pub struct SeqTable {
    trackers: HashMap<Source, SeqTracker>,
    max_sources: usize,
    counters: SeqCounters,
}

impl SeqTable {
    /// A table for at most `max_sources`; others are not tracked.
    #[must_use]
    pub fn new(max_sources: usize) -> Self {
        Self {
            trackers: HashMap::new(),
            max_sources,
            counters: SeqCounters::default(),
        }
    }

    /// Takes the number of a DIFF or FULL of `source`; None if the table is full.
    pub fn observe(&mut self, source: Source, seq: u8) -> Option<SeqVerdict> {
        if !self.trackers.contains_key(&source) && self.trackers.len() >= self.max_sources {
            return None;
        }
        let tracker = self.trackers.entry(source).or_default();
        Some(tracker.observe(seq, &mut self.counters))
    }

    /// Totals over all sources.
    #[must_use]
    pub const fn counters(&self) -> &SeqCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(numbers: &[u8]) -> (Vec<SeqVerdict>, SeqCounters) {
        let (mut tracker, mut counters) = (SeqTracker::default(), SeqCounters::default());
        let verdicts = numbers
            .iter()
            .map(|&n| tracker.observe(n, &mut counters))
            .collect();
        (verdicts, counters)
    }

    #[test]
    fn the_wrap_is_no_gap() {
        let numbers: Vec<u8> = (0..4).flat_map(|_| 0..=255).collect();
        assert_eq!(observe(&numbers).1, SeqCounters::default());
    }

    #[test]
    fn a_late_number_is_no_longer_lost_and_then_a_duplicate() {
        use SeqVerdict::{Duplicate, Gap, InOrder, Reordered};
        let (verdicts, counters) = observe(&[254, 255, 2, 0, 0, 2, 3, 1]);
        assert_eq!(
            verdicts,
            [
                InOrder,
                InOrder,
                Gap { lost: 2 },
                Reordered,
                Duplicate,
                Duplicate,
                InOrder,
                Reordered
            ]
        );
        let want = SeqCounters {
            gaps: 1,
            lost: 0,
            duplicates: 2,
            reordered: 2,
        };
        assert_eq!(counters, want);
    }

    #[test]
    fn a_constant_number_is_a_duplicate_each_time() {
        assert_eq!(observe(&[9; 5]).1.duplicates, 4);
    }
}
