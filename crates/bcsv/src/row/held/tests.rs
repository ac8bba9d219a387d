//! What is filled column by column equals what is turned tile by tile.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

use std::sync::Arc;

use super::super::tile::Gather;
use super::super::{RowDecoder, RowEncoder, RowStrings};
use super::BLOCK_ROWS;
use crate::batch::{Batch, Column};
use crate::header::RowCodec;
use crate::schema::{ColumnSpec, ColumnType, Layout, Schema};

struct Texts(Vec<Vec<u8>>);

impl RowStrings for Texts {
    fn string(&self, i: usize) -> &[u8] {
        &self.0[i]
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed ^ (*seed >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Three columns of each type, thirteen of bools.
fn schema() -> Schema {
    of_each(13, 3)
}

/// So many bools, and so many columns of each other type.
fn of_each(bools: usize, others: usize) -> Schema {
    let kinds = ColumnType::ALL.into_iter().flat_map(|kind| {
        std::iter::repeat_n(
            kind,
            if kind == ColumnType::Bool {
                bools
            } else {
                others
            },
        )
    });
    let columns = kinds.enumerate();
    let columns = columns.map(|(i, kind)| ColumnSpec::new(format!("c{i}"), kind));
    Schema::new(columns.collect()).unwrap()
}

/// Rows of which `per_mille` of the bytes change: the plaintext and where each row lies.
fn calm(
    layout: &Arc<Layout>,
    rows: usize,
    per_mille: u64,
    mut seed: u64,
) -> (Vec<u8>, Vec<(u32, u32)>) {
    let seed = &mut seed;
    let mut encoder = RowEncoder::new(RowCodec::Zoh, Arc::clone(layout));
    let mut image = vec![0; layout.image_bytes];
    let mut texts = Texts(vec![Vec::new(); layout.strings]);
    let (mut plain, mut places) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        for byte in &mut image {
            if random(seed) % 1000 < per_mille {
                *byte = random(seed) as u8;
            }
        }
        let bools = layout.bool_bytes();
        image[bools - 1] &= layout.last_bool_mask();
        for text in &mut texts.0 {
            if random(seed) % 1000 < per_mille {
                *text = vec![b'a' + (random(seed) % 26) as u8; (random(seed) % 40) as usize];
            }
        }
        let start = plain.len() as u32;
        encoder.encode(&image, &texts, &mut plain);
        places.push((start, plain.len() as u32));
    }
    (plain, places)
}

/// Decode rows in calls of so many; gives the batch and the first wrong row.
fn decode(
    schema: &Schema,
    layout: &Arc<Layout>,
    wanted: Option<&[usize]>,
    (plain, rows): (&[u8], &[(u32, u32)]),
    at_a_time: usize,
) -> (Batch, Option<usize>) {
    let mut decoder = RowDecoder::new(RowCodec::Zoh, Arc::clone(layout));
    let mut gather = Gather::new(schema, layout, RowCodec::Zoh, wanted);
    gather.begin(rows.len());
    let mut done = 0;
    for piece in rows.chunks(at_a_time) {
        if let Err((row, _)) = gather.decode(&mut decoder, layout, plain, piece) {
            return (in_bits(gather.finish(0)), Some(done + row));
        }
        done += piece.len();
    }
    (in_bits(gather.finish(0)), None)
}

/// Floats as their bits, so that NaNs are compared too.
fn in_bits(batch: Batch) -> Batch {
    let columns = batch.columns.into_iter().map(|column| match column {
        Column::Float(values) => Column::UInt32(values.into_iter().map(f32::to_bits).collect()),
        Column::Double(values) => Column::UInt64(values.into_iter().map(f64::to_bits).collect()),
        other => other,
    });
    Batch {
        columns: columns.collect(),
        ..batch
    }
}

/// Both ways, for all columns and for some, one of them twice.
fn agree(
    schema: &Schema,
    layout: &Arc<Layout>,
    plain: &[u8],
    rows: &[(u32, u32)],
) -> Option<usize> {
    let (few, many) = (BLOCK_ROWS.0 - 1, rows.len());
    let some = [40, 3, 3, 0, 25, 17, 40, 12];
    let (turned, wrong) = decode(schema, layout, None, (plain, rows), few);
    for at_a_time in [BLOCK_ROWS.0, 1000, many] {
        let filled = decode(schema, layout, None, (plain, rows), at_a_time);
        assert!(filled.0 == turned, "{at_a_time} rows at a time");
        assert_eq!(filled.1, wrong);
    }
    assert!(
        decode(schema, layout, Some(&some), (plain, rows), many)
            == decode(schema, layout, Some(&some), (plain, rows), few)
    );
    wrong
}

#[test]
fn calm_rows_are_filled_as_they_are_turned() {
    let schema = schema();
    let layout = Arc::new(Layout::new(&schema));
    for (seed, per_mille) in [0, 1, 3, 10, 40].into_iter().enumerate() {
        let (plain, rows) = calm(&layout, 3000, per_mille, seed as u64);
        assert_eq!(agree(&schema, &layout, &plain, &rows), None, "{per_mille}");
    }
}

#[test]
fn flags_of_many_columns_are_found() {
    // Around 57 flags, which are looked at together, and 64 bools, which are compared together.
    for (bools, others) in [(41, 5), (64, 6), (65, 5), (130, 12), (7, 11)] {
        let schema = of_each(bools, others);
        let layout = Arc::new(Layout::new(&schema));
        let (plain, rows) = calm(&layout, 600, 2, bools as u64);
        assert_eq!(agree(&schema, &layout, &plain, &rows), None, "{bools}");
    }
}

#[test]
fn rows_before_a_wrong_one_are_kept() {
    let schema = schema();
    let layout = Arc::new(Layout::new(&schema));
    let (plain, good) = calm(&layout, 2000, 3, 7);
    for wrong in [0, 1, 255, 256, 700, 1999] {
        let mut rows = good.clone();
        // The next row that is not a repeat loses its last byte.
        let row = (wrong..rows.len())
            .find(|row| rows[*row].0 < rows[*row].1)
            .unwrap_or(0);
        rows[row].1 -= 1;
        assert_eq!(agree(&schema, &layout, &plain, &rows), Some(row));
    }
}

#[test]
fn the_way_is_chosen_by_what_changes() {
    let schema = schema();
    let layout = Arc::new(Layout::new(&schema));
    let gather = Gather::new(&schema, &layout, RowCodec::Zoh, None);
    let suits = |rows, per_mille| {
        let (_, rows) = calm(&layout, rows, per_mille, 1);
        gather.holds(&rows)
    };
    assert!(suits(1000, 1));
    assert!(!suits(1000, 300), "much changes");
    assert!(!suits(BLOCK_ROWS.0 - 1, 1), "too few");
}
