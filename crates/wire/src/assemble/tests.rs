#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use super::*;

mod properties;

const BYTES: u32 = 100;

/// Periodic, first and last sequence, status.
type Row = (u64, u64, u64, u8);

fn frame(stream_id: u16, sequence: u64) -> Arrival {
    Arrival {
        stream_id,
        sequence,
        frame_bytes: BYTES,
        timestamp_ns: sequence.saturating_add(1_000),
        ..Arrival::default()
    }
}

/// Pushes at time 0 and tells what came out: sequences written and rows as (periodic, first, last, status).
fn run(options: AssembleOptions, frames: &[Arrival]) -> (Vec<u64>, Vec<Row>) {
    let mut assembler = Assembler::new(options);
    let mut out = Vec::new();
    for frame in frames {
        assembler.push(*frame, frame.sequence, 0, &mut out);
    }
    assembler.finish(&mut out);
    assert_eq!(assembler.held_bytes(), 0);
    split(&out)
}

fn split(out: &[Step<u64>]) -> (Vec<u64>, Vec<Row>) {
    let mut writes = Vec::new();
    let mut rows = Vec::new();
    for step in out {
        match step {
            Step::Write(sequence) => writes.push(*sequence),
            Step::Row(r) => rows.push((r.periodic, r.first_sequence, r.last_sequence, r.status)),
        }
    }
    (writes, rows)
}

fn count(n: u64) -> AssembleOptions {
    AssembleOptions {
        rule: Rule::Count(n),
        ..AssembleOptions::default()
    }
}

fn markers() -> AssembleOptions {
    AssembleOptions {
        rule: Rule::Markers,
        ..AssembleOptions::default()
    }
}

fn frames(sequences: &[u64]) -> Vec<Arrival> {
    sequences
        .iter()
        .map(|&sequence| frame(0, sequence))
        .collect()
}

/// `<` PERIOD_START, `>` PERIOD_END, `o` both, `.` none, `_` lost.
fn marked(text: &str) -> Vec<Arrival> {
    let flags = |c| match c {
        '<' => Some(1),
        '>' => Some(2),
        'o' => Some(3),
        '.' => Some(0),
        _ => None,
    };
    let numbered = (0u64..).zip(text.chars());
    numbered
        .filter_map(|(n, c)| {
            flags(c).map(|flags| Arrival {
                flags,
                ..frame(0, n)
            })
        })
        .collect()
}

#[test]
fn a_periodic_in_order_is_written_at_once_and_closed_by_its_last_frame() {
    let mut assembler = Assembler::new(count(3));
    let mut out = Vec::new();
    assembler.push(frame(0, 0), 0u64, 0, &mut out);
    assert_eq!(out, vec![Step::Write(0)]);
    assert!(!assembler.open_boundary());
    assembler.push(frame(0, 1), 1, 0, &mut out);
    assembler.push(frame(0, 2), 2, 0, &mut out);
    let row = IndexRow {
        periodic: 0,
        first_sequence: 0,
        last_sequence: 2,
        first_timestamp_ns: 1_000,
        last_timestamp_ns: 1_002,
        first_received_ns: 0,
        length: 300,
        frames_expected: 3,
        frames_present: 3,
        status: COMPLETE,
    };
    assert_eq!(
        out,
        vec![
            Step::Write(0),
            Step::Write(1),
            Step::Write(2),
            Step::Row(row)
        ]
    );
    assert!(assembler.open_boundary());
}

#[test]
fn reordered_frames_of_a_count_periodic_are_put_in_order() {
    let (writes, rows) = run(count(4), &frames(&[1, 0, 3, 5, 2, 4, 7, 6]));
    assert_eq!(writes, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(rows, [(0, 0, 3, COMPLETE), (1, 4, 7, COMPLETE)]);
}

#[test]
fn a_lost_frame_is_given_up_when_too_many_periodics_are_open() {
    let options = AssembleOptions {
        max_open: 2,
        ..count(2)
    };
    let mut assembler = Assembler::new(options);
    let mut out = Vec::new();
    for sequence in [0, 2, 3, 4] {
        assembler.push(frame(0, sequence), sequence, 0, &mut out);
    }
    assert_eq!(
        split(&out).0,
        [0, 2, 3, 4],
        "periodic 0 made way for the third one"
    );
    assert_eq!(split(&out).1, [(0, 0, 0, INCOMPLETE), (1, 2, 3, COMPLETE)]);
}

#[test]
fn a_gap_holds_back_for_hold_ns_and_no_longer() {
    let mut assembler = Assembler::new(AssembleOptions {
        hold_ns: 100,
        ..count(4)
    });
    let mut out = Vec::new();
    assembler.push(frame(0, 0), 0, 5, &mut out);
    assembler.push(frame(0, 2), 2, 10, &mut out);
    assembler.tick(109, &mut out);
    assert_eq!(out, vec![Step::Write(0)]);
    assert_eq!(assembler.held_bytes(), 100);
    assert_eq!(assembler.held().count(), 1);
    assembler.tick(110, &mut out);
    assert_eq!(out, vec![Step::Write(0), Step::Write(2)]);
    // Behind what has been written, in a periodic that is still open: late, after the head closes.
    assembler.push(frame(0, 1), 1, 111, &mut out);
    assert_eq!(out.len(), 2);
    assembler.push(frame(0, 3), 3, 112, &mut out);
    assembler.finish(&mut out);
    assert_eq!(split(&out).0, [0, 2, 3, 1]);
    assert_eq!(split(&out).1, [(0, 0, 3, INCOMPLETE), (0, 1, 1, LATE)]);
    assert_eq!(
        assembler.counters(),
        AssembleCounters {
            complete: 0,
            incomplete: 1,
            late: 1
        }
    );
}

#[test]
fn without_a_hold_frames_past_a_gap_are_written_at_once() {
    let mut assembler = Assembler::new(AssembleOptions {
        hold_ns: 0,
        ..Default::default()
    });
    let mut out = Vec::new();
    for sequence in [0, 2, 1, 3] {
        assembler.push(frame(0, sequence), sequence, 0, &mut out);
    }
    assert_eq!(split(&out).0, [0, 2, 3]);
    assembler.finish(&mut out);
    assert_eq!(split(&out).1, [(0, 0, 3, INCOMPLETE), (0, 1, 1, LATE)]);
}

#[test]
fn late_frames_of_one_periodic_share_a_row_and_say_which_one() {
    let options = AssembleOptions {
        hold_ns: 0,
        ..count(4)
    };
    let (writes, rows) = run(options, &frames(&[0, 3, 4, 6, 7, 8, 1, 2, 5, 9, 10, 11]));
    assert_eq!(writes, [0, 3, 4, 6, 7, 8, 9, 10, 11, 1, 2, 5]);
    let late = [(0, 1, 2, LATE), (1, 5, 5, LATE)];
    let closed = [
        (0, 0, 3, INCOMPLETE),
        (1, 4, 7, INCOMPLETE),
        (2, 8, 11, COMPLETE),
    ];
    assert_eq!(rows, [&closed[..], &late[..]].concat());
}

#[test]
fn markers_open_and_close() {
    let (_, rows) = run(markers(), &marked("<.><..>o<>"));
    let firsts = [(0, 0, 2), (1, 3, 6), (2, 7, 7), (3, 8, 9)];
    assert_eq!(
        rows,
        firsts.map(|(k, first, last)| (k, first, last, COMPLETE))
    );
}

#[test]
fn a_start_while_one_is_open_closes_that_one_incomplete() {
    let (_, rows) = run(markers(), &marked("<..<.>"));
    assert_eq!(rows, [(0, 0, 2, INCOMPLETE), (1, 3, 5, COMPLETE)]);
}

#[test]
fn frames_outside_markers_get_a_periodic_of_their_own() {
    let (_, rows) = run(markers(), &marked("..<>..<>"));
    let expected = [(0, 0, 1, 1), (1, 2, 3, 0), (2, 4, 5, 1), (3, 6, 7, 0)];
    assert_eq!(rows, expected);
}

#[test]
fn a_frame_missing_between_markers_makes_the_periodic_incomplete() {
    let (writes, rows) = run(markers(), &marked("<._.><>"));
    assert_eq!(writes, [0, 1, 3, 4, 5, 6]);
    assert_eq!(rows, [(0, 0, 4, INCOMPLETE), (1, 5, 6, COMPLETE)]);
}

#[test]
fn frames_without_any_marker_are_cut_into_runs() {
    let text = ".".repeat(9_000);
    let (_, rows) = run(markers(), &marked(&text));
    let cuts = [(0, 0, 4_095), (1, 4_096, 8_191), (2, 8_192, 8_999)];
    assert_eq!(
        rows,
        cuts.map(|(k, first, last)| (k, first, last, INCOMPLETE))
    );
}

#[test]
fn a_run_closes_by_frames_by_bytes_and_by_age() {
    let rule = Rule::None {
        max_frames: 3,
        max_bytes: 1 << 20,
    };
    let (_, rows) = run(
        AssembleOptions {
            rule,
            ..Default::default()
        },
        &frames(&[5, 6, 7, 8]),
    );
    assert_eq!(rows, [(0, 5, 7, COMPLETE), (1, 8, 8, COMPLETE)]);
    let rule = Rule::None {
        max_frames: 100,
        max_bytes: 200,
    };
    let (_, rows) = run(
        AssembleOptions {
            rule,
            ..Default::default()
        },
        &frames(&[0, 1, 2, 3]),
    );
    assert_eq!(rows, [(0, 0, 1, COMPLETE), (1, 2, 3, COMPLETE)]);

    let mut assembler = Assembler::new(AssembleOptions {
        run_ns: 50,
        ..Default::default()
    });
    let mut out = Vec::new();
    assembler.push(frame(0, 0), 0, 10, &mut out);
    assembler.tick(59, &mut out);
    assert!(!assembler.open_boundary());
    assembler.tick(60, &mut out);
    assert!(assembler.open_boundary());
    assert_eq!(split(&out).1, [(0, 0, 0, COMPLETE)]);
}

#[test]
fn a_run_with_a_lost_frame_is_incomplete() {
    let mut assembler = Assembler::new(AssembleOptions {
        hold_ns: 10,
        ..Default::default()
    });
    let mut out = Vec::new();
    for sequence in [0, 1, 3, 4] {
        assembler.push(frame(0, sequence), sequence, 0, &mut out);
    }
    assembler.tick(10, &mut out);
    assembler.finish(&mut out);
    let Some(Step::Row(row)) = out.last() else {
        panic!("no row")
    };
    assert_eq!(
        (row.frames_expected, row.frames_present, row.status),
        (5, 4, INCOMPLETE)
    );
}

#[test]
fn lanes_take_turns_oldest_first_and_stay_contiguous() {
    let mut assembler = Assembler::new(count(2));
    let mut out = Vec::new();
    let order = [(7, 0), (3, 0), (9, 0), (3, 1), (9, 1), (7, 1)];
    for (id, sequence) in order {
        assembler.push(
            frame(id, sequence),
            u64::from(id) * 10 + sequence,
            0,
            &mut out,
        );
    }
    assert_eq!(split(&out).0, [70, 71, 30, 31, 90, 91]);
    assert!(assembler.open_boundary());
}

#[test]
fn a_silent_head_makes_way_for_what_waits() {
    const SECOND: u64 = 1_000_000_000;
    let mut assembler = Assembler::new(AssembleOptions {
        hold_ns: 100,
        ..count(2)
    });
    let mut out = Vec::new();
    assembler.push(frame(0, 0), 0, 0, &mut out);
    assembler.push(frame(1, 0), 10, 50, &mut out);
    assembler.push(frame(1, 1), 11, 50, &mut out);
    assembler.tick(SECOND - 1, &mut out);
    assert_eq!(split(&out).0, [0]);
    assembler.tick(SECOND, &mut out);
    assert_eq!(split(&out).0, [0, 10, 11]);
    assembler.push(frame(0, 1), 1, SECOND, &mut out);
    assembler.finish(&mut out);
    let rows = [(0, 0, 0, INCOMPLETE), (0, 0, 1, COMPLETE), (0, 1, 1, LATE)];
    assert_eq!(split(&out).1, rows);
}

#[test]
fn a_restart_closes_what_is_open_and_begins_anew() {
    let again = [frame(0, 0), frame(0, 1)];
    let restart = Arrival {
        restart: true,
        ..frame(0, 0)
    };
    let mut all = frames(&[0, 1, 2, 3, 4, 6]);
    all.extend([restart, again[1]]);
    let (writes, rows) = run(count(4), &all);
    assert_eq!(writes, [0, 1, 2, 3, 4, 6, 0, 1]);
    assert_eq!(rows, [(0, 0, 3, 0), (1, 4, 6, 1), (0, 0, 1, 1)]);
    let (_, rows) = run(AssembleOptions::default(), &all);
    assert_eq!(
        rows,
        [(0, 0, 6, 1), (1, 0, 1, 0)],
        "numbers go on over epochs"
    );
}

#[test]
fn a_reconnect_inside_a_periodic_does_not_wait_for_its_beginning() {
    let mut assembler = Assembler::new(count(8));
    let mut out = Vec::new();
    assembler.push(frame(0, 0), 0, 0, &mut out);
    assembler.push(
        Arrival {
            restart: true,
            ..frame(0, 1)
        },
        1,
        0,
        &mut out,
    );
    assert_eq!(split(&out).0, [0, 1]);
}

#[test]
fn held_bytes_stay_within_the_bound() {
    let options = AssembleOptions {
        max_periodic_bytes: 1_000,
        max_open: 100,
        ..count(1_000)
    };
    let mut assembler = Assembler::new(options);
    let mut out = Vec::new();
    for sequence in (0..5_000).filter(|n| n % 1_000 != 1) {
        assembler.push(frame(0, sequence), sequence, 0, &mut out);
        assert!(assembler.held_bytes() <= 1_000);
    }
    assembler.finish(&mut out);
    let writes = split(&out).0;
    assert_eq!(writes.len(), 4_995);
    assert!(writes.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_gap_of_rule_none_is_given_up_once_enough_follows_it() {
    for (gap_bytes, held) in [(0, GAP_FRAMES), (100 * 100, 100), (u64::MAX, 499)] {
        let mut assembler = Assembler::new(AssembleOptions {
            gap_bytes,
            ..AssembleOptions::default()
        });
        let mut out = Vec::new();
        let mut most = 0;
        for sequence in (0..500).filter(|&n| n != 1) {
            assembler.push(frame(0, sequence), sequence, 0, &mut out);
            most = most.max(assembler.held().count() as u64);
        }
        assert!(
            most <= held,
            "{most} frames of 100 bytes were held, not {held}"
        );
        assert_eq!(split(&out).0.len() == 499, held < 498);
        // What is further apart than that is late, and nothing is lost.
        assembler.push(frame(0, 1), 1, 0, &mut out);
        assembler.finish(&mut out);
        let late = assembler.counters().late;
        assert_eq!((split(&out).0.len(), late), (500, u64::from(held < 498)));
    }
}

#[test]
fn stream_ids_past_the_limit_are_written_as_late() {
    let mut assembler = Assembler::new(AssembleOptions::default());
    let mut out = Vec::new();
    for id in 0..2_000u16 {
        assembler.push(frame(id, 0), u64::from(id), 0, &mut out);
    }
    assembler.finish(&mut out);
    assert_eq!(split(&out).0.len(), 2_000);
    let counters = assembler.counters();
    assert_eq!((counters.complete, counters.late), (1_024, 976));
}

#[test]
fn the_ends_of_the_number_range_are_safe() {
    for rule in [
        Rule::default(),
        Rule::Count(0),
        Rule::Count(u64::MAX),
        Rule::Markers,
    ] {
        let options = AssembleOptions {
            rule,
            max_open: 0,
            ..Default::default()
        };
        let all = frames(&[u64::MAX, 0, u64::MAX - 1, u64::MAX, 1]);
        assert_eq!(run(options, &all).0.len(), 5, "{rule:?}");
        assert!(!rebuild(all.into_iter(), rule).is_empty());
    }
}

#[test]
fn rebuilding_finds_a_restart_without_being_told() {
    let all = frames(&[100_000, 100_001, 0, 1]);
    let rows = rebuild(all.into_iter(), Rule::default());
    assert_eq!(
        rows.iter().map(|row| row.status).collect::<Vec<_>>(),
        [COMPLETE, COMPLETE]
    );
}
