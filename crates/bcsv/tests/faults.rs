//! The n-th write, sync, rename or cut fails, for every n: nothing acknowledged is lost, nothing is there twice.
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

use data::{Random, bits, columns, view};
use disk::{Fault, Memory};
use tapeline_bcsv::{
    Column, ColumnType, ErrorKind, FileCodec, FileOptions, FileWriter, OnCorrupt, ReadOptions,
    Reader, RowCodec, Schema, Selection, Value, WriteMode, WriteOptions,
};

const ROWS: usize = 400;

fn schema() -> Schema {
    Schema::from_pairs([
        ("n", ColumnType::UInt64),
        ("x", ColumnType::Double),
        ("s", ColumnType::String),
        ("b", ColumnType::Bool),
    ])
    .unwrap()
}

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
        threads: 1,
        ..FileOptions::default()
    }
}

fn open(disk: &Memory) -> Option<Reader> {
    let options = ReadOptions {
        on_corrupt: OnCorrupt::Raise,
        ..ReadOptions::default()
    };
    Reader::from_source(Arc::new(disk.bytes(Path::new("f"))), options).ok()
}

/// The file's rows are `wanted` (numbers of rows of `columns`), or begin with the first `least` of them.
fn check(disk: &Memory, columns: &[Column], wanted: &[usize], least: usize, what: &str) {
    let Some(reader) = open(disk) else {
        assert_eq!(least, 0, "{what}: cannot be opened");
        return;
    };
    let mut at = 0;
    for batch in reader.read(&Selection::default()).unwrap() {
        for row in 0..batch.rows {
            let number = *wanted
                .get(at)
                .unwrap_or_else(|| panic!("{what}: more rows than written"));
            for (column, original) in batch.columns.iter().zip(columns) {
                assert_eq!(
                    bits(column, row, row + 1),
                    bits(original, number, number + 1),
                    "{what} row {at}"
                );
            }
            at += 1;
        }
    }
    assert!(at >= least, "{what}: {at} rows, {least} were acknowledged");
}

/// Write with flushes while something fails; what raised is not repeated. Returns rows accepted and acknowledged.
fn write_through(
    writer: &FileWriter,
    columns: &[Column],
    disk: &Memory,
    heal_after: usize,
) -> (Vec<usize>, usize) {
    let mut row = writer.row_buffer();
    let (mut accepted, mut acknowledged) = (Vec::new(), 0);
    let mut failures = 0;
    for number in 0..ROWS {
        let values: Vec<Value<'_>> = columns
            .iter()
            .map(|column| column.value(number).unwrap())
            .collect();
        row.fill(&values).unwrap();
        match writer.write_row(&row) {
            Ok(()) => accepted.push(number),
            Err(error) => {
                assert!(error.io_error().is_some(), "{error}");
                failures += 1;
            }
        }
        if number % 50 == 49 {
            match writer.flush(number % 100 == 99) {
                Ok(()) => acknowledged = accepted.len(),
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::Io(_) | ErrorKind::SyncFailed),
                        "{error}"
                    );
                    failures += 1;
                }
            }
        }
        if failures > heal_after {
            disk.heal();
        }
    }
    (accepted, acknowledged)
}

#[test]
fn every_operation_may_fail() {
    let mut random = Random(3);
    let schema = schema();
    let columns = columns(&mut random, &schema, ROWS);
    for file_codec in FileCodec::ALL {
        for fault in [Fault::Io, Fault::Full, Fault::Interrupted, Fault::Short] {
            for n in 0..40 {
                let what = format!("{file_codec:?} {fault:?} at operation {n}");
                let disk = Memory::default();
                disk.fail(n, fault);
                let opened = FileWriter::open(
                    "f",
                    &schema,
                    WriteMode::New,
                    &options(RowCodec::Delta, file_codec),
                    &files(&disk),
                );
                let Ok(writer) = opened else {
                    assert!(
                        disk.names().is_empty(),
                        "{what}: a file that could not be begun is left behind"
                    );
                    continue;
                };
                let (accepted, acknowledged) = write_through(&writer, &columns, &disk, 2);
                check(&disk, &columns, &accepted, acknowledged, &what);
                disk.heal();
                // The same writer goes on, and everything accepted is there at the end, once.
                writer.finish(false).unwrap();
                check(&disk, &columns, &accepted, accepted.len(), &what);
                if file_codec.has_packets() {
                    assert_eq!(
                        open(&disk).unwrap().complete().unwrap(),
                        Some(true),
                        "{what}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_failed_sync_is_never_made_good() {
    let schema = schema();
    let disk = Memory::default();
    let writer = FileWriter::open(
        "f",
        &schema,
        WriteMode::New,
        &options(RowCodec::Flat, FileCodec::Packet),
        &files(&disk),
    )
    .unwrap();
    let mut random = Random(4);
    let columns = columns(&mut random, &schema, 2);
    writer.write_batch(&view(&columns, 0, 2)).unwrap();
    writer.flush(false).unwrap();
    disk.fail(0, Fault::Io);
    assert!(writer.flush(true).unwrap_err().io_error().is_some());
    assert!(matches!(
        writer.flush(true).unwrap_err().kind(),
        ErrorKind::SyncFailed
    ));
    writer.flush(false).unwrap();
    assert!(matches!(
        writer.finish(true).unwrap_err().kind(),
        ErrorKind::SyncFailed
    ));
    writer.finish(false).unwrap();
}

#[test]
fn replacing_leaves_the_old_file_until_the_new_one_is_readable() {
    let schema = schema();
    let mut random = Random(6);
    let columns = columns(&mut random, &schema, 90);
    for n in 0..12 {
        for fault in [Fault::Io, Fault::Full] {
            let disk = Memory::default();
            let create = |mode| {
                FileWriter::open(
                    "f",
                    &schema,
                    mode,
                    &options(RowCodec::Zoh, FileCodec::PacketLz4),
                    &files(&disk),
                )
            };
            let old = create(WriteMode::New).unwrap();
            old.write_batch(&view(&columns, 0, 40)).unwrap();
            old.finish(false).unwrap();
            let before = disk.bytes(Path::new("f"));
            disk.fail(n, fault);
            let Ok(new) = create(WriteMode::Replace) else {
                assert!(disk.bytes(Path::new("f")) == before);
                continue;
            };
            let _ = new.write_batch(&view(&columns, 40, 90));
            let done = new.finish(true).is_ok();
            let now = disk.bytes(Path::new("f"));
            assert!(
                done || now == before || open(&disk).unwrap().num_rows().unwrap() == 50,
                "operation {n}"
            );
            drop(new);
            if done {
                let wanted: Vec<usize> = (40..90).collect();
                check(&disk, &columns, &wanted, 50, "replaced");
            }
        }
    }
}

#[test]
fn a_large_batch_that_cannot_be_stored_leaves_no_rows() {
    let schema = Schema::from_pairs([("x", ColumnType::Double)]).unwrap();
    let values: Vec<f64> = (0..400_000).map(|i| f64::from(i).sin()).collect();
    let columns = [Column::Double(values)];
    for file_codec in [
        FileCodec::Packet,
        FileCodec::PacketLz4,
        FileCodec::PacketLz4Batch,
    ] {
        let disk = Memory::default();
        let writer = FileWriter::open(
            "f",
            &schema,
            WriteMode::New,
            &options(RowCodec::Flat, file_codec),
            &files(&disk),
        )
        .unwrap();
        writer.write_batch(&view(&columns, 0, 10)).unwrap();
        writer.flush(false).unwrap();
        disk.fail(1, Fault::Full);
        assert!(writer.write_batch(&view(&columns, 10, 400_000)).is_err());
        assert_eq!(writer.rows_written(), 10);
        disk.heal();
        assert_eq!(
            open(&disk).unwrap().num_rows().unwrap(),
            10,
            "{file_codec:?}"
        );
        writer.write_batch(&view(&columns, 10, 400_000)).unwrap();
        writer.finish(false).unwrap();
        let reader = open(&disk).unwrap();
        assert_eq!(reader.num_rows().unwrap(), 400_000);
        assert!(reader.packets().unwrap().len() > 2);
    }
}

#[test]
fn appending_goes_on_behind_what_a_crash_left() {
    let schema = schema();
    let mut random = Random(9);
    let columns = columns(&mut random, &schema, 120);
    for row_codec in RowCodec::ALL {
        for file_codec in FileCodec::ALL {
            let disk = Memory::default();
            let create = |mode| {
                FileWriter::open(
                    "f",
                    &schema,
                    mode,
                    &options(row_codec, file_codec),
                    &files(&disk),
                )
            };
            let writer = create(WriteMode::New).unwrap();
            writer.write_batch(&view(&columns, 0, 50)).unwrap();
            writer.flush(false).unwrap();
            // Dropped without an end, and then some bytes of a packet that never became whole.
            drop(writer);
            let mut torn = disk.bytes(Path::new("f"));
            let whole = torn.len();
            torn.extend_from_slice(&[0x50, 0x4b, 0x43]);
            if file_codec.has_packets() {
                disk.put(Path::new("f"), torn);
            }
            assert_eq!(open(&disk).unwrap().num_rows().unwrap(), 50);
            let writer = create(WriteMode::Append).unwrap();
            writer.write_batch(&view(&columns, 50, 120)).unwrap();
            writer.finish(false).unwrap();
            assert!(disk.bytes(Path::new("f")).len() > whole);
            let wanted: Vec<usize> = (0..120).collect();
            check(
                &disk,
                &columns,
                &wanted,
                120,
                &format!("{row_codec:?} {file_codec:?}"),
            );
        }
    }
}
