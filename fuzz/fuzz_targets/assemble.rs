//! Any arrivals: every frame is written once, every row says what stands before it, and what is held stays bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapeline_fuzz::Choices;
use tapeline_wire::assemble::{
    Arrival, AssembleOptions, Assembler, COMPLETE, IndexRow, LATE, Rule, Step, rebuild,
};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let rule = match choices.byte() % 3 {
        0 => Rule::None {
            max_frames: 1 + u32::from(choices.byte()),
            max_bytes: 1 + choices.number(2),
        },
        1 => Rule::Count(1 + choices.number(1)),
        _ => Rule::Markers,
    };
    let options = AssembleOptions {
        rule,
        max_open: usize::from(choices.byte() % 6).max(1),
        gap_bytes: choices.number(2),
        max_periodic_bytes: 1 + choices.number(2),
        hold_ns: choices.number(1) * 10,
        run_ns: choices.number(1) * 10,
    };
    let mut assembler = Assembler::new(options);
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut file = File::default();
    let (mut now_ns, mut sequence) = (0, 0u64);
    let mut steps = Vec::new();
    while !choices.is_empty() {
        let op = choices.byte();
        now_ns += u64::from(op >> 4) * 7;
        if op & 15 == 15 {
            assembler.tick(now_ns, &mut steps);
        } else {
            sequence = match op & 15 {
                0..=7 => sequence.wrapping_add(1),
                8 | 9 => sequence.wrapping_add(choices.number(1)),
                10 | 11 => sequence.wrapping_sub(choices.number(1)),
                12 => choices.number(8),
                13 => u64::MAX - choices.number(1),
                _ => sequence,
            };
            let arrival = Arrival {
                stream_id: if op & 15 == 9 {
                    choices.number(2) as u16
                } else {
                    u16::from(op >> 7)
                },
                flags: choices.byte(),
                frame_bytes: 41 + u32::from(choices.byte()) * 8,
                sequence,
                timestamp_ns: sequence.wrapping_mul(3),
                received_ns: now_ns,
                restart: op & 15 == 12,
            };
            assembler.push(arrival, arrivals.len(), now_ns, &mut steps);
            arrivals.push(arrival);
            let bound = options.max_periodic_bytes + u64::from(arrival.frame_bytes);
            assert!(
                assembler.held_bytes() <= bound,
                "{} held of {bound}",
                assembler.held_bytes()
            );
        }
        file.append(&mut steps, &arrivals);
        let held: Vec<usize> = assembler.held().map(|handle| *handle).collect();
        assert_eq!(
            held.len() + file.order.len(),
            arrivals.len(),
            "written and held"
        );
        let bytes: u64 = held
            .iter()
            .map(|handle| u64::from(arrivals[*handle].frame_bytes))
            .sum();
        assert_eq!(bytes, assembler.held_bytes());
        assert_eq!(assembler.open_boundary(), file.run.is_empty());
    }
    assembler.finish(&mut steps);
    file.append(&mut steps, &arrivals);
    assert!(file.run.is_empty(), "frames without a row");
    assert_eq!((assembler.held_bytes(), assembler.held().count()), (0, 0));
    let mut written = file.order.clone();
    written.sort_unstable();
    assert!(
        written.iter().copied().eq(0..arrivals.len()),
        "every frame, once"
    );
    let late: u64 = file
        .rows
        .iter()
        .filter(|row| row.status == LATE)
        .map(|row| u64::from(row.frames_present))
        .sum();
    let complete = file
        .rows
        .iter()
        .filter(|row| row.status == COMPLETE)
        .count() as u64;
    assert_eq!(
        (assembler.counters().late, assembler.counters().complete),
        (late, complete)
    );

    // The index of the file alone covers the same frames.
    let rows = rebuild(file.order.iter().map(|handle| arrivals[*handle]), rule);
    let total = |rows: &[IndexRow]| {
        rows.iter().fold((0, 0), |(n, b), row| {
            (n + u64::from(row.frames_present), b + row.length)
        })
    };
    assert_eq!(total(&rows), total(&file.rows));
});

/// What a sink would have.
#[derive(Default)]
struct File {
    order: Vec<usize>,
    rows: Vec<IndexRow>,
    /// Frames since the last row.
    run: Vec<usize>,
}

impl File {
    fn append(&mut self, steps: &mut Vec<Step<usize>>, arrivals: &[Arrival]) {
        for step in steps.drain(..) {
            match step {
                Step::Write(handle) => {
                    self.order.push(handle);
                    self.run.push(handle);
                }
                Step::Row(row) => {
                    let frames: Vec<&Arrival> =
                        self.run.drain(..).map(|handle| &arrivals[handle]).collect();
                    assert_eq!(row.frames_present as usize, frames.len());
                    assert_eq!(
                        row.length,
                        frames
                            .iter()
                            .map(|one| u64::from(one.frame_bytes))
                            .sum::<u64>()
                    );
                    let sequences = || frames.iter().map(|one| one.sequence);
                    assert_eq!(
                        (Some(row.first_sequence), Some(row.last_sequence)),
                        (sequences().min(), sequences().max())
                    );
                    assert_eq!(
                        Some(row.first_received_ns),
                        frames.iter().map(|one| one.received_ns).min()
                    );
                    self.rows.push(row);
                }
            }
        }
    }
}
