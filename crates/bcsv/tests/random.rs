//! Single rows: which packets are read again, and which stay in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tapeline_bcsv::{
    ColumnType, FileCodec, Limits, ReadAt, ReadOptions, Reader, RowCodec, RowWriter, Schema, Value,
    WriteOptions,
};

/// Counts the reads.
struct Counted {
    bytes: Vec<u8>,
    reads: AtomicUsize,
}

impl ReadAt for Counted {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }
}

const ROWS: u64 = 60_000;

/// About 15 packets of 64 KiB of rows that do not compress.
fn file(row_codec: RowCodec, file_codec: FileCodec) -> Arc<Counted> {
    let schema = Schema::from_pairs([("k", ColumnType::UInt64), ("x", ColumnType::UInt64)]);
    let options = WriteOptions {
        row_codec,
        file_codec,
        packet_bytes: 65_536,
        ..WriteOptions::default()
    };
    let mut writer = RowWriter::new(Vec::new(), &schema.unwrap(), &options).unwrap();
    for k in 0..ROWS {
        writer
            .write_row(&[Value::UInt64(k), Value::UInt64(noise(k))])
            .unwrap();
    }
    Arc::new(Counted {
        bytes: writer.finish().unwrap(),
        reads: AtomicUsize::new(0),
    })
}

fn noise(k: u64) -> u64 {
    let mixed = (k ^ (k << 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

struct Rows {
    source: Arc<Counted>,
    reader: Reader,
    /// The first row of each packet.
    starts: Vec<u64>,
}

impl Rows {
    fn open(row_codec: RowCodec, file_codec: FileCodec, cache_bytes: u64) -> Self {
        let source = file(row_codec, file_codec);
        let options = ReadOptions {
            limits: Limits {
                cache_bytes,
                ..Limits::default()
            },
            ..ReadOptions::default()
        };
        let reader = Reader::from_source(Arc::clone(&source) as Arc<dyn ReadAt>, options).unwrap();
        let starts: Vec<u64> = reader
            .packets()
            .unwrap()
            .iter()
            .map(|packet| packet.first_row)
            .collect();
        assert!(starts.len() > 6, "{starts:?}");
        Self {
            source,
            reader,
            starts,
        }
    }

    /// Whether the file was read for a row, which must be right.
    fn read(&self, row: u64) -> bool {
        let before = self.source.reads.load(Ordering::Relaxed);
        let batch = self.reader.row(row).unwrap();
        assert_eq!((batch.first_row, batch.rows), (row, 1));
        assert_eq!(batch.value(0, 0), Some(Value::UInt64(row)));
        assert_eq!(batch.value(1, 0), Some(Value::UInt64(noise(row))));
        self.source.reads.load(Ordering::Relaxed) > before
    }

    /// The same for a row of a packet.
    fn packet(&self, number: usize, k: u64) -> bool {
        self.read(self.starts[number] + k)
    }
}

const PAIRS: [(RowCodec, FileCodec); 5] = [
    (RowCodec::Flat, FileCodec::Packet),
    (RowCodec::Zoh, FileCodec::PacketLz4),
    (RowCodec::Delta, FileCodec::PacketLz4),
    (RowCodec::Flat, FileCodec::PacketLz4Batch),
    (RowCodec::Delta, FileCodec::PacketLz4Batch),
];

#[test]
fn with_room_for_all_no_packet_is_read_twice() {
    for (row_codec, file_codec) in PAIRS {
        let rows = Rows::open(row_codec, file_codec, 256 << 20);
        let mut reads = 0;
        for k in 0..2000_u64 {
            reads += usize::from(rows.read(noise(k) % ROWS));
        }
        assert_eq!(reads, rows.starts.len(), "{row_codec:?} {file_codec:?}");
    }
}

#[test]
fn the_packet_of_the_last_row_is_kept_whatever_the_limit() {
    for (row_codec, file_codec) in PAIRS {
        let rows = Rows::open(row_codec, file_codec, 0);
        for number in [3, 1, 3] {
            assert!(rows.packet(number, 0), "another packet had taken its place");
            // Behind, before, and the same again.
            for k in [900, 17, 900, 0] {
                assert!(!rows.packet(number, k), "{row_codec:?} {file_codec:?}");
            }
        }
    }
}

/// How many packets are kept: the first is there after so many have been read, it among them.
fn most_kept(rows: &Rows) -> usize {
    let kept_after = |count: usize| {
        (0..count).for_each(|number| {
            rows.packet(number, 5);
        });
        !rows.packet(0, 6)
    };
    (1..rows.starts.len())
        .take_while(|n| kept_after(*n))
        .count()
}

#[test]
fn packets_used_longest_ago_leave_first() {
    for (row_codec, file_codec) in PAIRS {
        // What a packet takes in memory is nobody's business here: a limit that keeps some is found by trying.
        let tried = (16..26).map(|shift| {
            let rows = Rows::open(row_codec, file_codec, 3 << shift);
            let most = most_kept(&rows);
            (rows, most)
        });
        let mut some = tried.filter(|(rows, most)| (2..rows.starts.len() - 2).contains(most));
        let (rows, most) = some
            .next()
            .expect("a limit that keeps some packets and not all");
        // The cache is filled with 0 to most - 1, then 0 is used again: the next one drives out 1, not 0.
        (0..most).for_each(|number| {
            rows.packet(number, 1);
        });
        assert!(!rows.packet(0, 2));
        assert!(rows.packet(most, 2), "never read before");
        assert!(!rows.packet(0, 3), "used last but one");
        assert!(rows.packet(1, 3), "used longest ago");
    }
}

#[test]
fn a_damaged_packet_is_not_kept() {
    let source = file(RowCodec::Delta, FileCodec::PacketLz4Batch);
    let good = Reader::from_source(source.clone(), ReadOptions::default()).unwrap();
    let packet = good.packets().unwrap()[2];
    let mut bytes = source.bytes.clone();
    bytes[packet.offset as usize + 100] ^= 1;
    let reader = Reader::from_source(Arc::new(bytes), ReadOptions::default()).unwrap();
    for _ in 0..3 {
        assert!(reader.row(packet.first_row + 1).is_err());
        assert!(reader.row(packet.first_row - 1).is_ok());
    }
}
