//! Columns to a file in memory and back, by profile and codec pair: `cargo bench -p tapeline-bcsv`.
//!
//! Arguments: part of a profile's name, and `threads=N`. Prints megabytes of column data per second; each file is read
//! back and compared before it is timed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    dead_code
)]

#[path = "../tests/support/data.rs"]
mod data;

use std::time::Instant;

use data::{Random, bits, view};
use tapeline_bcsv::{
    Column, ColumnSpec, ColumnType as T, FileCodec, FileOptions, FileWriter, ReadOptions, Reader,
    RowCodec, Schema, Selection, StringColumn, WriteMode, WriteOptions,
};

/// Kinds of columns.
#[derive(Clone, Copy)]
enum Like {
    Time,
    Noise,
    Smooth,
    Rare,
    Rounded,
    Words,
    Unique,
}

fn column(random: &mut Random, kind: T, like: Like, rows: usize) -> Column {
    let (a, b) = (
        random.below(1000) as f64 / 1e3,
        random.below(1000) as f64 / 1e5 + 1e-3,
    );
    let mut held = random.next();
    let mut bits = Vec::with_capacity(rows);
    let mut float = Vec::with_capacity(rows);
    for i in 0..rows {
        let noise = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        if random.below(100) == 0 {
            held = random.next();
        }
        let x = match like {
            Like::Time => i as f64,
            Like::Noise => 20.0 + noise,
            Like::Smooth => (a + b * i as f64).sin() * 100.0,
            Like::Rare => (held >> 40) as f64,
            _ => (((a + b * i as f64).sin() * 300.0 + noise) * 10.0).round() / 10.0,
        };
        float.push(x);
        bits.push(match like {
            Like::Time => 1_700_000_000_000 + 1000 * i as u64,
            Like::Rare => held,
            Like::Smooth => (x * 1000.0) as i64 as u64,
            Like::Rounded => x as i64 as u64,
            _ => random.next(),
        });
    }
    match kind {
        T::Bool => {
            let mut bitmap = tapeline_bcsv::Bitmap::default();
            bits.iter().for_each(|v| bitmap.push(v & 1 == 1));
            Column::Bool(bitmap)
        }
        T::UInt8 => Column::UInt8(bits.iter().map(|v| *v as u8).collect()),
        T::UInt16 => Column::UInt16(bits.iter().map(|v| *v as u16).collect()),
        T::UInt32 => Column::UInt32(bits.iter().map(|v| *v as u32).collect()),
        T::UInt64 => Column::UInt64(bits),
        T::Int8 => Column::Int8(bits.iter().map(|v| *v as i8).collect()),
        T::Int16 => Column::Int16(bits.iter().map(|v| *v as i16).collect()),
        T::Int32 => Column::Int32(bits.iter().map(|v| *v as i32).collect()),
        T::Int64 => Column::Int64(bits.iter().map(|v| *v as i64).collect()),
        T::Float => Column::Float(float.iter().map(|v| *v as f32).collect()),
        T::Double => Column::Double(float),
        T::String => {
            let mut text = StringColumn::default();
            for v in bits {
                let word = match like {
                    Like::Unique => format!("{v:016x}-{:016x}", v.wrapping_mul(0x9E37_79B9)),
                    _ => format!("label-{}", v % 50),
                };
                text.bytes.extend_from_slice(word.as_bytes());
                text.offsets.push(i32::try_from(text.bytes.len()).unwrap());
            }
            Column::String(text)
        }
    }
}

/// Name, rows, and groups of columns: how many, which type, what they are like.
type Profile = (&'static str, usize, Vec<(usize, T, Like)>);

fn profiles() -> Vec<Profile> {
    use Like as L;
    let mixed = T::ALL.iter().map(|kind| (6, *kind, L::Unique)).collect();
    vec![
        ("mixed_generic", 50_000, mixed),
        (
            "sparse_events",
            100_000,
            vec![
                (20, T::Bool, L::Rare),
                (30, T::Int32, L::Rare),
                (20, T::Float, L::Rare),
                (20, T::Double, L::Rare),
                (10, T::String, L::Rare),
            ],
        ),
        (
            "sensor_noisy",
            100_000,
            vec![
                (1, T::UInt64, L::Time),
                (1, T::UInt32, L::Time),
                (24, T::Float, L::Noise),
                (24, T::Double, L::Noise),
            ],
        ),
        (
            "string_heavy",
            50_000,
            vec![
                (20, T::String, L::Words),
                (5, T::Int32, L::Noise),
                (5, T::Double, L::Smooth),
            ],
        ),
        (
            "bool_heavy",
            100_000,
            vec![(128, T::Bool, L::Rare), (4, T::Int32, L::Rare)],
        ),
        (
            "arithmetic_wide",
            30_000,
            vec![
                (40, T::Int32, L::Noise),
                (40, T::Int64, L::Noise),
                (40, T::UInt32, L::Noise),
                (40, T::Float, L::Noise),
                (40, T::Double, L::Noise),
            ],
        ),
        (
            "simulation_smooth",
            50_000,
            vec![
                (1, T::UInt64, L::Time),
                (49, T::Double, L::Smooth),
                (48, T::Float, L::Smooth),
                (1, T::UInt32, L::Time),
                (1, T::Bool, L::Rare),
            ],
        ),
        (
            "weather_timeseries",
            100_000,
            vec![
                (1, T::UInt64, L::Time),
                (2, T::String, L::Words),
                (25, T::Float, L::Rounded),
                (8, T::Int16, L::Rounded),
            ],
        ),
        (
            "high_cardinality_string",
            30_000,
            vec![(48, T::String, L::Unique), (2, T::Int32, L::Noise)],
        ),
        (
            "float_1000ch",
            10_000,
            vec![
                (1, T::Int64, L::Time),
                (400, T::Float, L::Smooth),
                (300, T::Float, L::Noise),
                (300, T::Float, L::Rare),
            ],
        ),
        (
            "radar_iq",
            100_000,
            vec![
                (1, T::UInt64, L::Time),
                (1, T::UInt16, L::Time),
                (64, T::Int16, L::Noise),
            ],
        ),
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let number = |name: &str| {
        arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(name)?.parse::<usize>().ok())
    };
    let threads = number("threads=").unwrap_or(1);
    let rounds = number("rounds=").unwrap_or(3);
    let filter = arguments
        .iter()
        .find(|argument| !argument.contains('='))
        .cloned()
        .unwrap_or_default();
    let folder = std::path::Path::new("/dev/shm");
    let folder = if folder.is_dir() {
        folder.to_owned()
    } else {
        std::env::temp_dir()
    };
    let path = folder.join(format!("tapeline-bench-{}.bcsv", std::process::id()));
    println!(
        "{:<26}{:<7}{:>10}{:>10}{:>12}  threads={threads}",
        "profile", "codec", "write", "read", "bytes/row"
    );
    for (name, rows, groups) in profiles()
        .into_iter()
        .filter(|profile| profile.0.contains(&filter))
    {
        let mut random = Random(1);
        let mut specs = Vec::new();
        let mut columns = Vec::new();
        for (count, kind, like) in groups {
            for _ in 0..count {
                specs.push(ColumnSpec::new(format!("c{}", specs.len()), kind));
                columns.push(column(&mut random, kind, like, rows));
            }
        }
        let schema = Schema::new(specs).unwrap();
        let megabytes: f64 = columns
            .iter()
            .map(|column| match column {
                Column::String(text) => (text.bytes.len() + 4 * rows) as f64,
                Column::Bool(bits) => bits.bytes.len() as f64,
                other => (other.kind().width() * rows) as f64,
            })
            .sum::<f64>()
            / 1e6;
        for row_codec in RowCodec::ALL {
            let options = WriteOptions {
                row_codec,
                file_codec: FileCodec::PacketLz4Batch,
                ..WriteOptions::default()
            };
            let files = FileOptions {
                threads,
                ..FileOptions::default()
            };
            let (mut best_write, mut best_read) = (f64::MAX, f64::MAX);
            for round in 0..rounds {
                let _ = std::fs::remove_file(&path);
                let start = Instant::now();
                let writer =
                    FileWriter::open(&path, &schema, WriteMode::New, &options, &files).unwrap();
                writer.write_batch(&view(&columns, 0, rows)).unwrap();
                writer.finish(false).unwrap();
                best_write = best_write.min(start.elapsed().as_secs_f64());
                let mut batches = Vec::new();
                for _ in 0..number("reads=").unwrap_or(1) {
                    drop(std::mem::take(&mut batches));
                    let start = Instant::now();
                    let reader = Reader::open(&path, ReadOptions::default()).unwrap();
                    batches = reader
                        .read(&Selection {
                            threads,
                            ..Selection::default()
                        })
                        .unwrap();
                    best_read = best_read.min(start.elapsed().as_secs_f64());
                }
                if round == 0 {
                    let mut at = 0;
                    for batch in &batches {
                        for (column, original) in batch.columns.iter().zip(&columns) {
                            assert_eq!(bits(column, 0, 1), bits(original, at, at + 1));
                        }
                        at += batch.rows;
                    }
                    assert_eq!(at, rows);
                }
            }
            let bytes = std::fs::metadata(&path).unwrap().len() as f64 / rows as f64;
            if number("keep=").is_some() {
                // For other programs to read: the files stay beside the working folder.
                std::fs::copy(
                    &path,
                    folder.join(format!("{name}-{}.bcsv", row_codec.name())),
                )
                .unwrap();
            }
            println!(
                "{name:<26}{:<7}{:>10.0}{:>10.0}{bytes:>12.1}",
                row_codec.name(),
                megabytes / best_write,
                megabytes / best_read
            );
        }
    }
    let _ = std::fs::remove_file(&path);
}
