//! What assembly costs per frame: `cargo bench -p tapeline-wire --bench assemble`.
//!
//! Prints nanoseconds per frame, the best of several runs; each run checks that every frame came out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use tapeline_wire::assemble::{Arrival, AssembleOptions, Assembler, Rule, Step};

const FRAMES: u64 = 2_000_000;
/// Frames between two looks at the output, as in a recorder's batch.
const BATCH: usize = 512;

fn main() {
    let none = Rule::default();
    report("in order, none", none, &|n| frame(0, n));
    report("in order, count:16", Rule::Count(16), &|n| frame(0, n));
    report("in order, markers of 16", Rule::Markers, &|n| Arrival {
        flags: u8::from(n % 16 == 0) | (u8::from(n % 16 == 15) << 1),
        ..frame(0, n)
    });
    report("four lanes in turn, none", none, &|n| frame(n % 4, n / 4));
    report("1 % lost, none", none, &|n| frame(0, n + n / 100));
    report("pairs swapped, none", none, &|n| frame(0, n ^ 1));
    report("1 % lost, count:16", Rule::Count(16), &|n| {
        frame(0, n + n / 100)
    });
}

fn frame(id: u64, sequence: u64) -> Arrival {
    Arrival {
        stream_id: u16::try_from(id).unwrap(),
        frame_bytes: 1_440,
        sequence,
        timestamp_ns: sequence,
        ..Arrival::default()
    }
}

fn report(name: &str, rule: Rule, frame: &dyn Fn(u64) -> Arrival) {
    let frames: Vec<Arrival> = (0..FRAMES).map(frame).collect();
    let best = (0..5)
        .map(|_| run(rule, &frames))
        .fold(f64::INFINITY, f64::min);
    println!("assemble/{name}: {best:.1} ns per frame");
}

fn run(rule: Rule, frames: &[Arrival]) -> f64 {
    let mut assembler = Assembler::new(AssembleOptions {
        rule,
        ..AssembleOptions::default()
    });
    let mut out: Vec<Step<(usize, u32)>> = Vec::with_capacity(4 * BATCH);
    let mut written = 0u64;
    let begin = Instant::now();
    for (batch, frames) in frames.chunks(BATCH).enumerate() {
        for (at, frame) in frames.iter().enumerate() {
            assembler.push(*frame, (batch * BATCH + at, frame.frame_bytes), 0, &mut out);
        }
        written += drain(&mut out);
    }
    assembler.finish(&mut out);
    written += drain(&mut out);
    let elapsed = begin.elapsed();
    assert_eq!(written, FRAMES);
    elapsed.as_secs_f64() * 1e9 / 2e6
}

fn drain(out: &mut Vec<Step<(usize, u32)>>) -> u64 {
    out.drain(..)
        .map(|step| u64::from(matches!(black_box(step), Step::Write(_))))
        .sum()
}
