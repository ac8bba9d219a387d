//! Parts of the data path alone: `micro ring ITEMS` and `micro decoder PAYLOAD ROUNDS`, results as JSON.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};
use tapeline_ring::{Wait, ring};
use tapeline_rivals::args::fail;
use tapeline_rivals::frame::{push_frame, scan};
use tapeline_wire::frame::{FrameLayout, FrameScanner};

/// Capacity of the ring by default (`spec/frame-stream.md` 5), in blocks of 64 KiB.
const BLOCKS: usize = 1_024;
const BLOCK_BYTES: usize = 64 << 10;
/// As in the old design's hand-over (requirement F10).
const ITEM_BYTES: usize = 64;
/// Frames that a pass of the decoder looks at: larger than the second-level cache, as in a ring.
const STREAM_BYTES: usize = 8 << 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    match (words.first().map(String::as_str), number(1), number(2)) {
        (Some("ring"), Some(items), None) => hand_over(items),
        (Some("decoder"), Some(payload), Some(rounds)) => decoder(payload as usize, rounds),
        _ => fail("micro ring ITEMS | micro decoder PAYLOAD ROUNDS"),
    }
}

/// Hands 64-byte items from one thread to another: each is written into a block and read out of it.
fn hand_over(items: u64) {
    let (mut producer, mut consumer) = ring(BLOCK_BYTES, BLOCKS, || ()).expect("ring");
    let started = Instant::now();
    let sender = thread::spawn(move || {
        let mut number = 0;
        while number < items {
            let Some(mut block) = producer.claim_timeout(Duration::from_secs(1)) else {
                continue;
            };
            let mut filled = 0;
            for slot in block.bytes_mut().chunks_exact_mut(ITEM_BYTES) {
                if number == items {
                    break;
                }
                slot.copy_from_slice([black_box(number).to_le_bytes(); 8].as_flattened());
                filled += ITEM_BYTES;
                number += 1;
            }
            block.set_filled(filled);
            producer.publish(block);
        }
    });
    let (mut count, mut sum) = (0u64, 0u64);
    loop {
        let Some(block) = consumer.take() else {
            if consumer.wait(1, Duration::from_secs(1)) == Wait::Closed {
                break;
            }
            continue;
        };
        for item in block.bytes()[..block.filled()].chunks_exact(ITEM_BYTES) {
            let last = item.last_chunk().expect("an item has 64 bytes");
            sum = sum.wrapping_add(u64::from_le_bytes(*last));
            count += 1;
        }
        consumer.recycle(block);
    }
    let seconds = started.elapsed().as_secs_f64();
    sender.join().expect("thread");
    assert_eq!(
        (count, sum),
        (items, (0..items).fold(0, u64::wrapping_add)),
        "every item, once"
    );
    println!(
        "{{\"items\": {items}, \"seconds\": {seconds:.6}, \"items_per_second\": {:.0}}}",
        items as f64 / seconds
    );
}

/// Scans clean frames, with ours and with the rival's check in turn; the best pass of each counts.
fn decoder(payload_bytes: usize, rounds: u64) {
    let count = (STREAM_BYTES / (payload_bytes + 40)).max(1);
    let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 131) as u8).collect();
    let mut stream = Vec::new();
    for sequence in 0..count as u64 {
        push_frame(&mut stream, sequence, 0, &payload);
    }
    let mut scanner = FrameScanner::new(FrameLayout::default());
    let mut found = Vec::with_capacity(count);
    let (mut ours, mut rival) = (f64::MAX, f64::MAX);
    for _ in 0..rounds * 5 {
        let started = Instant::now();
        found.clear();
        let consumed = scanner.scan(black_box(&stream), false, usize::MAX, &mut found);
        ours = ours.min(started.elapsed().as_secs_f64());
        assert_eq!((consumed, found.len()), (stream.len(), count));

        let started = Instant::now();
        assert_eq!(scan(black_box(&stream)), Ok((count as u64, stream.len())));
        rival = rival.min(started.elapsed().as_secs_f64());
    }
    let rate = |seconds: f64| stream.len() as f64 / seconds;
    println!(
        "{{\"ours\": {:.0}, \"rival\": {:.0}, \"frames\": {count}}}",
        rate(ours),
        rate(rival)
    );
}
