//! Both faces agree on faulty streams of every layout, for every chunking, and no byte is lost sight of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tapeline_testkit::{Random, assert_laws, assert_producer_law, every_chunking, faulty_stream};
use tapeline_wire::frame::{DEFAULT_MAGIC, FrameCounters, FrameDecoder, FrameLayout, FrameScanner};
use tapeline_wire::ledger::Ledger;
use tapeline_wire::sequence::{SequenceTable, Verdict};

const MAGICS: [[u8; 8]; 4] = [
    DEFAULT_MAGIC,
    [1; 8],
    *b"abababab",
    [0, 0, 0, 0, 0, 0, 0, 1],
];

fn layouts() -> impl Iterator<Item = FrameLayout> {
    (0..MAGICS.len() * 8).map(|n| {
        let (version_flags, length_bytes) = ([2, 4][n & 1], [4, 8][n >> 1 & 1]);
        FrameLayout::new(
            MAGICS[n / 8],
            version_flags,
            length_bytes,
            n >> 2 & 1 == 1,
            3000,
        )
        .unwrap()
    })
}

/// Offsets and sizes of the frames that the lower face finds, `step` at a time.
fn scanned(layout: FrameLayout, stream: &[u8], step: usize) -> (Vec<(u64, usize)>, FrameCounters) {
    let mut scanner = FrameScanner::new(layout);
    let (mut at, mut frames) = (0, Vec::new());
    while at < stream.len() {
        let mut found = Vec::new();
        let used = scanner.scan(&stream[at..], true, step, &mut found);
        frames.extend(
            found
                .iter()
                .map(|f| ((at + f.offset) as u64, f.frame_bytes as usize)),
        );
        at += used;
    }
    (frames, *scanner.counters())
}

#[test]
fn both_faces_agree_for_every_chunking() {
    for (seed, layout) in layouts().enumerate() {
        let mut random = Random::new(seed as u64);
        let (stream, _) = faulty_stream(&layout, 80, 700, 3, &mut random);
        let (frames, counters) = scanned(layout, &stream, usize::MAX);
        assert_eq!(scanned(layout, &stream, 1), (frames.clone(), counters));
        assert!(frames.len() > 20, "{seed}");
        every_chunking(&stream, |chunks| {
            let mut decoder = FrameDecoder::new(layout);
            let mut got = Vec::new();
            let mut fed = 0;
            for chunk in chunks {
                decoder.feed(chunk, &mut |f| got.push((f.offset, f.bytes.len())));
                fed += chunk.len() as u64;
                let c = decoder.counters();
                assert_eq!(
                    fed,
                    c.valid_bytes + c.bytes_discarded + decoder.pending_bytes() as u64
                );
                assert!(decoder.buffer_bytes() <= decoder.limit_bytes());
            }
            decoder.finish(&mut |f| got.push((f.offset, f.bytes.len())));
            assert_eq!(got, frames, "{seed}");
            assert_eq!(*decoder.counters(), counters, "{seed}");
        });
    }
}

#[test]
fn the_ledger_closes_over_faults() {
    for seed in 0..40 {
        let layout = FrameLayout::default();
        let (stream, sent) = faulty_stream(&layout, 500, 300, 5, &mut Random::new(seed));
        let mut decoder = FrameDecoder::new(layout);
        let mut table = SequenceTable::default();
        let (mut first, mut last) = (u64::MAX, 0);
        let mut ledger = Ledger {
            bytes_received: stream.len() as u64,
            ..Ledger::default()
        };
        let mut store = |f: tapeline_wire::frame::Frame<'_>| {
            first = first.min(f.fields.sequence);
            last = last.max(f.fields.sequence);
            if table.observe(0, f.fields.sequence) != Some(Verdict::Duplicate) {
                ledger.frames_stored += 1;
                ledger.bytes_stored += f.bytes.len() as u64;
            }
        };
        decoder.feed(&stream, &mut store);
        decoder.finish(&mut store);
        ledger.set_frames(decoder.counters());
        ledger.set_sequence(&table.totals());
        assert_laws(&ledger, 0, decoder.counters().valid_bytes, 0);
        assert_producer_law(last + 1 - first, ledger.frames_stored, &ledger);
        assert!(ledger.frames_lost <= sent.frames);
        let names: Vec<_> = ledger.fields().iter().map(|f| f.0).collect();
        assert_eq!(names.len(), 24);
        ledger.bytes_discarded += 1;
        assert_eq!(
            ledger
                .check(0, decoder.counters().valid_bytes, 0)
                .unwrap_err()
                .law,
            1
        );
    }
}

#[test]
fn held_memory_stays_bounded_under_claims() {
    let layout = FrameLayout::new(DEFAULT_MAGIC, 4, 4, true, 1 << 18).unwrap();
    let mut header = [0; 44];
    let n = layout
        .write_header(&Default::default(), 1 << 18, 1, &mut header)
        .unwrap();
    let claims = header[..n].repeat(60_000);
    for chunk in [977, 1 << 16] {
        let mut decoder = FrameDecoder::new(layout);
        for piece in claims.chunks(chunk) {
            decoder.feed(piece, &mut |_| panic!("no frame is good"));
            assert!(decoder.buffer_bytes() <= decoder.limit_bytes());
            assert!(decoder.pending_bytes() <= layout.max_frame_bytes() + 8);
        }
        decoder.finish(&mut |_| panic!("no frame is good"));
        assert_eq!(decoder.counters().bytes_discarded, claims.len() as u64);
    }
}
