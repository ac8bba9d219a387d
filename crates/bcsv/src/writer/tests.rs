#![allow(clippy::unwrap_used)]
use super::*;
use crate::schema::ColumnType;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn options(row_codec: RowCodec, file_codec: FileCodec) -> WriteOptions {
    WriteOptions {
        row_codec,
        file_codec,
        packet_bytes: 65_536,
        stamp: Some([1, 5, 22]),
        created_s: Some(1_700_000_000),
        ..WriteOptions::default()
    }
}

fn abs_schema() -> Schema {
    Schema::from_pairs([
        ("a", ColumnType::Int32),
        ("b", ColumnType::Bool),
        ("s", ColumnType::String),
    ])
    .unwrap()
}

fn write(options: &WriteOptions, rows: &[i32]) -> Vec<u8> {
    let mut writer = RowWriter::new(Vec::new(), &abs_schema(), options).unwrap();
    for a in rows {
        writer
            .write_row(&[Value::Int32(*a), Value::Bool(true), Value::String(b"hi")])
            .unwrap();
    }
    writer.finish().unwrap()
}

/// Dumps 1 to 5 of the specification (format 13).
#[test]
fn worked_dumps() {
    let rows = [5, 6, 6];
    let flat = hex(
        "42435356 00f1536500000000 010516 00 0400 0300 00000100 07000b 010001000100 616273 \
         48 01 05000000 0200 6869 ea8d1fff 48 010600000002006869 5d270b25 48 010600000002006869 5d270b25",
    );
    assert_eq!(
        write(&options(RowCodec::Flat, FileCodec::Stream), &rows),
        flat
    );
    let zoh = hex(
        "42435356 010300 00 0100 0300 00000100 07000b 010001000100 616273 504b4354 0000000000000000 a428bfb8 \
         48 07 05000000 02006869 28 03 06000000 00 fcffffff01 1fe693938ae8c7af \
         42494458 1c00000000000000 0000000000000000 45494458 2c000000 0300000000000000 b6ac5697 0c552baf",
    );
    let short = WriteOptions {
        version: FormatVersion::V1_3,
        stamp: None,
        ..options(RowCodec::Zoh, FileCodec::Packet)
    };
    assert_eq!(write(&short, &rows), zoh);
    let delta = hex(
        "42435356 00f1536500000000 010516 01 1800 0300 00000100 07000b 010001000100 616273 \
         504b4354 0000000000000000 a428bfb8 11000000 13000000 f002 30 15 0a 02006869 10 05 02 08 01 fcffffff01 \
         ca1e73e08b1d7b31 42494458 2400000000000000 0000000000000000 45494458 2c000000 0300000000000000 \
         ceb3881ffbf8fae9",
    );
    assert_eq!(
        write(&options(RowCodec::Delta, FileCodec::PacketLz4Batch), &rows),
        delta
    );
    let stream_lz4 = hex(
        "42435356 00f1536500000000 010516 01 0500 0300 00000100 07000b 010001000100 616273 \
         50 90 07 05000000 02006869 f7176f65 30 50 03 06000000 813d06e9 00",
    );
    assert_eq!(
        write(&options(RowCodec::Zoh, FileCodec::StreamLz4), &rows),
        stream_lz4
    );
    let empty = hex(
        "42435356 00f1536500000000 010516 00 0100 0300 00000100 07000b 010001000100 616273 \
         42494458 45494458 1c000000 0000000000000000 b7f08a375098c941",
    );
    assert_eq!(
        write(&options(RowCodec::Zoh, FileCodec::Packet), &[]),
        empty
    );
}

/// Dump 6: prediction, wrap-around, holds.
#[test]
fn worked_dump_of_delta() {
    let columns = [
        ("s", ColumnType::String),
        ("f", ColumnType::Float),
        ("b", ColumnType::Bool),
        ("i", ColumnType::Int16),
        ("u", ColumnType::UInt8),
    ];
    let schema = Schema::from_pairs(columns).unwrap();
    let mut writer = RowWriter::new(
        Vec::new(),
        &schema,
        &options(RowCodec::Delta, FileCodec::Stream),
    )
    .unwrap();
    for (s, f, b, i, u) in [
        ("x", 1.0, true, -1, 250),
        ("x", 1.5, false, -300, 253),
        ("", 2.0, false, -599, 0),
        ("", 2.5, true, -600, 0),
    ] {
        let row = [
            Value::String(s.as_bytes()),
            Value::Float(f),
            Value::Bool(b),
            Value::Int16(i),
            Value::UInt8(u),
        ];
        writer.write_row(&row).unwrap();
    }
    let expected = hex(
        "42435356 00f1536500000000 010516 00 1400 0500 00000100 0b09000601 01000100010001000100 7366626975 \
         58 b501 0b 01 0000803f 010078 2fd119f7 40 9c00 06 5502 000040 59d241d3 20 2a01 0000 b17aee94 18 3100 01 8b14d2c4",
    );
    assert_eq!(writer.finish().unwrap(), expected);
}

#[test]
fn refused_rows_leave_no_trace() {
    for row_codec in RowCodec::ALL {
        for file_codec in FileCodec::ALL {
            let options = options(row_codec, file_codec);
            let mut writer = RowWriter::new(Vec::new(), &abs_schema(), &options).unwrap();
            for a in [5, 6, 6] {
                let long = vec![b'x'; 65_536];
                assert!(
                    writer
                        .write_row(&[Value::Int32(9), Value::Bool(false), Value::String(&long)])
                        .is_err()
                );
                assert!(
                    writer
                        .write_row(&[Value::Int32(9), Value::Bool(false)])
                        .is_err()
                );
                assert!(
                    writer
                        .write_row(&[Value::Bool(false), Value::Int32(9), Value::String(b"")])
                        .is_err()
                );
                writer
                    .write_row(&[Value::Int32(a), Value::Bool(true), Value::String(b"hi")])
                    .unwrap();
            }
            assert_eq!(
                writer.finish().unwrap(),
                write(&options, &[5, 6, 6]),
                "{row_codec:?} {file_codec:?}"
            );
        }
    }
}
