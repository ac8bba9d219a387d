#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

/// One bit at a time, straight from the definition.
fn twin(register: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(register, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { poly::POLYNOMIAL } else { 0 }
        })
    })
}

fn random(n: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9ABC_DEF1_u64;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

type Path = fn(u32, &[u8]) -> u32;

/// Every path that this machine can run.
fn paths() -> Vec<(&'static str, Path)> {
    let mut all: Vec<(&'static str, Path)> = vec![
        ("chosen", raw),
        ("portable", portable::raw),
        ("inline", |c, b| {
            if c == !0 {
                !crc32c_inline(b)
            } else {
                raw(c, b)
            }
        }),
    ];
    all.extend(fast_paths());
    all
}

#[cfg(any(not(target_arch = "x86_64"), tapeline_portable))]
fn fast_paths() -> Vec<(&'static str, Path)> {
    Vec::new()
}

#[cfg(all(target_arch = "x86_64", not(tapeline_portable)))]
fn fast_paths() -> Vec<(&'static str, Path)> {
    let mut all: Vec<(&'static str, Path)> = Vec::new();
    if x86::level() != x86::NONE {
        // SAFETY: both have the features that the level stands for.
        all.push(("short", |c, b| unsafe { x86::short(c, b) }));
        // SAFETY: as above.
        all.push(("three_way", |c, b| unsafe { x86::three_way(c, b) }));
    }
    if x86::level() == x86::AVX512 {
        // SAFETY: the level stands for all features of the function.
        all.push(("fold", |c, b| unsafe { x86::fold(c, b) }));
    }
    all
}

#[test]
fn known_answers() {
    // RFC 3720, appendix B.4.
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    assert_eq!(crc32c(b""), 0);
}

#[test]
fn every_path_equals_the_bitwise_twin() {
    let data = random(9000);
    for (name, path) in paths() {
        for n in (0..1300).chain([1399, 1400, 1440, 3071, 3072, 3073, 4096, 8192, 8999]) {
            let bytes = &data[n % 61..][..n.min(data.len() - n % 61)];
            let start = if n % 2 == 0 {
                !0
            } else {
                u32::try_from(n).unwrap()
            };
            assert_eq!(path(start, bytes), twin(start, bytes), "{name} {n}");
        }
    }
}

#[test]
fn parts_join() {
    let data = random(5000);
    for cut in [0, 1, 7, 64, 255, 256, 1000, 4999, 5000] {
        let (a, b) = data.split_at(cut);
        assert_eq!(update(crc32c(a), b), crc32c(&data));
        assert_eq!(combine(crc32c(a), crc32c(b), b.len() as u64), crc32c(&data));
        assert_eq!(
            poly::shift(crc32c(a), b.len() as u64),
            shift(crc32c(a), b.len() as u64)
        );
    }
    assert_eq!(
        combine(1, 0, 1 << 40),
        poly::multiply(1, poly::x_to_the(8 << 40))
    );
}

#[test]
fn powers_of_x_have_inverses() {
    for n in [1, 8, 33, 504] {
        assert_eq!(
            poly::multiply(poly::x_to_the(n.into()), poly::x_to_the_minus(n)),
            poly::ONE
        );
    }
}

#[test]
fn a_range_from_two_marks_equals_hashing_it() {
    let data = random(2000);
    for (before, after) in [(0, 0), (1, 63), (63, 1), (40, 24)] {
        let marks = [raw(0, &data[..100 + before]), raw(0, &data[..1800 - after])];
        let bytes = &data[100..1800];
        let shift = Shift::by((1700 - before - after) as u64);
        let ends = (&bytes[..before], &bytes[bytes.len() - after..]);
        assert_eq!(range(marks, ends.0, ends.1, shift), crc32c(bytes));
        assert_eq!(plain_range(marks, ends.0, ends.1, shift), crc32c(bytes));
    }
}

#[test]
fn ranges_equal_hashing_them() {
    let data = random(60_000);
    let mut ranges = Ranges::new();
    let mut state = 7_usize;
    let mut start = 0;
    while start + 300 < data.len() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let length = (state >> 33) % 5000;
        let end = (start + length).min(data.len());
        // Only what is not before the range is there, as after a consumed part.
        let got = ranges
            .crc32c(&data[start..], 1_000_000 + start as u64, 0..end - start)
            .unwrap();
        assert_eq!(got, crc32c(&data[start..end]), "{start} {end}");
        start += (state >> 20) % 90;
        if state.is_multiple_of(50) {
            start += 9000;
        }
    }
    assert!(ranges.crc32c(&data, 0, 0..60_001).is_none());
    assert!(ranges.crc32c(&data, 10, 60_000..60_001).is_none());
}

#[test]
fn a_moving_range_equals_hashing_it() {
    let data = random(20_000);
    for length in [1, 40, 63, 255, 256, 1_000, 4_096] {
        let mut range = MovingRange::new(length as u64);
        range.place(crc32c(&data[..length]));
        let mut at = 0;
        for step in (0..70).chain([255, 256, 257, 1_000]) {
            let crc = range.advance(&data[at..at + step], &data[at + length..][..step]);
            at += step;
            assert_eq!(crc, crc32c(&data[at..at + length]), "{length} {at}");
        }
        let shift = Shift::by(length as u64);
        let mut plain = [0, raw(0, &data[..length])];
        let crc = plain_moved(&mut plain, &data[..77], &data[length..length + 77], shift);
        assert_eq!(crc, crc32c(&data[77..77 + length]));
    }
}

#[test]
fn marks_are_a_sixteenth_of_the_range() {
    let data = random(1 << 20);
    let mut ranges = Ranges::new();
    for start in (0..(1 << 20) - (1 << 18)).step_by(40) {
        ranges
            .crc32c(&data[start..], start as u64, 0..1 << 18)
            .unwrap();
        assert!(ranges.held_bytes() <= 2 * ((1 << 18) / 16) + 1024);
    }
}
