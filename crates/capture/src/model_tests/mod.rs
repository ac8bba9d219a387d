//! The recorder over a disk that fails, is cut off, and forgets (design/reliability.md F7 to F9, F14).
//!
//! Every call of a recording that changes the disk is failed once, and is once the last before a kill and before a power
//! cut; what recovery makes of it is held against what had been written and synced. `TAPELINE_MODEL=full` tries every
//! fault at every call and many power cuts; by default the kinds take turns.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tapeline_testkit::Random;
use tapeline_wire::frame::{FrameFields, FrameLayout};

use crate::config::RecorderConfig;
use crate::digest::Digest;
use crate::manifest::{Loaded, Manifest};
use crate::recorder::{CORES_OF_A_STREAM, Recorder};
use crate::resume::recover_in;
use crate::simdisk::SimDisk;
use crate::turns::TurnOptions;

mod faults;
mod space;
mod stall;

const MAX_PAYLOAD: u64 = 4096;

/// What is recorded in a test: a stream of frames and how it is kept.
struct Case {
    name: &'static str,
    assembly: &'static str,
    sync: &'static str,
    split: bool,
    ids: u16,
    rotate_bytes: u64,
    keep_segments: Option<u64>,
    /// The receiving thread writes (`turns`), a few frames at a time.
    by_turns: bool,
}

const RUNS: Case = Case {
    name: "runs, synced with the segment",
    assembly: "none",
    sync: "segment",
    split: false,
    ids: 1,
    rotate_bytes: 30_000,
    keep_segments: None,
    by_turns: false,
};

const CASES: [Case; 7] = [
    RUNS,
    Case {
        name: "periodics by count, synced with each batch",
        assembly: "count:7",
        sync: "batch",
        split: false,
        ids: 1,
        rotate_bytes: 20_000,
        keep_segments: None,
        by_turns: false,
    },
    Case {
        name: "periodics by markers, synced all the time, three ids",
        assembly: "markers",
        sync: "interval:0.001",
        split: false,
        ids: 3,
        rotate_bytes: 25_000,
        keep_segments: None,
        by_turns: false,
    },
    Case {
        name: "three ids, each its own segments",
        assembly: "count:5",
        sync: "segment",
        split: true,
        ids: 3,
        rotate_bytes: 20_000,
        keep_segments: None,
        by_turns: false,
    },
    Case {
        name: "two segments are kept",
        assembly: "count:5",
        sync: "batch",
        split: false,
        ids: 1,
        rotate_bytes: 12_000,
        keep_segments: Some(2),
        by_turns: false,
    },
    Case {
        name: "runs, written by the receiving thread",
        by_turns: true,
        ..RUNS
    },
    Case {
        name: "three ids, each its own segments, written by the receiving thread",
        assembly: "count:5",
        sync: "interval:0.001",
        split: true,
        ids: 3,
        rotate_bytes: 20_000,
        keep_segments: None,
        by_turns: true,
    },
];

fn full() -> bool {
    std::env::var("TAPELINE_MODEL").is_ok_and(|v| v == "full")
}

fn layout() -> FrameLayout {
    let config = crate::config::LayoutConfig {
        max_payload: MAX_PAYLOAD,
        ..Default::default()
    };
    config.layout().unwrap()
}

/// About 60 KB of frames, a few of them lost and a few twice.
fn frames(case: &Case, first: u64) -> Vec<u8> {
    let mut random = Random::new(first + u64::from(case.ids));
    let mut bytes = Vec::new();
    for sequence in first..first + 120 / u64::from(case.ids) {
        for stream_id in 0..case.ids {
            if random.one_in(30) {
                continue;
            }
            let flags = u8::from(sequence % 6 == 0) | u8::from(sequence % 6 == 5) << 1;
            let fields = FrameFields {
                flags,
                stream_id,
                sequence,
                timestamp_ns: sequence * 1000,
            };
            let size = 1 + random.index(1000);
            let payload = random.bytes(size);
            let from = bytes.len();
            layout()
                .encode_frame(&fields, &payload, &mut bytes)
                .unwrap();
            if random.one_in(40) {
                bytes.extend_from_within(from..);
            }
        }
    }
    bytes
}

/// A file of frames, removed at the end.
struct Input(PathBuf);

impl Input {
    fn new(bytes: &[u8]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!(
            "tapeline-model-{}-{}.dat",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn config(case: &Case, input: &Input) -> RecorderConfig {
    let config = json!({
        "out": "sim", "keep_segments": case.keep_segments,
        "streams": [{
            "name": "ch0", "sources": [{"kind": "file", "url": "file://in", "path": input.0}],
            "layout": {"max_payload": MAX_PAYLOAD}, "assembly": case.assembly, "sync": case.sync,
            "split_by_stream_id": case.split, "rotate_bytes": case.rotate_bytes, "ring_bytes": 8 << 20,
            "hold_seconds": 0.01,
        }],
    });
    RecorderConfig::from_json(&config.to_string()).unwrap()
}

/// Record `input`; the summary, or why it did not start, and what failed.
fn record(disk: &SimDisk, case: &Case, input: &Input) -> Result<(Value, Option<String>), String> {
    let turns = TurnOptions {
        read_bytes: 4 << 10,
        block_bytes: 4 << 10,
        ..TurnOptions::default()
    };
    let cores = if case.by_turns { 0 } else { CORES_OF_A_STREAM };
    let recorder = Recorder::start_on(cores, turns, disk.root(), config(case, input))
        .map_err(|e| e.to_string())?;
    assert!(
        recorder.wait(Duration::from_secs(60)),
        "the recorder does not end"
    );
    let failure = recorder.take_failure().map(|e| e.to_string());
    Ok((recorder.summary(), failure))
}

fn manifest(disk: &SimDisk) -> Option<Manifest> {
    match Manifest::load(&*disk.root()).unwrap() {
        Loaded::Manifest(m) => Some(*m),
        Loaded::Missing => None,
        Loaded::Unreadable(why) => panic!("unreadable manifest: {why}"),
    }
}

fn digest(bytes: &[u8]) -> String {
    let mut digest = Digest::new();
    digest.update(bytes);
    digest.hex()
}

/// Frames in bytes that hold nothing else.
fn count_frames(bytes: &[u8]) -> u64 {
    let mut decoder = tapeline_wire::frame::FrameDecoder::new(layout());
    let (mut count, mut valid) = (0, 0);
    let mut emit = |frame: tapeline_wire::frame::Frame<'_>| {
        count += 1;
        valid += frame.bytes.len();
    };
    decoder.feed(bytes, &mut emit);
    decoder.finish(&mut emit);
    assert_eq!(valid, bytes.len(), "bytes that are no frames");
    count
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap()
}

/// The manifest, the files and the ledgers say the same; nothing unfinished is left.
fn check_whole(disk: &SimDisk, what: &str) {
    let files = disk.image().files();
    let m = manifest(disk).unwrap_or_else(|| panic!("{what}: no manifest"));
    let mut listed = Vec::new();
    let mut stored: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (name, stream) in &m.streams {
        let directory = stream.directory.as_ref().unwrap_or(name);
        let mut sum = (0, 0);
        for s in &stream.segments {
            let path = format!("{directory}/{}", s.name);
            let dat = files
                .get(&path)
                .unwrap_or_else(|| panic!("{what}: {path} is listed and not there"));
            assert_eq!(dat.len() as u64, s.bytes, "{what}: {path}");
            assert_eq!(digest(dat), s.xxh3_128, "{what}: {path}");
            assert_eq!(count_frames(dat), s.frames, "{what}: {path}");
            let index = &files[&format!("{directory}/{}", s.index.name)];
            assert_eq!(index.len() as u64, s.index.bytes, "{what}: {path}");
            assert_eq!(digest(index), s.index.xxh3_128, "{what}: {path}");
            let root = disk.root().subdir(directory, false).unwrap();
            assert_eq!(
                crate::index::rows(root.open(&s.index.name).unwrap()),
                Some(s.index.rows),
                "{what}: rows of the index of {path}"
            );
            listed.push(path);
            sum = (sum.0 + s.frames, sum.1 + s.bytes);
        }
        for e in &stream.evicted {
            assert!(
                !files.contains_key(&format!("{directory}/{}", e.name)),
                "{what}: {} is evicted and there",
                e.name
            );
            sum = (sum.0 + e.frames, sum.1 + e.bytes);
        }
        let whole = stored.entry(directory.clone()).or_default();
        *whole = (whole.0 + sum.0, whole.1 + sum.1);
        if stream.directory.is_some() {
            let ledger = &stream.ledger;
            assert_eq!(
                (
                    number(ledger, "frames_stored"),
                    number(ledger, "bytes_stored")
                ),
                sum,
                "{what}: ledger of {name}"
            );
        }
    }
    for path in files.keys() {
        assert!(
            !path.ends_with(".part"),
            "{what}: {path} is left of {:?}",
            files.iter().map(|(p, b)| (p, b.len())).collect::<Vec<_>>()
        );
        if path.ends_with(".dat") {
            assert!(listed.contains(path), "{what}: {path} is not listed");
        }
    }
    for (name, sum) in stored {
        let Some(stream) = m.streams.get(&name) else {
            continue;
        };
        let ledger = &stream.ledger;
        assert_eq!(
            (
                number(ledger, "frames_stored"),
                number(ledger, "bytes_stored")
            ),
            sum,
            "{what}: ledger of {name}: {ledger}"
        );
        // After a failing disk frames that were received and could not be stored stay in the account.
        assert!(
            number(ledger, "frames_received")
                >= number(ledger, "frames_stored") + number(ledger, "frames_duplicate"),
            "{what}: second law for {name}: {ledger}"
        );
    }
}

/// Nothing failed: what was received is stored, or dropped as a duplicate.
fn check_second_law(disk: &SimDisk, what: &str) {
    for (name, stream) in manifest(disk).map(|m| m.streams).unwrap_or_default() {
        let count = |field| number(&stream.ledger, field);
        assert_eq!(
            count("frames_received"),
            count("frames_stored") + count("frames_duplicate"),
            "{what}: second law for {name}: {}",
            stream.ledger
        );
    }
}

fn stem(path: &str) -> &str {
    path.trim_end_matches(".part").trim_end_matches(".dat")
}

/// The bytes of a segment after recovery, whatever it is called now.
fn bytes_of(files: &BTreeMap<String, Vec<u8>>, stem: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for suffix in [".dat", ".dat.part", ".dat.tail"] {
        if let Some(more) = files.get(&format!("{stem}{suffix}")) {
            bytes.extend_from_slice(more);
        }
    }
    bytes
}

fn is_data(path: &str) -> bool {
    path.ends_with(".dat") || path.ends_with(".dat.part")
}

/// Recover; nothing of `before` may be missing. Segments named in `evicted` may be.
fn recover_and_check(disk: &SimDisk, before: &BTreeMap<String, Vec<u8>>, exact: bool, what: &str) {
    match recover_in(&disk.root()) {
        Ok(_) => {}
        Err(e) if e.to_string().contains("not a recording") => {
            assert!(
                !before.iter().any(|(p, b)| is_data(p) && !b.is_empty()),
                "{what}: {e}"
            );
            return;
        }
        Err(e) => panic!("{what}: {e}"),
    }
    check_whole(disk, what);
    let after = disk.image().files();
    let m = manifest(disk).unwrap();
    for (path, bytes) in before.iter().filter(|(path, _)| is_data(path)) {
        let evicted = m
            .streams
            .values()
            .flat_map(|s| &s.evicted)
            .any(|e| path.ends_with(&format!("/{}", e.name)));
        if evicted {
            continue;
        }
        let now = bytes_of(&after, stem(path));
        if exact {
            assert!(
                now == *bytes,
                "{what}: {path}: {} bytes became {}",
                bytes.len(),
                now.len()
            );
        } else {
            assert!(
                now.starts_with(bytes),
                "{what}: {path}: {} synced bytes became {}",
                bytes.len(),
                now.len()
            );
        }
    }
    recover_again(disk, what);
}

/// What was recovered needs no recovery.
pub(crate) fn recover_again(disk: &SimDisk, what: &str) {
    let before = disk.image().files();
    let report = recover_in(&disk.root()).unwrap();
    assert!(
        report.is_clean(),
        "{what}: a second recovery finds {report:?}"
    );
    assert_eq!(
        disk.image().files(),
        before,
        "{what}: a second recovery changes"
    );
}
