//! Against the format's text (8.3), written out plainly, number by number.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing
)]

use super::super::{RowDecoder, RowEncoder};
use super::*;
use crate::header::RowCodec;
use crate::schema::Schema;
use std::sync::Arc;

struct NoStrings;

impl RowStrings for NoStrings {
    fn string(&self, _: usize) -> &[u8] {
        &[]
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed ^ (*seed >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Values of one column: holds, ramps, noise, NaNs.
fn value(seed: &mut u64, kind: ColumnType, before: u64, row: u64) -> u64 {
    let mask = u64::MAX >> (64 - 8 * kind.width());
    let ramp = match kind {
        ColumnType::Float => u64::from((row as f32 * 0.25).to_bits()),
        ColumnType::Double => (row as f64 * 0.25).to_bits(),
        _ => row.wrapping_mul(3),
    };
    let chosen = match random(seed) >> 61 {
        0 | 1 => before,
        2..=4 => ramp,
        5 => random(seed) >> (random(seed) % 64),
        6 => u64::MAX,
        _ => random(seed),
    };
    chosen & mask
}

/// (code, difference bytes) of a value, with the state after it.
fn plain(kind: ColumnType, v: u64, prev: &mut u64, grad: &mut u64, seen: u64) -> (u64, Vec<u8>) {
    let width = kind.width();
    let mask = u64::MAX >> (64 - 8 * width);
    let (sum, change, d, nan) = match kind {
        ColumnType::Float => {
            let f = |bits: u64| f32::from_bits(bits as u32);
            let sum = f(*prev) + f(*grad);
            let change = f(v) - f(*prev);
            let bits = |x: f32| u64::from(x.to_bits());
            (bits(sum), bits(change), v ^ *prev, sum.is_nan())
        }
        ColumnType::Double => {
            let sum = f64::from_bits(*prev) + f64::from_bits(*grad);
            let change = f64::from_bits(v) - f64::from_bits(*prev);
            (sum.to_bits(), change.to_bits(), v ^ *prev, sum.is_nan())
        }
        _ => {
            let change = v.wrapping_sub(*prev) & mask;
            let shift = 64 - 8 * width as u32;
            let s = ((change << shift) as i64) >> shift;
            let zigzag = ((s << 1) ^ (s >> 63)) as u64 & mask;
            (prev.wrapping_add(*grad) & mask, change, zigzag, false)
        }
    };
    if v == *prev {
        *grad = 0;
        return (0, Vec::new());
    }
    *prev = v;
    if seen >= 2 && sum == v && !nan {
        return (1, Vec::new());
    }
    *grad = change;
    let bytes = (64 - d.leading_zeros()).div_ceil(8) as usize;
    (bytes as u64 + 1, d.to_le_bytes()[..bytes].to_vec())
}

#[test]
fn blocks_agree_with_the_format_number_by_number() {
    let kinds = [
        ColumnType::UInt8,
        ColumnType::Int16,
        ColumnType::UInt32,
        ColumnType::Int64,
        ColumnType::Float,
        ColumnType::Double,
    ];
    let mut seed = 5;
    for kind in kinds {
        for columns in [1, 7, 8, 9, 16, 27] {
            let names: Vec<String> = (0..columns).map(|i| format!("c{i}")).collect();
            let schema = Schema::from_pairs(names.iter().map(|name| (name.as_str(), kind)));
            let layout = Arc::new(Layout::new(&schema.unwrap()));
            let mut encoder = RowEncoder::new(RowCodec::Delta, Arc::clone(&layout));
            let mut decoder = RowDecoder::new(RowCodec::Delta, Arc::clone(&layout));
            let mut state = vec![(0, 0); columns];
            for row in 0..200 {
                let mut image = Vec::new();
                let (mut bits, mut data) = (Vec::new(), Vec::new());
                for (prev, grad) in &mut state {
                    let v = value(&mut seed, kind, *prev, row);
                    image.extend_from_slice(&v.to_le_bytes()[..kind.width()]);
                    let (code, bytes) = plain(kind, v, prev, grad, row);
                    bits.extend((0..code_bits(kind)).map(|bit| code >> bit & 1 == 1));
                    data.extend(bytes);
                }
                let header = bits.chunks(8).map(|byte| {
                    byte.iter()
                        .rev()
                        .fold(0_u8, |all, bit| all << 1 | u8::from(*bit))
                });
                let expected: Vec<u8> = header.chain(data).collect();
                let mut out = Vec::new();
                encoder.encode(&image, &NoStrings, &mut out);
                assert_eq!(out, expected, "{kind} x {columns}, row {row}");
                decoder.decode(&out, 0, out.len()).unwrap();
                assert_eq!(decoder.image(), image, "{kind} x {columns}, row {row}");
            }
        }
    }
}
