#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const BYTES: u32 = 100;

/// What the tests use as a handle: stream id, epoch, sequence.
type Name = (u16, u64, u64);

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

/// One thing done to an assembler.
#[derive(Debug, Clone, Copy)]
enum Event {
    Push(Arrival, Name),
    Tick(u64),
}

fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![
        (1u32..20).prop_map(|max_frames| Rule::None {
            max_frames,
            max_bytes: 1_500
        }),
        (1u64..12).prop_map(Rule::Count),
        Just(Rule::Markers),
    ]
}

fn all_options() -> impl Strategy<Value = AssembleOptions> {
    let bytes = (300u64..4_000, 0u64..20_000);
    (rules(), 1usize..5, bytes, 0u64..60, 0u64..60).prop_map(
        |(rule, max_open, (max_periodic_bytes, gap_bytes), hold_ns, run_ns)| AssembleOptions {
            rule,
            max_open,
            gap_bytes,
            max_periodic_bytes,
            hold_ns,
            run_ns,
        },
    )
}

/// The frames of a few lanes: lost ones left out, others displaced, epochs, interleaved with ticks.
fn events(restarts: bool) -> impl Strategy<Value = Vec<Event>> {
    let one = (0u16..3, 0u8..100, 0usize..12, 0u8..4, 40u32..200, 0u64..8);
    proptest::collection::vec(one, 1..300).prop_map(move |frames| {
        let mut lanes: HashMap<u16, (u64, u64)> = HashMap::new();
        let mut placed = Vec::new();
        for (at, (id, fate, shift, flags, frame_bytes, wait)) in frames.into_iter().enumerate() {
            let (epoch, next) = lanes.entry(id).or_insert((0, u64::from(fate % 5)));
            let shift = if fate % 4 == 0 { shift } else { 0 };
            match fate {
                0..15 => *next += 1 + u64::from(fate % 3),
                15..17 if restarts => (*epoch, *next) = (*epoch + 1, *next / 2),
                17 if restarts => (*epoch, *next) = (*epoch + 1, *next + 1),
                _ => {}
            }
            let name = (id, *epoch, *next);
            let arrival = Arrival {
                flags,
                frame_bytes,
                ..frame(id, *next)
            };
            *next += 1;
            placed.push((at + shift, wait, arrival, name));
        }
        placed.sort_by_key(|&(at, ..)| at);
        // An epoch begins with its first frame to arrive, and what arrives of an older one after that is
        // taken for a part of the new one; leave those out, they are not this test's matter.
        let mut current: HashMap<u16, u64> = HashMap::new();
        let mut seen = HashSet::new();
        let mut events = Vec::new();
        let mut now = 0;
        for (at, wait, arrival, name) in placed {
            let newest = current.entry(name.0).or_insert(name.1);
            if name.1 < *newest || !seen.insert(name) {
                continue;
            }
            let restart = name.1 > *newest;
            *newest = name.1;
            if wait == 0 {
                now += if at % 31 == 0 { 1_000_000_000 } else { 10 };
                events.push(Event::Tick(now));
            }
            events.push(Event::Push(Arrival { restart, ..arrival }, name));
        }
        events
    })
}

/// Runs the events and checks at every step what must hold at every step.
fn run_events(options: AssembleOptions, events: &[Event]) -> (Vec<Step<Name>>, AssembleCounters) {
    let mut assembler = Assembler::new(options);
    let mut out = Vec::new();
    let mut now = 0;
    let (mut pushed, mut written, mut looked_at) = (0u64, 0u64, 0);
    let bytes: HashMap<Name, u64> = sizes(events);
    for event in events {
        match *event {
            Event::Push(arrival, name) => {
                assembler.push(arrival, name, now, &mut out);
                pushed += u64::from(arrival.frame_bytes);
            }
            Event::Tick(time) => {
                now = time;
                assembler.tick(now, &mut out);
            }
        }
        for step in &out[looked_at..] {
            if let Step::Write(name) = step {
                written += bytes[name];
            }
        }
        looked_at = out.len();
        assert_eq!(assembler.held_bytes(), pushed - written);
        assert!(assembler.held_bytes() <= options.max_periodic_bytes);
        let held: u64 = assembler.held().map(|name| bytes[name]).sum();
        assert_eq!(held, assembler.held_bytes());
        let boundary = !matches!(out.last(), Some(Step::Write(_)));
        assert_eq!(assembler.open_boundary(), boundary);
    }
    assembler.finish(&mut out);
    assert!(assembler.open_boundary());
    assert_eq!(assembler.held_bytes(), 0);
    (out, assembler.counters())
}

fn sizes(events: &[Event]) -> HashMap<Name, u64> {
    arrivals(events)
        .map(|(arrival, name)| (name, u64::from(arrival.frame_bytes)))
        .collect()
}

fn arrivals(events: &[Event]) -> impl Iterator<Item = (Arrival, Name)> {
    events.iter().filter_map(|event| match *event {
        Event::Push(arrival, name) => Some((arrival, name)),
        Event::Tick(_) => None,
    })
}

/// Rows with the names of their frames.
fn rows_of(out: &[Step<Name>]) -> Vec<(IndexRow, Vec<Name>)> {
    let mut rows = Vec::new();
    let mut names = Vec::new();
    for step in out {
        match step {
            Step::Write(name) => names.push(*name),
            Step::Row(row) => rows.push((*row, std::mem::take(&mut names))),
        }
    }
    assert!(names.is_empty(), "frames after the last row");
    rows
}

/// What a reader of the file knows: the frames in order, epochs marked, without receive times.
fn as_read(out: &[Step<Name>], events: &[Event]) -> Vec<Arrival> {
    let known: HashMap<Name, Arrival> = arrivals(events).map(|(a, name)| (name, a)).collect();
    let mut epochs: HashMap<u16, u64> = HashMap::new();
    let mut read = Vec::new();
    for step in out {
        if let Step::Write(name) = step {
            let epoch = epochs.entry(name.0).or_insert(name.1);
            let restart = name.1 != *epoch;
            *epoch = name.1;
            read.push(Arrival {
                restart,
                ..known[name]
            });
        }
    }
    read
}

/// Joins neighbouring rows of late frames of the same lane and periodic, which a file cannot tell apart.
fn joined(rows: &[(IndexRow, Vec<Name>)]) -> Vec<IndexRow> {
    let mut joined: Vec<(IndexRow, u16)> = Vec::new();
    for (row, names) in rows {
        match joined.last_mut() {
            Some((last, id))
                if last.status == LATE
                    && row.status == LATE
                    && last.periodic == row.periodic
                    && *id == names[0].0 =>
            {
                last.first_sequence = last.first_sequence.min(row.first_sequence);
                last.last_sequence = last.last_sequence.max(row.last_sequence);
                last.first_timestamp_ns = last.first_timestamp_ns.min(row.first_timestamp_ns);
                last.last_timestamp_ns = last.last_timestamp_ns.max(row.last_timestamp_ns);
                last.length += row.length;
                last.frames_present += row.frames_present;
                last.frames_expected += row.frames_expected;
            }
            _ => joined.push((*row, names[0].0)),
        }
    }
    joined.into_iter().map(|(row, _)| row).collect()
}

proptest! {
    #[test]
    fn every_frame_is_written_once_and_indexed_once(options in all_options(), events in events(true)) {
        let (out, counters) = run_events(options, &events);
        let rows = rows_of(&out);
        let known: HashMap<Name, Arrival> = arrivals(&events).map(|(a, name)| (name, a)).collect();
        let mut written: Vec<Name> = rows.iter().flat_map(|(_, names)| names.clone()).collect();
        let mut expected: Vec<Name> = known.keys().copied().collect();
        written.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(written, expected);

        let mut highest: HashMap<(u16, u64), u64> = HashMap::new();
        let mut seen = AssembleCounters::default();
        for (row, names) in &rows {
            let (known, names) = (&known, &names[..]);
            let of = |f: fn(&Arrival) -> u64| names.iter().map(move |name| f(&known[name]));
            prop_assert!(!names.is_empty());
            prop_assert!(names.iter().all(|name| (name.0, name.1) == (names[0].0, names[0].1)));
            prop_assert_eq!(row.length, of(|a| a.frame_bytes.into()).sum::<u64>());
            prop_assert_eq!(row.first_sequence, of(|a| a.sequence).min().unwrap());
            prop_assert_eq!(row.last_sequence, of(|a| a.sequence).max().unwrap());
            prop_assert_eq!(row.first_timestamp_ns, of(|a| a.timestamp_ns).min().unwrap());
            prop_assert_eq!(row.last_timestamp_ns, of(|a| a.timestamp_ns).max().unwrap());
            let present = u64::from(row.frames_present);
            prop_assert_eq!(present, names.len() as u64);
            let highest = highest.entry((names[0].0, names[0].1)).or_insert(0);
            if row.status == LATE {
                // Rule `count` closes a periodic before its last sequence was seen.
                let end = match options.rule {
                    Rule::Count(n) => (row.periodic + 1) * n,
                    _ => *highest + 1,
                };
                prop_assert!(names.iter().all(|name| name.2 < end));
                prop_assert_eq!(row.frames_expected, row.frames_present);
                seen.late += present;
                continue;
            }
            prop_assert!(names.windows(2).all(|pair| pair[0].2 < pair[1].2));
            prop_assert!(*highest == 0 || row.first_sequence > *highest);
            *highest = row.last_sequence;
            let flags = |name: &Name| known[name].flags;
            let (expected, may_be_complete) = match options.rule {
                Rule::Count(n) => {
                    prop_assert!(names.iter().all(|name| name.2 / n == row.periodic));
                    (n, true)
                }
                Rule::None { .. } => (row.last_sequence - row.first_sequence + 1, true),
                Rule::Markers => {
                    prop_assert!(names[1..].iter().all(|name| flags(name) & 1 == 0));
                    prop_assert!(names[..names.len() - 1].iter().all(|name| flags(name) & 2 == 0));
                    let both = flags(&names[0]) & 1 != 0 && flags(&names[names.len() - 1]) & 2 != 0;
                    (row.last_sequence - row.first_sequence + 1, both)
                }
            };
            prop_assert_eq!(u64::from(row.frames_expected), expected);
            let complete = may_be_complete && present == expected;
            prop_assert_eq!(row.status, if complete { COMPLETE } else { INCOMPLETE });
            seen.complete += u64::from(complete);
            seen.incomplete += u64::from(!complete);
        }
        prop_assert_eq!(counters, seen);
    }

    #[test]
    fn the_index_can_be_rebuilt_from_the_file(options in all_options(), events in events(true)) {
        // A started periodic of rule `markers` is cut at this size, which the file does not tell.
        let max_periodic_bytes = match options.rule {
            Rule::Markers => MAX_PERIODIC_BYTES,
            _ => options.max_periodic_bytes,
        };
        let options = AssembleOptions { max_periodic_bytes, ..options };
        let (out, _) = run_events(options, &events);
        let rows = rows_of(&out);
        let read = as_read(&out, &events);
        let rebuilt = rebuild(read.iter().copied(), options.rule);
        if let Rule::None { .. } = options.rule {
            let frames: u32 = rebuilt.iter().map(|row| row.frames_present).sum();
            let bytes: u64 = rebuilt.iter().map(|row| row.length).sum();
            prop_assert_eq!(u64::from(frames), read.len() as u64);
            prop_assert_eq!(bytes, read.iter().map(|a| u64::from(a.frame_bytes)).sum::<u64>());
            let late = |rows: &[IndexRow]| -> u32 {
                rows.iter().filter(|row| row.status == LATE).map(|row| row.frames_present).sum()
            };
            let written: Vec<IndexRow> = rows.iter().map(|(row, _)| *row).collect();
            prop_assert_eq!(late(&rebuilt), late(&written));
        } else {
            prop_assert_eq!(rebuilt, joined(&rows));
        }
    }

    /// With patience and room the result is that of sorting each lane and cutting it naively.
    #[test]
    fn patience_restores_the_order(rule in rules(), events in events(false)) {
        let rule = if let Rule::None { max_frames, .. } = rule {
            Rule::None { max_frames, max_bytes: u64::MAX }
        } else {
            rule
        };
        let options = AssembleOptions {
            rule,
            max_open: 10_000,
            gap_bytes: u64::MAX,
            hold_ns: u64::MAX,
            run_ns: u64::MAX,
            ..AssembleOptions::default()
        };
        // The rules that do not know where a lane begins take its first frame for that.
        let mut lanes: BTreeMap<u16, Vec<Arrival>> = BTreeMap::new();
        let mut kept = Vec::new();
        for (arrival, name) in arrivals(&events) {
            let lane = lanes.entry(name.0).or_default();
            let first = lane.first().map_or(0, |first| first.sequence);
            let first = if let Rule::Count(n) = rule { first - first % n } else { first };
            if arrival.sequence >= first {
                lane.push(arrival);
                kept.push(Event::Push(arrival, name));
            }
        }
        let (out, counters) = run_events(options, &kept);
        prop_assert_eq!(counters.late, 0);
        let mut naive: Vec<(u16, u64, u64, usize)> = Vec::new();
        for (id, lane) in &mut lanes {
            lane.sort_by_key(|arrival| arrival.sequence);
            let mut open: Vec<&Arrival> = Vec::new();
            for arrival in lane.iter() {
                let cuts = open.last().is_some_and(|last: &&Arrival| match rule {
                    Rule::Count(n) => last.sequence / n != arrival.sequence / n,
                    Rule::Markers => last.flags & 2 != 0 || arrival.flags & 1 != 0,
                    Rule::None { max_frames, .. } => open.len() == max_frames as usize,
                });
                if cuts {
                    naive.push((*id, open[0].sequence, open[open.len() - 1].sequence, open.len()));
                    open.clear();
                }
                open.push(arrival);
            }
            if let (Some(first), Some(last)) = (open.first(), open.last()) {
                naive.push((*id, first.sequence, last.sequence, open.len()));
            }
        }
        let rows = rows_of(&out);
        let mut found: Vec<_> = rows
            .iter()
            .map(|(row, names)| (names[0].0, row.first_sequence, row.last_sequence, names.len()))
            .collect();
        found.sort_unstable();
        naive.sort_unstable();
        prop_assert_eq!(found, naive);
    }
}
