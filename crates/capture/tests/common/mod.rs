//! Recorders with real sockets in temporary directories, and the conservation laws over what they leave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    clippy::cast_possible_truncation
)]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tapeline_capture::Recorder;
use tapeline_capture::config::RecorderConfig;
use tapeline_wire::frame::{FrameDecoder, FrameFields, FrameLayout};

/// A directory that goes at the end.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!(
            "tapeline-capture-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A frame whose payload follows from its sequence.
pub fn frame_of(stream_id: u16, sequence: u64, flags: u8, size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size as u64)
        .map(|i| (sequence.wrapping_mul(31).wrapping_add(i) % 256) as u8)
        .collect();
    let fields = FrameFields {
        flags,
        stream_id,
        sequence,
        timestamp_ns: 1000 + sequence,
    };
    let mut bytes = Vec::new();
    FrameLayout::default()
        .encode_frame(&fields, &payload, &mut bytes)
        .unwrap();
    bytes
}

pub fn frame(sequence: u64) -> Vec<u8> {
    frame_of(0, sequence, 0, 200)
}

pub fn frames(sequences: impl IntoIterator<Item = u64>) -> Vec<u8> {
    sequences.into_iter().flat_map(frame).collect()
}

pub fn source(kind: &str) -> Value {
    json!({"kind": kind, "url": format!("{kind}://127.0.0.1:0"), "address": "127.0.0.1:0"})
}

/// The configuration of one stream with `sources`; `stream` and `whole` are merged over it.
pub fn config(out: &Path, sources: &[Value], stream: Value, whole: Value) -> RecorderConfig {
    let mut s = json!({"name": "ch0", "sources": sources, "ring_bytes": 16 << 20, "receive_buffer_bytes": 8 << 20,
        "hold_seconds": 0.05});
    merge(&mut s, stream);
    let mut c = json!({"out": out, "min_free_bytes": 0, "streams": [s]});
    merge(&mut c, whole);
    RecorderConfig::from_json(&c.to_string()).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

pub struct Run {
    pub out: PathBuf,
    pub recorder: Recorder,
    _temp: Option<Temp>,
}

impl Run {
    /// Record one stream into a new directory.
    pub fn start(kinds: &[&str], stream: Value) -> Self {
        Self::start_with(kinds, stream, json!({}))
    }

    pub fn start_with(kinds: &[&str], stream: Value, whole: Value) -> Self {
        let temp = Temp::new();
        let sources: Vec<Value> = kinds.iter().map(|k| source(k)).collect();
        let recorder = Recorder::start(config(&temp.0, &sources, stream, whole)).unwrap();
        Self {
            out: temp.0.clone(),
            recorder,
            _temp: Some(temp),
        }
    }

    pub fn start_in(out: &Path, kinds: &[&str], stream: Value) -> Self {
        let sources: Vec<Value> = kinds.iter().map(|k| source(k)).collect();
        let recorder = Recorder::start(config(out, &sources, stream, json!({}))).unwrap();
        Self {
            out: out.to_owned(),
            recorder,
            _temp: None,
        }
    }

    pub fn address(&self, source: usize) -> SocketAddr {
        let status = self.recorder.status();
        let url = status["streams"]["ch0"]["addresses"][source]
            .as_str()
            .unwrap();
        url.split_once("://").unwrap().1.parse().unwrap()
    }

    pub fn connect(&self, source: usize) -> TcpStream {
        TcpStream::connect(self.address(source)).unwrap()
    }

    /// One connection that brings `bytes` and ends.
    pub fn send(&self, bytes: &[u8]) {
        self.connect(0).write_all(bytes).unwrap();
    }

    pub fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address(0)).unwrap();
        socket
    }

    /// Wait until a number of the ledger is at least `at_least`.
    pub fn until(&self, field: &str, at_least: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ledger = self.recorder.status()["streams"]["ch0"]["ledger"].clone();
            if ledger[field].as_u64().unwrap() >= at_least {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{field} does not reach {at_least}: {ledger}"
            );
            std::thread::yield_now();
            let _ = self.recorder.wait(Duration::from_millis(1));
        }
    }

    /// Stop, and hold the ledger against the files: they, and the laws, must agree.
    pub fn finish(self) -> Outcome {
        self.recorder.stop();
        assert!(
            self.recorder.wait(Duration::from_secs(60)),
            "the recorder does not end"
        );
        if let Some(e) = self.recorder.take_failure() {
            panic!("{e}");
        }
        let summary = self.recorder.summary();
        drop(self.recorder);
        assert_laws(&self.out, &summary, "ch0")
    }
}

/// What a recording holds.
pub struct Outcome {
    pub ledger: Value,
    /// (stream id, sequence) in file order.
    pub stored: Vec<(u16, u64)>,
    pub files: Vec<PathBuf>,
    pub bytes: Vec<u8>,
}

impl Outcome {
    pub fn number(&self, field: &str) -> u64 {
        let mut value = &self.ledger;
        for part in field.split('.') {
            value = &value[part];
        }
        value
            .as_u64()
            .unwrap_or_else(|| panic!("no {field} in {}", self.ledger))
    }

    pub fn sequences(&self) -> Vec<u64> {
        self.stored.iter().map(|(_, s)| *s).collect()
    }
}

/// The conservation laws (spec/frame-stream.md 4) over the ledger and the files of a stream that came to its end.
pub fn assert_laws(out: &Path, summary: &Value, name: &str) -> Outcome {
    let ledger = summary["streams"][name]["ledger"].clone();
    let number = |field: &str| ledger[field].as_u64().unwrap();
    let directory = out.join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(
        !files
            .iter()
            .any(|f| f.extension().is_some_and(|e| e == "part" || e == "tail")),
        "unfinished: {files:?}"
    );
    files.retain(|f| f.extension().is_some_and(|e| e == "dat"));
    let bytes: Vec<u8> = files
        .iter()
        .flat_map(|f| std::fs::read(f).unwrap())
        .collect();
    let mut decoder = FrameDecoder::new(FrameLayout::default());
    let (mut stored, mut valid) = (Vec::new(), 0);
    let mut emit = |frame: tapeline_wire::frame::Frame<'_>| {
        valid += frame.bytes.len() as u64;
        stored.push((frame.fields.stream_id, frame.fields.sequence));
    };
    decoder.feed(&bytes, &mut emit);
    decoder.finish(&mut emit);
    assert_eq!(
        valid,
        bytes.len() as u64,
        "bytes in files that are no frames"
    );
    assert_eq!(stored.len() as u64, number("frames_stored"), "{ledger}");
    assert_eq!(valid, number("bytes_stored"), "{ledger}");
    // 2: nothing is in flight any more.
    assert_eq!(
        number("frames_received"),
        number("frames_stored") + number("frames_duplicate"),
        "{ledger}"
    );
    // 1: duplicates are the only valid frames that are in no file.
    let valid_received = number("bytes_received") - number("bytes_discarded");
    if number("frames_duplicate") == 0 {
        assert_eq!(valid_received, valid, "{ledger}");
    } else {
        assert!(valid_received > valid, "{ledger}");
    }
    // 3: between the first and the last of each id everything is stored once or counted as lost.
    if number("restarts") == 0 {
        let ids: BTreeSet<u16> = stored.iter().map(|(id, _)| *id).collect();
        let mut lost = 0;
        for id in ids {
            let all: Vec<u64> = stored
                .iter()
                .filter(|(i, _)| *i == id)
                .map(|(_, s)| *s)
                .collect();
            let unique: BTreeSet<u64> = all.iter().copied().collect();
            assert_eq!(unique.len(), all.len(), "id {id} has frames twice");
            lost += unique.last().unwrap() - unique.first().unwrap() + 1 - unique.len() as u64;
        }
        assert_eq!(lost, number("frames_lost"), "{ledger}");
    }
    Outcome {
        ledger,
        stored,
        files,
        bytes,
    }
}
