//! The tracker against a set of everything seen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use tapeline_testkit::Random;
use tapeline_wire::sequence::{SequenceCounters, SequenceTable, SequenceTracker, Verdict};

/// Slow and obvious: one set per epoch.
#[derive(Default)]
struct Model {
    window: u64,
    epochs: Vec<BTreeSet<u64>>,
    counters: SequenceCounters,
}

impl Model {
    fn observe(&mut self, sequence: u64) -> Verdict {
        let verdict = match self
            .epochs
            .last()
            .and_then(|seen| seen.last().map(|last| (seen, *last)))
        {
            None => Verdict::InOrder,
            Some((_, last)) if sequence == last.wrapping_add(1) && sequence != 0 => {
                Verdict::InOrder
            }
            Some((_, last)) if sequence > last => Verdict::Gap {
                lost: sequence - last - 1,
            },
            Some((_, last)) if last - sequence >= self.window => Verdict::Restart,
            Some((seen, _)) if seen.contains(&sequence) => Verdict::Duplicate,
            Some(_) => Verdict::Reordered,
        };
        match verdict {
            Verdict::Gap { .. } => self.counters.gaps += 1,
            Verdict::Restart => self.counters.restarts += 1,
            Verdict::Duplicate => self.counters.frames_duplicate += 1,
            Verdict::Reordered => self.counters.frames_reordered += 1,
            Verdict::InOrder => {}
        }
        if self.epochs.is_empty() || verdict == Verdict::Restart {
            self.epochs.push(BTreeSet::new());
        }
        self.epochs.last_mut().unwrap().insert(sequence);
        let lost = |seen: &BTreeSet<u64>| {
            seen.last().unwrap() - seen.first().unwrap() + 1 - seen.len() as u64
        };
        self.counters.frames_lost = self.epochs.iter().map(lost).sum();
        verdict
    }
}

#[test]
fn prop_tracker_equals_a_set() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(300);
    for seed in 0..cases {
        let mut random = Random::new(seed);
        let window = [1, 2, 5, 63, 64, 65, 100, 1000, 65_536][random.index(9)];
        let mut tracker = SequenceTracker::new(window);
        let mut model = Model {
            window,
            ..Model::default()
        };
        let mut next = [0, 7, 1 << 40, u64::MAX - 3000][random.index(4)];
        for _ in 0..200 {
            let sequence = match random.below(12) {
                0 => next.saturating_sub(random.below(2 * window)),
                1 => next.saturating_add(random.below(3 * window)),
                2 | 3 => next.saturating_sub(random.below(8)),
                4 => next.saturating_add(random.below(8)),
                _ => next,
            };
            let verdict = model.observe(sequence);
            assert_eq!(
                tracker.observe(sequence),
                verdict,
                "seed {seed}, {sequence}"
            );
            assert_eq!(
                *tracker.counters(),
                model.counters,
                "seed {seed}, {sequence}"
            );
            next = if verdict == Verdict::Restart {
                sequence
            } else {
                next.max(sequence)
            }
            .saturating_add(1);
        }
    }
}

#[test]
fn a_table_follows_a_bounded_number_of_ids() {
    let mut table = SequenceTable::new(64, 3);
    for round in 0..4 {
        for id in [9, 7, 65_535] {
            assert_eq!(table.observe(id, round), Some(Verdict::InOrder));
        }
        assert_eq!(table.observe(8, round), None);
    }
    assert_eq!((table.untracked(), table.iter().count()), (4, 3));
    assert_eq!(table.totals(), SequenceCounters::default());
    table.new_epoch();
    assert_eq!(table.observe(7, 0), Some(Verdict::Restart));
    assert_eq!(table.observe(7, 2), Some(Verdict::Gap { lost: 1 }));
    assert_eq!(
        table.totals(),
        SequenceCounters {
            gaps: 1,
            frames_lost: 1,
            ..SequenceCounters::default()
        }
    );
}
