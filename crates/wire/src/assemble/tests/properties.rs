//! Any frames in any order: what is written, indexed and held at every step, and what the file alone tells.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// What the properties use as a handle: stream id, epoch, sequence.
type Name = (u16, u64, u64);

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
