//! What is written is read, bit for bit: random schemas, every codec pair, rows and columns, appended and cut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    dead_code
)]

#[path = "support/data.rs"]
mod data;
#[path = "support/disk.rs"]
mod disk;

use std::path::Path;
use std::sync::Arc;

use data::{Random, bits, columns, schema, view};
use disk::Memory;
use proptest::prelude::*;
use tapeline_bcsv::{
    Column, FileCodec, FileOptions, FileWriter, OnCorrupt, ReadOptions, Reader, RowCodec, Schema,
    Selection, Value, WriteMode, WriteOptions,
};

fn options(row_codec: RowCodec, file_codec: FileCodec) -> WriteOptions {
    WriteOptions {
        row_codec,
        file_codec,
        packet_bytes: 65_536,
        created_s: Some(0),
        ..WriteOptions::default()
    }
}

fn files(disk: &Memory) -> FileOptions {
    FileOptions {
        storage: Arc::new(disk.clone()),
        threads: 2,
        ..FileOptions::default()
    }
}

fn read(disk: &Memory, on_corrupt: OnCorrupt) -> Reader {
    let bytes = disk.bytes(Path::new("f"));
    Reader::from_source(
        Arc::new(bytes),
        ReadOptions {
            on_corrupt,
            ..ReadOptions::default()
        },
    )
    .unwrap()
}

/// Rows `start..stop` read back equal the columns, by every way of reading.
fn check(reader: &Reader, written: &[Column], start: usize, stop: usize, what: &str) {
    // In another order, some left out, some twice.
    let wanted: Vec<usize> = (0..written.len())
        .rev()
        .filter(|column| column % 5 != 3)
        .chain((0..written.len()).filter(|column| column % 3 == 1))
        .collect();
    for (threads, columns) in [(1, None), (3, None), (2, Some(wanted))] {
        let selection = Selection {
            columns: columns.clone(),
            start: start as u64,
            stop: Some(stop as u64),
            threads,
        };
        let mut at = start;
        let batches = reader.read(&selection).unwrap();
        for batch in &batches {
            assert_eq!(batch.first_row, at as u64, "{what}");
            for (place, column) in batch.columns.iter().enumerate() {
                let original = columns.as_ref().map_or(place, |columns| columns[place]);
                assert_eq!(column.len(), batch.rows, "{what} column {original}");
                assert_eq!(
                    bits(column, 0, batch.rows),
                    bits(&written[original], at, at + batch.rows),
                    "{what} column {original}"
                );
            }
            at += batch.rows;
        }
        assert_eq!(at, stop, "{what}");
    }
    let mut at = start;
    let selection = Selection {
        start: start as u64,
        stop: Some(stop as u64),
        ..Selection::default()
    };
    for batch in reader.batches(&selection, 37).unwrap() {
        let batch = batch.unwrap();
        assert!(batch.rows <= 37 && batch.first_row == at as u64);
        for (column, original) in batch.columns.iter().zip(written) {
            assert_eq!(
                bits(column, 0, batch.rows),
                bits(original, at, at + batch.rows),
                "{what}"
            );
        }
        at += batch.rows;
    }
    assert_eq!(at, stop, "{what}");
}

fn write_rows(writer: &FileWriter, columns: &[Column], start: usize, stop: usize) {
    let mut row = writer.row_buffer();
    for number in start..stop {
        let values: Vec<Value<'_>> = columns
            .iter()
            .map(|column| column.value(number).unwrap())
            .collect();
        row.fill(&values).unwrap();
        writer.write_row(&row).unwrap();
    }
}

fn round_trip(seed: u64, most_columns: u64, most_rows: u64) {
    let mut random = Random(seed);
    let schema: Schema = schema(&mut random, most_columns);
    let rows = if schema.is_empty() {
        7
    } else {
        random.below(most_rows) as usize
    };
    let columns = columns(&mut random, &schema, rows);
    let cut = random.below(rows as u64 + 1) as usize;
    for row_codec in RowCodec::ALL {
        for file_codec in FileCodec::ALL {
            let what = format!("seed {seed} {row_codec:?} {file_codec:?}");
            let disk = Memory::default();
            let options = options(row_codec, file_codec);
            // Rows, then columns, finished; then appended to.
            let writer =
                FileWriter::open("f", &schema, WriteMode::New, &options, &files(&disk)).unwrap();
            write_rows(&writer, &columns, 0, cut / 2);
            writer.write_batch(&view(&columns, cut / 2, cut)).unwrap();
            assert_eq!(writer.rows_written(), cut as u64);
            writer.finish(false).unwrap();
            drop(writer);
            let writer =
                FileWriter::open("f", &schema, WriteMode::Append, &options, &files(&disk)).unwrap();
            writer.write_batch(&view(&columns, cut, rows)).unwrap();
            writer.flush(true).unwrap();
            if schema.is_empty() {
                continue;
            }
            check(&read(&disk, OnCorrupt::Raise), &columns, 0, rows, &what);
            writer.finish(true).unwrap();
            let reader = read(&disk, OnCorrupt::Raise);
            assert_eq!(reader.num_rows().unwrap(), rows as u64);
            assert_eq!(
                reader.complete().unwrap(),
                file_codec.has_packets().then_some(true),
                "{what}"
            );
            check(&reader, &columns, rows / 3, rows - rows / 4, &what);
            if rows > 0 {
                let number = random.below(rows as u64);
                let row = reader.row(number).unwrap();
                for (column, original) in row.columns.iter().zip(&columns) {
                    assert_eq!(
                        bits(column, 0, 1),
                        bits(original, number as usize, number as usize + 1),
                        "{what}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn prop_round_trip_is_bit_exact(seed: u64) {
        round_trip(seed, 24, 600);
    }

    /// Any bytes behind a good header give rows or an error, in bounded time.
    #[test]
    fn prop_any_body_is_read_or_refused(seed: u64, body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut random = Random(seed);
        let schema = schema(&mut random, 8);
        for row_codec in RowCodec::ALL {
            for file_codec in FileCodec::ALL {
                let mut bytes = options(row_codec, file_codec).header(schema.clone()).unwrap().encode();
                bytes.extend_from_slice(&body);
                for on_corrupt in [OnCorrupt::Raise, OnCorrupt::Skip] {
                    let reader = Reader::from_source(Arc::new(bytes.clone()), ReadOptions { on_corrupt, ..ReadOptions::default() }).unwrap();
                    let _ = reader.read(&Selection::default());
                    prop_assert!(reader.complete().unwrap() != Some(true) || body.is_empty());
                }
            }
        }
    }
}

/// The two faces give the same bytes, packet boundaries included.
#[test]
fn columns_and_rows_give_equal_files() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let schema = schema(&mut random, 30);
        let columns = columns(&mut random, &schema, 200);
        for row_codec in RowCodec::ALL {
            for file_codec in FileCodec::ALL {
                let bytes = |by_row: bool| {
                    let disk = Memory::default();
                    let options = WriteOptions {
                        packet_bytes: 1 << 24,
                        ..options(row_codec, file_codec)
                    };
                    let writer =
                        FileWriter::open("f", &schema, WriteMode::New, &options, &files(&disk))
                            .unwrap();
                    if by_row {
                        write_rows(&writer, &columns, 0, 200);
                    } else {
                        writer.write_batch(&view(&columns, 0, 70)).unwrap();
                        writer.write_batch(&view(&columns, 70, 200)).unwrap();
                    }
                    writer.finish(false).unwrap();
                    disk.bytes(Path::new("f"))
                };
                assert!(
                    bytes(true) == bytes(false),
                    "seed {seed} {row_codec:?} {file_codec:?}"
                );
            }
        }
    }
}

/// A file cut anywhere gives every row of every packet that is still whole, and never passes as complete.
#[test]
fn cuts_lose_only_the_packets_they_touch() {
    let mut random = Random(5);
    let schema = schema(&mut random, 9);
    let columns = columns(&mut random, &schema, 60);
    for row_codec in RowCodec::ALL {
        for file_codec in FileCodec::ALL {
            let disk = Memory::default();
            let writer = FileWriter::open(
                "f",
                &schema,
                WriteMode::New,
                &options(row_codec, file_codec),
                &files(&disk),
            )
            .unwrap();
            let mut borders = Vec::new();
            for start in (0..60).step_by(12) {
                write_rows(&writer, &columns, start, start + 12);
                writer.flush(false).unwrap();
                borders.push((disk.bytes(Path::new("f")).len(), start + 12));
            }
            writer.finish(false).unwrap();
            let whole = disk.bytes(Path::new("f"));
            let header = borders[0].0.min(
                options(row_codec, file_codec)
                    .header(schema.clone())
                    .unwrap()
                    .encode()
                    .len(),
            );
            for cut in header..whole.len() {
                let reader =
                    Reader::from_source(Arc::new(whole[..cut].to_vec()), ReadOptions::default())
                        .unwrap();
                let least = borders
                    .iter()
                    .filter(|(end, _)| *end <= cut)
                    .map(|(_, rows)| *rows)
                    .max()
                    .unwrap_or(0);
                let rows = reader.num_rows().unwrap() as usize;
                assert!(
                    rows >= least,
                    "{row_codec:?} {file_codec:?} cut at {cut}: {rows} rows, not {least}"
                );
                assert_ne!(
                    reader.complete().unwrap(),
                    Some(true),
                    "{row_codec:?} {file_codec:?} cut at {cut}"
                );
                check(&reader, &columns, 0, rows, "cut");
            }
        }
    }
}

/// No flipped bit behind the header gives a wrong row, and none goes unnoticed where a checksum covers it.
#[test]
fn flipped_bits_give_no_wrong_rows() {
    let mut random = Random(8);
    let schema = schema(&mut random, 5);
    let columns = columns(&mut random, &schema, 15);
    for row_codec in RowCodec::ALL {
        for file_codec in FileCodec::ALL {
            let disk = Memory::default();
            let writer = FileWriter::open(
                "f",
                &schema,
                WriteMode::New,
                &options(row_codec, file_codec),
                &files(&disk),
            )
            .unwrap();
            for start in (0..15).step_by(5) {
                write_rows(&writer, &columns, start, start + 5);
                writer.flush(false).unwrap();
            }
            writer.finish(false).unwrap();
            let whole = disk.bytes(Path::new("f"));
            let header = options(row_codec, file_codec)
                .header(schema.clone())
                .unwrap()
                .encode()
                .len();
            for bit in header * 8..whole.len() * 8 {
                let mut bad = whole.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                for on_corrupt in [OnCorrupt::Raise, OnCorrupt::Skip] {
                    let reader = Reader::from_source(
                        Arc::new(bad.clone()),
                        ReadOptions {
                            on_corrupt,
                            ..ReadOptions::default()
                        },
                    )
                    .unwrap();
                    let mut rows = 0;
                    let mut failed = false;
                    for batch in reader.batches(&Selection::default(), 100).unwrap() {
                        let Ok(batch) = batch else {
                            failed = true;
                            break;
                        };
                        let at = batch.first_row as usize;
                        for (column, original) in batch.columns.iter().zip(&columns) {
                            assert_eq!(
                                bits(column, 0, batch.rows),
                                bits(original, at, at + batch.rows),
                                "{row_codec:?} {file_codec:?} bit {bit}"
                            );
                        }
                        rows += batch.rows;
                    }
                    let noticed = failed
                        || reader.complete().unwrap() == Some(false)
                        || !reader.gaps().unwrap().is_empty();
                    // A flipped bit in LZ4 that decodes to the same bytes does no harm (format 9).
                    let harmless = file_codec == FileCodec::PacketLz4Batch && rows == 15;
                    assert!(
                        noticed || harmless || !file_codec.has_packets(),
                        "{row_codec:?} {file_codec:?} bit {bit} unnoticed"
                    );
                    if on_corrupt == OnCorrupt::Skip && file_codec.has_packets() {
                        assert!(
                            !failed && rows >= 10,
                            "{row_codec:?} {file_codec:?} bit {bit}: {rows} rows"
                        );
                    }
                }
            }
        }
    }
}

/// A small file that stands for a huge table of repeats is refused as a whole and read in bounded batches.
#[test]
fn a_bomb_of_repeats_is_bounded() {
    use tapeline_bcsv::{ColumnSpec, ColumnType, ErrorKind};
    let columns: Vec<ColumnSpec> = (0..20_000)
        .map(|i| ColumnSpec::new(format!("c{i}"), ColumnType::Double))
        .collect();
    let schema = Schema::new(columns).unwrap();
    let disk = Memory::default();
    let options = WriteOptions {
        packet_bytes: 1 << 23,
        ..options(RowCodec::Zoh, FileCodec::PacketLz4Batch)
    };
    let writer = FileWriter::open("f", &schema, WriteMode::New, &options, &files(&disk)).unwrap();
    let row = writer.row_buffer();
    (0..200_000).for_each(|_| writer.write_row(&row).unwrap());
    writer.finish(false).unwrap();
    let reader = read(&disk, OnCorrupt::Raise);
    assert_eq!(reader.num_rows().unwrap(), 200_000);
    let error = reader.read(&Selection::default()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Limit { .. }), "{error}");
    let first = reader
        .batches(&Selection::default(), usize::MAX)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(
        first.rows * 20_000 * 8 <= 64 << 20,
        "{} rows at once",
        first.rows
    );
    assert_eq!(reader.row(199_999).unwrap().rows, 1);
}
