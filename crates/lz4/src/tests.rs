#![allow(clippy::unwrap_used)]
use super::*;

/// Bytes that compress a little: words of a small vocabulary between random ones.
fn sample(bytes: usize, mut seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < bytes {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = if seed >> 62 == 0 {
            seed
        } else {
            (seed >> 60) * 0x0101_0101_0101
        };
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

#[test]
fn blocks_come_back_at_every_effort() {
    let mut compressor = Compressor::new();
    for bytes in [0, 1, 12, 100, 65_537, 300_000] {
        let input = sample(bytes, 7);
        for effort in [
            Effort::Fast { acceleration: 1 },
            Effort::Fast { acceleration: 9 },
            Effort::High { level: 9 },
            Effort::High { level: 12 },
        ] {
            let mut block = vec![1, 2, 3];
            let written = compressor.compress(&input, effort, &mut block);
            assert_eq!(written + 3, block.len());
            let mut plain = Vec::new();
            assert_eq!(
                decompress(&block[3..], bytes, &mut plain),
                Ok(bytes),
                "{effort:?} {bytes}"
            );
            assert_eq!(plain, input);
        }
    }
}

#[test]
fn linked_blocks_come_back_through_every_buffer_move() {
    let mut encoder = StreamEncoder::new();
    let (mut plain, mut input) = (Vec::new(), Vec::new());
    for round in 0..2_u64 {
        encoder.reset();
        plain.clear();
        input.clear();
        for i in 0..400_u64 {
            // Mostly short rows, some of 3 KB, now and then one over the buffer.
            let bytes = match i {
                200 => 700_000,
                _ if i % 7 == 0 => 3000,
                _ => 40,
            };
            let row = sample(bytes, i % 5 + round);
            let mut block = Vec::new();
            encoder
                .compress(&row, Effort::Fast { acceleration: 3 }, &mut block)
                .unwrap();
            assert_eq!(
                decompress(&block, row.len(), &mut plain),
                Ok(row.len()),
                "row {i}"
            );
            input.extend_from_slice(&row);
            assert!(plain == input, "row {i}");
            assert!(input.ends_with(encoder.history()));
        }
    }
}

#[test]
fn history_can_be_handed_over() {
    let history = sample(100_000, 3);
    let mut encoder = StreamEncoder::new();
    encoder.set_history(&history);
    let row = history[90_000..95_000].to_vec();
    let mut block = Vec::new();
    encoder
        .compress(&row, Effort::Fast { acceleration: 1 }, &mut block)
        .unwrap();
    assert!(
        block.len() < 200,
        "the row is in the history, {} bytes",
        block.len()
    );
    let mut plain = history.clone();
    decompress(&block, row.len(), &mut plain).unwrap();
    assert_eq!(plain[100_000..], row);
}

#[test]
fn more_than_allowed_is_refused() {
    let mut block = Vec::new();
    Compressor::new().compress(&[0; 5000], Effort::Fast { acceleration: 1 }, &mut block);
    let mut plain = vec![9];
    assert_eq!(decompress(&block, 4999, &mut plain), Err(DamagedBlock));
    assert_eq!(plain, [9]);
}

#[test]
fn literal_blocks_are_plain_lz4() {
    for bytes in [0, 1, 14, 15, 16, 269, 270, 271, 5000, 300_000] {
        let input = sample(bytes, 11);
        let mut block = Vec::new();
        literal_block(&input, &mut block);
        assert!(block.len() <= bound(bytes));
        assert_eq!(literals_of(&block), Some(input.as_slice()));
        let mut plain = Vec::new();
        assert_eq!(decompress(&block, bytes, &mut plain), Ok(bytes));
        assert_eq!(plain, input);
        block.pop();
        assert_eq!(literals_of(&block), None);
    }
    assert_eq!(literals_of(&[]), None);
}

#[test]
fn damaged_blocks_end_in_an_error_or_in_bounds() {
    let mut block = Vec::new();
    Compressor::new().compress(
        &sample(5000, 2),
        Effort::Fast { acceleration: 1 },
        &mut block,
    );
    for at in 0..block.len() {
        let mut bad = block.clone();
        bad[at] ^= 0x41;
        let mut plain = Vec::new();
        if let Ok(bytes) = decompress(&bad, 5000, &mut plain) {
            assert!(bytes == plain.len() && bytes <= 5000);
        }
        assert!(
            decompress(&bad[..at], 5000, &mut plain).is_ok_and(|n| n <= 5000)
                || plain.len() <= 5000
        );
    }
}
