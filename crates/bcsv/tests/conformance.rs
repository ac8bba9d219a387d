//! Every vector in `vectors/bcsv` reads as its JSON says (`vectors/bcsv/README.md`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value as Json;
use support::sha256;
use tapeline_bcsv::{
    Batch, Limits, OnCorrupt, ReadOptions, Reader, Result, RowWriter, Schema, Selection, Value,
    WriteOptions,
};

fn vectors() -> Vec<(String, Vec<u8>, Json)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/bcsv");
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "bcsv")
        {
            let json = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            vectors.push((
                name,
                std::fs::read(&path).unwrap(),
                serde_json::from_str(&json).unwrap(),
            ));
        }
    }
    assert!(vectors.len() >= 63, "only {} vectors found", vectors.len());
    vectors.sort_by(|a, b| a.0.cmp(&b.0));
    vectors
}

fn open(bytes: &[u8], on_corrupt: OnCorrupt) -> Result<Reader> {
    Reader::from_source(
        Arc::new(bytes.to_vec()),
        ReadOptions {
            on_corrupt,
            ..ReadOptions::default()
        },
    )
}

/// A value as the digests of the vectors take it.
fn digest_bytes(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Bool(v) => out.push(v.into()),
        Value::UInt8(v) => out.push(v),
        Value::UInt16(v) => out.extend(v.to_le_bytes()),
        Value::UInt32(v) => out.extend(v.to_le_bytes()),
        Value::UInt64(v) => out.extend(v.to_le_bytes()),
        Value::Int8(v) => out.extend(v.to_le_bytes()),
        Value::Int16(v) => out.extend(v.to_le_bytes()),
        Value::Int32(v) => out.extend(v.to_le_bytes()),
        Value::Int64(v) => out.extend(v.to_le_bytes()),
        Value::Float(v) => out.extend(v.to_le_bytes()),
        Value::Double(v) => out.extend(v.to_le_bytes()),
        Value::String(v) => {
            out.extend((v.len() as u32).to_le_bytes());
            out.extend(v);
        }
    }
}

/// A value as the JSON shows it.
fn json_of(value: Value<'_>) -> Json {
    let hex = |bytes: &[u8]| {
        Json::from(
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        )
    };
    match value {
        Value::Bool(v) => v.into(),
        Value::UInt8(v) => v.into(),
        Value::UInt16(v) => v.into(),
        Value::UInt32(v) => v.into(),
        Value::UInt64(v) => v.to_string().into(),
        Value::Int8(v) => v.into(),
        Value::Int16(v) => v.into(),
        Value::Int32(v) => v.into(),
        Value::Int64(v) => v.to_string().into(),
        Value::Float(v) => format!("{:08x}", v.to_bits()).into(),
        Value::Double(v) => format!("{:016x}", v.to_bits()).into(),
        Value::String(v) => hex(v),
    }
}

/// Rows by number, each as its digest bytes, with the values.
type Rows = Vec<(u64, Vec<u8>, Vec<Json>)>;

fn rows_of(batch: &Batch, rows: &mut Rows) {
    for row in 0..batch.rows {
        let mut bytes = Vec::new();
        let mut values = Vec::new();
        for column in 0..batch.columns.len() {
            let value = batch.value(column, row).unwrap();
            digest_bytes(value, &mut bytes);
            values.push(json_of(value));
        }
        rows.push((batch.first_row + row as u64, bytes, values));
    }
}

/// All rows up to the first error, in batches of `batch_rows`.
fn iterate(reader: &Reader, batch_rows: usize) -> (Rows, Option<tapeline_bcsv::Error>) {
    let mut rows = Rows::new();
    for batch in reader.batches(&Selection::default(), batch_rows).unwrap() {
        match batch {
            Ok(batch) => rows_of(&batch, &mut rows),
            Err(error) => return (rows, Some(error)),
        }
    }
    (rows, None)
}

fn digest(rows: &Rows, first: u64, count: u64) -> String {
    let wanted = rows
        .iter()
        .filter(|(number, ..)| (first..first + count).contains(number));
    let bytes: Vec<Vec<u8>> = wanted.map(|(_, bytes, _)| bytes.clone()).collect();
    assert_eq!(
        bytes.len() as u64,
        count,
        "rows {first} to {}",
        first + count
    );
    sha256(&bytes.concat())
}

#[test]
fn strict_reading_gives_the_verified_rows_and_reports_the_fault() {
    for (name, bytes, json) in vectors() {
        let expect = &json["expect"];
        let reader = match open(&bytes, OnCorrupt::Raise) {
            Err(error) => {
                assert_eq!(expect["open"], "error", "{name}: {error}");
                continue;
            }
            Ok(reader) => reader,
        };
        assert_eq!(expect["open"], "ok", "{name}");
        let (verified, most) = (
            expect["verified_rows"].as_u64().unwrap(),
            expect["strict_rows"].as_u64().unwrap(),
        );
        for batch_rows in [3, 65_536] {
            let (rows, error) = iterate(&reader, batch_rows);
            assert!(
                (verified..=most).contains(&(rows.len() as u64)),
                "{name}: {} rows",
                rows.len()
            );
            assert_eq!(
                digest(&rows, 0, verified),
                expect["verified_sha256"].as_str().unwrap(),
                "{name}"
            );
            for (number, sample) in json["rows"].as_object().unwrap() {
                let number: u64 = number.parse().unwrap();
                if let Some((found, _, values)) =
                    rows.get(number as usize).filter(|_| number < verified)
                {
                    assert_eq!(*found, number);
                    assert_eq!(values, sample.as_array().unwrap(), "{name} row {number}");
                }
            }
            let complete = reader.complete().unwrap();
            if expect["clean"].as_bool().unwrap() {
                assert!(
                    error.is_none() && complete != Some(false),
                    "{name}: {error:?} {complete:?}"
                );
            } else {
                assert!(
                    error.is_some() || complete == Some(false),
                    "{name} passes as clean"
                );
            }
            assert!(
                complete.is_some() || !reader.header().file_codec().has_packets(),
                "{name}"
            );
        }
        if expect["clean"].as_bool().unwrap() {
            let (rows, _) = iterate(&reader, 1000);
            for threads in [1, 3] {
                let mut parallel = Rows::new();
                let selection = Selection {
                    threads,
                    ..Selection::default()
                };
                reader
                    .read(&selection)
                    .unwrap()
                    .iter()
                    .for_each(|batch| rows_of(batch, &mut parallel));
                assert!(parallel == rows, "{name} with {threads} threads");
            }
            assert_eq!(
                reader.num_rows().unwrap(),
                json["row_count_written"].as_u64().unwrap(),
                "{name}"
            );
            for number in [0, rows.len() / 3, rows.len().saturating_sub(1)] {
                if number < rows.len() {
                    let mut one = Rows::new();
                    rows_of(&reader.row(number as u64).unwrap(), &mut one);
                    assert!(one.first() == rows.get(number), "{name} row {number}");
                }
            }
        }
    }
}

#[test]
fn salvage_finds_every_verified_run() {
    for (name, bytes, json) in vectors() {
        let expect = &json["expect"];
        if expect["open"] == "error" {
            continue;
        }
        let reader = open(&bytes, OnCorrupt::Skip).unwrap();
        let (rows, error) = iterate(&reader, 1000);
        assert!(error.is_none(), "{name}: {error:?}");
        let mut found = 0;
        for run in expect["salvage_runs"].as_array().unwrap() {
            let (first, count) = (run[0].as_u64().unwrap(), run[1].as_u64().unwrap());
            if run[2].as_bool().unwrap() {
                assert_eq!(
                    digest(&rows, first, count),
                    run[3].as_str().unwrap(),
                    "{name} run {first}"
                );
                found += count;
            }
        }
        assert_eq!(
            rows.len() as u64,
            found,
            "{name}: rows that are not verified"
        );
        for (first, stop) in reader.gaps().unwrap() {
            assert!(
                rows.iter()
                    .all(|(number, ..)| !(first..stop).contains(number)),
                "{name}: gap over rows given"
            );
        }
    }
}

#[test]
fn validation_and_repair_agree_with_the_vectors() {
    let folder = std::env::temp_dir().join(format!("tapeline-repair-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes, json) in vectors() {
        let expect = &json["expect"];
        if expect["open"] == "error" {
            continue;
        }
        let (source, target) = (folder.join(&name), folder.join(format!("{name}.repaired")));
        std::fs::write(&source, &bytes).unwrap();
        let report = tapeline_bcsv::validate(&source, Limits::default()).unwrap();
        assert_eq!(
            report.ok,
            expect["clean"].as_bool().unwrap(),
            "{name}: {report}"
        );
        let runs = expect["salvage_runs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|run| run[2].as_bool().unwrap());
        let readable: u64 = runs.map(|run| run[1].as_u64().unwrap()).sum();
        assert_eq!(report.rows_readable, readable, "{name}: {report}");
        assert_eq!(
            tapeline_bcsv::repair(&source, &target, Limits::default()).unwrap(),
            report,
            "{name}"
        );
        assert!(
            std::fs::read(&source).unwrap() == bytes,
            "{name}: the source was changed"
        );
        let repaired = Reader::open(&target, ReadOptions::default()).unwrap();
        let rows: usize = repaired
            .read(&Selection::default())
            .unwrap()
            .iter()
            .map(|batch| batch.rows)
            .sum();
        assert_eq!(rows as u64, readable, "{name}");
        assert_ne!(repaired.complete().unwrap(), Some(false), "{name}");
        let lost: u64 = report
            .problems
            .iter()
            .filter_map(|problem| problem.rows)
            .map(|(first, stop)| stop - first)
            .sum();
        assert_eq!(lost + readable, report.rows_expected, "{name}: {report}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn headers_say_what_the_json_says() {
    for (name, bytes, json) in vectors() {
        let Ok(reader) = open(&bytes, OnCorrupt::Raise) else {
            continue;
        };
        let header = reader.header();
        assert_eq!(
            header.row_codec().name(),
            json["row_codec"].as_str().unwrap(),
            "{name}"
        );
        assert_eq!(
            header.file_codec().name().replace('-', "_"),
            json["file_codec"].as_str().unwrap(),
            "{name}"
        );
        assert_eq!(header.created_s, json["creation_time"].as_u64(), "{name}");
        assert_eq!(
            u64::from(header.packet_bytes),
            json["packet_size"].as_u64().unwrap(),
            "{name}"
        );
        for (spec, column) in header
            .schema
            .columns()
            .iter()
            .zip(json["layout"].as_array().unwrap())
        {
            assert_eq!(spec.kind.name(), column["type"].as_str().unwrap(), "{name}");
            assert_eq!(spec.name_text(), column["name"].as_str().unwrap(), "{name}");
        }
        assert_eq!(header.encode(), bytes[..header.encode().len()], "{name}");
    }
}

/// Raw codecs leave no freedom: given the flush points, our bytes are the reference's.
#[test]
fn raw_vectors_are_reproduced_byte_for_byte() {
    let mut checked = 0;
    for (name, bytes, json) in vectors() {
        let raw = matches!(json["file_codec"].as_str(), Some("stream" | "packet"));
        if !raw || !json["expect"]["clean"].as_bool().unwrap() {
            continue;
        }
        let reader = open(&bytes, OnCorrupt::Raise).unwrap();
        let header = reader.header();
        let options = WriteOptions {
            row_codec: header.row_codec(),
            file_codec: header.file_codec(),
            compression_level: header.compression_level,
            packet_bytes: header.packet_bytes,
            index: header.flags & 2 == 0,
            version: if header.created_s.is_none() {
                tapeline_bcsv::FormatVersion::V1_3
            } else {
                tapeline_bcsv::FormatVersion::V1_5
            },
            stamp: Some(header.version),
            created_s: header.created_s,
        };
        let schema: &Schema = reader.schema();
        let mut writer = RowWriter::new(Vec::new(), schema, &options).unwrap();
        let mut next = 0;
        let packets: Vec<u64> = json["packets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|packet| packet[1].as_u64().unwrap())
            .collect();
        for batch in reader.batches(&Selection::default(), 100).unwrap() {
            let batch = batch.unwrap();
            for row in 0..batch.rows {
                if next > 0 && packets.contains(&next) {
                    writer.flush().unwrap();
                }
                let values: Vec<Value<'_>> = (0..batch.columns.len())
                    .map(|column| batch.value(column, row).unwrap())
                    .collect();
                writer.write_row(&values).unwrap();
                next += 1;
            }
        }
        if packets.last() == Some(&next) && next > 0 {
            // The reference flushed and then closed: an empty last packet, which we do not write.
            continue;
        }
        assert!(writer.finish().unwrap() == bytes, "{name}");
        checked += 1;
    }
    assert!(checked >= 10, "only {checked} files reproduced");
}
