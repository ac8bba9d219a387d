//! A register stream over a disk that fails, is cut off, and forgets: what `crate::model_tests` does for frames.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tapeline_testkit::Random;
use tapeline_wire::register::{
    Command, ImageLimits, Kind, PacketFields, PacketScanner, RegisterImage, Source, SourceType,
    encode_packet,
};

use super::image_store;
use crate::config::RecorderConfig;
use crate::fs::Dir;
use crate::manifest::{Loaded, Manifest};
use crate::model_tests::recover_again;
use crate::recorder::Recorder;
use crate::resume::recover_in;
use crate::simdisk::{Fault, Image, SimDisk};

const ROTATE: u64 = 8_000;

fn full() -> bool {
    std::env::var("TAPELINE_MODEL").is_ok_and(|v| v == "full")
}

/// A file of packets, removed at the end.
struct Input(PathBuf, Vec<u8>);

impl Input {
    fn new(seed: u64) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!(
            "tapeline-registers-{}-{}.pkt",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        let bytes = packets(seed);
        std::fs::write(&path, &bytes).unwrap();
        Self(path, bytes)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// About 40 KB of three sources.
fn packets(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    for n in 0..150_u8 {
        let fields = PacketFields {
            timestamp_us: seed * 1000 + u64::from(n),
            source: Source {
                kind: SourceType::Rack,
                id: i32::from(n % 3),
            },
            command: if n % 29 == 0 {
                Command::Full
            } else {
                Command::Diff
            },
            seq: n / 3,
        };
        let registers: Vec<(u16, u16)> = (0..random.index(120))
            .map(|_| (u16_of(&mut random, 2000), u16_of(&mut random, 65_536)))
            .collect();
        encode_packet(&fields, &registers, &mut bytes).unwrap();
    }
    bytes
}

fn u16_of(random: &mut Random, below: usize) -> u16 {
    u16::try_from(random.index(below)).unwrap()
}

fn record(disk: &SimDisk, input: &Input, sync: &str) -> Result<Option<String>, String> {
    let config = json!({
        "out": "sim",
        "streams": [{
            "name": "rack", "wire": "packet", "layout": {"max_payload": 4096}, "rotate_bytes": ROTATE, "ring_bytes": 8 << 20, "sync": sync,
            "image_seconds": 0.05, "sources": [{"kind": "file", "url": "file://in", "path": input.0}],
        }],
    });
    let config = RecorderConfig::from_json(&config.to_string()).unwrap();
    let recorder = Recorder::start_in(disk.root(), config).map_err(|e| e.to_string())?;
    assert!(
        recorder.wait(Duration::from_secs(60)),
        "the recorder does not end"
    );
    Ok(recorder.take_failure().map(|e| e.to_string()))
}

fn manifest(disk: &SimDisk) -> Option<Manifest> {
    match Manifest::load(&*disk.root()).unwrap() {
        Loaded::Manifest(m) => Some(*m),
        Loaded::Missing => None,
        Loaded::Unreadable(why) => panic!("unreadable manifest: {why}"),
    }
}

/// What of a log was received, and the image that all of it makes.
struct Held {
    received: Vec<u8>,
    packets: u64,
    digest: String,
}

/// Recover, and hold the manifest, the ledger and the image against the files.
fn recover(disk: &SimDisk, what: &str) -> Held {
    match recover_in(&disk.root()) {
        Ok(_) => {}
        Err(e) if e.to_string().contains("not a recording") => {
            return held(disk, what);
        }
        Err(e) => panic!("{what}: {e}"),
    }
    let held = held(disk, what);
    recover_again(disk, what);
    held
}

fn held(disk: &SimDisk, what: &str) -> Held {
    let mut held = Held {
        received: Vec::new(),
        packets: 0,
        digest: RegisterImage::default().digest(),
    };
    let Some(stream) = manifest(disk).and_then(|mut m| m.streams.remove("rack")) else {
        return held;
    };
    let files = disk.image().files();
    let mut image = RegisterImage::default();
    for segment in &stream.segments {
        let bytes = &files[&format!("rack/{}", segment.name)];
        assert_eq!(bytes.len() as u64, segment.bytes, "{what}");
        let mut ends = 0;
        let mut alone = RegisterImage::default();
        let keyframes = usize::try_from(segment.keyframe_bytes()).unwrap();
        let done = PacketScanner::new(Kind::Packet).scan(bytes, true, &mut |packet| {
            ends = packet.offset + packet.packet_bytes() as u64;
            image.apply(&packet);
            alone.apply(&packet);
            if ends > segment.keyframe_bytes() {
                held.packets += 1;
            } else {
                assert_eq!(packet.command, Command::Full, "{what}");
            }
        });
        assert!(done.is_ok() && ends == segment.bytes, "{what}: damage");
        assert_eq!(
            alone.digest(),
            image.digest(),
            "{what}: {} does not stand alone",
            segment.name
        );
        held.received.extend_from_slice(&bytes[keyframes..]);
    }
    held.digest = image.digest();
    let count = |name: &str| stream.ledger[name].as_u64().unwrap_or(0);
    assert_eq!(
        (count("packets_stored"), count("bytes_stored")),
        (held.packets, held.received.len() as u64),
        "{what}: {}",
        stream.ledger
    );
    assert!(!files.keys().any(|path| path.ends_with(".part")), "{what}");
    if let Ok(dir) = disk.root().subdir("rack", false) {
        let dir: Arc<dyn Dir> = dir;
        let limits = ImageLimits::default();
        let loaded = image_store::load(&dir, Kind::Packet, &stream.segments, limits).unwrap();
        assert_eq!(
            loaded.0.digest(),
            held.digest,
            "{what}: the image of the next start"
        );
    }
    held
}

/// Received bytes in the data files, whatever they are called: keyframes are where the segments' indexes say.
fn data(files: &BTreeMap<String, Vec<u8>>) -> u64 {
    let data = files.iter().filter(|(path, _)| path.contains(".pkt"));
    data.map(|(_, bytes)| bytes.len() as u64).sum()
}

fn images(input: &Input, sync: &str) -> (Vec<Image>, u64) {
    let disk = SimDisk::new();
    disk.keep_images();
    assert_eq!(record(&disk, input, sync), Ok(None));
    assert_eq!(recover(&disk, "undisturbed").received, input.1);
    (disk.images(), disk.calls())
}

#[test]
fn a_kill_at_any_call_leaves_a_log_and_an_image_that_go_on() {
    let (input, more) = (Input::new(1), Input::new(2));
    let (images, _) = images(&input, "segment");
    let mut last = 0;
    for (n, image) in images.iter().enumerate() {
        let what = format!("killed at step {n}");
        let disk = image.after_kill();
        let held = recover(&disk, &what);
        assert!(input.1.starts_with(&held.received), "{what}");
        assert!(
            held.received.len() >= last,
            "{what}: written bytes are gone"
        );
        last = held.received.len();
        assert!(
            data(&disk.image().files()) <= data(&image.files()),
            "{what}"
        );
        if full() || n % 5 == 0 {
            let what = format!("{what}, next recorder");
            assert_eq!(record(&disk, &more, "segment"), Ok(None), "{what}");
            let both = self::held(&disk, &what);
            assert_eq!(
                both.received,
                [held.received, more.1.clone()].concat(),
                "{what}"
            );
        }
    }
    assert_eq!(last, input.1.len());
}

#[test]
fn after_a_power_cut_at_any_call_the_image_is_that_of_the_log() {
    let input = Input::new(3);
    let cuts = if full() { 60 } else { 2 };
    for sync in ["segment", "batch"] {
        let (images, _) = images(&input, sync);
        for (n, image) in images.iter().enumerate() {
            for seed in 0..cuts {
                let what = format!("{sync}: power cut {seed} at step {n}");
                recover(&image.after_power_cut(seed), &what);
            }
        }
    }
}

#[test]
fn a_failure_of_any_call_is_told_and_spoils_nothing() {
    let input = Input::new(4);
    let kinds = [Fault::Io, Fault::Full, Fault::Short, Fault::FullFromHere];
    let (_, calls) = images(&input, "batch");
    for n in 0..calls + 4 {
        for (k, fault) in kinds.into_iter().enumerate() {
            if !full() && n % kinds.len() as u64 != k as u64 {
                continue;
            }
            let disk = SimDisk::new();
            disk.fail(n, fault);
            let what = format!("call {n}: {fault:?}");
            let outcome = record(&disk, &input, "batch");
            if !disk.fault_happened() {
                continue;
            }
            assert_ne!(
                outcome,
                Ok(None),
                "{what}: went unnoticed: {:?}",
                disk.log()
            );
            let image = disk.image();
            let held = recover(&image.after_kill(), &what);
            assert!(input.1.starts_with(&held.received), "{what}");
            recover(&image.after_power_cut(n), &format!("{what}, power cut"));
        }
    }
}
