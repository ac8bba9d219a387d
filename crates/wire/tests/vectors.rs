//! Walks `vectors/wire`: frames, order and counters of every vector, for every chunking.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tapeline_crc::crc32c;
use tapeline_testkit::every_chunking;
use tapeline_wire::frame::{DEFAULT_MAGIC, FrameDecoder, FrameLayout};
use tapeline_wire::sequence::SequenceTable;

fn vectors() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/wire");
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    all.sort();
    assert!(all.len() >= 24, "the vectors are missing");
    all
}

#[test]
fn vectors_are_decoded_as_written_for_every_chunking() {
    for path in vectors() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let want: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let stream = fs::read(path.with_extension("bin")).unwrap();
        let layout = FrameLayout::new(
            DEFAULT_MAGIC,
            4,
            4,
            true,
            want["max_payload"].as_u64().unwrap(),
        )
        .unwrap();
        let frames = want["frames"].as_array().unwrap();
        every_chunking(&stream, |chunks| {
            let mut decoder = FrameDecoder::new(layout);
            let mut table = SequenceTable::default();
            let mut at = 0;
            let mut emit = |f: tapeline_wire::frame::Frame<'_>| {
                let w = &frames[at];
                assert_eq!(w["stream_id"], f.fields.stream_id, "{name} {at}");
                assert_eq!(w["flags"], f.fields.flags, "{name} {at}");
                assert_eq!(w["sequence"], f.fields.sequence, "{name} {at}");
                assert_eq!(w["timestamp_ns"], f.fields.timestamp_ns, "{name} {at}");
                assert_eq!(w["length"], f.payload.len(), "{name} {at}");
                let crc = u32::from_be_bytes(f.bytes[36..40].try_into().unwrap());
                assert_eq!(crc32c(f.payload), crc, "{name} {at}");
                let here = usize::try_from(f.offset).unwrap();
                assert_eq!(&stream[here..here + f.bytes.len()], f.bytes, "{name} {at}");
                table.observe(f.fields.stream_id, f.fields.sequence);
                at += 1;
            };
            for chunk in chunks {
                decoder.feed(chunk, &mut emit);
            }
            decoder.finish(&mut emit);
            assert_eq!(at, frames.len(), "{name}");
            let got = decoder.counters();
            let counters = &want["counters"];
            assert_eq!(counters["frames_received"], got.frames_received, "{name}");
            assert_eq!(counters["header_crc"], got.corrupt.header_crc, "{name}");
            assert_eq!(counters["payload_crc"], got.corrupt.payload_crc, "{name}");
            assert_eq!(counters["bad_version"], got.corrupt.bad_version, "{name}");
            assert_eq!(counters["bad_length"], got.corrupt.bad_length, "{name}");
            assert_eq!(counters["truncated"], got.corrupt.truncated, "{name}");
            assert_eq!(counters["bytes_of_valid_frames"], got.valid_bytes, "{name}");
            assert_eq!(counters["bytes_discarded"], got.bytes_discarded, "{name}");
            assert_eq!(decoder.pending_bytes(), 0);
            for (id, tracker) in table.iter() {
                let w = &want["sequences"][id.to_string()];
                assert_eq!(
                    w["duplicates"],
                    tracker.counters().frames_duplicate,
                    "{name}"
                );
                assert_eq!(
                    w["reordered"],
                    tracker.counters().frames_reordered,
                    "{name}"
                );
                assert_eq!(w["missing"], tracker.counters().frames_lost, "{name}");
            }
        });
    }
}
