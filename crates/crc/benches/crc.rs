//! CRC32C in cache, by length; checks each result before it times it.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use tapeline_crc::{Ranges, combine, crc32c, path};

fn main() {
    let data: Vec<u8> = (0..1_u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect();
    println!("path {}", path());
    for n in [32, 64, 256, 512, 1400, 8192, 65_536] {
        let bytes = &data[..n];
        let (a, b) = bytes.split_at(n / 3);
        assert_eq!(combine(crc32c(a), crc32c(b), b.len() as u64), crc32c(bytes));
        let rounds = (1 << 28) / n;
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..rounds {
                black_box(crc32c(black_box(bytes)));
            }
            best = best.min(start.elapsed().as_secs_f64() / rounds as f64);
        }
        println!(
            "crc/{n:<6} {:>8.1} ns {:>7.2} GB/s",
            best * 1e9,
            n as f64 / best / 1e9
        );
    }
    let length = 1 << 19;
    let mut best = f64::MAX;
    for _ in 0..5 {
        let mut ranges = Ranges::new();
        let start = Instant::now();
        let mut n = 0;
        for at in (0..data.len() - length).step_by(40) {
            black_box(ranges.crc32c(&data[at..], at as u64, 0..length).unwrap());
            n += 1;
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(n));
    }
    println!(
        "ranges/40   {:>8.1} ns {:>7.2} GB/s",
        best * 1e9,
        40.0 / best / 1e9
    );
}
