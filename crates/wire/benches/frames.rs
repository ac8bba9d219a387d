//! Frames per second and bytes per second of both faces, clean and under attack; sequence tracking.
//! Each case checks its result before it is timed. `cargo bench -p tapeline-wire --bench frames`.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use tapeline_testkit::Random;
use tapeline_wire::frame::{FrameCounters, FrameDecoder, FrameFields, FrameLayout, FrameScanner};
use tapeline_wire::sequence::{SequenceTable, SequenceTracker};

fn main() {
    let layout = FrameLayout::default();
    println!("clean, 1 MiB block in cache");
    for payload in [64, 1400, 8192, 65_536] {
        let stream = clean(layout, payload, 1 << 20);
        let frames = stream.len() / (payload + 40);
        check(layout, &stream, |c| {
            c.frames_received == frames as u64 && c.bytes_discarded == 0
        });
        let seconds = best(|| scan(layout, &stream));
        report(&format!("scan/clean/{payload}"), stream.len(), seconds);
        println!("{:>44.1} million frames/s", frames as f64 / seconds / 1e6);
        let seconds = best(|| decode(layout, &stream, 1 << 16));
        report(&format!("decode64k/clean/{payload}"), stream.len(), seconds);
    }
    println!("attacks, 16 MiB, ratio to clean frames of 8 KiB of the same face");
    let bare = FrameLayout::new(*layout.magic(), 4, 4, false, 1 << 20).unwrap();
    let size = 16 << 20;
    let clean_8k = clean(layout, 8192, size);
    let base = [
        best(|| scan(layout, &clean_8k)),
        best(|| decode(layout, &clean_8k, 1 << 16)),
        best(|| decode(layout, &clean_8k, 1 << 20)),
    ]
    .map(|seconds| clean_8k.len() as f64 / seconds);
    println!(
        "{:<44} {:>6.2} {:>6.2} {:>6.2} GB/s",
        "clean/8192",
        base[0] / 1e9,
        base[1] / 1e9,
        base[2] / 1e9
    );
    let attacks = [
        ("noise", layout, Random::new(5).bytes(size)),
        ("zeros", layout, vec![0; size]),
        ("magics", layout, layout.magic().repeat(size / 8)),
        (
            "magics+1",
            layout,
            [layout.magic().as_slice(), &[0]].concat().repeat(size / 9),
        ),
        (
            "headers claiming the maximum",
            layout,
            claims(layout, size, |_| 1 << 20),
        ),
        (
            "headers claiming various lengths",
            layout,
            claims(layout, size, |r| 1 + r.below(1 << 20)),
        ),
        (
            "headers claiming 500 bytes",
            layout,
            claims(layout, size, |_| 500),
        ),
        (
            "no header CRC, claiming the maximum",
            bare,
            claims(bare, size, |_| 1 << 20),
        ),
        (
            "no header CRC, various",
            bare,
            claims(bare, size, |r| 1 + r.below(1 << 20)),
        ),
    ];
    for (name, layout, stream) in &attacks {
        check(*layout, stream, |c| {
            c.bytes_discarded == stream.len() as u64
        });
        let rates = [
            best(|| scan(*layout, stream)),
            best(|| decode(*layout, stream, 1 << 16)),
            best(|| decode(*layout, stream, 1 << 20)),
        ]
        .map(|seconds| stream.len() as f64 / seconds);
        print!("{name:<44}");
        for (rate, base) in rates.iter().zip(base) {
            print!(" {:>6.2} GB/s {:>4.0} %", rate / 1e9, 100.0 * rate / base);
        }
        println!();
    }
    sequences();
}

fn sequences() {
    let n = 1 << 20;
    let mut tracker = SequenceTracker::new(65_536);
    let mut from = 0;
    let seconds = best(|| {
        for s in from..from + n {
            black_box(tracker.observe(black_box(s)));
        }
        from += n;
    });
    assert_eq!(tracker.counters().gaps, 0);
    println!("sequence/in order{:>28.2} ns", seconds / n as f64 * 1e9);
    let mut table = SequenceTable::default();
    let mut from = 0;
    let seconds = best(|| {
        for s in from..from + n {
            black_box(table.observe(black_box((s & 3) as u16), s >> 2));
        }
        from += n;
    });
    assert_eq!(table.totals().gaps, 0);
    println!(
        "sequence/four ids in turn{:>20.2} ns",
        seconds / n as f64 * 1e9
    );
}

fn clean(layout: FrameLayout, payload: usize, size: usize) -> Vec<u8> {
    let payload = Random::new(1).bytes(payload);
    let mut stream = Vec::new();
    let mut sequence = 0;
    while stream.len() + payload.len() + 40 <= size {
        let fields = FrameFields {
            sequence,
            timestamp_ns: sequence * 1000,
            ..FrameFields::default()
        };
        layout.encode_frame(&fields, &payload, &mut stream).unwrap();
        sequence += 1;
    }
    stream
}

/// Headers back to back, each good in itself, none with a payload that fits.
fn claims(layout: FrameLayout, size: usize, mut length: impl FnMut(&mut Random) -> u64) -> Vec<u8> {
    let mut random = Random::new(3);
    let mut stream = Vec::new();
    let mut header = [0; 44];
    for sequence in 0.. {
        let fields = FrameFields {
            sequence,
            ..FrameFields::default()
        };
        let payload = usize::try_from(length(&mut random)).unwrap();
        let n = layout
            .write_header(&fields, payload, 1, &mut header)
            .unwrap();
        stream.extend_from_slice(&header[..n]);
        if stream.len() >= size {
            break;
        }
    }
    stream
}

fn scan(layout: FrameLayout, stream: &[u8]) -> FrameCounters {
    let mut scanner = FrameScanner::new(layout);
    let mut found = Vec::with_capacity(1024);
    let mut rest = stream;
    while !rest.is_empty() {
        found.clear();
        let done = scanner.scan(rest, true, 1024, &mut found);
        black_box(&found);
        rest = &rest[done..];
    }
    *scanner.counters()
}

fn decode(layout: FrameLayout, stream: &[u8], chunk: usize) -> FrameCounters {
    let mut decoder = FrameDecoder::new(layout);
    let mut frames = 0;
    for chunk in stream.chunks(chunk) {
        decoder.feed(chunk, &mut |frame| {
            black_box(frame.payload);
            frames += 1;
        });
    }
    decoder.finish(&mut |_| frames += 1);
    assert_eq!(frames, decoder.counters().frames_received);
    *decoder.counters()
}

fn check(layout: FrameLayout, stream: &[u8], good: impl Fn(&FrameCounters) -> bool) {
    let counters = scan(layout, stream);
    assert!(good(&counters), "{counters:?}");
    assert_eq!(counters, decode(layout, stream, 1 << 16));
    assert_eq!(counters, decode(layout, stream, 1 << 20));
}

fn best<R>(mut run: impl FnMut() -> R) -> f64 {
    let begin = Instant::now();
    let mut best = f64::MAX;
    let mut rounds = 0;
    while rounds < 5 || (begin.elapsed().as_millis() < 100 && rounds < 1000) {
        let start = Instant::now();
        black_box(run());
        best = best.min(start.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

fn report(name: &str, bytes: usize, seconds: f64) {
    println!("{name:<32} {:>8.2} GB/s", bytes as f64 / seconds / 1e9);
}
