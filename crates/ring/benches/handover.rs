//! Hand-over of 64-byte items: the ring in blocks, against one buffer behind a mutex with a lock for each item.
//!
//! The rival is the design this one replaces: a `Mutex<Vec<u8>>` and a condition variable, the producer locking and
//! notifying once an item, the consumer taking the whole buffer when it has anything. Both sum what they receive,
//! so that the result is checked. Runs are interleaved; the ratio of the medians is the result. The floor is 6.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    hint::black_box,
    sync::{Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use tapeline_ring::{Wait, ring};

const ITEM_BYTES: usize = 64;
const FLOOR: f64 = 6.0;

fn item(number: u64) -> [u8; ITEM_BYTES] {
    let mut item = [0x5A; ITEM_BYTES];
    item[..8].copy_from_slice(&number.to_le_bytes());
    item
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks_exact(ITEM_BYTES)
        .map(|item| u64::from_le_bytes(item[..8].try_into().unwrap()))
        .sum()
}

fn through_ring(items: u64) -> (Duration, u64) {
    let (mut producer, mut consumer) = ring(64 << 10, 64, || ()).unwrap();
    let start = Instant::now();
    let total = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut total = 0_u64;
            while consumer.wait(1, Duration::from_secs(10)) != Wait::Closed {
                while let Some(block) = consumer.take() {
                    total += sum(&block.bytes()[..block.filled()]);
                    consumer.recycle(block);
                }
            }
            total
        });
        let mut number = 0;
        while number < items {
            let mut block = producer
                .claim_timeout(Duration::from_secs(10))
                .expect("the consumer is there");
            let mut filled = 0;
            for place in block.bytes_mut().chunks_exact_mut(ITEM_BYTES) {
                if number == items {
                    break;
                }
                place.copy_from_slice(&black_box(item(number)));
                filled += ITEM_BYTES;
                number += 1;
            }
            block.set_filled(filled);
            producer.publish(block);
        }
        drop(producer);
        reader.join().unwrap()
    });
    (start.elapsed(), total)
}

fn through_mutex(items: u64) -> (Duration, u64) {
    let shared = (Mutex::new((Vec::<u8>::new(), false)), Condvar::new());
    let start = Instant::now();
    let total = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut total, mut mine) = (0_u64, Vec::new());
            loop {
                let mut guard = shared.0.lock().unwrap();
                while guard.0.is_empty() && !guard.1 {
                    guard = shared.1.wait(guard).unwrap();
                }
                if guard.0.is_empty() {
                    return total;
                }
                std::mem::swap(&mut guard.0, &mut mine);
                drop(guard);
                total += sum(&mine);
                mine.clear();
            }
        });
        for number in 0..items {
            shared
                .0
                .lock()
                .unwrap()
                .0
                .extend_from_slice(&black_box(item(number)));
            shared.1.notify_one();
        }
        shared.0.lock().unwrap().1 = true;
        shared.1.notify_one();
        reader.join().unwrap()
    });
    (start.elapsed(), total)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    // `cargo test` runs benches once, small, for their result.
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (items, rounds) = if measured {
        (4_000_000, 7)
    } else {
        (10_000, 1)
    };
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (run, times) in [
            (through_ring as fn(u64) -> _, &mut fast),
            (through_mutex, &mut slow),
        ] {
            let (time, total) = run(items);
            assert_eq!(
                total,
                items * (items - 1) / 2,
                "items were lost or repeated"
            );
            times.push(time);
        }
    }
    let (fast, slow) = (median(fast), median(slow));
    let rate = |seconds: f64| items as f64 / seconds / 1e6;
    println!(
        "ring/handover/64B  ring {:.1} M/s  mutex {:.2} M/s  ratio {:.1}",
        rate(fast),
        rate(slow),
        slow / fast
    );
    if measured {
        assert!(
            slow / fast >= FLOOR,
            "the ring is less than {FLOOR} times as fast as the mutex"
        );
    }
}
